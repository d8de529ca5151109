"""``cinepoet evaluate reconstruction``: how much the tokenizers of a model lose."""

from __future__ import annotations

import argparse
from pathlib import Path

from recipes.terminal.options import add_held_out, add_model, check_media, number
from recipes.terminal.report import check_folder, pipeline_of

SUMMARY = "how much a model's tokenizers lose, on held-out scenes and real media"
EXAMPLES = """\
  cinepoet evaluate reconstruction --out results
  cinepoet evaluate reconstruction --media my_clips --out results
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_model(parser)
    add_held_out(parser, scenes=200)
    parser.add_argument("--size", type=number(int, 8), metavar="PX", help="side of the pictures (default: 128)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="receives the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    check_media(args)
    check_folder(args.out)
    from mmtok.visual.holistic import is_holistic
    from recipes.corpora.folder import MediaFolder
    from recipes.evaluate.contract import subject_named
    from recipes.evaluate.reconstruction import evaluate_reconstruction

    pipe = pipeline_of(args)
    media = None if args.media is None else MediaFolder.open(args.media, args.media_list)
    usual = pipe.config.size if is_holistic(pipe.visual) else 128  # without a grid it works at one size only
    result = evaluate_reconstruction(
        subject_named(args.model), pipe, media=media, scenes=args.scenes or 200, size=args.size or usual
    )
    result.tell(args.out)
    return 0
