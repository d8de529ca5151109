"""``cinepoet evaluate prompts``: do films show and sound what their captions say?"""

from __future__ import annotations

import argparse
from pathlib import Path

from recipes.terminal.options import add_lm_weights, add_model, add_seed, number
from recipes.terminal.report import check_folder, pipeline_of

SUMMARY = "films from captions that training never saw, read by analyzers"
EXAMPLES = """\
  cinepoet evaluate prompts --prompts 200 --out results
  cinepoet evaluate prompts --prompts 20 --no-upscale
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_model(parser)
    add_lm_weights(parser)
    add_seed(parser)
    parser.add_argument("--prompts", type=number(int, 1), default=200, metavar="N", help="captions (default: 200)")
    parser.add_argument("--batch-size", type=number(int, 1), default=10, metavar="N", help="at once (default: 10)")
    parser.add_argument("--no-upscale", action="store_true", help="leave super-resolution out")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="receives the figures as JSON and a sheet of films")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    check_folder(args.out)
    from recipes.evaluate.contract import subject_named
    from recipes.evaluate.prompts import evaluate_prompts

    pipe = pipeline_of(args)
    result = evaluate_prompts(
        subject_named(args.model, lm_weights=args.lm_weights),
        pipe,
        prompts=args.prompts,
        seed=args.seed,
        upscale=not args.no_upscale and pipe.config.upscaled_size > 0,
        batch_size=args.batch_size,
        folder=args.out,
    )
    result.tell(args.out)
    return 0
