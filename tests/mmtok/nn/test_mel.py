"""Mel filters and spectrograms against other people's and by hand."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

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
