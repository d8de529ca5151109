"""``cinepoet evaluate superres``: super-resolution beside bicubic, Lanczos and its ceiling."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from recipes.terminal.options import (
    add_every_file,
    add_held_out,
    add_model,
    add_networks,
    add_seed,
    number,
    require_media,
)
from recipes.terminal.report import check_folder, compute_of

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
    require_media(args)
    if args.out is not None:
        check_folder(args.out)
    import torch

    from recipes.bundle.folder import open_bundle
    from recipes.corpora.folder import MediaFolder, clip_pool
    from recipes.corpora.shapes import ShapesCorpus, render_video
    from recipes.evaluate.backbones import load_backbones
    from recipes.evaluate.held_out import Material
    from recipes.evaluate.superres import evaluate_superres
    from recipes.pipeline.cinepoet import CinePoetPipeline
    from recipes.runtime.memory import keep_freed_memory

    keep_freed_memory()
    pipe = CinePoetPipeline(open_bundle(args.model), compute_of(args))
    config = pipe.config
    backbones = load_backbones(squeezenet=args.squeezenet, vgg=args.vgg, lpips=args.lpips, i3d=args.i3d)
    size = min(pipe.plan_film((config.size, config.size), to=args.to)[-1].high)  # refuses sizes before the work
    most = args.films
    sets, films = {}, {}
    if args.media is None or args.scenes is not None:
        corpus, count = ShapesCorpus(0, "heldout"), args.scenes or 50
        scenes = tuple(corpus.scene(i) for i in range(max(count, most)))

        def drawn(number: int, frames: int) -> Any:
            clips = [render_video(s, size=size, num_frames=frames) for s in scenes[:number]]
            return ((torch.stack(clips) + 1) * 127.5).round().to(torch.uint8)

        told = "held-out scenes of corpus shapes at 8 fps, their captions as prompts"
        sets["shapes"] = Material(drawn(count, config.num_frames), told, scenes[:count])
        if most:
            films["shapes"] = Material(drawn(most, _FILM_FRAMES), told, scenes[:most])
    if args.media is not None:
        folder = MediaFolder.open(args.media, args.media_list)
        files = folder.measure_video + (folder.train_video if args.every_file else ())
        if not files:
            raise ValueError(
                f"{args.media} has no film that is kept out (every third one is); name some in --media-list, "
                "or take all with --every-file"
            )
        told = (
            f"windows of {len(files)} files {'in the folder' if args.every_file else 'kept out of training'}, "
            f"{config.fps:g} fps, shorter side resized (bicubic, antialiased), centre crop, 8 bits, no prompt"
        )
        sets["real"] = Material(clip_pool(files, size=size, num_frames=config.num_frames, fps=config.fps), told)
        if most:
            long = clip_pool(files[:most], size=size, num_frames=_FILM_FRAMES, clips_per_file=1, fps=config.fps)
            films["real"] = Material(long, told)
    result = evaluate_superres(
        pipe,
        sets,
        films=films,
        steps=tuple(args.steps or ()),
        to=args.to,
        seed=args.seed,
        batch_size=args.batch_size,
        backbones=backbones,
        folder=args.out,
    )
    print(json.dumps(result, indent=1))
    return 0
