"""Fréchet distances against published facts and second ways of computing."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmtok.metrics.frechet import (
    FrechetOfDifferences,
    FrechetOfFrames,
    Gaussian,
    frechet_distance,
    gaussian_distance,
)


def test_frechet_distance_of_known_gaussians() -> None:
    torch.manual_seed(0)
    a = torch.randn(20000, 3, dtype=torch.float64)
    scaled = a * torch.tensor([1.0, 2.0, 0.5]) + torch.tensor([0.0, 0.0, 3.0])
    # diagonal covariances: |gap|^2 + sum (s - s')^2
    assert frechet_distance(a, scaled) == pytest.approx(9 + 1 + 0.25, rel=0.03)
    assert frechet_distance(a, a.flip(0)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_against_the_general_matrix_root() -> None:
    torch.manual_seed(1)
    a, b = torch.randn(60, 8) @ torch.randn(8, 8), torch.randn(40, 8) @ torch.randn(8, 8) + 1
    ca, cb = (np.cov(v.double().numpy().T) for v in (a, b))
    root = np.sqrt(np.linalg.eigvals(ca @ cb).astype(complex)).sum().real
    gap = (a.double().mean(0) - b.double().mean(0)).square().sum().item()
    assert frechet_distance(a, b) == pytest.approx(gap + np.trace(ca) + np.trace(cb) - 2 * root, rel=1e-6)


def test_frechet_distance_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="of one width"):
        frechet_distance(torch.zeros(3, 2), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(torch.zeros(1, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(torch.full((3, 2), float("nan")), torch.zeros(3, 2))
    few = F.normalize(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))  # singular covariances
    assert np.isfinite(frechet_distance(few, few + 0.1))


def test_a_gaussian_of_batches_is_that_of_the_whole() -> None:
    vectors = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * 2 + 100  # far from zero
    gaussian = Gaussian(6)
    for batch in vectors.split((1, 0, 20, 29)):
        gaussian.update(batch)
    assert gaussian.count == 50
    torch.testing.assert_close(gaussian.mean, vectors.double().mean(0))
    torch.testing.assert_close(gaussian.covariance, torch.cov(vectors.double().T))
    other = Gaussian(6)
    other.update(vectors + 1)
    assert gaussian_distance(gaussian, other) == pytest.approx(6, rel=1e-5)  # six dimensions moved by 1
    with pytest.raises(ValueError, match="vectors of width 6 wanted"):
        gaussian.update(vectors[:, :5])
    with pytest.raises(ValueError, match="of one width wanted"):
        gaussian_distance(gaussian, Gaussian(5))
    with pytest.raises(ValueError, match="at least two"):
        gaussian_distance(gaussian, Gaussian(6))


class Colours:
    """Stands for SqueezeNet: the colours of a picture's quarters; counts the pictures that it saw."""

    source, seen = "colours", 0

    def features(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return F.adaptive_avg_pool2d(images, 2).flatten(1)


def test_distances_of_clips_embed_the_originals_once() -> None:
    real, dark = torch.rand(6, 3, 4, 8, 8), 0.5
    network = Colours()
    first = FrechetOfFrames(network)
    for part in real.split(2):
        first.update(part, part * dark)
    second = first.another()
    second.update(real, real)
    vectors = [Colours().features(v.transpose(1, 2).flatten(0, 1)) for v in (real, real * dark)]
    assert first.value() == pytest.approx(frechet_distance(*vectors), rel=1e-6) and first.value() > 0.1
    assert second.value() == pytest.approx(0, abs=1e-9)
    assert network.seen == 3 * 24 and "24 + 24 vectors of width 12, colours" in first.protocol


def test_single_pictures_have_no_differences() -> None:
    metric = FrechetOfDifferences(Colours())
    metric.update(torch.rand(4, 3, 1, 8, 8), torch.rand(4, 3, 1, 8, 8))
    assert math.isnan(metric.value()) and metric.protocol.startswith("left out")
    metric.update(torch.rand(2, 3, 3, 8, 8), torch.rand(2, 3, 3, 8, 8))
    assert metric.value() > 0 and "4 + 4 vectors" in metric.protocol and "bias" in metric.protocol
