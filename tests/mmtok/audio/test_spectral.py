"""A codec whose ends work on spectra."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from mmtok.audio.soundstream import SoundStream, SoundStreamParams

SMALL = SoundStreamParams(
    sample_rate=16_000,
    encoder_channels=2,
    decoder_channels=3,
    dim=6,
    strides=(2, 4),
    dilations=(1, 3),
    num_codebooks=3,
    codebook_size=16,
)


SPECTRAL = dataclasses.replace(SMALL, spectral_window=24, hidden_dim=12, encoder_layers=1, decoder_layers=2)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> SoundStream:
    torch.manual_seed(0)
    return SoundStream(getattr(request, "param", SMALL)).eval()


def sound(batch: int, samples: int) -> torch.Tensor:
    return torch.rand(batch, 1, samples, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8


def test_spectral_ends_look_back_but_for_the_lookahead() -> None:
    torch.manual_seed(0)
    model, audio = SoundStream(SPECTRAL).eval(), sound(1, 96)
    assert model.lookahead == 2
    (grad,) = torch.autograd.grad(model.encoder(known := audio.clone().requires_grad_(True))[0, :, 3].sum(), known)
    assert grad[0, 0, 32:].eq(0).all() and grad[0, 0, 28].abs() > 0
    codes = model.encode(audio)
    assert torch.equal(codes[..., :6], model.encode(audio[..., :48]))
    early = model.decode(codes[..., :6])
    assert_close(model.decode(codes)[..., :32], early[..., :32])
    assert not torch.allclose(model.decode(codes)[..., 40:48], early[..., 40:48])  # the frames behind finish it


def test_a_spectral_decoder_that_is_told_a_spectrum_plays_it() -> None:
    """Amplitude and phase of a tone in every frame, windows added where they overlap, give the tone at its level."""
    model, hop, window = SoundStream(SPECTRAL).eval(), 8, 24
    frames = torch.arange(30)
    with torch.no_grad():
        model.decoder.outward.weight.zero_()
        spectrum = torch.full((13,), -20.0)
        spectrum[3] = torch.log(torch.tensor(0.5 * window / 2))  # three periods a window, so one a hop
        model.decoder.outward.bias.copy_(torch.cat([spectrum, torch.zeros(13)]))
        played = model.decode(torch.zeros(1, 3, len(frames), dtype=torch.int64))
        n = torch.arange(len(frames) * hop)
        weight = torch.hann_window(window)
        weight = weight.view(3, hop).sum(0) / weight.square().view(3, hop).sum(0)
    assert_close(played[0, 0], 0.5 * torch.cos(2 * torch.pi * n / hop) * weight.repeat(len(frames)), atol=1e-5, rtol=0)
