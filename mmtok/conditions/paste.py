"""Paste what was visible back over what a model made: a painting task makes the whole clip, its user wants the hole.

Shape letters: b batch, t h w time/height/width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def paste_back(made: Tensor, original: Tensor, known: Tensor, *, feather_px: int = 0) -> Tensor:
    """The original where it was known, the made clip where it was hidden.

    Args:
        made: (b, 3, t, h, w) in [-1, 1].
        original: (b or 1, 3, t, h, w), the clip before anything was hidden.
        known: (t, h', w') bool, True where a pixel was visible; h and w are the same multiple of h' and w'.
        feather_px: width of the soft edge in pixels of ``made``: known pixels nearer to the hidden part than that are
            mixed, in equal steps of distance along rows, columns and diagonals; hidden ones are always made.

    Returns:
        (b, 3, t, h, w).

    Raises:
        ValueError: if the sizes do not fit, or ``feather_px`` is negative.
    """
    t, h, w = made.shape[2:]
    scale = h // known.shape[1]
    if tuple(known.shape) != (t, h // max(scale, 1), w // max(scale, 1)) or h != scale * known.shape[1]:
        raise ValueError(f"a mask of {tuple(known.shape)} does not fit a clip of {(t, h, w)}")
    if tuple(original.shape[1:]) != tuple(made.shape[1:]):
        raise ValueError(f"the original is {tuple(original.shape[1:])}, what was made {tuple(made.shape[1:])}")
    if feather_px < 0:
        raise ValueError(f"feather_px must not be negative, got {feather_px}")
    reached = (~known).repeat_interleave(scale, 1).repeat_interleave(scale, 2).to(made)  # (t, h, w), 1 where hidden
    share = reached
    for distance in range(1, feather_px + 1):
        reached = F.max_pool2d(reached[:, None], 3, stride=1, padding=1)[:, 0]
        share = torch.maximum(share, reached * (1 - distance / (feather_px + 1)))
    mixed = original + share * (made - original)
    return torch.where(share == 1, made, torch.where(share == 0, original, mixed))
