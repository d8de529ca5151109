"""``cinepoet demo``: films from three prompts with the embedded model."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from recipes.terminal.options import add_model, add_seed
from recipes.terminal.report import check_folder, describe_film, pipeline_of

SUMMARY = "make three films with the embedded model, and say where they are"
EXAMPLES = """\
  cinepoet demo
  cinepoet demo --out films --seed 3
"""
PROMPTS = {
    "red-circle": "a red circle moves left on a dark plain background",
    "blue-square": "a blue square moves up on a light striped background",
    "green-triangle": "a green triangle grows on a dark dotted background",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--out", type=Path, default=Path("films"), metavar="FOLDER", help="default: films")
    add_seed(parser)
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    """Generate the three films and their previews."""
    check_folder(args.out)
    import torch

    from recipes.runtime.progress import sampling_bar

    pipe = pipeline_of(args)
    for name, prompt in PROMPTS.items():
        start = time.monotonic()
        with sampling_bar() as on_step:
            output = pipe(prompt, generator=torch.Generator().manual_seed(args.seed), on_step=on_step)
        path = output.save(args.out / f"{name}.mp4", preview=args.out / f"{name}.preview.png")
        line = describe_film(path, output.frames, output.fps, output.audio is not None)
        print(f'{line}, made in {time.monotonic() - start:.1f} s from "{prompt}"')
    print(f"""
Three films and a preview of each are in {args.out.resolve()}
Next, try:
  cinepoet generate "a yellow star spins on a dark plain background" --preview --out star.mp4
  cinepoet generate --help    pictures, films and sounds as input
  cinepoet reconstruct --help what the tokenizers keep of your own media
  cinepoet models             what the model consists of""")
    return 0
