"""Published language models as ours; the counterpart of ``mmtok.convert``."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from torch import Tensor

FAMILIES = ("larp-ar", "larp-ar-fp")
WEIGHTS_LICENCE = "MIT"  # of both


def identify(state_dict: Container[str]) -> str | None:
    """Family of published weights, by their names.

    Args:
        state_dict: published names, or a table with them as keys.

    Returns:
        One of ``FAMILIES``, or None.
    """
    if "abs_pe" not in state_dict or "layers.0.attention.wqkv.weight" not in state_dict:
        return None
    return "larp-ar" if "cls_embedding.embedding_table.weight" in state_dict else "larp-ar-fp"


def from_upstream(family: str, state_dict: Mapping[str, Tensor], config: dict[str, Any] | None = None) -> Any:
    """Build our module from published weights.

    Args:
        family: one of ``FAMILIES``.
        state_dict: published name to tensor.
        config: the published config.json; None reads the sizes off the shapes.

    Returns:
        The model in eval mode, float32.

    Raises:
        ValueError: for an unknown family, or weights that do not fit.
    """
    from llm.convert.larp_ar import from_upstream as build
    from mmtok.convert import told_config

    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; known: {', '.join(FAMILIES)}")
    found = identify(state_dict)
    if found not in (None, family):
        raise ValueError(f"these weights are {found}, not {family}")
    with told_config(family):
        return build(dict(state_dict), config)
