"""What is measured on: held-out scenes and files kept out of training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from recipes.corpora.shapes import Scene


@dataclass(frozen=True)
class Material:
    """Clips of one kind.

    Attributes:
        clips: (n, 3, t, h, w) uint8, square, of the size that super-resolution makes.
        protocol: how they were made.
        scenes: what they show, where that is known; their captions are the prompts.
    """

    clips: Tensor
    protocol: str
    scenes: tuple[Scene, ...] = ()
