"""Published weights as our modules.

model = mmtok.convert.from_upstream("cosmos-dv", read_checkpoint("autoencoder.jit"))
model.save_pretrained("cosmos-dv4x8x8")          # from then on mmtok.load("cosmos-dv4x8x8")
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtok.pretrained import read_names
from mmtok.table import TOKENIZERS, Published


def known_families() -> list[str]:
    """What ``from_upstream`` can build: names, sorted."""
    return sorted(known.name for _, known in _published())


def _published() -> Iterator[tuple[str, Published]]:
    """Every kind of published weights, with the family that it becomes."""
    for name, family in TOKENIZERS.rows().items():
        yield from ((name, known) for known in family.published)


def identify(state_dict: Container[str]) -> str | None:
    """Family of published weights, by their names.

    Args:
        state_dict: published names, or a table with them as keys.

    Returns:
        One of ``known_families()``, or None.
    """
    return next((known.name for _, known in _published() if any(m in state_dict for m in known.marks)), None)


def from_upstream(
    family: str, state_dict: Mapping[str, Tensor], config: dict[str, Any] | None = None, *, ema: bool = True
) -> Any:
    """Build our module from published weights.

    Args:
        family: one of ``known_families()``.
        state_dict: published name to tensor.
        config: the upstream constructor's arguments; None reads the sizes off the shapes.
        ema: take the running average of the weights where the file has one beside them (Open-MAGVIT2).

    Returns:
        A tokenizer of ``mmtok.contract`` in eval mode, float32.

    Raises:
        ValueError: for an unknown family, or weights that do not fit (all missing and unknown names are listed).
    """
    if family in ("larp-ar", "larp-ar-fp"):
        raise ValueError(f"{family} is a generator, not a tokenizer: llm.convert.from_upstream builds it")
    upstream = next((known for _, known in _published() if known.name == family), None)
    if upstream is None:
        raise ValueError(f"unknown family {family!r}; known: {', '.join(known_families())}")
    found = identify(state_dict)
    if found not in (None, family):
        raise ValueError(f"these weights are {found}, not {family}")
    build = importlib.import_module(upstream.module).from_upstream
    options = upstream.options | ({"ema": ema} if upstream.averaged else {})
    with told_config(family):
        return build(dict(state_dict), config, **options)


@contextlib.contextmanager
def told_config(family: str) -> Iterator[None]:
    """Turn what a config of another kind causes into one line.

    Args:
        family: for the message.

    Yields:
        Nothing.

    Raises:
        ValueError: where a key is missing or of another type.
    """
    try:
        yield
    except KeyError as fault:
        raise ValueError(f"this is no config of {family}: it has no {fault}") from fault
    except (TypeError, AttributeError) as fault:
        raise ValueError(f"this is no config of {family}: a value has a wrong type ({fault})") from fault


def published_family(folder: Path) -> str | None:
    """What the published weights in a folder become, without reading them.

    Args:
        folder: as upstream ships it: model.safetensors under published names, with a config.json of upstream's or none.

    Returns:
        A family's name, or None if the folder holds something else.
    """
    names = read_names(folder)
    return next((family for family, known in _published() if any(mark in names for mark in known.marks)), None)


def load_published(folder: Path) -> Any:
    """The tokenizer of a published folder.

    Args:
        folder: see ``published_family``.

    Returns:
        As from ``from_upstream``.

    Raises:
        ValueError: if the weights are of no family known here, or do not fit.
    """
    from mmtok.convert.checkpoints import read_checkpoint

    tensors = read_checkpoint(folder / "model.safetensors")
    found = identify(tensors)
    if found is None:
        raise ValueError(f"{folder} holds weights of no family known here; known: {', '.join(known_families())}")
    config = folder / "config.json"
    return from_upstream(found, tensors, json.loads(config.read_text()) if config.is_file() else None)
