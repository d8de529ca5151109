"""Speed of LARP against a plain transcription of the published forward passes: ``python -m recipes.bench.larp KIND``.

tokenizer   a clip of 16x128x128 through encode and decode at the published size (172 M parameters)
sampling    codes a second of a generator, with the share of the memory bandwidth that its weights' bytes make up

Random weights (seed 0), each case in its own process, ratios against the plain form in float32 of the same run.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

from llm.larp_ar import LarpAR, larp_ar_config
from mmtok.metrics.visual import psnr_db
from mmtok.visual.larp import Larp, find_larp
from recipes.bench.harness import Bench, Measured, bandwidth_gb_s, compared, median_seconds, one_by_one
from recipes.bench.plain_larp import PlainLarp, PlainLarpAR
from recipes.bench.visual import scene_clip

MODES = {
    "tokenizer": ("plain fp32", "ours fp32", "ours bf16", "ours fp32 compiled", "ours bf16 compiled"),
    "sampling": ("plain fp32", "ours fp32", "ours bf16", "ours fp16"),
}


def make_tokenizer(preset: str) -> Larp:
    """A tokenizer with random weights whose output layer is not zero."""
    torch.manual_seed(0)
    model = Larp(find_larp(preset)).without_prior().eval()
    with torch.no_grad():
        model.to_pixels.weight.normal_(std=model.params.decoder_dim**-0.5)
    return model


def make_generator(size: str) -> LarpAR:
    """A class-conditional generator with random weights."""
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
    """One mode; codes and pictures go to ``args.keep``."""
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
    return {"case": args.case, "encode s": encode_s, "decode s": decode_s}


def tokenizer(args: argparse.Namespace) -> Measured:
    """All modes."""
    rows, kept, where = compared(args, args.modes or MODES["tokenizer"][:3], title="tokenizer")
    for row, made in zip(rows, kept, strict=True):
        row["same tokens %"] = 100 * float((kept[0]["codes"] == made["codes"]).float().mean())
        row["pictures' PSNR dB"] = float(psnr_db(made["pictures"], kept[0]["pictures"])[0])
        row["encode x"], row["decode x"] = rows[0]["encode s"] / row["encode s"], rows[0]["decode s"] / row["decode s"]
    return rows, where


@torch.inference_mode()
def sampling_case(args: argparse.Namespace) -> dict[str, Any]:
    """One mode."""
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
        "case": args.case,
        "tokens/s": args.batch / seconds,
        "weights GB": gigabytes,
        "weights GB/s": gigabytes / seconds,
        "memory GB/s": bandwidth_gb_s(device),
    }


def sampling(args: argparse.Namespace) -> Measured:
    """All modes."""
    modes = args.modes or MODES["sampling"]
    rows, where = one_by_one(args, [{"case": mode} for mode in modes], title="sampling")
    for row in rows:
        row["share of memory %"] = 100 * row["weights GB/s"] / row["memory GB/s"]
        row["x"] = row["tokens/s"] / rows[0]["tokens/s"]
    return rows, where


RUN = {"tokenizer": tokenizer, "sampling": sampling}
CASE = {"tokenizer": tokenizer_case, "sampling": sampling_case}


def main(words: list[str] | None = None) -> int:
    """Run one kind of ``words``, or of the process' own command line, and print its table."""
    bench = Bench("larp", __doc__, RUN, CASE)
    bench.add("--preset", metavar="NAME", help="larp-l-long, or LP for sampling")
    bench.add("--modes", nargs="+", help="default: all but the compiled ones")
    bench.add("--batch", type=int, default=1)
    bench.add("--tokens", type=int, default=50, help="codes a run")
    bench.add("--guidance", type=float, default=1.0)
    args = bench.parse(words, modes=MODES)
    if args.modes and MODES[args.kind][0] not in args.modes:
        args.modes = [MODES[args.kind][0], *args.modes]  # what the others are compared with
    args.preset = args.preset or ("LP" if args.kind == "sampling" else "larp-l-long")
    return bench.run(args)


if __name__ == "__main__":
    sys.exit(main())
