"""Fréchet distance between two sets of feature vectors (Heusel et al. 2017, arXiv 1706.08500), in float64.

Shape letters: n vectors, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """Distance of the Gaussians fitted to two sets.

    ``|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))``; the trace of the root is the sum of the roots of the eigenvalues of
    ``C^(1/2) C' C^(1/2)``, which is symmetric, so no complex numbers appear for singular covariances.

    Args:
        features: (n, d).
        others: (m, d).

    Returns:
        Not negative, 0 for equal sets. With fewer vectors than dimensions it is biased upwards: state n and m.

    Raises:
        ValueError: for other shapes, fewer than two vectors, or values that are not finite.
    """
    if features.ndim != 2 or others.ndim != 2 or features.shape[1] != others.shape[1]:
        raise ValueError(f"two sets of vectors of one width wanted, got {tuple(features.shape)}, {tuple(others.shape)}")
    if min(len(features), len(others)) < 2:
        raise ValueError("a covariance needs at least two vectors")
    a, b = features.double(), others.double()
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise ValueError("features hold values that are not finite")
    gap = (a.mean(0) - b.mean(0)).square().sum()
    covariance, other = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    middle = root @ other @ root
    mixed = torch.linalg.eigvalsh((middle + middle.T) / 2).clamp(min=0).sqrt().sum()
    return max(0.0, float(gap + covariance.trace() + other.trace() - 2 * mixed))
