"""The mel scale and mel spectrograms.

Shape letters: b batch, n samples, m mel bands, f frequency bins, t frames.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def hz_to_mel(hz: Tensor) -> Tensor:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above."""
    linear = hz * 3 / 200
    return torch.where(hz < 1000, linear, 15 + 27 * torch.log(hz.clamp(min=1) / 1000) / math.log(6.4))


def mel_to_hz(mel: Tensor) -> Tensor:
    """Inverse of ``hz_to_mel``."""
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))


def mel_filters(*, sample_rate: int, n_fft: int, num_mels: int) -> Tensor:
    """Triangular filters of peak 1, evenly spaced in mel from 0 to the Nyquist frequency."""
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)  # (f,)
    top = hz_to_mel(torch.tensor(sample_rate / 2, dtype=torch.float64))
    edges = mel_to_hz(torch.linspace(0, 1, num_mels + 2, dtype=torch.float64) * top).unsqueeze(1)  # (m + 2, 1)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0).float()
    empty = int((filters.sum(1) == 0).sum())
    if empty:
        raise ValueError(f"{empty} of {num_mels} mel bands hold no bin of n_fft={n_fft}; use fewer or a larger n_fft")
    return filters


class MelSpectrogram(nn.Module):
    """Magnitudes in mel bands, scaled so that a full-scale sine on a bin has magnitude 1 at any window length.

    Short windows are padded with zeros to a transform that resolves all bands.

    Args:
        sample_rate: Hz.
        window: samples of the Hann window.
        num_mels: bands.
        hop: samples between frames, a quarter of the window when None.
        min_n_fft: shortest transform.
    """

    hann: Tensor
    filters: Tensor

    def __init__(self, *, sample_rate: int, window: int, num_mels: int, hop: int | None = None, min_n_fft: int = 512):
        super().__init__()
        self.window, self.hop, self.n_fft = window, hop or max(1, window // 4), max(window, min_n_fft)
        self.register_buffer("hann", torch.hann_window(window), persistent=False)
        filters = mel_filters(sample_rate=sample_rate, n_fft=self.n_fft, num_mels=num_mels)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """Analyse; the ends are padded with zeros, so any length works.

        Args:
            audio: (b, 1, n).

        Returns:
            (b, m, t) with t = n // hop + 1.
        """
        with torch.autocast(audio.device.type, enabled=False):
            spectrum = torch.stft(
                audio.float().squeeze(1),
                n_fft=self.n_fft,
                hop_length=self.hop,
                win_length=self.window,
                window=self.hann,
                center=True,
                pad_mode="constant",
                return_complex=True,
            )  # (b, f, t)
            return self.filters @ (spectrum.abs() * (2 / self.hann.sum()))
