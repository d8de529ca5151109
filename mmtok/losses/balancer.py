"""A balancer of losses (EnCodec, Défossez et al. 2022, arXiv 2210.13438, 3.4): weights are shares of the gradient.

Where terms of very different sizes meet at one output, their weights say little about what each one does. Here every
term's gradient at the output is brought to its share of one length before it goes on through the network.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _itself(value: Tensor) -> Tensor:
    return value


class LossBalancer:
    """Gradients of several losses at one output, each scaled by the running mean of its length.

    Args:
        weights: share of each loss by name; only their ratios matter.
        decay: of the running means.
        length: of the sum of all gradients of one example, if they pointed the same way.
    """

    def __init__(self, weights: dict[str, float], *, decay: float = 0.999, length: float = 1.0):
        if not weights or min(weights.values()) <= 0:
            raise ValueError(f"weights must be positive and at least one, got {weights}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.weights, self.decay, self.length = dict(weights), decay, length
        self.sums = torch.zeros(len(weights), dtype=torch.float64)
        self.counts = torch.zeros(len(weights), dtype=torch.float64)  # each loss begins when it first comes

    def gradient(
        self, losses: dict[str, Tensor], output: Tensor, *, mean: Callable[[Tensor], Tensor] = _itself
    ) -> Tensor:
        """The balanced gradient, for ``output.backward``; the losses' graphs are kept.

        Args:
            losses: scalars by name, means over examples; names may be absent at a step.
            output: (b, ...) that the losses were computed from, with a graph.
            mean: over the processes that train together.

        Returns:
            Like ``output``, divided by b as the gradient of a mean over examples is.

        Raises:
            ValueError: for a loss without a weight.
        """
        if unknown := sorted(set(losses) - set(self.weights)):
            raise ValueError(f"losses without a weight: {', '.join(unknown)}; known: {', '.join(self.weights)}")
        total = sum(self.weights[name] for name in losses)
        balanced = torch.zeros_like(output)
        for place, (name, weight) in enumerate(self.weights.items()):
            if name not in losses:
                continue
            (part,) = torch.autograd.grad(losses[name], output, retain_graph=True)
            part = part * len(output)  # of one example
            length = float(mean(part.flatten(1).norm(dim=1).mean()))
            self.sums[place] = self.decay * self.sums[place] + (1 - self.decay) * length
            self.counts[place] = self.decay * self.counts[place] + (1 - self.decay)
            usual = float(self.sums[place] / self.counts[place])
            balanced += part * (self.length * weight / total / max(usual, 1e-12))
        return balanced / len(output)

    def state_dict(self) -> dict[str, Tensor]:
        """The running means, name to tensor."""
        return {"sums": self.sums.clone(), "counts": self.counts.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what ``state_dict`` gave."""
        self.sums.copy_(state["sums"])
        self.counts.copy_(state["counts"])
