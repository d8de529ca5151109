"""Losses between sounds: multi-scale mel spectra and the waveform itself.

The mel loss is SoundStream's (arXiv 2107.03312, eq. 6-7, after arXiv 2008.01160). Everything runs in float32.

Shape letters: b batch, n samples, m mel bands, f frequency bins, t frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def require_one_shape(output: Tensor, target: Tensor) -> None:
    """Raise unless two sounds can be compared.

    Args:
        output: a reconstruction.
        target: its original.

    Raises:
        ValueError: if the shapes differ.
    """
    if output.shape != target.shape:
        raise ValueError(f"output {tuple(output.shape)} and target {tuple(target.shape)} must have one shape")


def hz_to_mel(hz: Tensor) -> Tensor:
    """Slaney's mel scale: linear below 1 kHz, logarithmic above.

    Args:
        hz: frequencies.

    Returns:
        Mels, same shape.
    """
    linear = hz * 3 / 200
    return torch.where(hz < 1000, linear, 15 + 27 * torch.log(hz.clamp(min=1) / 1000) / math.log(6.4))


def mel_to_hz(mel: Tensor) -> Tensor:
    """Inverse of ``hz_to_mel``.

    Args:
        mel: mels.

    Returns:
        Frequencies in Hz, same shape.
    """
    return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))


def mel_filters(*, sample_rate: int, n_fft: int, num_mels: int) -> Tensor:
    """Triangular filters of peak 1, evenly spaced in mel from 0 to the Nyquist frequency.

    Args:
        sample_rate: Hz.
        n_fft: length of the transform.
        num_mels: bands.

    Returns:
        (m, f) float32 with f = n_fft // 2 + 1.

    Raises:
        ValueError: if a band would hold no frequency bin.
    """
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


class MultiScaleMelLoss(nn.Module):
    """L2 of log-mel differences plus weighted L1 of mel magnitudes, averaged over frames and window lengths.

    The paper sums ``|S - S'|_1 + sqrt(window / 2) |log S - log S'|_2`` over frames and windows, with unscaled
    magnitudes. Ours is the same per frame and window divided by ``sqrt(window / 2) sqrt(num_mels)``, so that all
    windows count alike and the value does not depend on length or number of bands. In scaled magnitudes the weight of
    the linear term is then ``sqrt(num_mels window / 8)``.

    Args:
        sample_rate: Hz.
        windows: window lengths in samples; the paper's are 64, 128, ... 2048.
        num_mels: bands.
        linear_weight: factor on the paper's weight of the linear term.
        floor: added to magnitudes inside the logarithm; 1e-4 is 80 dB below full scale.
        as_published: sum windows with the paper's weights, for use with its other weights; only the sum over frames
            stays a mean.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        windows: Sequence[int] = (64, 128, 256, 512, 1024, 2048),
        num_mels: int = 64,
        linear_weight: float = 1.0,
        floor: float = 1e-4,
        as_published: bool = False,
    ):
        super().__init__()
        if not windows:
            raise ValueError("windows must name at least one length")
        even = 1 / len(windows)
        self.window_weights = [(num_mels * w / 2) ** 0.5 if as_published else even for w in windows]
        self.linear_weights = [linear_weight * (num_mels * w / 8) ** 0.5 for w in windows]
        self.floor = floor
        self.scales = nn.ModuleList(
            MelSpectrogram(sample_rate=sample_rate, window=w, num_mels=num_mels) for w in windows
        )

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance of two sounds.

        Args:
            output: (b, 1, n) reconstruction; gradients flow here.
            target: (b, 1, n) original.

        Returns:
            () float32, 0 for equal sounds.

        Raises:
            ValueError: if the shapes differ.
        """
        require_one_shape(output, target)
        total = torch.zeros((), device=output.device)
        for scale, weight, linear_weight in zip(self.scales, self.window_weights, self.linear_weights, strict=True):
            with torch.no_grad():
                wanted = scale(target)
            got = scale(output)  # (b, m, t)
            logs = (got + self.floor).log() - (wanted + self.floor).log()
            # the tiny constant keeps the gradient of the root finite for equal frames
            log_term = (logs.square().mean(1) + 1e-8).sqrt().mean() - 1e-4
            total = total + weight * (log_term + linear_weight * F.l1_loss(got, wanted))
        return total


def waveform_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of samples; ties down the phase that mel spectra leave free.

    Args:
        output: (b, 1, n).
        target: (b, 1, n).

    Returns:
        () float32.
    """
    return F.l1_loss(output.float(), target.float())
