"""``cinepoet train``: a complete small model, a language model, super-resolution, a SoundStream, or LARP."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from recipes.runtime.config import CONFIGS
from recipes.terminal.options import add_device
from recipes.terminal.report import join_training, tell_config

SUMMARY = "train a complete model from nothing, or go on where a training stopped"
EXAMPLES = """\
  cinepoet train smoke                                        # every stage in under two minutes, to see it run
  cinepoet train tiny --media my_clips --out runs/tiny        # the embedded default; the same command resumes
  cinepoet train tiny --stages lm,superres,bundle lm.steps=9000 --out runs/tiny
  cinepoet train tiny --tokenizers tiny --out runs/mine      # language model and super-resolution only
  torchrun --nproc-per-node 8 -m recipes.cli train tiny --stages visual,decoder --out runs/tiny   # one GPU each
  cinepoet generate "a red circle" --model runs/tiny/bundle --out film.mp4
  cinepoet train lm --data runs/shards --out runs/lm          # a language model on shards of cinepoet prepare
  cinepoet train lm --data runs/fine --init runs/lm/model --out runs/adapted steps=2000   # task adaptation
  torchrun --nproc-per-node 8 -m recipes.cli train lm --config recipes/configs/lm_8b.yaml --data ... sharded=true
  cinepoet train superres --media my_films --out runs/superres                  # captions: NAME.txt beside NAME.mp4
  cinepoet train superres --media my_films --init tiny scenes_share=0.3 "sizes=[[128,128],[224,128]]" lr=5e-4
  torchrun --nproc-per-node 8 -m recipes.cli train superres --config recipes/configs/superres_1b.yaml --media films \
    --tokenizers runs/magvit2_base/visual/model --text t5_vectors --out runs/sr1
  cinepoet train soundstream --media my_sounds --out runs/soundstream           # WAV, FLAC, MP3, the sound of films
  cinepoet train soundstream --media speech --init runs/soundstream/model --out runs/speech lr=1e-3    # goes on
  cinepoet train larp --out runs/larp                         # LARP's tokenizer and its prior, an hour
  cinepoet train larp-ar --tokenizers runs/larp/model --out runs/larp_ar        # its class-conditional generator
  cinepoet train larp --config recipes/configs/larp_l_long.yaml --media ucf101 --out runs/larp_l_long   # as published
  cinepoet generate --model runs/larp_ar/model --class "star spins" --out star.mp4
