"""``cinepoet train larp``."""

from __future__ import annotations

import argparse
from typing import Any

from recipes.runtime.config import CONFIGS
from recipes.terminal.options import add_media, add_training, check_media
from recipes.terminal.report import join_training, tell_config

SUMMARY = "LARP's tokenizer and its prior"
EXAMPLES = """\
  cinepoet train larp --out runs/larp                         # on corpus shapes, an hour
  cinepoet train larp --config recipes/configs/larp_l_long.yaml --media ucf101 --out runs/larp_l_long   # as published
  cinepoet train larp --init runs/larp/model --media my_films --out runs/larp_films                     # goes on
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_training(parser, out="runs/larp")
    add_media(parser, "real clips (without: corpus shapes)")
    parser.add_argument("--init", metavar="FOLDER", help="a trained LARP tokenizer that goes on; the number init")


def run(args: argparse.Namespace) -> int:
    """Train the tokenizer on real clips where a folder is given, else on the corpus."""
    from recipes.corpora.folder import MediaFolder, clip_pool
    from recipes.corpora.shapes import ShapesCorpus
    from recipes.corpora.sources import MixedClips, WholeScenes
    from recipes.loop.tracking import choose_tracker
    from recipes.runtime.config import load_config
    from recipes.runtime.records import same_data
    from recipes.train.larp import LarpTrainConfig, larp_params, train_larp

    check_media(args)
    choose_tracker(args.track)
    # weights that go on need no start; who asks for one all the same is refused
    changes = args.changes if args.init is None else ["local_start=false", *args.changes, f"init={args.init}"]
    config = load_config(LarpTrainConfig, args.config or CONFIGS / "larp_tiny.yaml", changes)
    params = larp_params(config)  # refuses what cannot be gone on from
    compute, ranks = join_training(args)
    corpus = ShapesCorpus(0, "train")
    source: Any = WholeScenes(corpus)
    told = ["corpus shapes"]
    if args.media is not None:
        films = MediaFolder.open(args.media, args.media_list).train_video
        told = [f"film {film}" for film in films]
        real = clip_pool(films, size=params.size + 16, num_frames=params.num_frames, fps=params.fps)
        if not len(real):
            raise ValueError(f"{args.media} holds no clips to train on")
        source = MixedClips(corpus, real, real_share=1.0, pool=1)
    tell_config(config, args.out, ranks)
    same_data(args.out, told, ranks)
    model = train_larp(config, args.out, clip_source=source, compute=compute, ranks=ranks)
    if ranks.is_main:
        print(f"{model}: ready; its curves are in {args.out / 'curves.png'}")
    return 0
