"""Causal 1-D convolutions: output frame i never depends on input frames after i (SoundStream, arXiv 2107.03312, 3.1).

Shape letters: b batch, c channels, t time. Tensors are (b, c, t); values lie channels-last in memory, because
convolutions over few channels are two to five times faster that way on a CPU. Inside ``mmtok.nn.streaming`` the past is
that of the chunks before.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.nn.streaming import is_streaming, with_past


def _channels_last(weight: Tensor) -> Tensor:
    """(o, i, k) as (o, i, 1, k) in channels-last memory, which makes the convolution run and answer in that layout."""
    return weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)


class CausalConv1d(nn.Conv1d):
    """A convolution padded with zeros on the past side only.

    With ``kernel_size >= stride`` a strided one maps (b, c, t) to (b, out, t // stride), and output frame j depends on
    inputs up to ``(j + 1) * stride - 1``.

    Args:
        in_channels: input width.
        out_channels: output width.
        kernel_size: taps; at least ``stride``.
        stride: input frames per output frame.
        dilation: distance of taps; only without stride.
        groups: into which channels are parted.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ):
        if kernel_size < stride:
            raise ValueError(f"kernel_size ({kernel_size}) must be at least stride ({stride})")
        if stride > 1 and dilation > 1:
            raise ValueError(f"dilation ({dilation}) needs stride 1, got stride {stride}")
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation, groups=groups)
        self.past = (kernel_size - 1) * dilation + 1 - stride  # frames of zeros before the first

    def forward(self, x: Tensor) -> Tensor:
        """Convolve: (b, c, t) to (b, out_channels, t // stride)."""
        stride, dilation = (1, self.stride[0]), (1, self.dilation[0])
        if is_streaming():
            reach = self.past + self.stride[0]  # frames that one output reads
            image = with_past(self, x.unsqueeze(3), self.past, kernel=reach, stride=self.stride[0]).transpose(2, 3)
        else:
            image = F.pad(x.unsqueeze(2), (self.past, 0))  # (b, c, 1, past + t)
        weight = _channels_last(self.weight)
        y = F.conv2d(image, weight, self.bias, stride=stride, dilation=dilation, groups=self.groups)
        if self.in_channels == 1:  # has no layout to follow
            y = y.contiguous(memory_format=torch.channels_last)
        return y.squeeze(2)


class CausalConvTranspose1d(nn.ConvTranspose1d):
    """A transposed convolution whose future tail is cut, so that t frames give exactly ``t * stride``.

    Output j depends on input frames up to ``j // stride``.

    Args:
        in_channels: input width.
        out_channels: output width.
        kernel_size: taps; at least ``stride``, ``2 * stride`` in SoundStream.
        stride: output frames per input frame.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int):
        if kernel_size < stride:
            raise ValueError(f"kernel_size ({kernel_size}) must be at least stride ({stride})")
        super().__init__(in_channels, out_channels, kernel_size, stride=stride)
        self.past = -(-kernel_size // stride) - 1  # frames before its own that reach into an output

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Upsample.

        Args:
            x: (b, c, t).
            output_size: not supported, the length is always ``t * stride``; anything but None raises.

        Returns:
            (b, out_channels, t * stride).

        Raises:
            ValueError: if ``output_size`` is given.
        """
        if output_size is not None:
            raise ValueError(f"the output length is t * {self.stride[0]}; output_size must be None")
        wanted, image = x.shape[-1] * self.stride[0], x.unsqueeze(2)
        if is_streaming():
            image = with_past(self, x.unsqueeze(3), self.past).transpose(2, 3)
        full = F.conv_transpose2d(image, _channels_last(self.weight), self.bias, stride=(1, self.stride[0]))
        return full.narrow(3, (image.shape[3] - x.shape[-1]) * self.stride[0], wanted).squeeze(2)
