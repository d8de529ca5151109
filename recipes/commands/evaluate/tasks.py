"""``cinepoet evaluate tasks``: every other task that a model was trained on."""

from __future__ import annotations

import argparse
from pathlib import Path

from recipes.terminal.options import add_lm_weights, add_model, add_seed, number
from recipes.terminal.report import check_folder, pipeline_of

SUMMARY = "every other task that the model was trained on, on scenes that training never saw"
EXAMPLES = """\
  cinepoet evaluate tasks --scenes 100 --out results
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_model(parser)
    add_lm_weights(parser)
    add_seed(parser)
    parser.add_argument("--scenes", type=number(int, 1), default=100, metavar="N", help="made-up scenes (default: 100)")
    parser.add_argument("--batch-size", type=number(int, 1), default=10, metavar="N", help="at once (default: 10)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="receives the figures as JSON and a sheet of films")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    check_folder(args.out)
    from recipes.evaluate.contract import subject_named
    from recipes.evaluate.tasks import evaluate_tasks

    pipe = pipeline_of(args)
    options = {"scenes": args.scenes, "seed": args.seed, "batch_size": args.batch_size}
    result = evaluate_tasks(subject_named(args.model, lm_weights=args.lm_weights), pipe, folder=args.out, **options)
    result.tell(args.out)
    return 0
