"""superres/corrupt.py: how much is hidden, spoiled and dropped."""

import math

import pytest
import torch

from superres.corrupt import add_noise, corrupt, draw_mask, mask_ratio


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_cosine_schedule_hides_all_at_first_and_nothing_at_last():
    ratio = mask_ratio(torch.tensor([0.0, 1 / 3, 0.5, 1.0]))
    torch.testing.assert_close(ratio, torch.tensor([1.0, math.sqrt(3) / 2, math.sqrt(0.5), 0.0]))


def test_hidden_shares_follow_the_schedule():
    shares = draw_mask((4000, 1, 10, 10), generator()).flatten(1).float().mean(1)
    assert shares.min() >= 0.01, "at least one position is hidden"
    # cos(pi u / 2) has mean 2 / pi and median cos(pi / 4)
    assert abs(shares.mean() - 2 / math.pi) < 0.02
    assert abs(shares.median() - math.sqrt(0.5)) < 0.02
    assert shares.unique().numel() > 50


def test_hidden_positions_are_spread_evenly():
    per_position = draw_mask((4000, 1, 4, 4), generator()).float().mean(0)
    assert per_position.std() < 0.02


def test_noise_rate_is_drawn_per_clip_up_to_the_limit():
    low = torch.full((2000, 1, 16, 16), 5)
    noisy = add_noise(low, 4096, generator(), max_rate=0.25)
    rate = (noisy != low).flatten(1).float().mean(1)
    assert abs(rate.mean() - 0.125) < 0.01 and rate.max() < 0.35 and rate.min() < 0.01
    assert abs(rate.std() - 0.25 / math.sqrt(12)) < 0.01
    replaced = noisy[noisy != low]
    assert replaced.min() < 40 and replaced.max() > 4050 and abs(replaced.float().mean() - 2047.5) < 20


def test_no_noise_changes_nothing():
    low = torch.randint(4096, (3, 2, 4, 4))
    assert add_noise(low, 4096, generator(), max_rate=0.0).equal(low)
    with pytest.raises(ValueError, match=r"max_rate must lie in \[0, 1\], got 1.5"):
        add_noise(low, 4096, generator(), max_rate=1.5)


def test_conditions_are_dropped_independently_a_tenth_of_the_time():
    low = torch.zeros(20000, 1, 1, 1, dtype=torch.int64)
    drawn = corrupt(low, (20000, 1, 2, 2), 4, generator())
    lost_low, lost_text = ~drawn.keep_low, ~drawn.keep_text
    assert abs(lost_low.float().mean() - 0.1) < 0.01
    assert abs(lost_text.float().mean() - 0.1) < 0.01
    assert abs((lost_low & lost_text).float().mean() - 0.01) < 0.003


def test_drops_can_be_switched_off():
    low = torch.zeros(500, 1, 1, 1, dtype=torch.int64)
    drawn = corrupt(low, (500, 1, 2, 2), 4, generator(), max_noise=0.0, drop_low=0.0, drop_text=1.0)
    assert drawn.keep_low.all() and not drawn.keep_text.any() and drawn.low.equal(low)


def test_same_seed_same_draw():
    low = torch.randint(64, (4, 1, 4, 4))
    first, again, other = (corrupt(low, (4, 1, 8, 8), 64, generator(seed)) for seed in (1, 1, 2))
    assert first.masked.equal(again.masked) and first.low.equal(again.low)
    assert not first.masked.equal(other.masked)
