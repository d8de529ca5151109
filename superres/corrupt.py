"""What training hides and spoils: masked codes, noisy low-resolution codes, dropped conditions.

Masking after MAGVIT (Yu et al. 2022, section 3.2), noise and drops after VideoPoet (section 3.3); the noise rate is
unpublished and ours. All draws come from the given generator, on its device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Corruption:
    """One training draw.

    Attributes:
        masked: (b, t, h, w) bool, True where a high-resolution code is hidden.
        low: (b, t, h / 2, w / 2) low-resolution codes, some replaced.
        keep_low: (b,) bool, False where the low-resolution condition is dropped.
        keep_text: (b,) bool, False where the text is dropped.
    """

    masked: Tensor
    low: Tensor
    keep_low: Tensor
    keep_text: Tensor


def mask_ratio(progress: Tensor) -> Tensor:
    """The cosine schedule cos(pi / 2 * progress): the hidden fraction at ``progress`` in [0, 1], from 1 down to 0."""
    return torch.cos(progress * (math.pi / 2))


def draw_mask(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Hide a random subset of each sample, its size drawn by the cosine schedule; at least one position."""
    batch, count = shape[0], math.prod(shape[1:])
    ratio = mask_ratio(torch.rand(batch, 1, generator=generator, device=generator.device))
    hidden = (ratio * count).ceil().clamp(1, count)
    rank = torch.rand(batch, count, generator=generator, device=generator.device).argsort(1).argsort(1)
    return (rank < hidden).view(shape)


def add_noise(low: Tensor, codebook_size: int, generator: torch.Generator, *, max_rate: float) -> Tensor:
    """Replace whole codes by uniformly random ones, at a rate drawn per sample from U(0, max_rate)."""
    if not 0 <= max_rate <= 1:
        raise ValueError(f"max_rate must lie in [0, 1], got {max_rate}")
    where = generator.device
    rate = max_rate * torch.rand(len(low), 1, 1, 1, generator=generator, device=where)
    hit = torch.rand(low.shape, generator=generator, device=where) < rate
    random = torch.randint(codebook_size, low.shape, generator=generator, device=where)
    return torch.where(hit.to(low.device), random.to(low), low)


def corrupt(
    low: Tensor,
    high_shape: tuple[int, ...],
    codebook_size: int,
    generator: torch.Generator,
    *,
    max_noise: float = 0.25,
    drop_low: float = 0.1,
    drop_text: float = 0.1,
) -> Corruption:
    """Draw all that one training step hides and spoils.

    Args:
        low: (b, t, h / 2, w / 2) clean low-resolution codes.
        high_shape: (b, t, h, w) of the codes to predict.
        codebook_size: values of one code.
        generator: source of the draws.
        max_noise: largest rate of replaced low-resolution codes.
        drop_low: probability of losing the low-resolution condition.
        drop_text: probability of losing the text, independent of ``drop_low``.

    Returns:
        The draw, on the device of ``low``.
    """
    masked = draw_mask(high_shape, generator)
    noisy = add_noise(low, codebook_size, generator, max_rate=max_noise)
    drops = torch.rand(2, len(low), generator=generator, device=generator.device)
    return Corruption(
        masked=masked.to(low.device),
        low=noisy,
        keep_low=(drops[0] >= drop_low).to(low.device),
        keep_text=(drops[1] >= drop_text).to(low.device),
    )
