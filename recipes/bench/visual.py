"""Speed and memory of the visual tokenizers: ``python -m recipes.bench.visual KIND``.

speed    one clip of 17 frames through encode and decode: a plain transcription in float32, ours in float32 and in
         bfloat16, with what bfloat16 changes in tokens and pictures
stream   a long clip in chunks with carried state: memory by length
batch    a batch of two clips against one after the other
entropy  the factorised entropy term against the dense one
tiles    what tiles change, by overlap, on held-out scenes of the embedded tokenizer

Each case runs in its own process on random weights (seed 0) unless a model is named; peaks are whole-process resident
memory, weights and interpreter included.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch
from torch import Tensor

from mmtok.contract import VisualTokenizer
from mmtok.metrics.visual import psnr_db
from recipes.bench.harness import Bench, Measured, compared, forget_peak, machine, median_seconds, one_by_one, peak_gb
from recipes.bench.plain_magvit2 import PlainMagvit2
from recipes.runtime.memory import give_back_freed_memory

MODES = ("plain fp32", "ours fp32", "ours bf16", "ours bf16 compiled")


def presets() -> dict[str, tuple[Any, Any]]:
    """Every visual preset by name."""
    from mmtok.table import TOKENIZERS
    from mmtok.visual.grid import GridTokenizer

    families = [family for family in TOKENIZERS.rows().values() if family.kind == "visual"]
    classes = [(family.load_class(), family) for family in families]
    return {n: (c, p) for c, family in classes if issubclass(c, GridTokenizer) for n, p in family.presets().items()}


def _random_tokenizer(preset: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A tokenizer in evaluation mode with random weights that use every slice of every kernel."""
    cls, params = presets()[preset]
    torch.manual_seed(0)
    model = cls.empty(params)
    for name, weight in model.named_parameters():
        with torch.no_grad():
            if weight.ndim > 1:
                weight.normal_(std=weight[0].numel() ** -0.5)
            elif name.endswith("weight"):
                weight.fill_(1.0)
            else:
                weight.zero_()
    return model.to(device=device, dtype=dtype).eval()


def scene_clip(size: int, frames: int) -> Tensor:
    """A held-out scene of the corpus with grain, so that no region is flat.

    Args:
        size: pixels.
        frames: frames.

    Returns:
        (1, 3, frames, size, size) in [-1, 1].
    """
    from recipes.corpora.shapes import ShapesCorpus, render_video

    clip = render_video(ShapesCorpus(0, "heldout").scene(0), size=size, num_frames=frames)[None]
    grain = torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))
    return (clip + 0.1 * grain).clamp(-1, 1)


@torch.inference_mode()
def speed_case(args: argparse.Namespace) -> dict[str, Any]:
    """One mode of one preset; codes and pictures go to ``args.keep`` for the comparison."""
    device = torch.device(args.device)
    dtype = torch.bfloat16 if "bf16" in args.case else torch.float32
    model = _random_tokenizer(args.preset, device, dtype)
    video = scene_clip(args.size, args.frames[0]).to(device)
    encode, decode = model.encode, model.decode
    if args.case == "plain fp32":
        from mmtok.quantize.lfq import codes_from_latents, signs_from_codes

        plain = PlainMagvit2(model.params, model.state_dict())
        encode = lambda video: codes_from_latents(plain.encode_latents(video))[:, None]  # noqa: E731
        decode = lambda codes: plain.decode_signs(signs_from_codes(codes[:, 0], model.params.bits)).clamp(-1, 1)  # noqa: E731
    elif args.case.endswith("compiled"):
        model.encoder, model.decoder = torch.compile(model.encoder), torch.compile(model.decoder)
    codes = torch.load(args.reference, weights_only=True)["codes"].to(device) if args.reference else encode(video)
    forget_peak(device)
    encode_s = median_seconds(lambda: encode(video), runs=args.runs, device=device)
    decode_s = median_seconds(lambda: decode(codes), runs=args.runs, device=device)
    peak = peak_gb(device)
    torch.save({"codes": encode(video).cpu(), "pictures": decode(codes).float().cpu()}, args.keep)
    return {"case": args.case, "encode s": encode_s, "decode s": decode_s, "peak GB": peak}


def speed(args: argparse.Namespace) -> Measured:
    """All modes of a preset."""
    params = presets()[args.preset][1]
    has_plain = getattr(params, "patch_size", None) == (1, 1, 1) and getattr(params, "norm_scope", "") == "frame"
    has_plain = has_plain and params.temporal_kernel == 3
    modes = args.modes or [m for m in MODES if not m.endswith("compiled")]
    modes = [m for m in modes if has_plain or m != "plain fp32"]
    rows, kept, where = compared(args, modes, title=args.preset)
    for row, made in zip(rows, kept, strict=True):
        row["changed tokens %"] = 100 * float((kept[0]["codes"] != made["codes"]).float().mean())
        row["pictures' PSNR dB"] = float(psnr_db(made["pictures"], kept[0]["pictures"])[0])
        row["encode x"] = rows[0]["encode s"] / row["encode s"]
        row["decode x"] = rows[0]["decode s"] / row["decode s"]
        row["peak x"] = row["peak GB"] / rows[0]["peak GB"]
    return rows, where


