"""The ends of a codec in frames of spectra: all of its layers run once a frame, none at the rate of the samples.

After Vocos (Siuzdak 2023, arXiv 2306.00814): ConvNeXt blocks that end in amplitudes and phases, which an inverse
Fourier transform turns into sound. Here both ends are made so, and every layer looks back only. Windows overlap, so a
hop of sound is finished by the frames behind it, ``lookahead`` of them.

Shape letters: b batch, n samples, t frames, w window, f = w / 2 + 1 frequencies, c width, d latent width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.nn.causal1d import CausalConv1d
from mmtok.nn.streaming import with_past

_MAX_LOG_AMPLITUDE = 8.0  # e ** 8 is far beyond a full-scale window
_FLOOR = 1e-5


class SpectralBlock(nn.Module):
    """A depthwise convolution over time and two dense layers around a skip (ConvNeXt, arXiv 2201.03545, causal)."""

    def __init__(self, width: int, *, hidden_dim: int, kernel_size: int):
        super().__init__()
        self.time = CausalConv1d(width, width, kernel_size, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, hidden_dim)
        self.mix = nn.Linear(hidden_dim, width)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        """Refine: (b, t, c) to (b, t, c)."""
        y = self.norm(self.time(x.transpose(1, 2)).transpose(1, 2))
        return x + self.scale * self.mix(F.gelu(self.wide(y)))


class _Body(nn.Module):
    def __init__(self, width: int, *, hidden_dim: int, num_layers: int, kernel_size: int, wide_in: int, wide_out: int):
        super().__init__()
        self.inward = nn.Linear(wide_in, width)
        self.blocks = nn.Sequential(
            *(SpectralBlock(width, hidden_dim=hidden_dim, kernel_size=kernel_size) for _ in range(num_layers))
        )
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, wide_out)

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, in) to (b, t, out)."""
        return self.outward(self.norm(self.blocks(self.inward(x))))


class SpectralEncoder(_Body):
    """Sound to latents: windows that end with each hop, their spectra, causal blocks.

    Args:
        width: of its vectors.
        window: samples of a frame, a multiple of ``hop``.
        hop: samples between frames.
        dim: latent width.
        blocks: their hidden_dim, num_layers and kernel_size, frames that one reads.
    """

    def __init__(self, width: int, *, window: int, hop: int, dim: int, **blocks: int):
        super().__init__(width, wide_in=3 * (window // 2 + 1), wide_out=dim, **blocks)
        self.window, self.hop = window, hop

    def forward(self, audio: Tensor) -> Tensor:
        """Analyse; frame i depends on samples below ``(i + 1) * hop``.

        Args:
            audio: (b, 1, n), n a multiple of the hop.

        Returns:
            (b, d, n // hop).
        """
        own = self.inward.weight.dtype
        with torch.autocast(audio.device.type, enabled=False):
            known = with_past(self, audio.float(), self.window - self.hop, kernel=self.window, stride=self.hop)
            hann = torch.hann_window(self.window, device=audio.device)
            spectrum = torch.fft.rfft(known[:, 0].unfold(-1, self.window, self.hop) * hann)  # (b, t, f)
            amplitude = spectrum.abs().clamp(min=_FLOOR)
            # logarithms say how loud; the spectrum with amplitudes to the power of 0.3 says it with phases
            bent = spectrum * amplitude**-0.7
            features = torch.cat((0.3 * amplitude.clamp(min=1e-4).log() + 1, bent.real, bent.imag), -1)
        return super().forward(features.to(own)).transpose(1, 2)


class SpectralDecoder(_Body):
    """Latents to sound: causal blocks, amplitudes and phases, inverse transforms that are added where they overlap.

    Args:
        width: of its vectors.
        window: samples of a frame, a multiple of ``hop``, at least two.
        hop: samples between frames.
        dim: latent width.
        blocks: their hidden_dim, num_layers and kernel_size, frames that one reads.
    """

    def __init__(self, width: int, *, window: int, hop: int, dim: int, **blocks: int):
        super().__init__(width, wide_in=dim, wide_out=2 * (window // 2 + 1), **blocks)
        self.window, self.hop, self.lookahead = window, hop, window // hop - 1

    def forward(self, latents: Tensor) -> Tensor:
        """Synthesise, ``lookahead`` hops late: the first hops stand before the sound.

        Args:
            latents: (b, d, t).

        Returns:
            (b, 1, t * hop) float32.
        """
        amplitude, phase = super().forward(latents.transpose(1, 2)).float().chunk(2, -1)  # (b, t, f) each
        with torch.autocast(latents.device.type, enabled=False):
            spectrum = torch.polar(amplitude.clamp(max=_MAX_LOG_AMPLITUDE).exp(), phase)
            hann = torch.hann_window(self.window, device=latents.device)
            frames = torch.fft.irfft(spectrum, self.window) * hann  # (b, t, w)
            late = self.lookahead
            parts = with_past(self, frames.unflatten(-1, (-1, self.hop)).transpose(1, 2), late)
            # a window's j-th hop lies lookahead - j hops before its last one
            t = latents.shape[-1]
            hops = torch.stack([parts[:, j, late - j : late - j + t] for j in range(late + 1)]).sum(0)
            hops = hops / hann.square().view(-1, self.hop).sum(0)
        return hops.flatten(1).unsqueeze(1)
