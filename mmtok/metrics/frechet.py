"""Fréchet distance between two sets of feature vectors (Heusel et al. 2017, arXiv 1706.08500), in float64.

Shape letters: n vectors, d width.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

    from mmtok.features.squeezenet import SqueezeNet


class Gaussian:
    """Mean and covariance of vectors that arrive in batches; its size does not grow with their number.

    Args:
        dim: width of a vector.
    """

    def __init__(self, dim: int):
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64)  # sum of outer products about the mean

    def update(self, features: Tensor) -> None:
        """Take vectors in (merging of partial sums: Chan, Golub and LeVeque 1983).

        Args:
            features: (n, d), n may be 0.

        Raises:
            ValueError: for another shape or values that are not finite.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ValueError(f"vectors of width {len(self.mean)} wanted, got {tuple(features.shape)}")
        if not torch.isfinite(features).all():
            raise ValueError("features hold values that are not finite")
        n = len(features)
        if not n:
            return
        batch = features.detach().to("cpu", torch.float64)
        centre = batch.mean(0)
        gap, total = centre - self.mean, self.count + n
        self._scatter += (batch - centre).T @ (batch - centre)
        self._scatter.addr_(gap, gap, alpha=self.count * n / total)
        self.mean += gap * (n / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """(d, d), unbiased; ValueError before two vectors were taken."""
        if self.count < 2:
            raise ValueError("a covariance needs at least two vectors")
        return self._scatter / (self.count - 1)


def gaussian_distance(one: Gaussian, other: Gaussian) -> float:
    """Fréchet distance of two Gaussians.

    ``|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))``; the trace of the root is the sum of the roots of the eigenvalues of
    ``C^(1/2) C' C^(1/2)``, which is symmetric, so no complex numbers appear for singular covariances.

    Args:
        one: of at least two vectors.
        other: of at least two vectors of the same width.

    Returns:
        Not negative, 0 for equal ones. With fewer vectors than dimensions it is biased upwards: state both counts.

    Raises:
        ValueError: for different widths, or fewer than two vectors.
    """
    if one.mean.shape != other.mean.shape:
        raise ValueError(f"vectors of one width wanted, got {len(one.mean)} and {len(other.mean)}")
    covariance, second = one.covariance, other.covariance
    gap = (one.mean - other.mean).square().sum()
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    middle = root @ second @ root
    mixed = torch.linalg.eigvalsh((middle + middle.T) / 2).clamp(min=0).sqrt().sum()
    return max(0.0, float(gap + covariance.trace() + second.trace() - 2 * mixed))


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """Distance of the Gaussians fitted to two sets, see ``gaussian_distance``.

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
    pair = (Gaussian(features.shape[1]), Gaussian(features.shape[1]))
    for gaussian, vectors in zip(pair, (features, others), strict=True):
        gaussian.update(vectors)
    return gaussian_distance(*pair)


class Frechet:
    """Fréchet distance between originals and what was made of them.

    Subclasses give ``_features``. What is made by ``another`` shares the originals' Gaussian: their features cost as
    much as those of the other side, and are the same for all methods.

    Args:
        source: which network makes the vectors, and of what.
    """

    def __init__(self, source: str):
        self.source = source
        self.real: list[Gaussian] = []  # one, once vectors have come and told their width
        self.again: list[Gaussian] = []
        self.embeds_originals = True

    def _features(self, media: Tensor) -> Tensor:
        """(n, d) vectors of a batch."""
        raise NotImplementedError

    def update(self, real: Tensor, again: Tensor) -> None:
        """Take a batch in.

        Args:
            real: originals, (b, ...).
            again: what was made of them, of the same shape.
        """
        for side, media in ((self.real, real), (self.again, again)):
            if side is self.real and not self.embeds_originals:
                continue
            vectors = self._features(media)
            if not len(vectors):
                continue
            if not side:
                side.append(Gaussian(vectors.shape[1]))
            side[0].update(vectors)

    def value(self) -> float:
        """The distance; NaN with less than two vectors a side."""
        enough = min(self._counts()) > 1
        return gaussian_distance(self.real[0], self.again[0]) if enough else math.nan

    def another(self) -> Self:
        """An empty one beside the same originals, which it does not embed again."""
        other = copy.copy(self)
        other.again, other.embeds_originals = [], False
        return other

    def _counts(self) -> tuple[int, int]:
        n, m = (sum(gaussian.count for gaussian in side) for side in (self.real, self.again))
        return n, m

    @property
    def protocol(self) -> str:
        """Vectors, their network, and what biases the figure."""
        n, m = self._counts()
        if min(n, m) < 2:
            return "left out: needs at least two vectors"
        dim = len(self.real[0].mean)
        few = f"; fewer vectors than {dim} dimensions bias it upwards" if min(n, m) < dim else ""
        return f"Frechet distance of {n} + {m} vectors of width {dim}, {self.source}{few}"


class FrechetOfFrames(Frechet):
    """Of SqueezeNet's features of each picture; clips are (b, 3, t, h, w) in [-1, 1].

    Args:
        squeezenet: the network.
    """

    def __init__(self, squeezenet: SqueezeNet):
        super().__init__(f"{squeezenet.source}, frames resized to 227 (bicubic)")
        self.network = squeezenet

    def _features(self, media: Tensor) -> Tensor:
        return self.network.features(rearrange(media, "b c t h w -> (b t) c h w"))


class FrechetOfDifferences(FrechetOfFrames):
    """Of SqueezeNet's features of the change from picture to picture; single pictures are passed over."""

    def _features(self, media: Tensor) -> Tensor:
        return super()._features(media.diff(dim=2) / 2) if media.shape[2] > 1 else media.new_zeros(0, 0)
