"""Finite scalar quantisation: every latent channel is bounded and rounded to one of a few levels.

Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple", arXiv 2309.15505. No codebook; a code is the
mixed-radix number whose digits are the levels, channel 0 least significant (as Cosmos and VidTok store them).
Shape letters: b batch, d channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmtok.contract import require_range


def _per_channel(values: list[float], like: Tensor) -> Tensor:
    """(d,) numbers shaped to multiply (b, d, *grid)."""
    return torch.tensor(values, device=like.device).view(1, -1, *([1] * (like.ndim - 2)))


def fsq_bound(latents: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Squash each channel so that rounding it gives exactly its number of levels."""
    half = [(n - 1) * (1 + 1e-3) / 2 for n in levels]
    offset = [0.0 if n % 2 else 0.5 for n in levels]
    shift = [math.atanh(o / h) for o, h in zip(offset, half, strict=True)]
    z = latents.float()
    bounded: Tensor = torch.tanh(z + _per_channel(shift, z)) * _per_channel(half, z) - _per_channel(offset, z)
    return bounded


def fsq_quantize(latents: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Quantised values with the gradient of the bound.

    Args:
        latents: (b, d, *grid).
        levels: levels of each channel.

    Returns:
        The same shape, float32, multiples of 1 / (L // 2) in [-1, 1].
    """
    bounded = fsq_bound(latents, levels)
    rounded = bounded + (bounded.round() - bounded).detach()
    return rounded / _per_channel([float(n // 2) for n in levels], rounded)


def fsq_codes(latents: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Codes of latents.

    Args:
        latents: (b, d, *grid), before the bound.
        levels: levels of each channel.

    Returns:
        (b, *grid) int64 below the product of the levels.
    """
    digits = fsq_bound(latents, levels).round().long()
    code = torch.zeros_like(digits[:, 0])
    base = 1
    for channel, count in enumerate(levels):
        code += (digits[:, channel] + count // 2) * base
        base *= count
    return code


def fsq_values(codes: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Quantised values that codes stand for.

    Args:
        codes: (b, *grid) integers.
        levels: levels of each channel.

    Returns:
        (b, d, *grid) float32.

    Raises:
        ValueError: if a code is out of range.
    """
    require_range(codes, math.prod(levels))
    channels = []
    rest = codes
    for count in levels:
        channels.append((rest % count - count // 2).float() / (count // 2))
        rest = rest // count
    return torch.stack(channels, 1)
