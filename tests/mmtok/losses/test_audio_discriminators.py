"""The judges of sound, and their losses by hand."""

import math

import pytest
import torch

from mmtok.losses.audio_discriminators import (
    AudioDiscriminators,
    Judgement,
    SpectralDiscriminator,
    WaveformDiscriminator,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)


def tone(hz: float, amplitude: float = 1.0, samples: int = 4096) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * hz * torch.arange(samples) / 16_000).view(1, 1, -1)


def critics() -> AudioDiscriminators:
    torch.manual_seed(0)
    return AudioDiscriminators(waveform_channels=4, max_waveform_channels=16, spectral_channels=2, window=256, hop=64)


def test_published_discriminators_have_the_papers_widths() -> None:
    with torch.device("meta"):
        wave, spectral = WaveformDiscriminator(), SpectralDiscriminator()
        judged = wave(torch.empty(1, 1, 16_384))
    assert [f.shape[1] for f in judged.features] == [16, 64, 256, 1024, 1024, 1024]
    assert judged.logits.shape == (1, 1, 64)
    assert spectral.last.in_channels == 16 * 32 and spectral.last.kernel_size == (1, 8)


@pytest.mark.parametrize("samples", [2048, 2500])
def test_four_networks_judge_with_logits_along_time(samples: int) -> None:
    judged = critics()(torch.randn(2, 1, samples).clamp(-1, 1))
    assert len(judged) == 4
    frames = [j.logits.shape[-1] for j in judged]
    assert frames[0] > frames[1] > frames[2] > 0
    assert all(j.logits.shape[:2] == (2, 1) for j in judged)
    assert [len(j.features) for j in judged] == [6, 6, 6, 7]
    assert frames[3] == math.ceil((samples // 64 + 1) / 8)


def test_spectral_discriminator_halves_bins_seven_times() -> None:
    judged = SpectralDiscriminator(channels=2, window=256, hop=64)(torch.randn(1, 1, 2048).clamp(-1, 1))
    assert [f.shape[-1] for f in judged.features] == [128, 64, 32, 16, 8, 4, 2]
    with pytest.raises(ValueError, match=r"window \(200\) must be a multiple of 128"):
        SpectralDiscriminator(channels=2, window=200)
    with pytest.raises(ValueError, match=r"channels \(6\) must be a multiple of 4"):
        WaveformDiscriminator(channels=6)


def judgement(logit: float, feature: float = 0.0) -> list[Judgement]:
    return [Judgement(torch.full((1, 1, 3), logit), [torch.full((1, 2, 3), feature)])]


def test_hinge_losses_by_hand() -> None:
    assert float(discriminator_loss(judgement(0.0), judgement(0.0))) == 2
    assert float(discriminator_loss(judgement(2.0), judgement(-2.0))) == 0
    assert float(discriminator_loss(judgement(-1.0), judgement(0.5))) == 3.5
    assert float(adversarial_loss(judgement(-1.0))) == 2
    assert float(adversarial_loss(judgement(3.0))) == 0
    assert float(feature_loss(judgement(0, 1.0), judgement(0, 4.0))) == 3


def test_feature_loss_trains_the_codec_only() -> None:
    networks = critics()
    networks.requires_grad_(False)
    output = torch.randn(1, 1, 2048).clamp(-1, 1).requires_grad_(True)
    target = torch.randn(1, 1, 2048).clamp(-1, 1)
    feature_loss(networks(target), networks(output)).backward()
    assert output.grad is not None and output.grad.abs().sum() > 0
    assert all(p.grad is None for p in networks.parameters())


def test_discriminators_learn_to_tell_tones_from_noise() -> None:
    networks = critics()
    optimizer = torch.optim.Adam(networks.parameters(), lr=3e-3)
    for _ in range(15):
        real, fake = tone(500.0, 0.5, 2048), 0.3 * torch.randn(1, 1, 2048)
        loss = discriminator_loss(networks(real), networks(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1
