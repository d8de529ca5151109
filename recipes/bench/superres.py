"""Speed of super-resolution: ``python -m recipes.bench.superres KIND``.

windows  one layer in windows against the same layer over the whole grid, on grids that grow; cost per token, and a plot
modes    one forward pass in float32 as it is written, with the context kept, in bfloat16 (products, weights), compiled
clip     a whole pass of parallel decoding at 17 frames, by guidance: one, two and three forward passes a step
full     seconds per clip of the published sizes, in bfloat16, beside VideoPoet's; wants a GPU, and says so

Each case runs in its own process on random weights (seed 0): speed does not depend on them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recipes.bench.harness import Bench, Measured, compared, forget_peak, median_seconds, one_by_one, peak_gb
from recipes.figures.plots import plot_costs
from superres.config import PRESETS, preset
from superres.model import AxisLayer, SuperResTransformer
from superres.sample import sample
from superres.windows import AXES, Size, low_size, merge_windows, partition, windows_for

GRIDS: tuple[Size, ...] = ((5, 28, 16), (5, 56, 32), (5, 112, 64))
# "bf16" computes products in it, "bf16 weights" everything, as sharpening does.
MODES = (
    *("fp32", "fp32, context kept", "bf16", "bf16, context kept"),
    *("bf16 weights, context kept", "bf16 weights, context kept, compiled"),
)
# Text scale and low-resolution scale, as published for the two stages, and neutral.
GUIDANCE = {"one pass (1, 1)": (1.0, 1.0), "two passes (4, 1)": (4.0, 1.0), "three passes (8, 2)": (8.0, 2.0)}
STAGES = {"sr1-1b": "two passes (4, 1)", "sr2-500m": "three passes (8, 2)"}
# Kondratyuk et al. 2023: both stages and the decoder's pictures, 4 clips on 4 TPUv5p. A figure of another machine.
PUBLISHED = "VideoPoet: 6.8 s for 4 clips on 4 TPUv5p"
NO_GPU = "there is no GPU here: the published sizes are timed on one (--device cuda)"


def _random_model(name: str, grid: Size, device: torch.device, dtype: torch.dtype) -> SuperResTransformer:
    """A named size on another grid of high-resolution tokens with random weights, in evaluation mode."""
    torch.manual_seed(0)
    with torch.device(device):
        return SuperResTransformer(preset(name, grid=grid)).to(dtype).eval()


def _random_inputs(model: SuperResTransformer, batch: int, device: torch.device) -> dict[str, Tensor]:
    """What the model takes, by name: random codes, half of them hidden, and a text of 16 tokens."""
    generator = torch.Generator().manual_seed(0)
    config = model.config
    codes, low = (
        torch.randint(config.codebook_size, (batch, *size), generator=generator)
        for size in (config.grid, config.low_grid)
    )
    masked = torch.rand(codes.shape, generator=generator) < 0.5
    text = torch.randn(batch, 16, config.text_dim, generator=generator)
    given = {"codes": codes, "masked": masked, "low": low, "text": text}
    return {name: value.to(device) for name, value in given.items()}


def _precision(name: str, device: torch.device) -> Any:
    """Autocast for a mode that says bf16, nothing for others."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled="bf16" in name)


@torch.inference_mode()
def windows_case(args: argparse.Namespace) -> dict[str, Any]:
    """One layer of one axis on one grid, in windows or over the whole grid."""
    device, grid = torch.device(args.device), _grid(args.grid)
    config = preset(args.preset, grid=grid)
    torch.manual_seed(0)
    sizes = {"num_heads": config.num_heads, "hidden_dim": config.hidden_dim, "eps": config.norm_eps}
    layer = AxisLayer(dim=config.dim, **sizes).to(device).eval()  # type: ignore[arg-type]
    window = grid if args.case == "full" else windows_for(grid)[AXES.index(args.case)]
    x, low = (torch.randn(1, *size, config.dim, device=device) for size in (grid, low_size(grid)))
    text, mask = torch.randn(1, 16, config.dim, device=device), torch.ones(1, 16, dtype=torch.bool, device=device)
    with _precision(args.precision, device):
        context = layer.keys_values(partition(low, low_size(window)), text)

        def run() -> Tensor:
            return merge_windows(layer(partition(x, window), *context, mask), window, grid)

        forget_peak(device)
        seconds = median_seconds(run, runs=args.runs, device=device)
    tokens = torch.Size(grid).numel()
    row = {"grid": str(grid), "tokens": tokens, "attention": args.case, "tokens a window": torch.Size(window).numel()}
    return row | {"s": seconds, "us a token": 1e6 * seconds / tokens, "peak GB": peak_gb(device)}


def windows(args: argparse.Namespace) -> Measured:
    """All grids, each axis and the whole grid."""
    cases = [{"case": case, "grid": _told(grid)} for grid in GRIDS for case in (*AXES, "full")]
    rows, where = one_by_one(args, cases, title="windows")
    if args.plot is not None:
        plot_windows(rows, args.plot)
    return rows, where


def plot_windows(rows: list[dict[str, Any]], path: Path) -> None:
    """Cost per token against grid size: in windows the mean of the three axes, and over the whole grid."""
    tokens = sorted({row["tokens"] for row in rows})
    curves = {}
    for name, kinds in (("in windows, mean of the three axes", AXES), ("over the whole grid", ("full",))):
        costs = [
            [row["us a token"] for row in rows if row["tokens"] == n and row["attention"] in kinds] for n in tokens
        ]
        curves[name] = [sum(cost) / len(cost) for cost in costs]
    plot_costs(tokens, curves, path, x="tokens of the grid", y="microseconds a token and layer")


