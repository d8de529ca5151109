"""Speed and memory of SoundStream beside the ``encodec`` package: ``python -m recipes.bench.audio KIND``.

speed    real-time factors of encode and decode at the published size, beside the package's 24 kHz model with as many
         levels as give 3 kbit/s; "per weight" multiplies by the millions of weights of the half that worked
stream   milliseconds a 20 ms frame takes when sound arrives frame by frame
memory   peak of a whole process by length of the sound

Random weights (seed 0), noise as sound, one thread unless told otherwise, each case in its own process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mmtok  # noqa: F401  (lets encodec import beside any torchaudio)
from mmtok.audio.soundstream import SoundStream, build_soundstream
from recipes.bench.harness import in_fresh_process, machine, median_seconds, one_by_one, tell
from recipes.runtime.memory import forget_peak, peak_gb
from recipes.runtime.progress import track

MODES = ("encodec fp32", "ours fp32", "ours bf16", "ours fp32 compiled", "ours bf16 compiled")
KINDS = ("speed", "stream", "memory")


def make(preset: str, case: str, device: torch.device) -> SoundStream:
    """Ours with random weights.

    Args:
        preset: a key of ``mmtok.audio.soundstream.PRESETS``.
        case: of ``MODES``.
        device: where it goes.

    Returns:
        The codec in evaluation mode.
    """
    torch.manual_seed(0)
    model = build_soundstream(preset).eval().to(device)
    if "bf16" in case:
        model.to(torch.bfloat16)
    if case.endswith("compiled"):
        model.encoder.compile()
        model.decoder.compile()
    return model


def noise(seconds: float, sample_rate: int, device: torch.device) -> Tensor:
    """White noise.

    Args:
        seconds: length.
        sample_rate: Hz.
        device: where it goes.

    Returns:
        (1, 1, n) in [-0.5, 0.5].
    """
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
    """One mode; what it made goes to ``args.keep``.

    Args:
        args: preset, case, seconds, runs, keep, device.

    Returns:
        Real-time factors.
    """
    device = torch.device(args.device)
    model: Any = _encodec(device) if "encodec" in args.case else make(args.preset, args.case, device)
    sound = noise(args.seconds, model.sample_rate, device)
    codes = model.encode(sound)
    encode_s = median_seconds(lambda: model.encode(sound), runs=args.runs, device=device)
    decode_s = median_seconds(lambda: model.decode(codes), runs=args.runs, device=device)
    if isinstance(model, SoundStream):
        torch.save({"codes": codes.cpu(), "sound": model.decode(codes[:, :, :50]).cpu()}, args.keep)
    return {
        "encode x real time": args.seconds / encode_s,
        "decode x real time": args.seconds / decode_s,
        "encoder M": _millions(model.encoder),
        "decoder M": _millions(model.decoder),
        "machine": machine(device),
    }


def speed(args: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """All modes.

    Args:
        args: preset, modes, seconds, runs, threads, device, scratch.

    Returns:
        Rows, and the machine.
    """
    rows: list[dict[str, Any]] = []
    where = ""
    exact: dict[str, Tensor] | None = None
    for mode in track(args.modes or MODES[:3], title="speed"):
        file = args.scratch / f"{mode}.pt"
        words = ["--seconds", str(args.seconds), "--runs", str(args.runs), "--keep", str(file)]
        row = _case("speed", mode, args, words)
        where = row.pop("machine")
        rows.append({"case": mode} | row)
        for half in ("encode", "decode"):
            rows[-1][f"{half} per weight"] = row[f"{half} x real time"] * row[f"{half}r M"]
            rows[-1][f"{half} ratio"] = rows[-1][f"{half} per weight"] / rows[0][f"{half} per weight"]
        rows[-1]["same codes %"] = ""
        if file.exists():
            made = torch.load(file, weights_only=True)
            exact = made if exact is None else exact
            same = (made["codes"] == exact["codes"]).float().mean((0, 2))
            rows[-1]["same codes %"] = " ".join(f"{100 * float(share):.1f}" for share in same)
    return rows, where


@torch.inference_mode()
def stream_case(args: argparse.Namespace) -> dict[str, Any]:
    """Sound frame by frame.

    Args:
        args: preset, case, seconds, device.

    Returns:
        Milliseconds a frame.
    """
    device = torch.device(args.device)
    model = make(args.preset, args.case, device)
    frames = noise(args.seconds, model.sample_rate, device).split(model.hop_length, -1)
    codes, encode_s = _timed(model.encode_stream(frames), device)
    _, decode_s = _timed(model.decode_stream(codes), device)
    row: dict[str, Any] = {"ms of sound": 1000 * model.hop_length / model.sample_rate}
    for name, times in (("encode", encode_s), ("decode", decode_s)):
        ordered = sorted(times[5:])  # the first ones warm up
        row[f"{name} ms"] = 1000 * statistics.median(ordered)
        row[f"{name} ms, 95 %"] = 1000 * ordered[int(0.95 * len(ordered))]
    return row | {"machine": machine(device)}


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


def stream(args: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """All of our modes.

    Args:
        args: preset, modes, seconds, threads, device.

    Returns:
        Rows, and the machine.
    """

    def measure(mode: str) -> dict[str, Any]:
        return {"case": mode} | _case("stream", mode, args, ["--seconds", str(args.seconds)])

    return one_by_one(args.modes or MODES[1:3], measure, title="stream")


@torch.inference_mode()
def memory_case(args: argparse.Namespace) -> dict[str, Any]:
    """One length.

    Args:
        args: preset, case, seconds, device.

    Returns:
        Peaks in 10^9 bytes, and what the sound itself takes.
    """
    device = torch.device(args.device)
    model = make(args.preset, args.case, device)
    sound = noise(args.seconds, model.sample_rate, device)
    forget_peak()
    codes = model.encode(sound)
    encode_gb = peak_gb()
    forget_peak()
    model.decode(codes)
    return {
        "seconds": args.seconds,
        "sound GB": sound.numel() * 4 / 1e9,
        "encode peak GB": encode_gb,
        "decode peak GB": peak_gb(),
        "machine": machine(device),
    }


def memory(args: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """All lengths.

    Args:
        args: preset, modes, lengths, threads, device.

    Returns:
        Rows, and the machine.
    """
    mode = (args.modes or MODES[1:2])[0]

    def measure(seconds: float) -> dict[str, Any]:
        return _case("memory", mode, args, ["--seconds", str(seconds)])

    return one_by_one(args.lengths, measure, title="memory")


def _case(kind: str, mode: str, args: argparse.Namespace, words: list[str]) -> dict[str, Any]:
    shared = ["--preset", args.preset, "--threads", str(args.threads), "--device", args.device]
    return in_fresh_process("recipes.bench.audio", [kind, "--case", mode, *shared, *words])


def main(words: list[str] | None = None) -> int:
    """Run one kind and print its table.

    Args:
        words: of the command line, or None for the process' own.

    Returns:
        The exit code.
    """
    import tempfile

    parser = argparse.ArgumentParser(
        prog="python -m recipes.bench.audio", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--preset", default="soundstream-16k", metavar="NAME")
    parser.add_argument("--modes", nargs="+", choices=MODES, metavar="MODE", help=f"of {', '.join(MODES)}")
    parser.add_argument("--seconds", type=float, default=4.0, help="of sound (speed, stream)")
    parser.add_argument("--lengths", type=float, nargs="+", default=[10.0, 100.0, 1000.0], help="seconds (memory)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, metavar="F.json", help="also write the rows there")
    for hidden in ("--case", "--keep"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.case:
        torch.set_num_threads(args.threads)
        case = {"speed": speed_case, "stream": stream_case, "memory": memory_case}[args.kind]
        print(json.dumps(case(args)))
        return 0
    if args.kind != "speed" and "encodec fp32" in (args.modes or ()):
        parser.error("encodec fp32 is a mode of speed only")
    with tempfile.TemporaryDirectory() as scratch:
        args.scratch = Path(scratch)
        rows, where = {"speed": speed, "stream": stream, "memory": memory}[args.kind](args)
    tell(where, rows, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
