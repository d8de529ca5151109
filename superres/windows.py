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

# High-resolution grid -> its three windows. The portrait grids are the published stages 1 and 2; the square ones
# keep windows of about the same number of tokens, as far as the grid has that many.
WINDOWS: dict[Size, Windows] = {
    (5, 56, 32): ((1, 56, 4), (1, 8, 32), (5, 8, 8)),
    (5, 112, 64): ((1, 112, 2), (1, 4, 64), (5, 8, 8)),
    (5, 16, 16): ((1, 16, 8), (1, 8, 16), (5, 8, 8)),
    (5, 32, 32): ((1, 32, 8), (1, 8, 32), (5, 8, 8)),
    (5, 64, 64): ((1, 64, 4), (1, 4, 64), (5, 8, 8)),
}
SMALL_SQUARE: Size = (5, 16, 16)


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
    """The three windows of a high-resolution grid: listed, or those of square 128 x 128 cut to a smaller grid.

    Args:
        grid: (t, h, w) tokens.

    Returns:
        The vertical, the horizontal and the temporal window.

    Raises:
        ValueError: for a grid that is neither listed nor tiled by the small square's windows.
    """
    if grid in WINDOWS:
        return WINDOWS[grid]
    known = ", ".join(str(g) for g in WINDOWS)
    advice = f"no windows are listed for the grid {grid}; known: {known}; or give windows that tile it"
    if any(size > most for size, most in zip(grid, SMALL_SQUARE, strict=True)):
        raise ValueError(advice)
    try:
        vertical, horizontal, temporal = (fit_window(window, grid) for window in WINDOWS[SMALL_SQUARE])
    except ValueError as fault:
        raise ValueError(advice) from fault
    return vertical, horizontal, temporal


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
