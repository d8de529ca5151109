"""Speed of LARP against a plain transcription of the published forward passes: ``python -m recipes.bench.larp KIND``.

tokenizer   a clip of 16x128x128 through encode and decode at the published size (172 M parameters)
sampling    codes a second of a generator, with the share of the memory bandwidth that its weights' bytes make up

Random weights (seed 0), each case in its own process, ratios against the plain form in float32 of the same run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm.larp_ar import LarpAR, larp_ar_config
from mmtok.metrics.visual import psnr_db
from mmtok.visual.larp import Larp, find_larp
from recipes.bench.harness import bandwidth_gb_s, in_fresh_process, machine, median_seconds, tell
from recipes.bench.plain_larp import PlainLarp, PlainLarpAR
from recipes.bench.visual import scene_clip
from recipes.runtime.progress import track

MODES = {
    "tokenizer": ("plain fp32", "ours fp32", "ours bf16", "ours fp32 compiled", "ours bf16 compiled"),
    "sampling": ("plain fp32", "ours fp32", "ours bf16", "ours fp16"),
}
KINDS = ("tokenizer", "sampling")


def make_tokenizer(preset: str) -> Larp:
    """A tokenizer with random weights whose output layer is not zero.

    Args:
        preset: a key of ``mmtok.visual.larp.PRESETS``.

    Returns:
        The tokenizer without its prior, float32.
    """
    torch.manual_seed(0)
    model = Larp(find_larp(preset)).without_prior().eval()
    with torch.no_grad():
        model.to_pixels.weight.normal_(std=model.params.decoder_dim**-0.5)
    return model


def make_generator(size: str) -> LarpAR:
    """A class-conditional generator with random weights.

    Args:
        size: a key of ``llm.larp_ar.SIZES``.

    Returns:
        The generator, float32.
    """
    model = LarpAR.empty(larp_ar_config(size)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.02, generator=generator)
            else:
                weight.fill_(1.0)
    return model


@torch.inference_mode()
def tokenizer_case(args: argparse.Namespace) -> dict[str, Any]:
    """One mode; codes and pictures go to ``args.keep``.

    Args:
        args: preset, mode, batch, runs, keep, reference, device.

    Returns:
        Seconds.
    """
    device = torch.device(args.device)
    model = make_tokenizer(args.preset).to(device)
    video = scene_clip(model.params.size, model.params.num_frames).expand(args.batch, -1, -1, -1, -1)
    video = video.contiguous().to(device)
    subject: Any = PlainLarp(model.params, model.state_dict()) if args.case == "plain fp32" else model
    if "bf16" in args.case:
        model.to(torch.bfloat16)
    if args.case.endswith("compiled"):
        model.encoder.compile()
        model.decoder.compile()
    codes = torch.load(args.reference, weights_only=True)["codes"].to(device) if args.reference else None
    codes = subject.encode(video) if codes is None else codes
    encode_s = median_seconds(lambda: subject.encode(video), runs=args.runs, device=device)
    decode_s = median_seconds(lambda: subject.decode(codes), runs=args.runs, device=device)
    torch.save({"codes": subject.encode(video).cpu(), "pictures": subject.decode(codes).float().cpu()}, args.keep)
    return {"encode s": encode_s, "decode s": decode_s, "machine": machine(device)}


def tokenizer(args: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """All modes.

    Args:
        args: preset, modes, batch, runs, device.

    Returns:
        Rows, and the machine.
    """
    rows: list[dict[str, Any]] = []
    where = ""
    modes = args.modes or MODES["tokenizer"][:3]
    with tempfile.TemporaryDirectory() as folder:
        kept: dict[str, dict[str, Tensor]] = {}
        for mode in track(modes, title="tokenizer"):
            file = Path(folder) / f"{mode}.pt"
            words = ["tokenizer", "--case", mode, "--preset", args.preset, "--batch", str(args.batch)]
            words += ["--runs", str(args.runs), "--device", args.device, "--keep", str(file)]
            if kept:
                words += ["--reference", str(Path(folder) / f"{modes[0]}.pt")]
            row = in_fresh_process("recipes.bench.larp", words)
            where = row.pop("machine")
            kept[mode] = torch.load(file, weights_only=True)
            first, now = kept[modes[0]], kept[mode]
            same = 100 * float((first["codes"] == now["codes"]).float().mean())
            rows.append({"case": mode} | row | {"same tokens %": same})
            rows[-1]["pictures' PSNR dB"] = float(psnr_db(now["pictures"], first["pictures"])[0])
    for row in rows:
        row["encode x"], row["decode x"] = rows[0]["encode s"] / row["encode s"], rows[0]["decode s"] / row["decode s"]
    return rows, where


@torch.inference_mode()
def sampling_case(args: argparse.Namespace) -> dict[str, Any]:
    """One mode.

    Args:
        args: preset (a size), case, batch, tokens, guidance, device.

    Returns:
        Codes a second and bandwidths.
    """
    device = torch.device(args.device)
    model = make_generator(args.preset).to(device)
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        if name in args.case:
            model.to(dtype)
    plain = args.case == "plain fp32"
    subject: Any = PlainLarpAR(model.config, model.state_dict()) if plain else model
    options: dict[str, Any] = {} if plain else {"temperature": 1.0}
    labels = torch.arange(args.batch, device=device) % model.config.num_classes

    def draw(count: int) -> None:
        subject.generate(
            labels, num_tokens=count, cfg_scale=args.guidance, generator=torch.Generator().manual_seed(0), **options
        )

    seconds = median_seconds(lambda: draw(args.tokens), runs=args.runs, device=device) / args.tokens
    read = [w for name, w in model.named_parameters() if "embed" not in name and name != "abs_pe"]
    gigabytes = sum(w.numel() * w.element_size() for w in read) / 1e9
    return {
        "tokens/s": args.batch / seconds,
        "weights GB": gigabytes,
        "weights GB/s": gigabytes / seconds,
        "memory GB/s": bandwidth_gb_s(device),
        "machine": machine(device),
    }


def sampling(args: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """All modes.

    Args:
        args: preset, modes, batch, runs, tokens, guidance, device.

    Returns:
        Rows, and the machine.
    """
    rows: list[dict[str, Any]] = []
    where = ""
    for mode in track(args.modes or MODES["sampling"], title="sampling"):
        words = ["sampling", "--case", mode, "--preset", args.preset, "--batch", str(args.batch)]
        words += ["--runs", str(args.runs), "--device", args.device, "--tokens", str(args.tokens)]
        row = in_fresh_process("recipes.bench.larp", [*words, "--guidance", str(args.guidance)])
        where = row.pop("machine")
        rows.append({"case": mode} | row)
        rows[-1]["share of memory %"] = 100 * row["weights GB/s"] / row["memory GB/s"]
        rows[-1]["x"] = row["tokens/s"] / rows[0]["tokens/s"]
    return rows, where


def main(words: list[str] | None = None) -> int:
    """Run one kind and print its table.

    Args:
        words: of the command line, or None for the process' own.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m recipes.bench.larp", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--preset", metavar="NAME", help="larp-l-long, or LP for sampling")
    parser.add_argument("--modes", nargs="+", help="default: all but the compiled ones")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=50, help="codes a run")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, metavar="F.json", help="also write the rows there")
    for hidden in ("--case", "--keep", "--reference"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if unknown := sorted(set(args.modes or ()) - set(MODES[args.kind])):
        parser.error(f"unknown modes {', '.join(unknown)}; known: {', '.join(MODES[args.kind])}")
    if args.modes and MODES[args.kind][0] not in args.modes:
        args.modes = [MODES[args.kind][0], *args.modes]  # what the others are compared with
    args.preset = args.preset or ("LP" if args.kind == "sampling" else "larp-l-long")
    if args.case:
        print(json.dumps({"tokenizer": tokenizer_case, "sampling": sampling_case}[args.kind](args)))
        return 0
    rows, where = {"tokenizer": tokenizer, "sampling": sampling}[args.kind](args)
    tell(where, rows, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
