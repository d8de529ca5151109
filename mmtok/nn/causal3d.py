"""Convolutions over video that never look ahead, and depth-to-space upsampling that keeps the clock.

MAGVIT-v2 (Yu et al. 2023, arXiv 2310.05737), appendix figure: "T-causal" convolutions are padded with zeros on the
past side of time and symmetrically in space. Shape letters: b batch, c channels, t h w time/height/width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.nn.streaming import is_first, is_streaming, with_past


class CausalConv3d(nn.Conv3d):
    """A 3-D convolution whose output frame ``i`` depends on input frames up to ``i * stride_t`` only.

    The past is padded with zeros, so an image (one frame) meets the last temporal slice of the kernel and nothing
    else: a model trained on images first is the inflation of an image model by construction. Inside
    ``mmtok.nn.streaming`` the past is that of the chunks before.

    Args:
        in_channels: channels read.
        out_channels: channels written.
        kernel_size: odd in height and width, ordered time, height, width.
        stride: ordered like ``kernel_size``; ``t`` frames become ``(t - 1) // stride_t + 1``.
        bias: whether a bias is added.
        repeat_first: the past is filled with copies of the first frame (Cosmos, VidTok 1.1) instead of zeros.
        past: frames put before the first one; None means all of the kernel but one. With fewer, a stride takes whole
            groups of frames (VidTok).

    Raises:
        ValueError: for an even kernel in space.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int, int],
        *,
        stride: tuple[int, int, int] = (1, 1, 1),
        bias: bool = True,
        repeat_first: bool = False,
        past: int | None = None,
    ):
        if kernel_size[1] % 2 == 0 or kernel_size[2] % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} must be odd in height and width")
        space = (kernel_size[1] // 2, kernel_size[2] // 2)
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=(0, *space), bias=bias)
        self.repeat_first = repeat_first
        self.past = kernel_size[0] - 1 if past is None else past

    def forward(self, x: Tensor) -> Tensor:
        """Convolve: (b, c, t, h, w) to (b, c_out, (t - 1) // stride_t + 1, h_out, w_out)."""
        if self.past and self.past == self.kernel_size[0] - 1 and x.shape[2] == 1 and not is_streaming():
            # one picture meets one slice of the kernel (or, repeated, their sum): a third of the work
            weight = self.weight.sum(2, keepdim=True) if self.repeat_first else self.weight[:, :, -1:]
            return F.conv3d(x, weight, self.bias, self.stride, self.padding)  # type: ignore[arg-type]
        x = with_past(
            self, x, self.past, kernel=self.kernel_size[0], stride=self.stride[0], repeat_first=self.repeat_first
        )
        return super().forward(x)


def depth_to_space(x: Tensor, factor: tuple[int, int, int]) -> Tensor:
    """Move channel blocks into time, height and width."""
    # Channels are ordered time block, height block, width block, channel (the block of time outermost). The work is
    # done in the channels-last layout, where whole channel runs are moved, and the result has that layout.
    b, channels, t, h, w = x.shape
    ft, fh, fw = factor
    if channels % (ft * fh * fw):
        raise ValueError(f"{channels} channels cannot be divided into blocks of {ft} x {fh} x {fw}")
    c = channels // (ft * fh * fw)
    x = x.permute(0, 2, 3, 4, 1).reshape(b, t, h, w, ft, fh, fw, c)
    x = x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, t * ft, h * fh, w * fw, c)
    return x.permute(0, 4, 1, 2, 3)


class DepthToSpaceUpsample(nn.Module):
    """A causal 3x3x3 convolution to more channels, then depth-to-space; doubling time turns t into 2t - 1.

    Args:
        channels: channels read and written.
        factor: (ft, fh, fw), ft 1 or 2.
        kernel_size: of the convolution.
        dropped_frame: which of the two copies made of the first frame is dropped, 0 (ours, O2-MAGVIT2) or 1
            (Open-MAGVIT2).
    """

    def __init__(
        self, channels: int, factor: tuple[int, int, int], kernel_size: tuple[int, int, int], *, dropped_frame: int = 0
    ):
        super().__init__()
        self.factor, self.dropped_frame = factor, dropped_frame
        self.conv = CausalConv3d(channels, channels * factor[0] * factor[1] * factor[2], kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge: (b, c, t, h, w) to (b, c, ft * (t - 1) + 1, h * fh, w * fw)."""
        x = depth_to_space(self.conv(x), self.factor)
        if self.factor[0] == 1 or not is_first(self):
            return x
        return x[:, :, 1:] if self.dropped_frame == 0 else torch.cat((x[:, :, :1], x[:, :, 2:]), dim=2)
