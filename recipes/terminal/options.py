"""Options that several commands have, each spelled and explained once."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
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
    """``--model`` and ``--device``."""
    parser.add_argument("--model", default="tiny", metavar="M", help="embedded name, folder or hub id (default: tiny)")
    add_device(parser)


def add_tokenizer(parser: argparse._ActionsContainer, *, default: str | None = "tiny", told: str = "tiny") -> None:
    """``--tokenizer``.

    Args:
        parser: of the command.
        default: name of a model, or None.
        told: the default in words.
    """
    parser.add_argument(
        "--tokenizer", default=default, metavar="M", help=f"a model, or one tokenizer of it or alone (default: {told})"
    )


def add_tokenizer_parts(parser: argparse._ActionsContainer) -> None:
    """``--visual`` and ``--audio``, beside ``--tokenizer``."""
    parser.add_argument("--visual", metavar="M", help="visual tokenizer (default: --tokenizer's)")
    parser.add_argument("--audio", metavar="M", help="audio tokenizer (default: --tokenizer's); none leaves sound out")


def add_lm_weights(parser: argparse._ActionsContainer) -> None:
    """``--lm-weights``."""
    parser.add_argument(
        "--lm-weights",
        choices=("float32", "bfloat16", "float16", "int8"),
        help="the language model's in memory; fewer bits are quicker (default: float32)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device`` and ``--threads``."""
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.add_argument("--threads", type=number(int, 1), metavar="N", help="CPU threads (default: torch's choice)")


def add_preview(parser: argparse.ArgumentParser) -> None:
    """``--preview``."""
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
    """``--seed``."""
    parser.add_argument(
        "--seed", type=number(int, 0, 2**63 - 1), default=0, metavar="N", help="same seed, same result (default: 0)"
    )


def add_media_coding(parser: argparse.ArgumentParser) -> None:
    """How media are read and coded: ``--size``, ``--levels``, ``--stream``, ``--tile``, ``--device``, ``--threads``."""
    parser.add_argument("--size", type=number(int, 8), metavar="PX", help="side of the pictures (default: the model's)")
    parser.add_argument(
        "--levels", type=number(int, 1), metavar="N", help="of a codec's codes of sound (default: as saved, or all)"
    )
    parser.add_argument(
        "--stream", action="store_true", help="one long clip with carried state, instead of clips that start anew"
    )
    add_tile(parser)
    add_device(parser)


def add_tile(parser: argparse._ActionsContainer) -> None:
    """The option ``--tile``."""
    parser.add_argument(
        "--tile", type=number(int, 8), metavar="PX", help="large pictures in tiles of this side (approximate)"
    )


def add_held_out(parser: argparse._ActionsContainer, *, scenes: int) -> None:
    """``--scenes`` and ``--media`` with its listing: what is measured on.

    Args:
        parser: of the command.
        scenes: how many made-up scenes are usual.
    """
    parser.add_argument("--scenes", type=number(int, 1), metavar="N", help=f"made-up scenes (default: {scenes})")
    add_media(parser, "real files; those kept out of training are measured")


def add_every_file(parser: argparse._ActionsContainer) -> None:
    """``--every-file``, beside ``--media``."""
    parser.add_argument(
        "--every-file", action="store_true", help="measure all of --media, for a folder that no training saw"
    )


def add_networks(parser: argparse._ActionsContainer) -> None:
    """Files of the networks that metrics of pictures need."""
    parser.add_argument("--squeezenet", type=Path, metavar="F.npz", help="for Frechet distances of frames")
    parser.add_argument("--vgg", type=Path, metavar="F", help="torchvision's vgg16, for LPIPS")
    parser.add_argument("--lpips", type=Path, metavar="F", help="LPIPS's linear layers for VGG16")
    parser.add_argument("--i3d", type=Path, metavar="F.pt", help="TorchScript I3D for rFVD; it is run, so trust it")


def require_use(args: argparse.Namespace, *, pictures: bool, sound: bool) -> None:
    """Refuse options that would change nothing.

    Args:
        args: of ``tokenize`` or ``reconstruct``.
        pictures: whether there are any.
        sound: whether there is any.

    Raises:
        ValueError: for an option on pictures without them, or one on sound without it.
    """
    for name, there, kind in (
        *((name, pictures, "pictures") for name in ("size", "tile", "stream", "side_by_side", "preview")),
        ("levels", sound, "sound"),
    ):
        if not there and getattr(args, name, None) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} needs {kind}, and {args.media or args.decode} gives none")


def add_training(parser: argparse.ArgumentParser, *, out: str) -> None:
    """What every training takes: ``key=value`` words, ``--config``, ``--out``, ``--track`` and ``--device``.

    Args:
        parser: of the command.
        out: the usual run folder.
    """
    parser.add_argument("changes", nargs="*", metavar="key=value", help="numbers that differ, such as optim.lr=1e-3")
    parser.add_argument("--config", type=Path, metavar="F.yaml", help="numbers to start from, a file of one's own")
    parser.add_argument("--out", type=Path, default=Path(out), metavar="FOLDER", help=f"run folder (default: {out})")
    parser.add_argument(
        "--track",
        metavar="NAME",
        help="report to tensorboard, wandb, trackio, ... too (log.jsonl and curves.png are made always)",
    )
    add_device(parser)


def add_media(parser: argparse._ActionsContainer, what: str) -> None:
    """``--media`` and ``--media-list``.

    Args:
        parser: of the command.
        what: what the folder is for.
    """
    parser.add_argument("--media", type=Path, metavar="FOLDER", help=what)
    parser.add_argument("--media-list", type=Path, metavar="CSV", help="path,split,licence of the files to use")


def check_media(args: argparse.Namespace) -> None:
    """Refuse what would change nothing without a folder of ``--media``, and a folder that is not there."""
    if args.media_list is not None and args.media is None:
        raise ValueError("--media-list says which files of --media to use; give --media too")
    if getattr(args, "every_file", False) and args.media is None:
        raise ValueError("--every-file is for --media")
    if args.media is not None and not args.media.is_dir():
        raise FileNotFoundError(f"media folder {args.media} does not exist")
