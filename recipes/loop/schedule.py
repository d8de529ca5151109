"""What every training loop does with its step number: the learning rate's course, and averaged weights."""

from __future__ import annotations

import math

import torch
from torch import nn


def warmup_cosine(step: int, *, steps: int, warmup: int, floor: float) -> float:
    """Linear warm-up to 1, then half a cosine down to ``floor``.

    Args:
        step: optimizer step, from 0.
        steps: of the whole run.
        warmup: steps of the warm-up.
        floor: share of the peak at the end.

    Returns:
        The share of the peak learning rate at ``step``, in (0, 1].
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def follow_weights(averaged: nn.Module, model: nn.Module, *, decay: float, step: int) -> None:
    """Move a running average of weights one step on; young averages follow faster.

    Args:
        averaged: changed in place.
        model: what it follows, of the same structure.
        decay: share kept once the average is old.
        step: optimizer step just taken, from 0.
    """
    kept = min(decay, (step + 1) / (step + 10))
    for mean, weight in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight.detach(), 1 - kept)
