"""Mel filters against transformers', the multi-scale mel loss, and the discriminators with their losses."""

import math

import pytest
import torch
from torch.testing import assert_close

from mmtok.losses.audio import MultiScaleMelLoss, waveform_loss
from mmtok.nn.mel import mel_filters


def tone(hz: float, amplitude: float = 1.0, samples: int = 4096) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * hz * torch.arange(samples) / 16_000).view(1, 1, -1)


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
