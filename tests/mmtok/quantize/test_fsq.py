"""Finite scalar quantisation: every level is reached, codes and values are one, gradients pass."""

import math

import pytest
import torch

from mmtok.quantize.fsq import fsq_bound, fsq_codes, fsq_quantize, fsq_values


@pytest.mark.parametrize("levels", [(8, 8, 8, 5, 5, 5), (8,) * 6, (2, 3), (4,)])
def test_codes_and_values_are_one_to_one(levels):
    size = math.prod(levels)
    codes = torch.arange(min(size, 5000))[None] * max(1, size // 5000)
    values = fsq_values(codes, levels)
    assert values.shape == (1, len(levels), codes.shape[1]) and values.abs().max() <= 1
    # back to a latent in the middle of each level's interval
    half = torch.tensor([n // 2 for n in levels]).view(1, -1, 1)
    limit = torch.tensor([(n - 1) * (1 + 1e-3) / 2 for n in levels]).view(1, -1, 1)
    offset = torch.tensor([0.0 if n % 2 else 0.5 for n in levels]).view(1, -1, 1)
    latents = torch.atanh((values * half + offset) / limit) - torch.atanh(offset / limit)
    assert torch.equal(fsq_codes(latents, levels), codes)
    torch.testing.assert_close(fsq_quantize(latents, levels), values)


def test_channel_zero_is_least_significant():
    assert fsq_values(torch.tensor([[1]]), (8, 5))[0, :, 0].tolist() == [-0.75, -1.0]
    assert fsq_values(torch.tensor([[8]]), (8, 5))[0, :, 0].tolist() == [-1.0, -0.5]


def test_every_level_is_reached_and_no_other():
    z = torch.linspace(-9, 9, 4001)[None, None]
    for count in (2, 3, 5, 8):
        assert sorted(set(fsq_codes(z, (count,)).flatten().tolist())) == list(range(count))


def test_gradient_is_that_of_the_bound():
    z = torch.randn(2, 2, 5, requires_grad=True)
    fsq_quantize(z, (8, 5)).sum().backward()
    other = z.detach().clone().requires_grad_()
    (fsq_bound(other, (8, 5)) / torch.tensor([4.0, 2.0]).view(1, 2, 1)).sum().backward()
    torch.testing.assert_close(z.grad, other.grad)


def test_codes_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"codes must lie in \[0, 40\)"):
        fsq_values(torch.tensor([[40]]), (8, 5))