@torch.inference_mode()
def stream_case(args: argparse.Namespace) -> dict[str, Any]:
    """One length through encode and decode in chunks; nothing but one chunk of pictures is ever held."""
    give_back_freed_memory()
    device = torch.device(args.device)
    model = _random_tokenizer(args.preset, device, torch.float32)
    assert isinstance(model, VisualTokenizer), "presets are visual tokenizers"
    st, frames = model.stride[0], args.frames[0]
    chunk = 16 // st * st or st
    scene = scene_clip(args.size, 1 + chunk).to(device)

    def chunks() -> Any:
        yield scene[:, :, :1]
        for start in range(1, frames, chunk):
            yield scene[:, :, 1 : 1 + min(chunk, frames - start)]

    list(model.decode_stream(model.encode_stream([scene[:, :, :1], scene[:, :, 1:]])))  # type: ignore[attr-defined]
    forget_peak(device)
    started = time.perf_counter()
    codes = list(model.encode_stream(chunks()))  # type: ignore[attr-defined]
    encode_s = time.perf_counter() - started
    made = 0
    for pictures in model.decode_stream(iter(codes)):  # type: ignore[attr-defined]
        made += pictures.shape[2]
    decode_s = time.perf_counter() - started - encode_s
    assert made == frames, "a stream keeps the clock"
    speeds = {"encode frames/s": frames / encode_s, "decode frames/s": frames / decode_s}
    return {"frames": frames} | speeds | {"peak GB": peak_gb(device)}


def stream(args: argparse.Namespace) -> Measured:
    """All lengths."""
    cases = [{"case": "stream", "frames": [frames]} for frames in args.frames]
    return one_by_one(args, cases, title=f"{args.preset} streams")


@torch.inference_mode()
def batch(args: argparse.Namespace) -> Measured:
    """Two clips at once against one after the other: the same codes, and the time."""
    device = torch.device(args.device)
    model = _random_tokenizer(args.preset, device, torch.float32)
    video = scene_clip(args.size, args.frames[0])
    both = torch.cat((video, video.flip(-1))).to(device)
    single = torch.cat([model.encode(clip) for clip in both.split(1)])
    changed = 100 * float((model.encode(both) != single).float().mean())
    together = median_seconds(lambda: model.encode(both), runs=args.runs, device=device)
    apart = median_seconds(lambda: [model.encode(clip) for clip in both.split(1)], runs=args.runs, device=device)
    rows = [
        {"case": "one after the other", "encode s": apart, "x": 1.0, "changed tokens %": 0.0},
        {"case": "a batch of two", "encode s": together, "x": apart / together, "changed tokens %": changed},
    ]
    return rows, machine(device)


def entropy(args: argparse.Namespace) -> Measured:
    """The entropy term, forward and backward, of one clip's tokens at 2^18 codes."""
    from mmtok.quantize.lfq import lfq_losses

    device = torch.device(args.device)
    bits, tokens, few = 18, 1280, 64
    latents = torch.randn(1, bits, tokens, 1, 1, generator=torch.Generator().manual_seed(0)).to(device)
    signs = (torch.arange(2**bits)[:, None] >> torch.arange(bits) & 1).float().mul(2).sub(1).to(device)

    def factorised() -> Tensor:
        z = latents.clone().requires_grad_(True)
        losses = lfq_losses(z, temperature=0.01)
        (losses.token_entropy - losses.codebook_entropy).backward()
        return losses.token_entropy.detach()

    def dense() -> Tensor:
        z = latents[..., :few, :, :].flatten(2)[0].T.clone().requires_grad_(True)
        p = torch.softmax(2 * z @ signs.T / 0.01, -1)
        mean = p.mean(0)
        token = -(p * p.clamp_min(1e-20).log()).sum(-1).mean()
        (token + (mean * mean.clamp_min(1e-20).log()).sum()).backward()
        return token.detach()

    ours = median_seconds(factorised, runs=args.runs, device=device)
    theirs = median_seconds(dense, runs=args.runs, device=device) * tokens / few
    rows = [
        {"case": f"dense, scaled from {few} tokens", "s for 1280 tokens": theirs, "x": 1.0},
        {"case": "factorised", "s for 1280 tokens": ours, "x": theirs / ours},
    ]
    return rows, machine(device)


@torch.inference_mode()
def tiles(args: argparse.Namespace) -> Measured:
    """What tiles change on held-out scenes."""
    import mmtok
    from mmtok.metrics.tiling import tiling_error
    from recipes.corpora.shapes import ShapesCorpus, render_video

    device = torch.device(args.device)
    model = mmtok.load("tiny", device=device)
    corpus = ShapesCorpus(0, "heldout")
    scenes = [render_video(corpus.scene(i), size=args.size, num_frames=args.frames[0]) for i in range(8)]
    video = torch.stack(scenes).to(device)
    tile = args.size // 2
    rows = []
    for overlap in (0, tile // 4, tile // 2):
        error = tiling_error(model, video, tile=tile, overlap=overlap)
        row = {"tile": tile, "overlap": overlap, "changed tokens %": 100 * error.changed_codes}
        row |= {"same codes: PSNR dB to the whole": error.psnr_db}
        rows.append(row | {"round trip dB against the whole": error.round_trip_db})
    return rows, machine(device)


RUN = {"speed": speed, "stream": stream, "batch": batch, "entropy": entropy, "tiles": tiles}


def main(words: list[str] | None = None) -> int:
    """Run one kind of ``words``, or of the process' own command line, and print its table."""
    bench = Bench("visual", __doc__, RUN, {"speed": speed_case, "stream": stream_case})
    bench.add("--preset", default="magvit2-base", choices=sorted(presets()))
    bench.add("--size", type=int, default=128, help="pixels (128)")
    bench.add("--frames", type=int, nargs="+", help="of the clip (17); for stream, all lengths (17 145 1025)")
    bench.add("--modes", nargs="+", choices=MODES, help="of speed; the first is the reference")
    args = bench.parse(words)
    args.frames = args.frames or ([17, 145, 1025] if args.kind == "stream" else [17])
    told = f"{args.kind}: {'embedded tiny' if args.kind == 'tiles' else args.preset}, {args.size} pixels; {{where}}"
    return bench.run(args, told=told, key="protocol")


if __name__ == "__main__":
    sys.exit(main())
