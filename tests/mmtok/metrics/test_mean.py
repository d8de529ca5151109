"""Means over clips: what has no figure does not count."""

import math

import torch
from torch import Tensor

from mmtok.metrics.mean import Mean


class Error(Mean):
    protocol = "mean error, of clips that are not empty"

    def _compare(self, real: Tensor, again: Tensor) -> Tensor:
        error = (again - real).mean(1)
        return torch.where(real.sum(1) == 0, torch.nan, error)


def test_a_mean_is_over_the_figures_that_there_are() -> None:
    metric = Error()
    assert math.isnan(metric.value())
    metric.update(torch.tensor([[1.0], [0.0]]), torch.tensor([[3.0], [9.0]]))
    metric.update(torch.tensor([[1.0]]), torch.tensor([[2.0]]))
    assert metric.value() == 1.5 and metric.valid == [2, 1] and len(metric.values) == 3


def test_another_one_is_empty_and_apart() -> None:
    metric = Error()
    metric.update(torch.ones(1, 1), torch.full((1, 1), 3.0))
    other = metric.another()
    other.update(torch.ones(1, 1), torch.full((1, 1), 5.0))
    assert (metric.value(), other.value()) == (2, 4)
