"""Mel filters against transformers', the multi-scale mel loss, and the discriminators with their losses."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mmtok.losses.audio import MultiScaleMelLoss, waveform_loss
from mmtok.losses.audio_discriminators import (
    AudioDiscriminators,
    Judgement,
    SpectralDiscriminator,
    WaveformDiscriminator,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from mmtok.nn.mel import MelSpectrogram, hz_to_mel, mel_filters, mel_to_hz


def tone(hz: float, amplitude: float = 1.0, samples: int = 4096) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * hz * torch.arange(samples) / 16_000).view(1, 1, -1)


def test_filters_equal_those_of_transformers() -> None:
    from transformers.audio_utils import mel_filter_bank  # after mmtok, which lets it find torchaudio

    reference = mel_filter_bank(257, 64, 0.0, 8000.0, 16_000, norm=None, mel_scale="slaney")
    assert_close(mel_filters(sample_rate=16_000, n_fft=512, num_mels=64), torch.from_numpy(np.float32(reference.T)))


def test_mel_scale_inverts_and_is_linear_then_logarithmic() -> None:
    hz = torch.tensor([0.0, 440.0, 999.0, 1000.0, 6400.0], dtype=torch.float64)
    assert_close(mel_to_hz(hz_to_mel(hz)), hz)
    assert_close(hz_to_mel(hz)[[3, 4]], torch.tensor([15.0, 42.0], dtype=torch.float64))


def test_too_many_bands_are_refused() -> None:
    with pytest.raises(ValueError, match="of 128 mel bands hold no bin of n_fft=256"):
        mel_filters(sample_rate=16_000, n_fft=256, num_mels=128)


@pytest.mark.parametrize("window", [128, 512, 2048])
def test_full_scale_sine_has_magnitude_about_one_at_every_window(window: int) -> None:
    mel = MelSpectrogram(sample_rate=16_000, window=window, num_mels=20)
    peak = mel(tone(1000.0))[0].amax(0)  # (t,)
    middle = peak[len(peak) // 4 : -len(peak) // 4]
    # a band sums the few bins of the main lobe: 2 of them at full weight, more where a short window was padded
    lobe = 2 * max(1, 512 // window)
    assert 0.5 * lobe < middle.mean() < 1.2 * lobe


def test_any_length_gives_a_frame_a_hop() -> None:
    mel = MelSpectrogram(sample_rate=16_000, window=256, num_mels=16)
    for samples in (1, 63, 64, 1000):
        assert mel(torch.randn(2, 1, samples)).shape == (2, 16, samples // 64 + 1)


def test_mel_loss_equals_the_paper_formula_divided_by_its_scale() -> None:
    """One window: sum over bands of |S - S'| + sqrt(s / 2) |log S - log S'|_2 on unscaled magnitudes, per frame."""
    s, bands = 512, 64
    x, y = 0.3 * torch.randn(1, 1, 2048), 0.3 * torch.randn(1, 1, 2048)
    loss = MultiScaleMelLoss(sample_rate=16_000, windows=(s,), num_mels=bands, floor=1e-4)

    def magnitudes(audio: torch.Tensor) -> torch.Tensor:
        window = torch.hann_window(s)
        spectrum = torch.stft(audio[:, 0], s, s // 4, window=window, pad_mode="constant", return_complex=True)
        return mel_filters(sample_rate=16_000, n_fft=s, num_mels=bands) @ spectrum.abs()

    a, b = magnitudes(x), magnitudes(y)
    floor = 1e-4 * s / 4  # the window sums to s / 2, so scaled magnitudes are unscaled ones over s / 4
    logs = ((a + floor).log() - (b + floor).log()).square().sum(1).sqrt()
    paper = (a - b).abs().sum(1).mean() + (s / 2) ** 0.5 * logs.mean()
    assert_close(loss(x, y), paper / ((s / 2) ** 0.5 * bands**0.5), rtol=1e-3, atol=1e-3)
    published = MultiScaleMelLoss(sample_rate=16_000, windows=(s,), num_mels=bands, as_published=True)
    assert_close(published(x, y), paper, rtol=1e-3, atol=1e-3)
    both = MultiScaleMelLoss(sample_rate=16_000, windows=(s, 128), num_mels=bands, as_published=True)
    other = MultiScaleMelLoss(sample_rate=16_000, windows=(128,), num_mels=bands, as_published=True)
    assert_close(both(x, y), published(x, y) + other(x, y))


def test_mel_loss_is_zero_for_equal_sounds_with_finite_gradients_and_grows_with_noise() -> None:
    loss = MultiScaleMelLoss(sample_rate=16_000)
    for target in (tone(440.0, 0.3), torch.zeros(1, 1, 2048)):
        output = target.clone().requires_grad_(True)
        value = loss(output, target)
        value.backward()
        assert abs(float(value.detach())) < 1e-5
        assert output.grad is not None and torch.isfinite(output.grad).all()
    target, noise = tone(440.0, 0.3), torch.randn(1, 1, 4096)
    values = [float(loss(target + amount * noise, target)) for amount in (0.001, 0.01, 0.1)]
    assert values == sorted(values) and values[0] > 0.01


def test_mel_loss_ignores_phase_and_the_waveform_loss_does_not() -> None:
    target, flipped = tone(440.0, 0.3), -tone(440.0, 0.3)
    assert float(MultiScaleMelLoss(sample_rate=16_000)(flipped, target)) < 1e-4
    assert_close(waveform_loss(flipped, target), 2 * target.abs().mean())


def test_losses_are_float32_under_autocast() -> None:
    x = tone(300.0, 0.5)
    loss = MultiScaleMelLoss(sample_rate=16_000, windows=(512,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = loss(0.5 * x, x), waveform_loss(0.5 * x, x)
    assert low[0].dtype == low[1].dtype == torch.float32
    assert_close(low[0], loss(0.5 * x, x))


def test_shapes_and_windows_are_checked() -> None:
    loss = MultiScaleMelLoss(sample_rate=16_000, windows=(512,))
    with pytest.raises(ValueError, match="must have one shape"):
        loss(torch.zeros(1, 1, 100), torch.zeros(1, 1, 101))
    with pytest.raises(ValueError, match="windows must name at least one"):
        MultiScaleMelLoss(sample_rate=16_000, windows=())


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
