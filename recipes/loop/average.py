"""Averaged weights, which are validated and saved, and looking at a model without training it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def follow_weights(averaged: nn.Module, model: nn.Module, *, decay: float, step: int) -> None:
    """Move a running average of weights one step on; young averages follow faster, so that the start is forgotten.

    Args:
        averaged: changed in place.
        model: what it follows, of the same structure.
        decay: share kept once the average is old.
        step: optimizer step just taken, from 0.
    """
    kept = min(decay, (step + 1) / (step + 10))
    for mean, weight in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight.detach(), 1 - kept)
    for own, value in zip(averaged.buffers(), model.buffers(), strict=True):
        own.copy_(value)  # a codebook is no weight: the average speaks the codes of the model


@contextmanager
def evaluating(model: M) -> Iterator[M]:
    """A model in eval mode and without gradients; it is back in its own mode behind."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.train(was_training)


def weighted_means(parts: list[tuple[float, dict[str, float | Tensor]]]) -> dict[str, float | Tensor]:
    """Weighted mean of each name over the parts, pairs of weight and values, that have it."""
    sums: dict[str, float | Tensor] = {}
    weights: dict[str, float] = {}
    for weight, values in parts:
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + weight * value
            weights[name] = weights.get(name, 0.0) + weight
    return {name: total / weights[name] for name, total in sums.items()}
