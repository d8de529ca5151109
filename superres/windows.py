"""Axis-aligned windows over token grids, and the low-resolution windows that lie under them.

VideoPoet (Kondratyuk et al. 2023, section 3.3 and appendix A.5.2): the layers of a multi-axis block attend
inside windows that follow the vertical, the horizontal and the temporal axis in turn. Windows tile the grid
exactly, so cutting is a reshape: nothing is shifted or padded.

Sizes are ordered time, height, width. Letters: b batch, t h w grid, d width, n tokens of one window.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

Size = tuple[int, int, int]
Windows = tuple[Size, Size, Size]

AXES = ("vertical", "horizontal", "temporal")

# High-resolution grid -> its three windows. The portrait grids are the published stages 1 and 2 (448 x 256 and
# 896 x 512 pixels, 8 a token); the square ones, of 128 to 1,024 pixels, keep windows of about the same number of
# tokens, as far as the grid has that many.
WINDOWS: dict[Size, Windows] = {
    (5, 56, 32): ((1, 56, 4), (1, 8, 32), (5, 8, 8)),
    (5, 112, 64): ((1, 112, 2), (1, 4, 64), (5, 8, 8)),
    (5, 16, 16): ((1, 16, 8), (1, 8, 16), (5, 8, 8)),
    (5, 32, 32): ((1, 32, 8), (1, 8, 32), (5, 8, 8)),
    (5, 64, 64): ((1, 64, 4), (1, 4, 64), (5, 8, 8)),
    (5, 128, 128): ((1, 128, 2), (1, 2, 128), (5, 8, 8)),
}
MOST_ACROSS = 8  # tokens that a window covers across its axis, at most
MOST_IN_SLICE = 256  # tokens of a vertical or horizontal window, at most


def low_size(size: Size) -> Size:
    """The low-resolution grid or window under a high-resolution one: half as high and wide, as long in time.

    Args:
        size: (t, h, w) in high-resolution tokens.

    Returns:
        (t, h / 2, w / 2) in low-resolution tokens, the same pixels.

    Raises:
        ValueError: if the height or the width is odd.
    """
    t, h, w = size
    if h % 2 or w % 2:
        raise ValueError(f"height and width of {size} must be even: one low-resolution token lies under 2 x 2")
    return t, h // 2, w // 2


def fit_window(window: Size, grid: Size) -> Size:
    """``window`` cut down to the extent of a smaller grid.

    A model meets grids shorter than its own (one image has t = 1); its windows then end where the grid ends.

    Args:
        window: (t, h, w) tokens of one window.
        grid: (t, h, w) tokens.

    Returns:
        The axis-wise smaller of both.

    Raises:
        ValueError: if the result does not tile ``grid``.
    """
    fitted: Size = (min(window[0], grid[0]), min(window[1], grid[1]), min(window[2], grid[2]))
    _require_tiling(fitted, grid)
    return fitted


def _require_tiling(window: Size, grid: Size) -> None:
    if any(size < 1 for size in window) or any(g % size for g, size in zip(grid, window, strict=True)):
        raise ValueError(f"windows of {window} tokens do not tile the grid {grid}; every side must divide its side")


def windows_for(grid: Size) -> Windows:
    """The three windows of a high-resolution grid: the listed ones, or others made like them.

    The vertical and the horizontal window lie in one slice, run along the whole of their axis, and are across it as
    wide as tiles the grid with at most 8 tokens there and 256 in the window. The temporal window takes all slices of
    at most 8 x 8 tokens: (5, 8, 8) for 17 pictures, (11, 8, 8) for 41. For the listed grids this gives what is listed.

    Args:
        grid: (t, h, w) tokens.

    Returns:
        The vertical, the horizontal and the temporal window.

    Raises:
        ValueError: for an odd height or width, or a side of more than 128 tokens.
    """
    if grid in WINDOWS:
        return WINDOWS[grid]
    low_size(grid)
    t, h, w = grid
    if 2 * max(h, w) > MOST_IN_SLICE:
        raise ValueError(
            f"no windows are known for the grid {grid}: along a side of {max(h, w)} tokens one holds more than "
            f"{MOST_IN_SLICE}; known: {', '.join(str(g) for g in WINDOWS)}; or give windows that tile it"
        )
    vertical = (1, h, _even_divisor(w, MOST_IN_SLICE // h))
    horizontal = (1, _even_divisor(h, MOST_IN_SLICE // w), w)
    return vertical, horizontal, (t, _even_divisor(h, MOST_ACROSS), _even_divisor(w, MOST_ACROSS))


def _even_divisor(side: int, most: int) -> int:
    """The largest even divisor of an even side that is at most ``most`` and ``MOST_ACROSS``."""
    return max(size for size in range(2, min(most, MOST_ACROSS, side) + 1, 2) if side % size == 0)


def partition(x: Tensor, window: Size) -> Tensor:
    """Cut a grid of vectors into windows, both in raster order.

    Args:
        x: (b, t, h, w, d).
        window: (t, h, w) tokens of one window.

    Returns:
        (b, windows, n, d).

    Raises:
        ValueError: if the windows do not tile the grid.
    """
    _require_tiling(window, (x.shape[1], x.shape[2], x.shape[3]))
    wt, wh, ww = window
    return rearrange(x, "b (t wt) (h wh) (w ww) d -> b (t h w) (wt wh ww) d", wt=wt, wh=wh, ww=ww)


def merge_windows(windows: Tensor, window: Size, grid: Size) -> Tensor:
    """Put windows back into their grid; undoes ``partition``.

    Args:
        windows: (b, windows, n, d).
        window: (t, h, w) tokens of one window.
        grid: (t, h, w) tokens of the whole.

    Returns:
        (b, t, h, w, d).

    Raises:
        ValueError: if the windows do not tile the grid.
    """
    _require_tiling(window, grid)
    wt, wh, ww = window
    t, h, w = grid[0] // wt, grid[1] // wh, grid[2] // ww
    pattern = "b (t h w) (wt wh ww) d -> b (t wt) (h wh) (w ww) d"
    return rearrange(windows, pattern, t=t, h=h, w=w, wt=wt, wh=wh, ww=ww)