"""
PRESETS = ("tiny", "smoke")
LARP = ("larp", "larp-ar")
SOUNDSTREAM, LM, SUPERRES = "soundstream", "lm", "superres"
ALL = (*PRESETS, LM, SOUNDSTREAM, *LARP, SUPERRES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options.

    Args:
        parser: of the command.
    """
    parser.add_argument("preset", choices=ALL, metavar="|".join(ALL), help="which numbers to start from")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="numbers that differ, such as lm.steps=500")
    parser.add_argument("--config", type=Path, metavar="F.yaml", help="a file instead of the preset's")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="run folder (default: runs/PRESET)")
    parser.add_argument("--stages", metavar="A,B", help="only these, such as visual,tokens (default: all)")
    parser.add_argument(
        "--media",
        type=Path,
        metavar="FOLDER",
        help="real clips and sounds for the tokenizers; for larp-ar films whose folders are their classes; for "
        "superres films of any size (without: corpus shapes)",
    )
    parser.add_argument("--media-list", type=Path, metavar="CSV", help="path,split,licence of the files to use")
    parser.add_argument(
        "--tokenizers",
        "--tokenizer",
        metavar="MODEL",
        help="take the tokenizers that --stages leaves from this model; for lm those of its data (default: tiny); for "
        "larp-ar the LARP tokenizer; for superres that of its pictures, alone or of a model (default: tiny)",
    )
    for part in ("visual", "audio"):
        parser.add_argument(f"--{part}", metavar="M", help=f"lm: {part} tokenizer of the data (default: --tokenizer's)")
    lm = parser.add_argument_group("lm and superres")
    lm.add_argument("--data", type=Path, nargs="+", metavar="FOLDER", help="lm: token shards of cinepoet prepare")
    lm.add_argument(
        "--text", metavar="MODEL", help="text encoder, or a folder of cinepoet embed (default: that of --tokenizers)"
    )
    lm.add_argument(
        "--init",
        metavar="MODEL",
        help="weights or a bundle that go on; for lm also a Qwen3 or Llama to start from, for superres of any grid; "
        "soundstream goes on too",
    )
    lm.add_argument("--captions", type=Path, metavar="F", help="superres: CSV or JSONL with path and caption of films")
    parser.add_argument(
        "--track",
        metavar="NAME",
        help="report to tensorboard, wandb, trackio, ... too (log.jsonl and curves.png are made always)",
    )
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Train.

    Args:
        args: as parsed.

    Returns:
        The exit code.
    """
    if args.media_list is not None and args.media is None:
        raise ValueError("--media-list says which files of --media to use; give --media too")
    if args.media is not None and not args.media.is_dir():
        raise FileNotFoundError(f"media folder {args.media} does not exist")
    if args.captions is not None and args.preset != SUPERRES:
        raise ValueError("--captions is for cinepoet train superres")
    if args.track is not None:
        from recipes.loop.tracking import choose_tracker

        choose_tracker(args.track)
    if args.preset == LM:
        from recipes.commands.train.lm import run_lm

        return run_lm(args)
    if args.preset == SUPERRES:
        from recipes.commands.train.superres import run_superres

        return run_superres(args)
    for option in ("data", "text", "init"):
        if getattr(args, option) is not None and (option, args.preset) != ("init", SOUNDSTREAM):
            also = ", superres and soundstream" if option == "init" else " and superres"
            raise ValueError(f"--{option} is for cinepoet train lm{also}")
    if args.preset in LARP:
        from recipes.commands.train.larp import run_larp

        return run_larp(args)
    if args.preset == SOUNDSTREAM:
        from recipes.commands.train.soundstream import run_soundstream

        return run_soundstream(args)
    from recipes.bundle.folder import open_bundle
    from recipes.runtime.config import load_config
    from recipes.train.tiny import STAGES, TOKENIZERS, TinyConfig, train_tiny

    file = args.config or CONFIGS / f"{args.preset}.yaml"
    config = load_config(TinyConfig, file, args.changes)
    stages = None if args.stages is None else tuple(s.strip() for s in args.stages.split(",") if s.strip())
    if unknown := sorted(set(stages or ()) - set(STAGES)):
        raise ValueError(f"unknown stages {', '.join(unknown)}; known: {', '.join(STAGES)}")
    if stages == ():
        raise ValueError(f"--stages names none; known: {', '.join(STAGES)}")
    tokenizers = open_bundle(args.tokenizers) if args.tokenizers is not None else None
    trained = set(stages or ()) & set(TOKENIZERS)
    if tokenizers is not None and args.media is not None and not trained:
        raise ValueError("--media trains tokenizers and --tokenizers takes finished ones; name in --stages which train")
    compute, ranks = join_training(args)
    media = None
    if args.media is not None:
        from recipes.corpora.folder import MediaFolder

        listing = args.media_list
        if listing is None and config.media_listing is not None:
            listing = file.parent / config.media_listing
        media = MediaFolder.open(args.media, listing)
    out = args.out or Path("runs") / args.preset
    tell_config(config, out, ranks)
    train_tiny(
        config,
        out,
        compute=compute,
        media=media,
        stages=stages,
        name=args.preset,
        tokenizers=tokenizers,
        command=_typed(args),
        ranks=ranks,
    )
    return 0


def _typed(args: argparse.Namespace) -> str:
    """The command again, without what only says where and on what it ran."""
    words = ["cinepoet", "train", args.preset, *args.changes]
    for option in ("config", "media", "media_list", "tokenizers"):
        value = getattr(args, option)
        if value is not None:
            words += ["--" + option.replace("_", "-"), str(value)]
    return shlex.join(words)
