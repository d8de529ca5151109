"""Grids larger than a model's, in overlapping tiles, and the stages of a cascade.

Positions are learned for one grid, so a larger picture is not one larger grid but several of the model's own. Tiles go
row by row; each keeps the codes that its neighbours above and to the left have made where it overlaps them, as films
keep the end of the window before. Only height and width are cut: what a model takes in time is one window of a film.

Letters: b batch, t h w tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from llm.sampling import Generators
from superres.config import SuperResConfig
from superres.model import SuperResTransformer
from superres.sample import Decoding, sample

SHARED = 0.25  # of a tile's side that it shares with the tile before, at least


@dataclass(frozen=True)
class TileCut:
    """One axis of a grid in tiles.

    Attributes:
        starts: first token of each tile, even, so that half of it is a place in the low-resolution grid.
        length: tokens of a tile.
    """

    starts: tuple[int, ...]
    length: int

    @property
    def joints(self) -> tuple[int, ...]:
        """Tokens at which the codes of another tile begin."""
        return tuple(start + self.length for start in self.starts[:-1])


def cut_axis(side: int, *, most: int, windows: tuple[int, ...]) -> TileCut:
    """Tiles of one axis, as large as the model takes them."""
    if side < 2 or side % 2:
        raise ValueError(f"{side} tokens cannot be doubled from half as many; a side must be even")
    fitting = range(min(side, most) // 2 * 2, 0, -2)
    length = next(n for n in fitting if all(n % min(window, n) == 0 for window in windows))
    if length == side:
        return TileCut((0,), side)
    step = max(2, length - 2 * round(length * SHARED / 2))
    count = -(-(side - length) // step)
    return TileCut(tuple(min(i * step, side - length) for i in range(count + 1)), length)


def cut_grid(config: SuperResConfig, size: tuple[int, int]) -> tuple[TileCut, TileCut]:
    """Tiles of a picture's grid.

    Args:
        config: of the model.
        size: (h, w) high-resolution tokens.

    Returns:
        Cuts of the height and of the width.

    Raises:
        ValueError: if a side is odd or not positive.
    """
    high, wide = (
        cut_axis(size[axis - 1], most=config.grid[axis], windows=tuple(window[axis] for window in config.windows))
        for axis in (1, 2)
    )
    return high, wide


def sample_grid(
    model: SuperResTransformer,
    low: Tensor,
    text: Tensor | None = None,
    text_mask: Tensor | None = None,
    *,
    decoding: Decoding,
    pinned: Tensor | None = None,
    generator: Generators = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """High-resolution codes of a grid of any height and width; ``sample`` itself where the model takes it whole.

    Args:
        model: the transformer, in eval mode.
        low: (b, t, h, w) low-resolution codes.
        text: (b, n, d) text embeddings, or None for no text.
        text_mask: (b, n) bool, or None for everywhere.
        decoding: steps, guidance and temperatures.
        pinned: (b, t', 2h, 2w) codes of the leading slices, kept as they are, or None.
        generator: as of ``sample``.
        on_step: called with (steps done, steps in all), those of all tiles.

    Returns:
        (b, t, 2h, 2w) int64 codes.

    Raises:
        ValueError: if the grid is longer than the model's, or ``pinned`` does not fit.
    """
    if low.ndim != 4:
        raise ValueError(f"low must have shape (b, t, h, w), got {tuple(low.shape)}")
    b, t, h, w = low.shape
    codes = torch.zeros(b, t, 2 * h, 2 * w, dtype=torch.int64, device=low.device)
    known = torch.zeros_like(codes, dtype=torch.bool)
    if pinned is not None:
        if pinned.shape[0] != b or pinned.shape[1] > t or pinned.shape[2:] != codes.shape[2:]:
            raise ValueError(f"pinned must lead codes of {tuple(codes.shape)}, got {tuple(pinned.shape)}")
        codes[:, : pinned.shape[1]], known[:, : pinned.shape[1]] = pinned, True
    rows, columns = cut_grid(model.config, (2 * h, 2 * w))
    tiles = [(top, left) for top in rows.starts for left in columns.starts]
    for number, (top, left) in enumerate(tiles):
        here = (..., slice(top, top + rows.length), slice(left, left + columns.length))
        below = (..., slice(top // 2, (top + rows.length) // 2), slice(left // 2, (left + columns.length) // 2))
        codes[here] = sample(
            model,
            low[below],
            text,
            text_mask,
            **dataclasses.asdict(decoding),
            pinned=codes[here],
            pinned_mask=known[here],
            generator=generator,
            on_step=None if on_step is None else _counted(on_step, number, len(tiles)),
        )
        known[here] = True
    return codes


def _counted(on_step: Callable[[int, int], None], number: int, count: int) -> Callable[[int, int], None]:
    """Steps of one tile as steps of all."""
    return lambda done, of: on_step(number * of + done, count * of)
