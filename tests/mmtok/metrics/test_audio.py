"""Audio metrics on cases that can be checked by eye."""

import math

import pytest
import torch
from torch.testing import assert_close

from mmtok.metrics.audio import CodebookUse, LogMelDistance, si_sdr_db


def test_log_mel_distance_of_a_gain_is_its_logarithm() -> None:
    distance = LogMelDistance(sample_rate=16_000, floor=1e-9)
    noise = 0.3 * torch.randn(2, 1, 8000)
    assert_close(distance(0.5 * noise, noise), torch.full((2,), math.log(2)), atol=1e-3, rtol=0)
    assert distance(noise, noise).eq(0).all()


def test_log_mel_distance_is_one_number_a_sound_and_checks_shapes() -> None:
    distance = LogMelDistance(sample_rate=16_000)
    noise = 0.3 * torch.randn(2, 1, 8000)
    mixed = torch.stack([noise[0], torch.zeros(1, 8000)])
    values = distance(mixed, noise)
    assert values[0] == 0 and values[1] > 1
    with pytest.raises(ValueError, match="must have one shape"):
        distance(noise, noise[..., :-1])


def test_what_is_far_below_the_floor_does_not_count() -> None:
    distance = LogMelDistance(sample_rate=16_000)
    assert float(distance(1e-6 * torch.randn(1, 1, 4000), torch.zeros(1, 1, 4000))) < 0.01


def test_si_sdr_by_hand() -> None:
    target = torch.tensor([1.0, -1.0, 1.0, -1.0])
    orthogonal = torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert_close(si_sdr_db(target + 0.1 * orthogonal, target), torch.tensor(20.0))
    assert_close(si_sdr_db(7 * (target + 0.1 * orthogonal) + 3, target), torch.tensor(20.0))  # gain and offset are free
    assert si_sdr_db(target, target) > 100
    assert si_sdr_db(orthogonal, target) < -100
    assert_close(si_sdr_db(torch.zeros(4), target), torch.tensor(0.0))
    assert si_sdr_db(torch.randn(3, 1, 50), torch.randn(3, 1, 50)).shape == (3, 1)
    with pytest.raises(ValueError, match="must have one shape"):
        si_sdr_db(target, target[:2])


def test_codebook_use_and_perplexity_by_hand() -> None:
    use = CodebookUse(num_codebooks=2, codebook_size=4)
    use.update(torch.tensor([[[0, 1, 2, 3], [0, 0, 0, 0]]]))
    assert_close(use.use(), torch.tensor([1.0, 0.25]))
    assert_close(use.perplexity(), torch.tensor([4.0, 1.0]))
    use.update(torch.tensor([[[0, 0, 0, 0], [1, 1, 1, 1]]]))
    assert_close(use.use(), torch.tensor([1.0, 0.5]))
    assert_close(use.perplexity()[1], torch.tensor(2.0))


def test_codes_are_forgotten_after_the_window() -> None:
    use = CodebookUse(num_codebooks=1, codebook_size=4, window=2)
    for code, expected in ((0, 0.25), (1, 0.5), (2, 0.5), (2, 0.25)):
        use.update(torch.tensor([[[code]]]))
        assert float(use.use()) == expected, code


def test_nothing_counted_is_no_use() -> None:
    assert CodebookUse(num_codebooks=2, codebook_size=4).use().eq(0).all()


def test_saved_counts_go_on_exactly() -> None:
    use, other = (CodebookUse(num_codebooks=1, codebook_size=8, window=3) for _ in range(2))
    use.update(torch.tensor([[[1, 2]]]))
    other.load_state_dict(use.state_dict())
    for counter in (use, other):
        counter.update(torch.tensor([[[5, 5]]]))
    assert torch.equal(use.use(), other.use())
    assert torch.equal(use.perplexity(), other.perplexity())
