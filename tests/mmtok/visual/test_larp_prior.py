"""LARP's prior: causal, and trained in rounds."""

import dataclasses

import pytest
import torch

from mmtok.visual.larp import Larp, LarpParams
from mmtok.visual.larp_prior import LarpPriorParams

PARAMS = LarpParams(
    num_tokens=12,
    size=32,
    num_frames=8,
    encoder_dim=32,
    encoder_heads=2,
    encoder_depth=2,
    decoder_dim=32,
    decoder_heads=2,
    decoder_depth=2,
    codebook_size=64,
    prior=LarpPriorParams(num_layers=1, num_heads=2, dim=16, max_tokens=12),
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Larp(PARAMS)
    torch.nn.init.normal_(model.to_pixels.weight, std=0.1)  # a new model is black
    return model.eval()


def clip(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_prior_is_causal(model):
    latents = torch.nn.functional.normalize(torch.randn(1, 12, 16), dim=-1)
    other = latents.clone()
    other[:, 7:] = torch.nn.functional.normalize(torch.randn(1, 5, 16), dim=-1)
    with torch.no_grad():
        a, b = model.prior(latents), model.prior(other)
    torch.testing.assert_close(a[:, :8], b[:, :8], atol=1e-6, rtol=0)
    assert not torch.allclose(a[:, 8:], b[:, 8:])


def test_detached_rounds_leave_the_loss_to_the_last(model):
    params = dataclasses.replace(PARAMS.prior, detach_rounds=True)
    torch.manual_seed(0)
    model = Larp(dataclasses.replace(PARAMS, prior=params)).train()
    out = model(clip(1, 3, 8, 32, 32), progress=1.0, generator=torch.Generator().manual_seed(0))
    assert out.prior.logits.shape == (1, 1, 11, 64)
    out.prior.loss.backward()
    assert model.prior.head.weight.grad.any()


def test_without_a_ramp_inputs_are_sampled_from_the_first_step_on():
    prior = dataclasses.replace(PARAMS.prior, ramp=0.0, max_sampled_share=1.0)
    model = Larp(dataclasses.replace(PARAMS, prior=prior)).train()
    out = model(clip(1, 3, 8, 32, 32), progress=0.0)
    assert bool(out.prior.sampled.all())


@pytest.mark.parametrize(
    "changes", [{"rounds": 0}, {"temperature": 0.0}, {"ramp": -1.0}, {"num_heads": 3}], ids=lambda c: next(iter(c))
)
def test_priors_that_cannot_be_are_refused(changes):
    with pytest.raises(ValueError, match="a prior needs"):
        dataclasses.replace(PARAMS.prior, **changes)
