"""Averaged weights, which are validated and saved."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=torch.nn.Module)


class Ema(Generic[M]):
    """A running average of a model's weights, itself a model.

    Args:
        model: copied.
        decay: share that is kept a step; smaller during the first steps, so that the start is forgotten.
    """

    def __init__(self, model: M, decay: float):
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: M) -> None:
        """Move towards ``model``.

        Args:
            model: the model being trained.
        """
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights and the count.

        Returns:
            State for a checkpoint.
        """
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``.

        Args:
            state: as returned by ``state_dict``.
        """
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]


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
