"""``cinepoet evaluate superres``: super-resolution beside bicubic, Lanczos and its ceiling."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from recipes.terminal.options import (
    add_every_file,
    add_held_out,
    add_model,
    add_networks,
    add_seed,
    check_media,
    number,
)
from recipes.terminal.report import check_folder, pipeline_of

SUMMARY = "super-resolution beside bicubic, Lanczos and its ceiling; made-up scenes, --media, or both"
EXAMPLES = """\
  cinepoet evaluate superres --media my_clips --squeezenet squeezenet_v1_0.npz --steps 4 8 12 24 --out results
"""
_FILM_FRAMES = 41  # of the films whose seams are measured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_model(parser)
    add_seed(parser)
    add_held_out(parser, scenes=50)
    add_every_file(parser)
    parser.add_argument("--to", type=number(int, 1), metavar="PX", help="side of the result (default: the model's)")
    parser.add_argument(
        "--films", type=number(int, 0), default=4, metavar="N", help="films of 41 frames, for seams (default: 4)"
    )
    parser.add_argument("--steps", type=number(int, 1), nargs="+", metavar="N", help="compare decoding steps")
    parser.add_argument("--batch-size", type=number(int, 1), default=4, metavar="N", help="clips at once (default: 4)")
    add_networks(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="receives the figures as JSON, a sheet and a plot")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    check_media(args)
    check_folder(args.out)
    from recipes.evaluate.backbones import load_backbones
    from recipes.evaluate.contract import subject_named
    from recipes.evaluate.held_out import drawn_clips, film_clips, kept_out
    from recipes.evaluate.superres import evaluate_superres
    from recipes.runtime.memory import keep_freed_memory

    keep_freed_memory()
    pipe = pipeline_of(args)
    config = pipe.config
    networks = load_backbones(squeezenet=args.squeezenet, vgg=args.vgg, lpips=args.lpips, i3d=args.i3d)
    size = min(pipe.plan_film((config.size, config.size), to=args.to)[-1].high)  # refuses sizes before the work
    sets, films = {}, {}
    if args.media is None or args.scenes is not None:
        sets["shapes"] = drawn_clips(args.scenes or 50, size=size, num_frames=config.num_frames, captioned=True)
        if args.films:
            films["shapes"] = drawn_clips(args.films, size=size, num_frames=_FILM_FRAMES, captioned=True)
    if args.media is not None:
        files = kept_out(args.media, args.media_list, every_file=args.every_file)
        sets["real"] = film_clips(files, size=size, num_frames=config.num_frames, fps=config.fps)
        if args.films:
            few = replace(files, paths=files.paths[: args.films])
            films["real"] = film_clips(few, size=size, num_frames=_FILM_FRAMES, fps=config.fps, most=1)
    result = evaluate_superres(
        subject_named(args.model),
        pipe,
        sets,
        films=films,
        steps=tuple(args.steps or ()),
        to=args.to,
        seed=args.seed,
        batch_size=args.batch_size,
        networks=networks,
        folder=args.out,
    )
    result.tell(args.out)
    return 0
