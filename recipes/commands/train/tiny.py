"""``cinepoet train tiny`` and ``cinepoet train smoke``, the same stages with other numbers."""

from __future__ import annotations

import argparse
import shlex

from recipes.runtime.config import CONFIGS
from recipes.terminal.options import add_media, add_training, check_media
from recipes.terminal.report import join_training, tell_config

SUMMARY = "a complete small model, stage by stage (smoke: in under two minutes)"
EXAMPLES = """\
  cinepoet train smoke                                        # every stage in under two minutes, to see it run
  cinepoet train tiny --media my_clips --out runs/tiny        # the embedded default; the same command resumes
  cinepoet train tiny --stages lm,superres,bundle lm.steps=9000 --out runs/tiny
  cinepoet train tiny --tokenizer tiny --out runs/mine        # language model and super-resolution only
  torchrun --nproc-per-node 8 -m recipes.cli train tiny --stages visual,decoder --out runs/tiny   # one GPU each
  cinepoet generate "a red circle" --model runs/tiny/bundle --out film.mp4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_training(parser, out=f"runs/{parser.prog.split()[-1]}")
    parser.add_argument("--stages", metavar="A,B", help="only these, such as visual,tokens (default: all)")
    add_media(parser, "real clips and sounds for the tokenizers")
    parser.add_argument("--tokenizer", metavar="MODEL", help="take what codes media, and text, from this whole model")


def run(args: argparse.Namespace) -> int:
    """Train what is not finished yet."""
    from recipes.bundle.folder import open_bundle
    from recipes.corpora.folder import MediaFolder
    from recipes.loop.tracking import choose_tracker
    from recipes.runtime.config import load_config
    from recipes.train.tiny import STAGES, TOKENIZERS, TinyConfig, plan_stages, same_numbers, train_tiny

    check_media(args)
    choose_tracker(args.track)
    name = args.name[-1]
    file = args.config or CONFIGS / f"{name}.yaml"
    config = load_config(TinyConfig, file, args.changes)
    stages = None if args.stages is None else tuple(s.strip() for s in args.stages.split(",") if s.strip())
    if stages == ():
        raise ValueError(f"--stages names none; known: {', '.join(STAGES)}")
    tokenizers = open_bundle(args.tokenizer) if args.tokenizer is not None else None
    if tokenizers is not None and args.media is not None and not set(stages or ()) & set(TOKENIZERS):
        raise ValueError("--media trains tokenizers and --tokenizer takes finished ones; name in --stages which train")
    compute, ranks = join_training(args)
    stages = plan_stages(config, stages, tokenizers, ranks)
    media = None
    if args.media is not None:
        listing = args.media_list
        if listing is None and config.media_listing is not None:
            listing = file.parent / config.media_listing
        media = MediaFolder.open(args.media, listing)
    same_numbers(config, args.out, stages)  # before the numbers that lie there are overwritten
    tell_config(config, args.out, ranks)
    train_tiny(
        config,
        args.out,
        compute=compute,
        media=media,
        stages=stages,
        name=name,
        tokenizers=tokenizers,
        command=_typed(args),
        ranks=ranks,
    )
    return 0


def _typed(args: argparse.Namespace) -> str:
    """The command again, without what only says where and on what it ran."""
    words = ["cinepoet", *args.name, *args.changes]
    for option in ("config", "media", "media_list", "tokenizer"):
        value = getattr(args, option)
        if value is not None:
            words += ["--" + option.replace("_", "-"), str(value)]
    return shlex.join(words)
