"""superres/windows.py: windows tile their grids, and low windows lie under high ones."""

import pytest
import torch

from superres import windows
from superres.windows import (
    AXES,
    WINDOWS,
    fit_window,
    low_size,
    merge_windows,
    partition,
    windows_for,
)

CASES = [(grid, window) for grid, windows in WINDOWS.items() for window in windows]


@pytest.mark.parametrize(("grid", "window"), CASES)
def test_windows_tile_the_grid_and_merge_back(grid, window):
    cells = torch.arange(2 * grid[0] * grid[1] * grid[2]).view(2, *grid, 1)
    cut = partition(cells, window)
    assert cut.shape[2] == window[0] * window[1] * window[2]
    assert cut[0].flatten().sort().values.equal(cells[0].flatten()), "every token lies in exactly one window"
    assert merge_windows(cut, window, grid).equal(cells)


@pytest.mark.parametrize(("grid", "window"), CASES)
def test_low_window_i_covers_the_pixels_of_high_window_i(grid, window):
    """Rectangles in high-resolution pixels of 8 x 8 a token: (first row, end row, first column, end column, t)."""

    def boxes(size, pixels_per_token, window):
        t, h, w = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
        cells = torch.stack((h, h + 1, w, w + 1), -1) * pixels_per_token
        cells = partition(torch.cat((cells, t[..., None], t[..., None] + 1), -1)[None], window)[0]
        return torch.cat((cells.amin(1)[:, ::2], cells.amax(1)[:, 1::2]), 1)

    high, low = boxes(grid, 8, window), boxes(low_size(grid), 16, low_size(window))
    assert high.equal(low)


def test_published_stages_have_the_published_token_counts():
    counts = {
        (5, 56, 32): [(224, 40), (256, 35), (320, 28)],
        (5, 112, 64): [(224, 160), (256, 140), (320, 112)],
    }
    for grid, expected in counts.items():
        shapes = [partition(torch.zeros(1, *grid, 1), window).shape for window in windows_for(grid)]
        assert [(shape[2], shape[1]) for shape in shapes] == expected


def test_partition_matches_slow_slices():
    x = torch.randn(2, 4, 6, 8, 3)
    wt, wh, ww = window = (2, 3, 4)
    slow = [
        x[:, i : i + wt, j : j + wh, k : k + ww].flatten(1, 3)
        for i in range(0, 4, wt)
        for j in range(0, 6, wh)
        for k in range(0, 8, ww)
    ]
    assert partition(x, window).equal(torch.stack(slow, 1))


def test_each_axis_has_its_long_side():
    for grid, (vertical, horizontal, temporal) in WINDOWS.items():
        assert vertical[1] == grid[1] and horizontal[2] == grid[2] and temporal[0] == grid[0]
    assert AXES == ("vertical", "horizontal", "temporal")


def test_a_shorter_clip_gets_windows_cut_to_it():
    assert fit_window((5, 8, 8), (1, 16, 16)) == (1, 8, 8)
    assert windows_for((1, 16, 16)) == ((1, 16, 8), (1, 8, 16), (1, 8, 8))
    assert windows_for((2, 8, 8)) == ((1, 8, 8), (1, 8, 8), (2, 8, 8))


def test_what_is_listed_follows_the_rule_for_other_grids(monkeypatch):
    listed = dict(WINDOWS)
    monkeypatch.setattr(windows, "WINDOWS", {})
    assert {grid: windows_for(grid) for grid in listed} == listed


def test_longer_clips_get_temporal_windows_over_all_their_slices():
    assert windows_for((11, 56, 32)) == ((1, 56, 4), (1, 8, 32), (11, 8, 8))
    assert windows_for((11, 32, 32)) == ((1, 32, 8), (1, 8, 32), (11, 8, 8))


@pytest.mark.parametrize("grid", [(5, 32, 56), (1, 128, 2), (3, 12, 10), (5, 2, 2), (11, 34, 62), (41, 90, 160 // 2)])
def test_any_even_grid_up_to_128_has_windows_that_tile_it(grid):
    for window in windows_for(grid):
        assert partition(torch.zeros(1, *grid, 1), window).shape[1] >= 1
        low_size(window)
        assert window[0] == grid[0] or window[1] * window[2] <= 256


def test_sizes_that_do_not_tile_raise():
    with pytest.raises(ValueError, match=r"windows of \(5, 8, 8\) tokens do not tile the grid \(5, 16, 12\)"):
        partition(torch.zeros(1, 5, 16, 12, 1), (5, 8, 8))
    with pytest.raises(ValueError, match="do not tile"):
        merge_windows(torch.zeros(1, 1, 15, 1), (1, 5, 3), (1, 16, 16))
    with pytest.raises(ValueError, match=r"height and width of \(5, 7, 8\) must be even"):
        low_size((5, 7, 8))
    with pytest.raises(ValueError, match=r"height and width of \(5, 15, 16\) must be even"):
        windows_for((5, 15, 16))
    with pytest.raises(
        ValueError, match=r"no windows are known for the grid \(5, 130, 16\): along a side of 130 tokens"
    ):
        windows_for((5, 130, 16))
