"""The products of a step are those of the layers, small or large, float or int8."""

import pytest
import torch
from torch import nn

from llm.int8 import Int8Linear
from llm.step_linear import HeadProduct, product


@pytest.mark.parametrize("small", [0, 2**20])
@pytest.mark.parametrize("kind", ["float", "int8"])
def test_layers_stand_behind_one_another(monkeypatch, small, kind):
    monkeypatch.setattr("llm.step_linear.SMALL", small)
    torch.manual_seed(0)
    layers = [nn.Linear(32, width, bias=False) for width in (16, 48)]
    if kind == "int8":
        layers = [Int8Linear.of(layer.weight) for layer in layers]
    x, y = torch.randn(2, 32), torch.randn(2, 64)
    with torch.no_grad():
        apart = torch.cat([layer(x) for layer in layers], -1)
        joined = product(*layers)
        torch.testing.assert_close(joined(x), apart, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(joined.plus(y, x), y + apart, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("small", [0, 2**20])
@pytest.mark.parametrize("kind", ["float", "int8"])
def test_a_block_of_the_head_is_that_part_of_its_scores(monkeypatch, small, kind):
    monkeypatch.setattr("llm.step_linear.SMALL", small)
    torch.manual_seed(0)
    head = nn.Linear(32, 96, bias=False)
    head = Int8Linear.of(head.weight) if kind == "int8" else head
    x = torch.randn(2, 32)
    with torch.no_grad():
        torch.testing.assert_close(HeadProduct(head)(x, 32, 64), head(x)[:, 32:64], atol=1e-5, rtol=1e-5)
