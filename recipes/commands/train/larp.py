"""``cinepoet train larp`` and ``cinepoet train larp-ar``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recipes.runtime.config import CONFIGS
from recipes.terminal.report import join_training, tell_config


def run_larp(args: argparse.Namespace) -> int:
    """Train LARP's tokenizer, or a generator on the codes of one.

    Args:
        args: of ``cinepoet train``.

    Returns:
        The exit code.

    Raises:
        ValueError: for options that these trainings do not take, or a missing tokenizer.
    """
    from recipes.runtime.config import load_config
    from recipes.train.larp import LarpTrainConfig
    from recipes.train.larp_ar import LarpARTrainConfig

    speaks = args.preset == "larp-ar"
    if args.stages is not None:
        raise ValueError(f"{args.preset} has one stage; leave --stages out")
    if speaks and args.media_list is not None:
        raise ValueError("larp-ar takes every film below --media; leave --media-list out")
    if speaks != (args.tokenizers is not None):
        raise ValueError(
            "larp-ar needs the LARP tokenizer whose codes it shall speak: --tokenizers FOLDER"
            if speaks
            else "larp trains a tokenizer; start from another one with init=FOLDER instead of --tokenizers"
        )
    cls: Any = LarpARTrainConfig if speaks else LarpTrainConfig
    config = load_config(
        cls, args.config or CONFIGS / ("larp_ar_tiny.yaml" if speaks else "larp_tiny.yaml"), args.changes
    )
    compute, ranks = join_training(args)
    if speaks and ranks.world > 1:
        raise ValueError("larp-ar trains in one process")
    out = args.out or Path("runs") / args.preset.replace("-", "_")
    tell_config(config, out, ranks)
    model = _generator(config, args, out, compute) if speaks else _tokenizer(config, args, out, compute, ranks)
    if ranks.is_main:
        print(f"{model}: ready; its curves are in {out / 'curves.png'}")
    return 0


def _tokenizer(config: Any, args: argparse.Namespace, out: Path, compute: Any, ranks: Any) -> Path:
    """Train the tokenizer on real clips where a folder is given, else on the corpus."""
    from recipes.corpora.folder import MediaFolder, clip_pool
    from recipes.corpora.shapes import ShapesCorpus
    from recipes.corpora.sources import MixedClips, WholeScenes
    from recipes.train.larp import larp_params, train_larp

    corpus = ShapesCorpus(0, "train")
    source: Any = WholeScenes(corpus)
    if args.media is not None:
        params = larp_params(config)
        films = MediaFolder.open(args.media, args.media_list).train_video
        real = clip_pool(films, size=params.size + 16, num_frames=params.num_frames, fps=params.fps)
        if not len(real):
            raise ValueError(f"{args.media} holds no clips to train on")
        source = MixedClips(corpus, real, real_share=1.0, pool=1)
    return train_larp(config, out, clip_source=source, compute=compute, ranks=ranks)


def _generator(config: Any, args: argparse.Namespace, out: Path, compute: Any) -> Path:
    """Encode once, train, and put the tokenizer beside the generator."""
    import mmtok
    from mmtok.files import write_atomically
    from mmtok.visual.larp import Larp
    from recipes.bundle.named import TOKENIZER_FOLDER
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
    from recipes.train.larp_ar import train_larp_ar

    tokenizer = mmtok.load(args.tokenizers, device=compute.device)
    if not isinstance(tokenizer, Larp):
        raise ValueError(f"{args.tokenizers} is not a LARP tokenizer")
    if args.media is None and config.clips is None:
        raise ValueError("the corpus is endless; give clips=N")
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
    return model
