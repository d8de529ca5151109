"""Causal 1-D convolutions against plainly padded ones, and their causality by gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from mmtok.nn.causal1d import CausalConv1d, CausalConvTranspose1d
from mmtok.nn.streaming import Stream, streaming


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(7, 1, 1), (7, 1, 9), (1, 1, 1), (4, 2, 1), (10, 5, 1)])
def test_equals_a_left_padded_convolution(kernel: int, stride: int, dilation: int) -> None:
    layer = CausalConv1d(3, 4, kernel, stride=stride, dilation=dilation)
    x = torch.randn(2, 3, 20 * stride)
    past = (kernel - 1) * dilation + 1 - stride
    expected = F.conv1d(F.pad(x, (past, 0)), layer.weight, layer.bias, stride=stride, dilation=dilation)
    assert layer(x).shape == (2, 4, 20)
    assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [2, 5])
def test_transposed_equals_a_right_trimmed_one(stride: int) -> None:
    layer = CausalConvTranspose1d(3, 4, 2 * stride, stride=stride)
    x = torch.randn(2, 3, 6)
    expected = F.conv_transpose1d(x, layer.weight, layer.bias, stride=stride)[..., : 6 * stride]
    assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_outputs_see_no_later_input() -> None:
    down, up = CausalConv1d(1, 1, 8, stride=4), CausalConvTranspose1d(1, 1, 8, stride=4)
    x = torch.randn(1, 1, 40, requires_grad=True)
    (grad,) = torch.autograd.grad(down(x)[0, 0, 5], x)
    assert grad[0, 0, 24:].eq(0).all() and grad[0, 0, 23] != 0
    y = torch.randn(1, 1, 10, requires_grad=True)
    (grad,) = torch.autograd.grad(up(y)[0, 0, 23], y)  # output 23 belongs to frame 5
    assert grad[0, 0, 6:].eq(0).all() and grad[0, 0, 5] != 0


def test_gradients_reach_weights_in_their_own_shape() -> None:
    layer = CausalConv1d(3, 4, 7, dilation=3)
    layer(torch.randn(2, 3, 9)).square().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.shape == (4, 3, 7)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"kernel_size \(2\) must be at least stride \(4\)"):
        CausalConv1d(1, 1, 2, stride=4)
    with pytest.raises(ValueError, match=r"dilation \(3\) needs stride 1, got stride 2"):
        CausalConv1d(1, 1, 4, stride=2, dilation=3)
    with pytest.raises(ValueError, match=r"kernel_size \(2\) must be at least stride \(4\)"):
        CausalConvTranspose1d(1, 1, 2, stride=4)
    with pytest.raises(ValueError, match="output_size must be None"):
        CausalConvTranspose1d(1, 1, 4, stride=2)(torch.randn(1, 1, 3), [7])


@pytest.mark.parametrize(
    ("layer", "step"),
    [
        (CausalConv1d(3, 4, 7, dilation=9), 1),
        (CausalConv1d(1, 4, 7), 1),
        (CausalConv1d(3, 4, 1), 1),
        (CausalConv1d(3, 4, 10, stride=5), 5),
        (CausalConv1d(3, 4, 4, stride=4), 4),
        (CausalConvTranspose1d(3, 4, 10, stride=5), 1),
        (CausalConvTranspose1d(3, 4, 7, stride=5), 1),
        (CausalConvTranspose1d(3, 4, 5, stride=5), 1),
    ],
)
def test_in_chunks_equals_whole(layer: torch.nn.Module, step: int) -> None:
    x = torch.randn(2, layer.in_channels, 21 * step)
    stream, parts = Stream(), []
    for chunk in x.split([step, 3 * step, step, 12 * step, 4 * step], -1):
        with streaming(stream):
            parts.append(layer(chunk))
    assert_close(torch.cat(parts, -1), layer(x), atol=1e-5, rtol=1e-5)
    kept = stream.kept.get(layer)
    assert (0 if kept is None else kept.shape[2]) == layer.past
