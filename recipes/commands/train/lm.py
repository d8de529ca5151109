"""``cinepoet train lm``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recipes.runtime.config import CONFIGS
from recipes.terminal.options import add_training
from recipes.terminal.report import join_training, note, tell_config

SUMMARY = "a language model on token shards"
EXAMPLES = """\
  cinepoet train lm --data runs/shards --out runs/lm          # shards of cinepoet prepare
  cinepoet train lm --data runs/fine --init runs/lm/model --out runs/adapted steps=2000   # task adaptation
  torchrun --nproc-per-node 8 -m recipes.cli train lm --config recipes/configs/lm_8b.yaml --data ... sharded=true
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_training(parser, out="runs/lm")
    parser.add_argument(
        "--data", type=Path, nargs="+", metavar="FOLDER", help="token shards (make them with cinepoet prepare)"
    )
    parser.add_argument("--tokenizer", default="tiny", metavar="MODEL", help="that of the shards (default: tiny)")
    for part in ("visual", "audio"):
        parser.add_argument(f"--{part}", metavar="M", help=f"{part} tokenizer of the shards (default: --tokenizer's)")
    parser.add_argument(
        "--text", metavar="MODEL", help="text encoder, or a folder of cinepoet embed (default: that of --tokenizer)"
    )
    parser.add_argument("--init", metavar="MODEL", help="weights or a model that go on, or a Qwen3 or Llama")


def run(args: argparse.Namespace) -> int:
    """Train a language model on token shards."""
    from dataclasses import replace
    from functools import partial

    from mmtok.files import write_atomically
    from mmtok.loading import part_folder
    from mmtok.pretrained import resolve_folder
    from mmtok.visual.holistic import is_holistic
    from recipes.bundle.assemble import tell_clips
    from recipes.bundle.named import chosen_part, load_tokenizers
    from recipes.loop.tracking import choose_tracker
    from recipes.runtime.config import load_config
    from recipes.runtime.records import same_data
    from recipes.tokens.caption_vectors import caption_lookup
    from recipes.tokens.lm_batches import clip_kinds, shard_data
    from recipes.tokens.plan import STRUCTURE
    from recipes.tokens.reader import TokenShards
    from recipes.train.lm import LMTrainConfig, describe_mixture, lm_config, mixture, train_lm

    if not args.data:
        raise ValueError("lm trains on token shards: --data FOLDER (make one with cinepoet prepare)")
    choose_tracker(args.track)
    config: Any = load_config(LMTrainConfig, args.config or CONFIGS / "lm_tiny.yaml", args.changes)
    shards = TokenShards.open(*args.data)
    heard = args.audio if shards.info.audio else "none"
    chosen = load_tokenizers(args.tokenizer, "cpu", visual=args.visual, audio=heard)
    visual, audio = chosen.visual, chosen.audio
    if visual is None:
        raise ValueError(f"lm needs the visual tokenizer of its shards, and {chosen.source} has none; see --visual")
    text = args.text or chosen_part("text", None, args.tokenizer)
    if text is None:
        raise ValueError(f"{args.tokenizer} has no text encoder; name one with --text")
    shards.info.require(visual, audio, where=", ".join(str(folder) for folder in args.data))
    vocabulary = shards.info.vocabulary
    config = replace(config, visual_codes=vocabulary.visual_codes, audio_codes=vocabulary.audio_codes)
    sizes, durations = clip_kinds(shards, sizes=config.sizes, durations=config.durations)
    data = shard_data(shards, sizes=sizes, durations=durations, sources=config.sources)
    told = describe_mixture(config, mixture(config, data, vocabulary))  # raises before captions are read
    sized = any(word.startswith("size=") for word in args.changes)
    start_from = None if args.init is None else part_folder(args.init, "lm")
    compute, ranks = join_training(args)
    out = args.out
    tell_config(config, out, ranks)
    captions, text_dim, cut = caption_lookup(text, data.captions, config.text_slots, compute.device)
    same_data(out, [f"shards {shards.fingerprint}", f"text {args.text or resolve_folder(args.tokenizer)}"], ranks)
    if ranks.is_main:
        if cut:
            of = f"{cut} of {len(data.captions)} captions"
            note(f"{of} are longer than {config.text_slots} tokens; their ends are left out")
        write_atomically(out / "mixture.txt", told)
        if not is_holistic(visual):  # whose tokens have no size
            structure = shards.info.conditions.get(STRUCTURE, {})
            tell_clips(out, sizes, durations, stride=visual.stride, structure=structure)
        print(told)
    vectors = (_code_vectors(visual), None if audio is None else _code_vectors(audio))
    model = train_lm(
        config,
        out,
        data=data,
        captions=captions,
        text_dim=text_dim,
        compute=compute,
        code_vectors=vectors,
        start=None
        if start_from is None
        else partial(_start, start_from, lm_config(config, data, text_dim), vectors, config.seed, sized=sized),
        ranks=ranks,
    )
    if ranks.is_main:
        print(f"{model}: ready; its curves are in {out / 'curves.png'}")
    return 0


def _start(folder: Path, wanted: Any, code_vectors: tuple[Any, Any], seed: int, *, sized: bool) -> Any:
    """A trained language model, that of a bundle, or a new one with the body of a text model."""
    import json
    from dataclasses import replace

    import torch

    from llm.convert.qwen3 import body_sizes, warm_start
    from llm.init_from_codes import start_from_code_vectors
    from llm.model import FAMILY, PrefixLM

    if json.loads((folder / "config.json").read_text()).get("family") == FAMILY:
        model = PrefixLM.from_pretrained(folder)
        _require_size(model.config, wanted, folder, sized=sized)
        return model
    there = replace(wanted, **body_sizes(folder))
    _require_size(there, wanted, folder, sized=sized)
    torch.manual_seed(seed)
    model = PrefixLM(there)
    start_from_code_vectors(model, *code_vectors, generator=torch.Generator().manual_seed(seed))
    for line in (taken := warm_start(model, folder)).notes:
        note(f"{taken.source}: {line}")
    return model


def _require_size(there: Any, wanted: Any, folder: Path, *, sized: bool) -> None:
    names = ("dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "hidden_dim")
    other = [f"{n} {getattr(there, n)}" for n in names if getattr(there, n) != getattr(wanted, n)]
    if sized and other:
        raise ValueError(f"{folder} is of another size ({', '.join(other)}), which stays; leave size=... out")


def _code_vectors(tokenizer: Any) -> Any:
    """What a tokenizer knows about its codes, or None when it tells nothing."""
    from mmtok.contract import HasCodeVectors

    return tokenizer.code_vectors() if isinstance(tokenizer, HasCodeVectors) else None
