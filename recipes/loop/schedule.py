"""What every training loop does with its step number: the learning rate's course, and averaged weights."""

from __future__ import annotations

import math


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
