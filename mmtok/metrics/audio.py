"""How well a sound was restored, what its codes cost, and how much of a codebook is in use.

Every docstring names the protocol of its figure. Shape letters: b batch, n samples, k levels, t frames, f frequency
bins, v codes of one level.
"""

from __future__ import annotations

import math
import warnings
from functools import partial

import torch
from torch import Tensor, nn

from mmtok.contract import require_one_shape
from mmtok.metrics.mean import Mean
from mmtok.nn.mel import MelSpectrogram


class LogMelDistance(nn.Module):
    """Mean absolute difference of natural-log mel magnitudes, one number a sound.

    Protocol: Hann window of 1024 samples, hop 256, 64 Slaney bands from 0 Hz to Nyquist, magnitudes scaled so
    that a full-scale sine is 1, floor 1e-4 inside the logarithm: what is 80 dB below full scale does not count.

    Args:
        sample_rate: Hz.
        window: samples of the window; the hop is a quarter.
        num_mels: bands.
        floor: added to the magnitudes.
    """

    def __init__(self, *, sample_rate: int, window: int = 1024, num_mels: int = 64, floor: float = 1e-4):
        super().__init__()
        self.mel = MelSpectrogram(sample_rate=sample_rate, window=window, num_mels=num_mels)
        self.floor = floor

    @torch.no_grad()
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            output: (b, 1, n).
            target: (b, 1, n).

        Returns:
            (b,) distances, 0 for equal sounds.

        Raises:
            ValueError: if the shapes differ.
        """
        require_one_shape(output, target)
        logs = [(self.mel(sound) + self.floor).log() for sound in (output, target)]
        return (logs[0] - logs[1]).abs().mean((1, 2))


class STFTDistance(nn.Module):
    """Multi-resolution STFT distance: a linear and a logarithmic term at three resolutions, one number a sound.

    Protocol: Hann windows of 240, 600 and 1200 samples, hops of 50, 120 and 240, transforms of 512, 1024 and 2048, at
    the rate of the sounds; ends padded with zeros. Linear term (spectral convergence): ``|S - S'|_F / |S|_F`` of the
    magnitudes, S the original's. Logarithmic term: mean absolute difference of natural-log magnitudes. Magnitudes are
    scaled so that a full-scale sine is 1, floor 1e-4 inside the logarithm (80 dB below full scale). Each term is the
    mean over the resolutions, the distance their sum.

    Args:
        resolutions: (transform, hop, window) in samples.
        floor: added to the magnitudes inside the logarithm.

    Source: Yamamoto et al. 2020, arXiv 1910.11480, 2.2; scale and floor are ours, so that very quiet bins, where the
    logarithm is all rounding, do not count.
    """

    def __init__(
        self,
        *,
        resolutions: tuple[tuple[int, int, int], ...] = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200)),
        floor: float = 1e-4,
    ):
        super().__init__()
        self.resolutions, self.floor = resolutions, floor

    @torch.no_grad()
    def terms(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The two terms.

        Args:
            output: (b, 1, n).
            target: (b, 1, n).

        Returns:
            Linear and logarithmic term, (b,) each. For a silent target the linear one is 0 if the output is silent
            too, and otherwise very large.

        Raises:
            ValueError: if the shapes differ.
        """
        require_one_shape(output, target)
        linear, logarithmic = [], []
        for n_fft, hop, window in self.resolutions:
            got, wanted = (_magnitudes(sound, n_fft=n_fft, hop=hop, window=window) for sound in (output, target))
            linear.append((got - wanted).norm(dim=(1, 2)) / wanted.norm(dim=(1, 2)).clamp(min=1e-7))
            logarithmic.append(((got + self.floor).log() - (wanted + self.floor).log()).abs().mean((1, 2)))
        return torch.stack(linear).mean(0), torch.stack(logarithmic).mean(0)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            output: (b, 1, n).
            target: (b, 1, n).

        Returns:
            (b,) distances, 0 for equal sounds.

        Raises:
            ValueError: if the shapes differ.
        """
        linear, logarithmic = self.terms(output, target)
        return linear + logarithmic


def _magnitudes(sound: Tensor, *, n_fft: int, hop: int, window: int) -> Tensor:
    """(b, f, t) for (b, 1, n), 1 for a full-scale sine on a bin."""
    hann = torch.hann_window(window, device=sound.device)
    spectrum = torch.stft(
        sound.float().squeeze(1), n_fft, hop, window, hann, center=True, pad_mode="constant", return_complex=True
    )
    return spectrum.abs() * (2 / hann.sum())


def stoi(output: Tensor, target: Tensor, *, sample_rate: int) -> Tensor:
    """Short-time objective intelligibility (Taal et al. 2011), as the library ``pystoi`` computes it.

    Protocol: both sounds resampled to 10 kHz; frames of 256 samples, hop 128, of which those more than 40 dB below the
    target's loudest are left out; 15 one-third octave bands from 150 Hz; correlations over 30 frames (384 ms),
    clipped at -15 dB. It was made for speech: for music or noise it says nothing about intelligibility.

    Args:
        output: (..., n).
        target: (..., n), the clean original.
        sample_rate: Hz.

    Returns:
        (...) figures, about 0 to 1, more is better; NaN where less than 30 frames of the target are loud enough.

    Raises:
        ImportError: if ``pystoi`` is absent.
        ValueError: if the shapes differ.
    """
    try:
        import pystoi
    except ImportError as fault:
        raise ImportError("STOI needs the package pystoi: pip install 'cinepoet[speech]'") from fault
    require_one_shape(output, target)
    figures = []
    shortest = math.ceil(257 * sample_rate / 10_000)  # one frame; the library needs it
    rows = (sound.detach().cpu().double().reshape(-1, sound.shape[-1]) for sound in (output, target))
    for got, wanted in zip(*rows, strict=True):
        if len(wanted) < shortest or not wanted.any():
            figures.append(math.nan)
            continue
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
            try:
                figures.append(float(pystoi.stoi(wanted.numpy(), got.numpy(), sample_rate)))
            except RuntimeWarning:  # the library's answer would be 1e-5
                figures.append(math.nan)
    return torch.tensor(figures).view(output.shape[:-1])


def si_sdr_db(output: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB (arXiv 1811.02508), after removing means.

    Args:
        output: (..., n) estimate.
        target: (..., n) original.

    Returns:
        (...) dB, limited to +-120; 0 when estimate or target is silent, as nothing can be said then.

    Raises:
        ValueError: if the shapes differ.
    """
    require_one_shape(output, target)
    output, target = (x.double() - x.double().mean(-1, keepdim=True) for x in (output, target))
    energy = target.square().sum(-1, keepdim=True)
    signal = (output * target).sum(-1, keepdim=True) / energy.clamp(min=1e-30) * target
    distortion = (output - signal).square().sum(-1)
    kept = signal.square().sum(-1)
    floor = 1e-12 * (kept + distortion) + 1e-30
    return (10 * ((kept + floor) / (distortion + floor)).log10()).float()


