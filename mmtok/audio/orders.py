"""In which order the codes of all residual levels stand in a sequence: pure functions and their inverses.

    level    the whole clip at level 0, then at level 1, ... (VideoPoet, arXiv 2312.14125, 3.1)
    time     all levels of frame 0, then of frame 1, ...     (one flat stream, as in arXiv 2306.05284, figure 1)
    delay    step s holds level q of frame s - q             (MusicGen, arXiv 2306.05284, 2.2)

"delay" is MusicGen's pattern in one stream: t + k - 1 steps of k places each, where the k (k - 1) places before a level
begins and after it has ended are empty and hold ``pad``. Each order puts a level at evenly spaced places, so that one
slice a level says everything: where its codes lie, which ids may stand there, and which position vector they get.

Shape letters: b batch, k levels, t frames, n places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmtok.find import require_known

ORDERS = ("level", "time", "delay")
PAD = -1  # stands for no code; ids take <pad>


def require_order(order: str) -> None:
    """Raise ValueError, with the known ones, unless an order is one of ``ORDERS``."""
    require_known(order, ORDERS, "order of audio codes")


def num_places(order: str, levels: int, frames: int) -> int:
    """Places that a clip takes.

    Args:
        order: one of ``ORDERS``.
        levels: k.
        frames: t.

    Returns:
        n: k * t, and k * (t + k - 1) for "delay".

    Raises:
        ValueError: for an unknown order.
    """
    require_order(order)
    return levels * (frames + levels - 1 if order == "delay" and frames else frames)


def level_places(order: str, level: int, levels: int, frames: int) -> slice:
    """Where the codes of one level stand, first frame first.

    Args:
        order: one of ``ORDERS``.
        level: from 0.
        levels: k.
        frames: t, at least 1.

    Returns:
        A slice of t places with start, stop and step, for an axis of ``num_places``.

    Raises:
        ValueError: for an unknown order.
    """
    require_order(order)
    if order == "level":
        start, step = level * frames, 1
    else:  # a step of "delay" holds one place a level, and each level begins a step later than the one before
        start, step = level * (levels + 1) if order == "delay" else level, levels
    return slice(start, start + (frames - 1) * step + 1, step)


def filled(order: str, levels: int, frames: int) -> Tensor:
    """Which places hold a code; the others are the empty ones of "delay".

    Args:
        order: one of ``ORDERS``.
        levels: k.
        frames: t.

    Returns:
        (n,) bool.

    Raises:
        ValueError: for an unknown order.
    """
    return flatten(torch.ones(1, levels, frames, dtype=torch.int64), order)[0] > 0


def flatten(codes: Tensor, order: str, *, pad: float = PAD) -> Tensor:
    """Put the codes of all levels in one row.

    Args:
        codes: (b, k, t) of any type.
        order: one of ``ORDERS``.
        pad: what empty places hold; outside the range of the codes where they are to be told apart.

    Returns:
        (b, n) of the same type.

    Raises:
        ValueError: for an unknown order or another shape.
    """
    require_order(order)
    if codes.ndim != 3:
        raise ValueError(f"codes must have shape (b, k, t), got {tuple(codes.shape)}")
    b, levels, frames = codes.shape
    flat = codes.new_full((b, num_places(order, levels, frames)), pad)
    for level in range(levels if frames else 0):
        flat[:, level_places(order, level, levels, frames)] = codes[:, level]
    return flat


def unflatten(flat: Tensor, order: str, levels: int, *, pad: float = PAD) -> Tensor:
    """The inverse of ``flatten``.

    Args:
        flat: (b, n).
        order: one of ``ORDERS``.
        levels: k.
        pad: what empty places hold.

    Returns:
        (b, k, t) of the same type.

    Raises:
        ValueError: for an unknown order, a length that no number of frames gives, or empty places that hold a code.
    """
    require_order(order)
    if levels < 1 or flat.ndim != 2 or flat.shape[1] % levels:
        raise ValueError(f"{tuple(flat.shape)} is not a batch of {levels} audio levels of equal length")
    frames = flat.shape[1] // levels
    if order == "delay" and frames:
        frames -= levels - 1
        if frames < 1:
            least = num_places(order, levels, 1)
            raise ValueError(f"{flat.shape[1]} places are too few for {levels} delayed levels, which take {least}")
    if not frames:
        return flat.reshape(flat.shape[0], levels, 0)
    if order == "delay" and bool((flat[:, ~filled(order, levels, frames).to(flat.device)] != pad).any()):
        raise ValueError(f"the empty places of delayed levels must hold {pad}")
    return torch.stack([flat[:, level_places(order, level, levels, frames)] for level in range(levels)], 1)
