"""The discriminators of SoundStream and their losses (arXiv 2107.03312, 3.4, 3.5 and figures 4, 5).

Two kinds judge a sound: a waveform network at three sampling rates (MelGAN, arXiv 1910.06711) and one network over the
complex spectrum. Both answer with logits along time and with their hidden features, which the feature loss compares.
The paper weighs adversarial, feature and mel terms 1 : 100 : 1 over sums; our terms are means, so a recipe weighs anew.

Shape letters: b batch, c channels, n samples, f frequency bins, t frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


@dataclass(frozen=True)
class Judgement:
    """One network's answer.

    Attributes:
        logits: (b, 1, t), positive for "real".
        features: hidden activations, first layer first.
    """

    logits: Tensor
    features: list[Tensor]


class WaveformDiscriminator(nn.Module):
    """Plain convolution, four grouped ones of stride 4, two plain ones, on the waveform at one rate.

    Args:
        channels: width of the first layer, 16 in the paper; each grouped layer multiplies it by 4.
        max_channels: widest layer, 1024 in the paper.
    """

    def __init__(self, *, channels: int = 16, max_channels: int = 1024):
        super().__init__()
        if channels % 4 or max_channels % channels:
            raise ValueError(f"channels ({channels}) must be a multiple of 4 and divide max_channels ({max_channels})")
        layers = [nn.Conv1d(1, channels, 15, padding=7)]
        width = channels
        for _ in range(4):
            wider = min(4 * width, max_channels)
            layers.append(nn.Conv1d(width, wider, 41, stride=4, padding=20, groups=width // 4))
            width = wider
        layers += [nn.Conv1d(width, width, 5, padding=2), nn.Conv1d(width, 1, 3, padding=1)]
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)

    def forward(self, audio: Tensor) -> Judgement:
        """Judge: (b, 1, n) to logits (b, 1, ~n / 256) and six features."""
        features: list[Tensor] = []
        x = audio
        for layer in self.layers:
            x = layer(F.leaky_relu(x, 0.2) if features else x)
            features.append(x)
        return Judgement(features.pop(), features)


class _SpectralUnit(nn.Module):
    """3x3 convolution, strided convolution and a strided 1x1 skip over (time, frequency)."""

    def __init__(self, channels: int, factor: int, stride: tuple[int, int]):
        super().__init__()
        kernel = (stride[0] + 2, stride[1] + 2)  # 3x4 or 4x4
        self.wide = weight_norm(nn.Conv2d(channels, channels, 3, padding=1))
        self.down = weight_norm(nn.Conv2d(channels, factor * channels, kernel, stride=stride, padding=1))
        self.skip = weight_norm(nn.Conv2d(channels, factor * channels, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, t, f) to (b, factor c, t / stride, f / stride), rounded up in time."""
        if self.down.stride[0] == 2 and x.shape[2] % 2:
            x = F.pad(x, (0, 0, 0, 1))
        return self.down(F.elu(self.wide(F.elu(x)))) + self.skip(x)


class SpectralDiscriminator(nn.Module):
    """A 2-D network over the real and imaginary parts of the short-time spectrum.

    Args:
        channels: width of the first layer, 32 in the paper.
        window: samples of the Hann window and length of the transform, 1024 in the paper; a multiple of 128.
        hop: samples between frames, 256 in the paper.
    """

    hann: Tensor

    def __init__(self, *, channels: int = 32, window: int = 1024, hop: int = 256):
        super().__init__()
        if window % 128:
            raise ValueError(f"window ({window}) must be a multiple of 128, the six strided blocks halve it so often")
        self.window, self.hop = window, hop
        self.register_buffer("hann", torch.hann_window(window), persistent=False)
        factors = (2, 2, 1, 2, 1, 2)
        strides = ((1, 2), (2, 2)) * 3
        width = channels
        self.first = weight_norm(nn.Conv2d(2, width, 7, padding=3))
        self.units = nn.ModuleList()
        for factor, stride in zip(factors, strides, strict=True):
            self.units.append(_SpectralUnit(width, factor, stride))
            width *= factor
        self.last = weight_norm(nn.Conv2d(width, 1, (1, window // 128)))  # spans the bins that are left

    def forward(self, audio: Tensor) -> Judgement:
        """Judge: (b, 1, n) to logits (b, 1, ~n / (8 hop)) and seven features."""
        with torch.autocast(audio.device.type, enabled=False):
            spectrum = torch.stft(
                audio.float().squeeze(1),
                n_fft=self.window,
                hop_length=self.hop,
                window=self.hann,
                pad_mode="constant",
                normalized=True,
                return_complex=True,
            )[:, :-1]  # without the highest bin, as a power of two is left to halve
        # contiguous: a backward pass from this sliced, channels-last-like view corrupted memory on the CPU (torch 2.13)
        x = self.first(torch.view_as_real(spectrum).permute(0, 3, 2, 1).contiguous())  # (b, 2, t, f)
        features = [x]
        for unit in self.units:
            x = unit(x)
            features.append(x)
        return Judgement(self.last(F.elu(x)).squeeze(-1), features)


class AudioDiscriminators(nn.Module):
    """The waveform network at several rates beside the spectral network.

    Args:
        waveform_channels: first width of every waveform network.
        max_waveform_channels: their widest layer.
        spectral_channels: first width of the spectral network.
        rates: divisors of the sampling rate, one waveform network each.
        window: window of the spectral network.
        hop: its hop.
    """

    def __init__(
        self,
        *,
        waveform_channels: int = 16,
        max_waveform_channels: int = 1024,
        spectral_channels: int = 32,
        rates: Sequence[int] = (1, 2, 4),
        window: int = 1024,
        hop: int = 256,
    ):
        super().__init__()
        self.rates = tuple(rates)
        self.waveform = nn.ModuleList(
            WaveformDiscriminator(channels=waveform_channels, max_channels=max_waveform_channels) for _ in self.rates
        )
        self.spectral = SpectralDiscriminator(channels=spectral_channels, window=window, hop=hop)

    def forward(self, audio: Tensor) -> list[Judgement]:
        """Judge a sound with every network.

        Args:
            audio: (b, 1, n).

        Returns:
            One judgement a network, the spectral one last.
        """
        slower = [F.avg_pool1d(audio, r) if r > 1 else audio for r in self.rates]
        judged = [network(sound) for network, sound in zip(self.waveform, slower, strict=True)]
        return [*judged, self.spectral(audio)]


def discriminator_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Hinge loss that teaches the discriminators, averaged over time, then over networks.

    Args:
        real: judgements of originals.
        fake: judgements of reconstructions, which must not carry gradients to the codec.

    Returns:
        () float32; 2 for undecided networks, 0 for sure and right ones.
    """
    terms = [
        F.relu(1 - r.logits.float()).mean() + F.relu(1 + f.logits.float()).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def adversarial_loss(fake: list[Judgement]) -> Tensor:
    """Hinge loss of the codec, () float32: reconstructions should be taken for real."""
    return torch.stack([F.relu(1 - f.logits.float()).mean() for f in fake]).mean()


def feature_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Mean absolute difference of hidden features, averaged over layers, then over networks.

    Args:
        real: judgements of originals; taken as constants.
        fake: judgements of their reconstructions.

    Returns:
        () float32.
    """
    networks = []
    for r, f in zip(real, fake, strict=True):
        layers = [F.l1_loss(y.float(), x.detach().float()) for x, y in zip(r.features, f.features, strict=True)]
        networks.append(torch.stack(layers).mean())
    return torch.stack(networks).mean()
