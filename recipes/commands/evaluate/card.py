"""``cinepoet evaluate card``: a model's README.md from what was measured."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "write a model's README.md from what was measured of it"
EXAMPLES = """\
  cinepoet evaluate card --model runs/tiny/bundle --results results
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--model", default="tiny", metavar="M", help="embedded name, folder or hub id (default: tiny)")
    parser.add_argument("--results", type=Path, required=True, metavar="FOLDER", help="the --out of the measurements")
    parser.add_argument("--notes", type=Path, metavar="F.md", help="Markdown to end with, such as known limits")


def run(args: argparse.Namespace) -> int:
    """Write it."""
    if args.notes is not None and not args.notes.is_file():
        raise FileNotFoundError(f"notes file {args.notes} does not exist")
    from recipes.bundle.folder import open_bundle
    from recipes.evaluate.card import write_card

    print(write_card(open_bundle(args.model), args.results, args.notes.read_text() if args.notes else ""))
    return 0
