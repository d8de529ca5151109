"""Causal convolutions and depth-to-space."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from mmtok.nn.causal3d import CausalConv3d, DepthToSpaceUpsample, depth_to_space


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (1, 2, 2)])
def test_output_frames_do_not_feel_later_input_frames(stride):
    torch.manual_seed(0)
    conv = CausalConv3d(3, 4, (3, 3, 3), stride=stride)
    x = torch.randn(1, 3, 9, 6, 6, requires_grad=True)
    y = conv(x)
    assert y.shape == (1, 4, 8 // stride[0] + 1, 6 // stride[1], 6 // stride[2])
    for i in range(y.shape[2]):
        (grad,) = torch.autograd.grad(y[:, :, i].sum(), x, retain_graph=True)
        seen = grad.abs().amax(dim=(0, 1, 3, 4)).nonzero().flatten().tolist()
        last = i * stride[0]
        assert seen == list(range(max(0, last - 2), last + 1))


def test_one_frame_equals_the_first_of_many():
    torch.manual_seed(0)
    conv = CausalConv3d(3, 4, (3, 3, 3), stride=(2, 1, 1))
    x = torch.randn(2, 3, 5, 4, 4)
    torch.testing.assert_close(conv(x[:, :, :1]), conv(x)[:, :, :1], rtol=0, atol=1e-6)


def test_matches_a_convolution_over_explicit_zeros():
    torch.manual_seed(0)
    conv = CausalConv3d(2, 3, (3, 3, 3))
    x = torch.randn(1, 2, 4, 5, 5)
    padded = torch.cat((torch.zeros(1, 2, 2, 5, 5), x), dim=2)
    torch.testing.assert_close(conv(x), F.conv3d(padded, conv.weight, conv.bias, padding=(0, 1, 1)))


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match="must be odd in height and width"):
        CausalConv3d(3, 3, (3, 2, 3))


@pytest.mark.parametrize("factor", [(2, 2, 2), (1, 2, 2), (2, 1, 1)])
def test_depth_to_space_puts_the_time_block_outermost(factor):
    x = torch.randn(2, factor[0] * factor[1] * factor[2] * 3, 2, 3, 4)
    pattern = "b (ft fh fw c) t h w -> b c (t ft) (h fh) (w fw)"
    expected = rearrange(x, pattern, ft=factor[0], fh=factor[1], fw=factor[2])
    got = depth_to_space(x, factor)
    assert torch.equal(got, expected)
    assert got.is_contiguous(memory_format=torch.channels_last_3d)


def test_depth_to_space_refuses_channels_that_do_not_divide():
    with pytest.raises(ValueError, match="12 channels cannot be divided into blocks of 2 x 2 x 2"):
        depth_to_space(torch.zeros(1, 12, 1, 1, 1), (2, 2, 2))


@pytest.mark.parametrize("dropped", [0, 1])
def test_upsampling_doubles_time_but_for_the_first_frame(dropped):
    torch.manual_seed(0)
    up = DepthToSpaceUpsample(4, (2, 2, 2), (3, 3, 3), dropped_frame=dropped)
    x = torch.randn(1, 4, 5, 3, 3)
    full = depth_to_space(up.conv(x), (2, 2, 2))
    kept = [i for i in range(10) if i != dropped]
    assert torch.equal(up(x), full[:, :, kept])
    assert up(x[:, :, :1]).shape == (1, 4, 1, 6, 6)
    assert DepthToSpaceUpsample(4, (1, 2, 2), (3, 3, 3))(x).shape == (1, 4, 5, 6, 6)
