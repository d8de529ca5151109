"""``cinepoet train lm``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recipes.commands.common import join_training, note, tell_config

_CONFIG = Path(__file__).parents[1] / "configs" / "lm_tiny.yaml"


def run_lm(args: argparse.Namespace) -> int:
    """Train a language model on token shards.

    Args:
        args: of ``cinepoet train``.

    Returns:
        The exit code.

    Raises:
        ValueError: for options that this training does not take, or shards that do not fit the tokenizers.
    """
    from dataclasses import replace

    import mmtok
    from llm.model import PrefixLM
    from recipes.bundle import open_bundle
    from recipes.config import load_config
    from recipes.lm_data import CaptionVectors, shard_data
    from recipes.run import same_data, write_atomically
    from recipes.token_shards import TokenShards
    from recipes.train_lm import LMTrainConfig, describe_mixture, mixture, train_lm

    for option in ("stages", "media", "media_list"):
        if getattr(args, option) is not None:
            raise ValueError(f"lm trains on token shards: leave --{option.replace('_', '-')} out and give --data")
    if not args.data:
        raise ValueError("lm trains on token shards: --data FOLDER (make one with cinepoet prepare)")
    config: Any = load_config(LMTrainConfig, args.config or _CONFIG, args.changes)
    tokenizers = open_bundle(args.tokenizers or "tiny")
    shards = TokenShards.open(*args.data)
    visual = mmtok.load(tokenizers.part("visual"))
    audio = mmtok.load(tokenizers.part("audio")) if shards.info.audio else None
    shards.info.require(visual, audio, where=", ".join(str(folder) for folder in args.data))
    vocabulary = shards.info.vocabulary
    config = replace(config, visual_codes=vocabulary.visual_codes, audio_codes=vocabulary.audio_codes)
    data = shard_data(shards, sizes=config.sizes, durations=config.durations, sources=config.sources)
    start = None if args.init is None else PrefixLM.from_pretrained(_language_model(args.init))
    compute, ranks = join_training(args)
    out = args.out or Path("runs") / "lm"
    tell_config(config, out, ranks)
    text = mmtok.load(args.text or tokenizers.part("text"), device=compute.device)
    text.max_length = min(text.max_length, config.text_slots)
    same_data(out, [f"shards {shards.fingerprint}", f"text {args.text or tokenizers.folder}"], ranks)
    if ranks.is_main:
        cut = sum(bool(text.tokenizer.tokenize(caption, text.max_length).cut) for caption in data.captions)
        if cut:
            of = f"{cut} of {len(data.captions)} captions"
            note(f"{of} are longer than {text.max_length} tokens; their ends are left out")
        told = describe_mixture(config, mixture(config, data, vocabulary))
        write_atomically(out / "mixture.txt", told)
        print(told)
    model = train_lm(
        config,
        out,
        data=data,
        captions=CaptionVectors(data.captions, text, slots=config.text_slots),
        text_dim=text.dim,
        compute=compute,
        code_vectors=(_code_vectors(visual), None if audio is None else _code_vectors(audio)),
        start=start,
        ranks=ranks,
    )
    if ranks.is_main:
        print(f"{model}: ready; its curves are in {out / 'curves.png'}")
    return 0


def _language_model(name: str) -> Path:
    """A language model's folder, or that of a bundle."""
    from mmtok.pretrained import resolve_folder
    from recipes.bundle import BUNDLE_FILE, EMBEDDED

    folder = EMBEDDED / name if (EMBEDDED / name / BUNDLE_FILE).is_file() else resolve_folder(name)
    return folder / "lm" if (folder / BUNDLE_FILE).is_file() else folder


def _code_vectors(tokenizer: Any) -> Any:
    """What a tokenizer knows about its codes, or None when it tells nothing."""
    return tokenizer.code_vectors() if hasattr(tokenizer, "code_vectors") else None
