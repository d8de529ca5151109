"""What several commands share: options, checks before the work, progress, and what is printed."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def number(kind: Callable[[str], Any], least: float | None = None, most: float | None = None) -> Callable[[str], Any]:
    """A checked number for ``type=``, refusing NaN and infinity.

    Args:
        kind: int or float.
        least: smallest value allowed, or None.
        most: largest value allowed, or None.

    Returns:
        The reading function.
    """

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {word}, got {text!r}") from None
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"must be a finite number, got {text}")
        if (least is not None and value < least) or (most is not None and value > most):
            bounds = [f"{word} {n}" for word, n in (("at least", least), ("at most", most)) if n is not None]
            raise argparse.ArgumentTypeError(f"must be {' and '.join(bounds)}, got {text}")
        return value

    return read


def add_model(parser: argparse.ArgumentParser) -> None:
    """``--model`` and ``--device``.

    Args:
        parser: of the command.
    """
    parser.add_argument("--model", default="tiny", metavar="M", help="embedded name, folder or hub id (default: tiny)")
    add_device(parser)


def add_lm_weights(parser: argparse._ActionsContainer) -> None:
    """``--lm-weights``.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--lm-weights",
        choices=("float32", "bfloat16", "float16", "int8"),
        help="the language model's in memory; fewer bits are quicker (default: float32)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device`` and ``--threads``.

    Args:
        parser: of the command.
    """
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.add_argument("--threads", type=number(int, 1), metavar="N", help="CPU threads (default: torch's choice)")


def add_preview(parser: argparse.ArgumentParser) -> None:
    """``--preview``.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--preview", nargs="?", const="", metavar="F.png", help="also a sheet of the pictures and the spectrogram"
    )


def preview_path(args: argparse.Namespace, *, before: str) -> Path | None:
    """Where ``--preview`` goes.

    Args:
        args: with ``preview`` and ``out``.
        before: the argument that ``--preview`` swallows when it stands in front of it, for the message.

    Returns:
        The file, beside ``out`` when none was named; None without ``--preview``.

    Raises:
        ValueError: if the name does not end in .png.
    """
    if args.preview is None:
        return None
    if args.preview == "":
        out: Path = args.out
        return out.with_name(f"{out.stem}.preview.png")
    if not args.preview.lower().endswith(".png"):
        raise ValueError(f"--preview takes a file ending in .png, got {args.preview!r}; put {before} before it")
    return Path(args.preview)


def add_seed(parser: argparse._ActionsContainer) -> None:
    """``--seed``.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--seed", type=number(int, 0, 2**63 - 1), default=0, metavar="N", help="same seed, same result (default: 0)"
    )


def compute_of(args: argparse.Namespace) -> Any:
    """Device and precision for ``--device``, after ``--threads`` is applied.

    Args:
        args: with ``device`` and ``threads``.

    Returns:
        A ``Compute``.

    Raises:
        ValueError: for a device that is unknown or not there.
    """
    import torch

    from recipes.runtime.device import choose_compute

    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        return choose_compute(args.device)
    except RuntimeError:  # torch's answer to a name that it cannot read
        raise ValueError(f"unknown device {args.device!r}; known: auto, cpu, cuda, cuda:1, mps") from None


def join_training(args: argparse.Namespace) -> tuple[Any, Any]:
    """Device, precision and the other processes of a training.

    Args:
        args: with ``device``, which becomes this process' own, and ``threads``.

    Returns:
        A ``Compute`` and ``Ranks``.

    Raises:
        ValueError: for a device that is unknown or not there.
    """
    from recipes.runtime.device import keep_freed_memory
    from recipes.runtime.distributed import join, own_device

    keep_freed_memory()
    args.device = own_device(args.device)
    compute = compute_of(args)
    return compute, join(compute.device)


def tell_config(config: Any, out: Path, ranks: Any) -> None:
    """Make a run's folder, print its numbers and keep them there.

    Args:
        config: the dataclass.
        out: the folder.
        ranks: the first process prints and writes.

    Raises:
        ValueError: if the folder cannot be written to.
    """
    import yaml

    from mmtok.files import write_atomically
    from recipes.runtime.config import to_dict

    check_folder(out)
    if ranks.is_main:
        resolved = yaml.safe_dump(to_dict(config), sort_keys=False)
        print(resolved)
        write_atomically(out / "config.yaml", resolved)


def prompt_of(text: str | None) -> str | None:
    """The prompt, refused when there is nothing in it.

    Args:
        text: as given, or None.

    Returns:
        The same.

    Raises:
        ValueError: if it is empty or white space.
    """
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


def check_folder(path: Path) -> None:
    """Create a folder and make sure that files can be written there.

    Args:
        path: the folder.

    Raises:
        ValueError: if it cannot be made or written to.
    """
    import tempfile

    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path):
            pass
    except OSError as fault:
        raise ValueError(f"{path} cannot be written to ({fault.strerror or fault})") from fault


def note(text: str) -> None:
    """Tell the user something beside the result, on standard error.

    Args:
        text: one line.
    """
    print(f"note: {text}", file=sys.stderr)


@contextmanager
def sampling_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar with time left for each stage that a pipeline reports, on a terminal only.

    Yields:
        What the pipeline calls with (stage, done, in all).
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    left = (TextColumn("left"), TimeRemainingColumn())
    with Progress(
        *columns, *left, console=console, transient=True, disable=not console.is_terminal, refresh_per_second=4
    ) as bar:
        tasks: dict[str, Any] = {}

        def on_step(stage: str, done: int, total: int) -> None:
            if stage not in tasks or bar.tasks[tasks[stage]].finished:  # an extension starts a stage anew
                tasks[stage] = bar.add_task(stage.replace("_", " "))
            bar.update(tasks[stage], completed=done, total=total)

        yield on_step


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
