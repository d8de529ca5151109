"""``cinepoet train larp-ar``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recipes.runtime.config import CONFIGS
from recipes.terminal.options import add_training
from recipes.terminal.report import join_training, tell_config

SUMMARY = "a LARP generator on the codes of a LARP tokenizer, by class or by first frames"
EXAMPLES = """\
  cinepoet train larp-ar --tokenizer runs/larp/model --out runs/larp_ar                          # by class
  cinepoet train larp-ar --tokenizer runs/larp/model frame_prediction=true --out runs/larp_fp    # goes on from frames
  cinepoet generate --model runs/larp_ar/model --class "star spins" --out star.mp4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_training(parser, out="runs/larp_ar")
    parser.add_argument("--tokenizer", metavar="FOLDER", help="the LARP tokenizer whose codes it speaks")
    parser.add_argument(
        "--media", type=Path, metavar="FOLDER", help="films whose folders are their classes (without: corpus shapes)"
    )


def run(args: argparse.Namespace) -> int:
    """Encode once, train, and put the tokenizer beside the generator."""
    import mmtok
    from mmtok.files import write_atomically
    from mmtok.visual.larp import Larp
    from recipes.bundle.named import TOKENIZER_FOLDER
    from recipes.loop.tracking import choose_tracker
    from recipes.runtime.config import load_config
    from recipes.tokens.identity import weights_hash
    from recipes.tokens.larp_codes import (
        SHAPES_CLASSES,
        LarpCodes,
        encode_clips,
        folder_classes,
        folder_clips,
        folder_films,
        shapes_clips,
    )
    from recipes.train.larp_ar import LarpARTrainConfig, train_larp_ar

    if args.tokenizer is None:
        raise ValueError("larp-ar needs the LARP tokenizer whose codes it shall speak: --tokenizer FOLDER")
    if args.media is not None and not args.media.is_dir():
        raise FileNotFoundError(f"media folder {args.media} does not exist")
    choose_tracker(args.track)
    config: Any = load_config(LarpARTrainConfig, args.config or CONFIGS / "larp_ar_tiny.yaml", args.changes)
    compute, ranks = join_training(args)
    if ranks.world > 1:
        raise ValueError("larp-ar trains in one process")
    out = args.out
    tokenizer = mmtok.load(args.tokenizer, device=compute.device)
    if not isinstance(tokenizer, Larp):
        raise ValueError(f"{args.tokenizer} is not a LARP tokenizer")
    if args.media is None and config.clips is None:
        raise ValueError("the corpus is endless; give clips=N")
    tell_config(config, out, ranks)
    data = "corpus shapes" if args.media is None else str(args.media.resolve())
    names = ("clips", "windows", "frame_prediction", "given_frames", "seed")
    told = ", ".join(f"{name} {getattr(config, name)}" for name in names)
    made_from = f"tokenizer {weights_hash(tokenizer)}\n{data}\n{told}\n"
    file, record = out / "codes.safetensors", out / "made_from.txt"
    if record.exists() and record.read_text() != made_from:
        raise ValueError(f"{out} holds codes of other clips or of another tokenizer; delete it or use another --out")
    if not file.exists():
        if args.media is None:
            count = config.clips
            clips, classes = shapes_clips(tokenizer, first=0, count=count), SHAPES_CLASSES
        else:
            count = config.windows * len(folder_films(args.media))
            count = count if config.clips is None else min(count, config.clips)
            clips = folder_clips(tokenizer, args.media, windows=config.windows, seed=config.seed)
            classes = folder_classes(args.media)
        codes = encode_clips(
            tokenizer,
            clips,
            count=count,
            classes=classes,
            given_frames=config.given_frames if config.frame_prediction else None,
            compute=compute,
            seed=config.seed,
        )
        write_atomically(record, made_from)
        codes.save(file)
    model = train_larp_ar(config, out, data=LarpCodes.load(file), compute=compute)
    tokenizer.without_prior().save_pretrained(model / TOKENIZER_FOLDER)
    print(f"{model}: ready; its curves are in {out / 'curves.png'}")
    return 0
