"""Renaming a published state dict: patterns, and one message that lists everything that does not fit."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor, nn

from mmtok.pretrained import load_strictly

Rule = tuple[str, str | Callable[[re.Match[str]], str]]


def rename(name: str, rules: tuple[Rule, ...]) -> str:
    """Apply every rule in turn.

    Args:
        name: a published name.
        rules: pairs of pattern and replacement, as for ``re.sub``.

    Returns:
        Our name.
    """
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def fill(module: nn.Module, tensors: dict[str, Tensor], to_ours: dict[str, str], *, family: str) -> None:
    """Load published tensors, strictly; faults are told in the published names.

    Args:
        module: receives the tensors, which are brought to its types and, where only a length-1 axis differs, shapes.
        tensors: published name to tensor.
        to_ours: published name to ours, for every name that the module needs.
        family: for the message.

    Raises:
        ValueError: listing the missing, the unknown and the misshapen.
    """
    own = module.state_dict()
    missing = sorted(set(to_ours) - set(tensors))
    unknown = sorted(set(tensors) - set(to_ours))
    shapes = []
    for name in sorted(set(tensors) & set(to_ours)):
        got, want = tuple(tensors[name].shape), tuple(own[to_ours[name]].shape)
        if [n for n in got if n != 1] != [n for n in want if n != 1]:
            shapes.append(f"{name} is {got}, expected {want}")
        elif not tensors[name].is_floating_point():
            shapes.append(f"{name} holds {tensors[name].dtype}, expected floats")
    if missing or unknown or shapes:
        told = [
            f"{title}: {', '.join(names[:8])}{' and ' + str(len(names) - 8) + ' more' if len(names) > 8 else ''}"
            for title, names in (("missing", missing), ("unknown", unknown), ("misshapen", shapes))
            if names
        ]
        raise ValueError(f"these weights are not {family} of this layout; " + "; ".join(told))
    load_strictly(
        module, {to_ours[n]: t.to(own[to_ours[n]].dtype).view_as(own[to_ours[n]]) for n, t in tensors.items()}
    )
