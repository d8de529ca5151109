"""Crops of recordings."""

import pytest
import torch

from recipes.corpora.sources import RealSounds


def test_crops_depend_on_the_generator_and_are_as_long_as_asked() -> None:
    source = RealSounds([torch.full((50,), 0.9), torch.full((5000,), -0.9)])
    batch, again = (source(torch.Generator().manual_seed(3), 64, 400) for _ in range(2))
    assert batch.shape == (64, 1, 400) and torch.equal(batch, again)
    peaks = batch.abs().amax((1, 2))
    assert peaks.max() <= 0.9 and peaks.min() >= 0.9 * 10 ** (-15 / 20) - 1e-6 and peaks.std() > 0.1
    short = batch[batch[:, 0, 0] > 0]
    assert 20 < len(short) < 44  # the short recording comes as often as the long one
    assert short[:, 0, 50:].eq(0).all() and short[:, 0, :50].gt(0).all()


def test_seconds_or_recordings_are_drawn_alike() -> None:
    sounds = [torch.full((100,), 0.5), torch.full((900,), -0.5)]
    signs = RealSounds(sounds, by_length=True)(torch.Generator().manual_seed(0), 400, 50)[:, 0, 0] > 0
    assert 20 < int(signs.sum()) < 60  # a tenth
    signs = RealSounds(sounds)(torch.Generator().manual_seed(0), 400, 50)[:, 0, 0] > 0
    assert 160 < int(signs.sum()) < 240


def test_silence_is_drawn_seldom() -> None:
    sound = torch.cat([torch.zeros(9000), torch.full((1000,), 0.5)])
    batch = RealSounds([sound])(torch.Generator().manual_seed(0), 200, 100)
    silent = int((batch.abs().amax((1, 2)) == 0).sum())
    assert 100 < silent < 160  # a crop is silent with 0.9, four in a row with 0.66
    with pytest.raises(ValueError, match="no sound to train on"):
        RealSounds([])
