"""How much of its codebooks a tokenizer uses: share of the entries that occur, and the entropy of their choice."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor


def codebook_use(codes: Tensor, codebook_size: int) -> tuple[float, float]:
    """How much of a vocabulary some codes use.

    Args:
        codes: integers of any shape.
        codebook_size: entries of the codebook.

    Returns:
        The share of entries that occur, and the entropy of their frequencies in bits (at most log2 of the size).
    """
    use = CodebookUse(codebook_size)
    use.update(codes.reshape(1, 1, -1))
    return float(use.share()), float(use.entropy_bits())


class CodebookUse:
    """Use of each codebook over the last batches; a plain object whose state can be saved.

    Args:
        codebook_size: entries of one codebook.
        num_codebooks: k.
        window: batches that are remembered, or None to remember all.
    """

    def __init__(self, codebook_size: int, *, num_codebooks: int = 1, window: int | None = None):
        self.counts = torch.zeros(num_codebooks, codebook_size, dtype=torch.long)
        self.window = window
        self._recent: deque[Tensor] = deque()  # (k, n) each; empty without a window

    def update(self, codes: Tensor) -> None:
        """Count one batch of (b, k, *grid) integers and forget the oldest beyond the window."""
        flat, size = codes.detach().to("cpu", torch.int32).transpose(0, 1).flatten(1), self.counts.shape[1]
        self.counts += torch.stack([torch.bincount(level, minlength=size) for level in flat])
        if self.window is None:
            return
        self._recent.append(flat)
        if len(self._recent) > self.window:
            oldest = self._recent.popleft()
            self.counts -= torch.stack([torch.bincount(level, minlength=size) for level in oldest])

    def share(self) -> Tensor:
        """(k,) float64 in [0, 1]: share of the entries chosen at least once."""
        return (self.counts > 0).double().mean(1)

    def entropy_bits(self) -> Tensor:
        """(k,) float64 bits: entropy of the choices, at most log2 of the codebook's size."""
        shares = self.counts.double() / self.counts.sum(1, keepdim=True).clamp_min(1)
        return torch.special.entr(shares).sum(1) / math.log(2)

    def perplexity(self) -> Tensor:
        """(k,) float64 in [1, codebook_size]: effective number of entries, two to the entropy."""
        return self.entropy_bits().exp2()

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors for a checkpoint: everything needed to go on counting."""
        return {"counts": self.counts.clone(), "recent": list(self._recent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.counts.copy_(state["counts"])
        self._recent = deque(state["recent"])
