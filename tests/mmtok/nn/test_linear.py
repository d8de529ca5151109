"""Few rows take another way to the same sums."""

import pytest
import torch
from torch import nn

from mmtok.nn.linear import LEAST_ROWS, MOST_ROWS, Linear


@pytest.mark.parametrize(
    "shape", [(1, 1, 12), (4, 12), (12,), (2, 2, 12), (5, 12), (0, 12), (LEAST_ROWS, 12), (3, 100, 12)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_that_of_torch(shape, bias):
    torch.manual_seed(0)
    ours = Linear(12, 20, bias=bias)
    theirs = nn.Linear(12, 20, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x))
        assert ours(x).shape == theirs(x).shape
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), theirs(x))
    assert ours(x).requires_grad


def test_threads_are_used_for_few_rows_only(monkeypatch):
    calls = []
    product = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *a: (calls.append(1), product(*a))[1])
    layer = Linear(8, 16)
    with torch.inference_mode():
        layer(torch.randn(MOST_ROWS + 1, 8))
        layer.half()(torch.randn(1, 8).half())
        Linear(8, 15)(torch.randn(1, 8))
        assert not calls
        Linear(8, 16)(torch.randn(MOST_ROWS, 8))
        assert calls
    Linear(8, 16)(torch.randn(1, 8))  # with gradients
    assert len(calls) == 1


def test_convolutions_are_used_for_many_rows_only(monkeypatch):
    calls = []
    product = torch.nn.functional.conv2d
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *a: (calls.append(1), product(*a))[1])
    layer = Linear(8, 16)
    with torch.inference_mode():
        layer(torch.randn(LEAST_ROWS - 1, 8))
        layer.bfloat16()(torch.randn(LEAST_ROWS, 8).bfloat16())
        assert not calls
        turned = torch.randn(2, 8, LEAST_ROWS // 2).transpose(1, 2)  # rows that do not lie one after another
        torch.testing.assert_close(layer.float()(turned), nn.Linear.forward(layer, turned))
        assert calls
    layer(torch.randn(LEAST_ROWS, 8))  # with gradients
    assert len(calls) == 1
