"""superres/tiles.py: grids in tiles that agree where they overlap."""

import dataclasses

import pytest
import torch

from superres.config import preset
from superres.model import SuperResTransformer
from superres.sample import Decoding, sample
from superres.tiles import cut_axis, cut_grid, sample_grid

QUICK = Decoding(num_steps=3, text_scale=1.0)


def make_model():
    torch.manual_seed(0)
    return SuperResTransformer(preset("nano", grid=(2, 8, 8))).eval()


def make_low(h, w, batch=2):
    return torch.randint(4096, (batch, 2, h, w), generator=torch.Generator().manual_seed(1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("side", "starts", "length"),
    [(8, (0,), 8), (16, (0,), 16), (28, (0, 12), 16), (32, (0, 12, 16), 16), (56, (0, 12, 24, 36, 40), 16)],
)
def test_tiles_cover_an_axis_and_overlap(side, starts, length):
    cut = cut_axis(side, most=16, windows=(16, 8, 8))
    assert (cut.starts, cut.length) == (starts, length)
    covered = {place for start in cut.starts for place in range(start, start + cut.length)}
    assert covered == set(range(side)) and cut.starts[-1] + cut.length == side
    assert all(b - a <= 3 * length // 4 and b % 2 == 0 for a, b in zip(cut.starts, cut.starts[1:], strict=False))
    assert cut.joints == tuple(start + length for start in starts[:-1])


def test_a_side_that_windows_do_not_tile_takes_smaller_tiles():
    assert cut_axis(12, most=16, windows=(16, 8, 8)).length == 8
    assert cut_axis(14, most=16, windows=(16, 4, 2)).length == 12
    with pytest.raises(ValueError, match="7 tokens cannot be doubled"):
        cut_axis(7, most=16, windows=(16, 8, 8))


@pytest.mark.parametrize(
    ("grid", "size", "tiles"),
    [
        ((5, 56, 32), (56, 32), [1, 1]),  # the published portrait stages go in one piece
        ((5, 112, 64), (112, 64), [1, 1]),
        ((5, 56, 32), (32, 32), [1, 1]),  # and take smaller squares
        ((5, 32, 32), (56, 32), [2, 1]),
        ((5, 16, 16), (32, 32), [3, 3]),
    ],
)
def test_grids_are_cut_where_they_are_larger_than_the_model_s(grid, size, tiles):
    assert [len(cut.starts) for cut in cut_grid(preset("nano", grid=grid), size)] == tiles


def test_a_grid_that_fits_is_sampled_as_ever():
    model, low = make_model(), make_low(4, 4)
    whole = sample(model, low, **dataclasses.asdict(QUICK), generator=generator())
    assert sample_grid(model, low, decoding=QUICK, generator=generator()).equal(whole)


def test_tiles_keep_what_their_neighbours_made():
    model, low = make_model(), make_low(4, 6)
    steps = []
    codes = sample_grid(model, low, decoding=QUICK, generator=generator(), on_step=lambda *step: steps.append(step))
    assert codes.shape == (2, 2, 8, 12)
    assert steps == [(i, 6) for i in range(1, 7)]
    draws = generator()
    left = sample(model, low[..., :4], **dataclasses.asdict(QUICK), generator=draws)
    assert codes[..., :8].equal(left), "the first tile is drawn as if it were alone, and later ones leave it"
    pin = torch.zeros(2, 2, 8, 8, dtype=torch.int64)
    pin[..., :4] = left[..., 4:]
    keep = torch.zeros_like(pin, dtype=torch.bool)
    keep[..., :4] = True
    options = dataclasses.asdict(QUICK) | {"pinned": pin, "pinned_mask": keep}
    assert codes[..., 4:].equal(sample(model, low[..., 2:], **options, generator=draws))


def test_rows_of_tiles_do_not_depend_on_their_neighbours():
    model, low = make_model(), make_low(6, 6, batch=3)
    together = sample_grid(model, low, decoding=QUICK, generator=[generator(s) for s in (4, 5, 6)])
    assert sample_grid(model, low[1:2], decoding=QUICK, generator=[generator(5)]).equal(together[1:2])


def test_leading_slices_stay_in_every_tile():
    model, low = make_model(), make_low(6, 6)
    pinned = torch.randint(4096, (2, 1, 12, 12), generator=generator())
    assert sample_grid(model, low, decoding=QUICK, pinned=pinned, generator=generator())[:, :1].equal(pinned)
    with pytest.raises(ValueError, match=r"pinned must lead codes of \(2, 2, 12, 12\), got \(2, 1, 8, 12\)"):
        sample_grid(model, low, decoding=QUICK, pinned=pinned[:, :, :8])
    with pytest.raises(ValueError, match=r"low must have shape \(b, t, h, w\)"):
        sample_grid(model, low[0], decoding=QUICK)
