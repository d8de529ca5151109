"""``cinepoet models``: what can be loaded by name, the sizes that can be trained, the families of tokenizers."""

from __future__ import annotations

import argparse
from typing import Any

from recipes.bundle.describe import describe_bundle
from recipes.terminal.report import note

SUMMARY = "list the embedded models, the named sizes and the families"
EXAMPLES = """\
  cinepoet models
  cinepoet models runs/tiny/bundle
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("model", nargs="?", metavar="M", help="only this one: embedded name, folder or hub id")


def run(args: argparse.Namespace) -> int:
    """Print the lists."""
    from mmtok.metrics.table import TABLE as METRICS
    from mmtok.pretrained import known_models
    from mmtok.table import TOKENIZERS
    from recipes.corpora.named import CORPORA

    if args.model is not None:
        print(describe_bundle(args.model))
        return 0
    names = known_models()
    print("embedded models" if names else "embedded models: none (train one with cinepoet train tiny)")
    for name in names:
        print(describe_bundle(name))
    print("\nnamed sizes (millions of parameters)")
    for kind, sizes in named_sizes().items():
        print(f"  {kind:<24}" + ", ".join(f"{name} {count / 1e6:,.1f}" for name, count in sizes.items()))
    print("\nfamilies that mmtok.load can build")
    for name, family in TOKENIZERS.rows().items():
        print(f"  {name:<12} {family.kind:<7} {family.about} ({family.paper})")
        if family.weights or family.hub:
            told = family.weights or "licence not stated"
            print(f"  {'':<12} {'':<7} published weights: {told} ({family.hub or 'cinepoet convert'})")
    print("\ncorpora that cinepoet prepare knows by name")
    for name, corpus in CORPORA.rows().items():
        print(f"  {name:<12} {corpus.about}")
    plugins = [plugin for table in (TOKENIZERS, METRICS, CORPORA) for plugin in table.plugins()]
    if added := [plugin for plugin in plugins if not plugin.fault]:
        print("\nadded by installed packages")
        for plugin in added:
            print(f"  {plugin.name:<12} {plugin.group.partition('.')[2]:<12} {plugin.package}")
    for plugin in plugins:
        if plugin.fault:
            note(plugin.fault)
    return 0


def named_sizes() -> dict[str, dict[str, int]]:
    """Parameters of every named size by kind of model, counted without making the weights."""
    import torch

    import llm.config
    import superres.config
    from llm.larp_ar import SIZES, LarpAR, larp_ar_config
    from llm.model import PrefixLM, count_weights
    from mmtok.table import TOKENIZERS
    from superres.model import SuperResTransformer

    kinds: dict[str, tuple[dict[str, Any], Any]] = {
        name: (family.presets(), family.load_class()) for name, family in TOKENIZERS.rows().items()
    }
    kinds |= {
        "LARP generator": ({n: larp_ar_config(n) for n in SIZES}, LarpAR),
        "LARP frame prediction": ({"LP": larp_ar_config("LP", frame_prediction=True)}, LarpAR),
        "language model": ({n: llm.config.preset(n) for n in llm.config.PRESETS}, PrefixLM),
        "super-resolution": ({n: superres.config.preset(n) for n in superres.config.PRESETS}, SuperResTransformer),
    }
    counts: dict[str, dict[str, int]] = {}
    with torch.device("meta"):
        for kind, (presets, build) in kinds.items():
            if presets:
                counts[kind] = {n: sum(p.numel() for p in build(v).parameters()) for n, v in presets.items()}
    counts["  of it in the layers"] = {n: count_weights(v)["body"] for n, v in kinds["language model"][0].items()}
    return counts
