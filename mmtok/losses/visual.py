"""Reconstruction terms of visual tokenizers, computed in float32.

Shape letters: b batch, c channels, t h w time/height/width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ReconstructionLosses:
    """Unweighted scalar terms.

    Attributes:
        l1: mean absolute error.
        l2: mean squared error.
        edge: mean absolute error of the differences between neighbouring pixels and neighbouring frames.
    """

    l1: Tensor
    l2: Tensor
    edge: Tensor


def edge_loss(reconstruction: Tensor, video: Tensor) -> Tensor:
    """How far the differences between neighbours are off, along width, height and (for clips) time."""
    # Pixel errors alone reward blur; differences reward edges that are sharp and motion that is steady.
    error = reconstruction.float() - video.float()
    axes = [axis for axis in (2, 3, 4) if error.shape[axis] > 1]
    terms = [error.diff(dim=axis).abs().mean() for axis in axes]
    return torch.stack(terms).mean() if terms else error.new_zeros(())


def reconstruction_losses(reconstruction: Tensor, video: Tensor) -> ReconstructionLosses:
    """All terms at once.

    Args:
        reconstruction: (b, c, t, h, w).
        video: the same shape.

    Returns:
        The terms.

    Raises:
        ValueError: if the shapes differ.
    """
    if reconstruction.shape != video.shape:
        raise ValueError(f"reconstruction {tuple(reconstruction.shape)} and video {tuple(video.shape)} differ in shape")
    reconstruction, video = reconstruction.float(), video.float()
    return ReconstructionLosses(
        F.l1_loss(reconstruction, video), F.mse_loss(reconstruction, video), edge_loss(reconstruction, video)
    )