@torch.inference_mode()
def modes_case(args: argparse.Namespace) -> dict[str, Any]:
    """One forward pass of two clips, as guidance by the text takes it."""
    device = torch.device(args.device)
    dtype = torch.bfloat16 if "bf16 weights" in args.case else torch.float32
    model = _random_model(args.preset, _grid(args.grid), device, dtype)
    given = _random_inputs(model, 2, device)
    codes, masked = given["codes"], given["masked"]
    if "compiled" in args.case and not model.compile_layers():
        raise ValueError(f"{args.case} needs a C++ compiler")
    with _precision(args.case, device):
        if "kept" in args.case:
            context = model.encode_context(given["low"], given["text"])
            run = lambda: model.decode(codes, masked, context)  # noqa: E731
        else:
            run = lambda: model(codes, masked, given["low"], given["text"])  # noqa: E731
        forget_peak(device)
        seconds = median_seconds(run, runs=args.runs, device=device)
        torch.save([logits.float().cpu() for logits in run()], args.keep)
    return {"mode": args.case, "s": seconds, "peak GB": peak_gb(device)}


def modes(args: argparse.Namespace) -> Measured:
    """All modes, with what each changes in the logits."""
    chosen = args.modes or [mode for mode in MODES if not mode.endswith("compiled")]
    chosen = [MODES[0], *(mode for mode in chosen if mode != MODES[0])]  # the reference always runs
    rows, kept, where = compared(args, chosen, title="modes")
    for row, logits in zip(rows, kept, strict=True):
        row["x"] = rows[0]["s"] / row["s"]
        pairs = zip(logits, kept[0], strict=True)
        same = [float((now.argmax(-1) == first.argmax(-1)).float().mean()) for now, first in pairs]
        row["same likeliest %"] = 100 * sum(same) / len(same)
    return rows, where


@torch.inference_mode()
def clip_case(args: argparse.Namespace) -> dict[str, Any]:
    """One pass of parallel decoding of one clip."""
    device = torch.device(args.device)
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    model = _random_model(args.preset, _grid(args.grid), device, dtype)
    given = _random_inputs(model, 1, device)
    text_scale, low_scale = GUIDANCE[args.case]

    scales: dict[str, Any] = {"text_scale": text_scale, "low_scale": low_scale}

    def run() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return sample(model, given["low"], given["text"], num_steps=args.steps, generator=generator, **scales)

    with _precision(args.precision, device):
        forget_peak(device)
        seconds = median_seconds(run, runs=args.runs, device=device, warm_up=device.type == "cuda")
    row = {"preset": args.preset, "grid": args.grid, "guidance": args.case, "steps": args.steps}
    return row | {"s a clip": seconds, "peak GB": peak_gb(device)}


def clip(args: argparse.Namespace) -> Measured:
    """All kinds of guidance at one size."""
    return one_by_one(args, [{"case": case} for case in GUIDANCE], title="clip")


def full(args: argparse.Namespace) -> Measured:
    """Both published stages with their own guidance."""
    if not args.device.startswith("cuda") or not torch.cuda.is_available():
        raise ValueError(NO_GPU)

    sizes = {name: _told(PRESETS[name]["grid"]) for name in STAGES}
    cases = [{"kind": "clip", "case": STAGES[n], "preset": n, "grid": grid} for n, grid in sizes.items()]
    rows, where = one_by_one(args, cases, title="full sizes")
    return rows, f"{where}; {PUBLISHED}"


def _told(grid: Any) -> str:
    return ",".join(map(str, grid))


def _grid(text: str) -> Size:
    t, h, w = (int(side) for side in text.split(","))
    return t, h, w


RUN = {"windows": windows, "modes": modes, "clip": clip, "full": full}
CASE = {"windows": windows_case, "modes": modes_case, "clip": clip_case}


def main(words: list[str] | None = None) -> int:
    """Run one kind and print its table."""
    bench = Bench("superres", __doc__, RUN, CASE)
    bench.add("--preset", default="tiny", choices=sorted(PRESETS), help="widths and depth (tiny)")
    bench.add("--grid", default="5,32,32", help="t,h,w high-resolution tokens (5,32,32: 17 frames of 256)")
    bench.add("--steps", type=int, default=24, help="of parallel decoding (24)")
    bench.add("--precision", choices=("bf16", "fp32"), help="of windows (fp32), clip and full (bf16)")
    bench.add("--modes", nargs="+", choices=MODES, metavar="MODE", help="default: all but the compiled one")
    bench.add("--plot", type=Path, help="of windows: a picture of the cost per token")
    args = bench.parse(words)
    # On a CPU only the fused kernel, in float32, attends over 35,840 tokens without 5 GB of scores.
    args.precision = args.precision or ("fp32" if args.kind == "windows" else "bf16")
    if args.plot is not None and args.kind != "windows":
        bench.parser.error("--plot belongs to windows")
    told = f"{args.kind}: {'published sizes' if args.kind == 'full' else args.preset}; {{where}}"
    return bench.run(args, told=told, key="protocol")


if __name__ == "__main__":
    sys.exit(main())
