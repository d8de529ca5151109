"""``cinepoet assemble``: a complete model out of parts that were trained apart."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

SUMMARY = "put parts that were trained apart together into a model"
EXAMPLES = """\
  cinepoet assemble --lm runs/lm/model --out my_model                    # the rest is tiny's; the tasks are the run's
  cinepoet assemble --lm runs/tasks/lm/model --audio runs/soundstream/model --out my_model temperature=0.9
  cinepoet assemble --model my_model --superres runs/superres/model --out sharper upscaled_size=128 sr_steps=12
  cinepoet generate "a red circle" --model my_model --out film.mp4
"""
_PARTS = {
    "visual": "visual tokenizer, of any family",
    "audio": "audio tokenizer, of any family",
    "text": "text encoder",
    "lm": "language model",
    "superres": "super-resolution",
    "superres2": "its second stage",
    "superres_visual": "super-resolution's own visual tokenizer (kept by itself when --visual changes)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("changes", nargs="*", metavar="key=value", help="numbers of cinepoet.json that differ")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the new model")
    parser.add_argument("--model", default="tiny", metavar="M", help="model for all else (default: tiny)")
    for name, about in _PARTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="M", help=f"{about}: folder, hub id or model")


def run(args: argparse.Namespace) -> int:
    """Assemble and check."""
    from recipes.bundle.assemble import assemble, config_for
    from recipes.bundle.describe import describe_bundle
    from recipes.bundle.folder import open_bundle

    parts = {name: place for name in _PARTS if (place := getattr(args, name)) is not None}
    if not parts and not args.changes:
        raise ValueError("name at least one part, such as --lm runs/lm/model, or a number that differs")
    words = ["cinepoet", "assemble", *args.changes, "--model", args.model]
    words += [word for name, place in parts.items() for word in (f"--{name.replace('_', '-')}", place)]
    base = open_bundle(args.model)
    config = config_for(base, parts, args.changes)
    made = assemble(parts, args.out, base=base, config=config, command=shlex.join(words))
    print(describe_bundle(str(made.folder)))
    return 0
