"""Speed and memory of SoundStream beside the ``encodec`` package: ``python -m recipes.bench.audio KIND``.

speed    real-time factors of encode and decode at the published size, beside the package's 24 kHz model with as many
         levels as give 3 kbit/s; "per weight" multiplies by the millions of weights of the half that worked
stream   milliseconds a 20 ms frame takes when sound arrives frame by frame
memory   peak of a whole process by length of the sound

Random weights (seed 0), noise as sound, one thread unless told otherwise, each case in its own process.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from typing import Any

import torch
from torch import Tensor

import mmtok  # noqa: F401  (lets encodec import beside any torchaudio)
from mmtok.audio.soundstream import SoundStream, build_soundstream
from recipes.bench.harness import Bench, Measured, compared, forget_peak, median_seconds, one_by_one, peak_gb

MODES = ("encodec fp32", "ours fp32", "ours bf16", "ours fp32 compiled", "ours bf16 compiled")


def _codec(preset: str, case: str, device: torch.device) -> SoundStream:
    """Ours with random weights, in evaluation mode."""
    torch.manual_seed(0)
    model = build_soundstream(preset).eval().to(device)
    if "bf16" in case:
        model.to(torch.bfloat16)
    if case.endswith("compiled"):
        model.encoder.compile()
        model.decoder.compile()
    return model


def _noise(seconds: float, sample_rate: int, device: torch.device) -> Tensor:
    """White noise (1, 1, n) in [-0.5, 0.5]."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(1, 1, round(seconds * sample_rate), generator=generator) - 0.5).to(device)


def _millions(*modules: torch.nn.Module) -> float:
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


def _encodec(device: torch.device) -> Any:
    """The package's 24 kHz model, random weights, 3 kbit/s."""
    from encodec import EncodecModel

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = EncodecModel.encodec_model_24khz(pretrained=False).eval().to(device)
    model.set_target_bandwidth(3.0)
    return model


@torch.inference_mode()
def speed_case(args: argparse.Namespace) -> dict[str, Any]:
    """One mode; what it made goes to ``args.keep``."""
    device = torch.device(args.device)
    model: Any = _encodec(device) if "encodec" in args.case else _codec(args.preset, args.case, device)
    sound = _noise(args.seconds, model.sample_rate, device)
    codes = model.encode(sound)
    encode_s = median_seconds(lambda: model.encode(sound), runs=args.runs, device=device)
    decode_s = median_seconds(lambda: model.decode(codes), runs=args.runs, device=device)
    if isinstance(model, SoundStream):
        torch.save({"codes": codes.cpu(), "sound": model.decode(codes[:, :, :50]).cpu()}, args.keep)
    return {
        "case": args.case,
        "encode x real time": args.seconds / encode_s,
        "decode x real time": args.seconds / decode_s,
        "encoder M": _millions(model.encoder),
        "decoder M": _millions(model.decoder),
    }


def speed(args: argparse.Namespace) -> Measured:
    """All modes."""
    rows, kept, where = compared(args, args.modes or MODES[:3], title="speed")
    exact = next((made["codes"] for made in kept if made is not None), None)
    for row, made in zip(rows, kept, strict=True):
        for half in ("encode", "decode"):
            row[f"{half} per weight"] = row[f"{half} x real time"] * row[f"{half}r M"]
            row[f"{half} ratio"] = row[f"{half} per weight"] / rows[0][f"{half} per weight"]
        same = [] if made is None else (made["codes"] == exact).float().mean((0, 2)).tolist()
        row["same codes %"] = " ".join(f"{100 * share:.1f}" for share in same)
    return rows, where


@torch.inference_mode()
def stream_case(args: argparse.Namespace) -> dict[str, Any]:
    """Sound frame by frame."""
    device = torch.device(args.device)
    model = _codec(args.preset, args.case, device)
    frames = _noise(args.seconds, model.sample_rate, device).split(model.hop_length, -1)
    codes, encode_s = _timed(model.encode_stream(frames), device)
    _, decode_s = _timed(model.decode_stream(codes), device)
    row: dict[str, Any] = {"case": args.case, "ms of sound": 1000 * model.hop_length / model.sample_rate}
    for name, times in (("encode", encode_s), ("decode", decode_s)):
        ordered = sorted(times[5:])  # the first ones warm up
        row[f"{name} ms"] = 1000 * statistics.median(ordered)
        row[f"{name} ms, 95 %"] = 1000 * ordered[int(0.95 * len(ordered))]
    return row


def _timed(stream: Any, device: torch.device) -> tuple[list[Tensor], list[float]]:
    """Everything a stream yields, and the seconds each piece took."""
    pieces: list[Tensor] = []
    times: list[float] = []
    while True:
        started = time.perf_counter()
        piece = next(stream, None)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if piece is None:
            return pieces, times
        times.append(time.perf_counter() - started)
        pieces.append(piece)


def stream(args: argparse.Namespace) -> Measured:
    """All of our modes."""
    return one_by_one(args, [{"case": mode} for mode in args.modes or MODES[1:3]], title="stream")


@torch.inference_mode()
def memory_case(args: argparse.Namespace) -> dict[str, Any]:
    """One length."""
    device = torch.device(args.device)
    model = _codec(args.preset, args.case, device)
    sound = _noise(args.seconds, model.sample_rate, device)
    forget_peak(device)
    codes = model.encode(sound)
    encode_gb = peak_gb(device)
    forget_peak(device)
    model.decode(codes)
    return {
        "seconds": args.seconds,
        "sound GB": sound.numel() * 4 / 1e9,
        "encode peak GB": encode_gb,
        "decode peak GB": peak_gb(device),
    }


def memory(args: argparse.Namespace) -> Measured:
    """All lengths."""
    mode = (args.modes or MODES[1:2])[0]
    return one_by_one(args, [{"case": mode, "seconds": length} for length in args.lengths], title="memory")


RUN = {"speed": speed, "stream": stream, "memory": memory}
CASE = {"speed": speed_case, "stream": stream_case, "memory": memory_case}


def main(words: list[str] | None = None) -> int:
    """Run one kind of ``words``, or of the process' own command line, and print its table."""
    bench = Bench("audio", __doc__, RUN, CASE)
    bench.add("--preset", default="soundstream-16k", metavar="NAME")
    bench.add("--modes", nargs="+", choices=MODES, metavar="MODE", help=f"of {', '.join(MODES)}")
    bench.add("--seconds", type=float, default=4.0, help="of sound (speed, stream)")
    bench.add("--lengths", type=float, nargs="+", default=[10.0, 100.0, 1000.0], help="seconds (memory)")
    bench.add("--threads", type=int, default=1)
    args = bench.parse(words, runs=5)
    if args.kind != "speed" and "encodec fp32" in (args.modes or ()):
        bench.parser.error("encodec fp32 is a mode of speed only")
    return bench.run(args)


if __name__ == "__main__":
    sys.exit(main())
