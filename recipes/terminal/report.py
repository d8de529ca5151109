"""What several commands share: options, checks before the work, progress, and what is printed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def compute_of(args: argparse.Namespace) -> Any:
    """Device and precision for ``--device``, after ``--threads`` is applied."""
    import torch

    from recipes.runtime.device import choose_compute

    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        return choose_compute(args.device)
    except RuntimeError:  # torch's answer to a name that it cannot read
        raise ValueError(f"unknown device {args.device!r}; known: auto, cpu, cuda, cuda:1, mps") from None


def pipeline_of(args: argparse.Namespace) -> Any:
    """The whole model of ``--model``, with ``--lm-weights`` where the command has it, as a ``CinePoetPipeline``."""
    from recipes.bundle.folder import open_bundle
    from recipes.pipeline.cinepoet import CinePoetPipeline

    lm_weights = getattr(args, "lm_weights", None) or "float32"
    return CinePoetPipeline(open_bundle(args.model), compute_of(args), lm_weights=lm_weights)


def join_training(args: argparse.Namespace) -> tuple[Any, Any]:
    """Device, precision and the other processes of a training; ``args.device`` becomes this process' own."""
    from recipes.runtime.distributed import join, own_device
    from recipes.runtime.memory import keep_freed_memory

    keep_freed_memory()
    args.device = own_device(args.device)
    compute = compute_of(args)
    return compute, join(compute.device)


def tell_config(config: Any, out: Path, ranks: Any) -> None:
    """Make a run's folder, print its numbers and keep them there; those of another run are not overwritten.

    Args:
        config: the dataclass.
        out: the folder.
        ranks: the first process prints and writes.

    Raises:
        ValueError: if the folder cannot be written to, or holds a run with other numbers.
    """
    import yaml

    from mmtok.files import write_atomically
    from recipes.runtime.config import to_dict
    from recipes.runtime.records import same_config

    same_config(out, config)
    check_folder(out)
    if ranks.is_main:
        resolved = yaml.safe_dump(to_dict(config), sort_keys=False)
        print(resolved)
        write_atomically(out / "config.yaml", resolved)


def prompt_of(text: str | None) -> str | None:
    """The prompt, refused when there is nothing in it."""
    if text is not None and not text.strip():
        raise ValueError("the prompt is empty; describe what should be seen or heard")
    return text


def check_outputs(outputs: dict[str, tuple[Path, tuple[str, ...]]], inputs: list[str | None]) -> None:
    """Find out before the work that everything can be written, and that nothing overwrites what is read.

    Args:
        outputs: option to its path and the endings that it may have.
        inputs: files that are read, or None for those not given.

    Raises:
        ValueError: if a place cannot be written, or two files are one.
    """
    from mmtok.media.container import require_writable

    taken = {Path(name).resolve(): name for name in inputs if name is not None}
    for option, (path, suffixes) in outputs.items():
        if path.resolve() in taken:
            raise ValueError(f"{option} {path} would overwrite {taken[path.resolve()]}")
        taken[path.resolve()] = str(path)
        require_writable(path, suffixes)


def check_folder(path: Path | None) -> None:
    """Create a folder and make sure that files can be written there; None is nowhere, which does."""
    import tempfile

    if path is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path):
            pass
    except OSError as fault:
        raise ValueError(f"{path} cannot be written to ({fault.strerror or fault})") from fault


def note(text: str) -> None:
    """Tell the user one line beside the result, on standard error."""
    print(f"note: {text}", file=sys.stderr)


def describe_film(path: Path, frames: Any, fps: float, has_sound: bool) -> str:
    """The line that names a finished film.

    Args:
        path: where it lies.
        frames: (..., t, h, w), or that shape.
        fps: pictures per second.
        has_sound: whether it has a sound track.

    Returns:
        Such as "film.mp4: 17 frames of 128x128 at 8 fps, 2.125 s, with sound".
    """
    t, h, w = tuple(getattr(frames, "shape", frames))[-3:]
    if t == 1 and path.suffix.lower() == ".png":
        return f"{path}: one picture of {w}x{h}"
    sound = "with sound" if has_sound else "silent"
    return f"{path}: {t} frame{'s' if t > 1 else ''} of {w}x{h} at {fps:g} fps, {t / fps:.3f} s, {sound}"


def describe_sound(path: Path, num_samples: int, sample_rate: int) -> str:
    """The line that names a finished sound.

    Args:
        path: where it lies.
        num_samples: its length.
        sample_rate: Hz.

    Returns:
        Such as "a.wav: 2.125 s of sound at 16000 Hz".
    """
    return f"{path}: {num_samples / sample_rate:.3f} s of sound at {sample_rate} Hz"


def profile_table(stages: dict[str, float], total_s: float) -> str:
    """Times of each stage, the rest, the total, and the peak memory where the system tells it.

    Args:
        stages: name to seconds.
        total_s: seconds since the command started, imports included.

    Returns:
        Lines of text.
    """
    rows = {**stages, "other": max(0.0, total_s - sum(stages.values())), "total": total_s}
    width = max(len(name) for name in rows)
    lines = [f"{name:<{width}}  {seconds:8.2f} s" for name, seconds in rows.items()]
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
        lines.append(f"{'peak memory':<{width}}  {peak:8.2f} GB")
    except ImportError:  # not on Windows
        pass
    return "\n".join(lines)