class LogMel(Mean):
    """Mean ``LogMelDistance`` of sounds (b, 1, n).

    Args:
        sample_rate: Hz.
    """

    protocol = "L1 of natural-log mel magnitudes, Hann window 1024, hop 256, 64 Slaney bands, floor 1e-4 of full scale"

    def __init__(self, sample_rate: int):
        super().__init__()
        self.compare = LogMelDistance(sample_rate=sample_rate)


class Stft(Mean):
    """Mean ``STFTDistance`` of sounds (b, 1, n)."""

    def __init__(self) -> None:
        super().__init__()
        self.compare = distance = STFTDistance()
        resolutions = ", ".join(f"{w}/{h}/{n}" for n, h, w in distance.resolutions)
        self.protocol = (
            "spectral convergence + L1 of natural-log magnitudes (floor 1e-4 of full scale), mean over "
            f"window/hop/transform of {resolutions} samples (arXiv 1910.11480)"
        )


class SiSdr(Mean):
    """Mean ``si_sdr_db`` of sounds (b, 1, n)."""

    protocol = "arXiv 1811.02508, means removed, limited to +-120 dB"
    compare = staticmethod(si_sdr_db)


class Stoi(Mean):
    """Mean ``stoi`` of the sounds (b, 1, n) that are long and loud enough.

    Args:
        sample_rate: Hz.
    """

    def __init__(self, sample_rate: int):
        super().__init__()
        self.compare = partial(stoi, sample_rate=sample_rate)

    @property
    def protocol(self) -> str:  # type: ignore[override]  # which sounds could be measured is known at the end only
        """How it is measured, and over how many sounds, or why not."""
        if not self.valid:
            return "left out: no sound has 384 ms that are loud enough"
        over = f"{len(self.valid)} of {len(self.values)} sounds long enough"
        return f"Taal et al. 2011 by pystoi, over {over}; meant for speech"
