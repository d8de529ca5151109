"""Renaming a published state dict: patterns, and one message that lists everything that does not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import torch
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


def check_names(tensors: Iterable[str], wanted: Iterable[str], *, family: str, shapes: tuple[str, ...] = ()) -> None:
    """Raise one error with every name that is missing or unknown.

    Args:
        tensors: published names that are there.
        wanted: published names that are needed.
        family: for the message.
        shapes: what else does not fit.

    Raises:
        ValueError: if anything is listed.
    """
    missing, unknown = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or unknown or shapes:
        told = [
            f"{title}: {', '.join(names[:8])}{' and ' + str(len(names) - 8) + ' more' if len(names) > 8 else ''}"
            for title, names in (("missing", missing), ("unknown", unknown), ("misshapen", shapes))
            if names
        ]
        raise ValueError(f"these weights are not {family} of this layout; " + "; ".join(told))


def alike(got: tuple[int, ...], want: tuple[int, ...]) -> bool:
    """Whether weights of one shape fill another: equal, but for axes of length 1 that one of them may leave out."""
    return got == want or (len(got) != len(want) and [n for n in got if n != 1] == [n for n in want if n != 1])


def fill(module: nn.Module, tensors: dict[str, Tensor], to_ours: dict[str, str], *, family: str) -> None:
    """Load published tensors, strictly; faults are told in the published names.

    Args:
        module: receives the tensors, which are brought to its types and, where only a length-1 axis differs, shapes.
        tensors: published name to tensor.
        to_ours: published name to ours, for every name that the module needs.
        family: for the message.

    Raises:
        ValueError: listing the missing, the unknown, the misshapen and those that hold no numbers.
    """
    own = module.state_dict()
    shapes = []
    for name in sorted(set(tensors) & set(to_ours)):
        got, want = tuple(tensors[name].shape), tuple(own[to_ours[name]].shape)
        if not alike(got, want):
            shapes.append(f"{name} is {got}, expected {want}")
        elif not tensors[name].is_floating_point():
            shapes.append(f"{name} holds {tensors[name].dtype}, expected floats")
        elif not bool(torch.isfinite(tensors[name]).all()):
            shapes.append(f"{name} holds values that are not finite")
    check_names(tensors, to_ours, family=family, shapes=tuple(shapes))
    load_strictly(
        module, {to_ours[n]: t.to(own[to_ours[n]].dtype).view_as(own[to_ours[n]]) for n, t in tensors.items()}
    )
