"""Random numbers that depend on seed, step and place only."""

from __future__ import annotations

import torch


def step_generator(seed: int, step: int, example: int | None = None) -> torch.Generator:
    """A generator that depends on (seed, step, example) only.

    Args:
        seed: the run's seed.
        step: the optimizer step, from 0.
        example: number in the batch, or None for what the whole step shares.

    Returns:
        A CPU generator.
    """
    number = seed * 1_000_003 + step
    if example is not None:
        number = (number * 4_294_967_291 + example + 1) ^ 0x5DEECE66D
    return torch.Generator().manual_seed(number % (2**63 - 1))
