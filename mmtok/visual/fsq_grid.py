"""What tokenizers with finite scalar quantisation on a (t, h, w) grid share (Cosmos DV, VidTok): blocks and codes.

Their blocks are Stable Diffusion's with other norms and convolutions, which a family hands in; names of weights are the
published ones. Shape letters: b batch, c channels, d latent channels, t h w time/height/width.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmtok.nn.causal3d import CausalConv3d
from mmtok.nn.streaming import remember
from mmtok.quantize.fsq import fsq_codes, fsq_quantize, fsq_values
from mmtok.visual.grid import GridTokenizer

Norm = Callable[[int], nn.Module]
"""Of that many channels."""


class ResBlock(nn.Module):
    """Norm, swish, convolution, twice, beside the identity (or a pointwise convolution).

    Args:
        in_channels: channels read.
        out_channels: channels written.
        norm: makes a norm.
        conv: makes a convolution from the channels that it reads and writes.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm, conv: Callable[[int, int], nn.Module]):
        super().__init__()
        self.norm1, self.conv1 = norm(in_channels), conv(in_channels, out_channels)
        self.norm2, self.conv2 = norm(out_channels), conv(out_channels, out_channels)
        self.nin_shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.nin_shortcut = CausalConv3d(in_channels, out_channels, (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Refine the features: (b, c_in, t, h, w) to (b, c_out, t, h, w)."""
        y = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class Attention(nn.Module):
    """One head over the places of each frame, or causally over the frames of each place.

    Args:
        channels: width.
        norm: makes a norm.
        over_time: which of the two.
    """

    def __init__(self, channels: int, *, norm: Norm, over_time: bool = False):
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (CausalConv3d(channels, channels, (1, 1, 1)) for _ in range(4))
        self.over_time = over_time

    def forward(self, x: Tensor) -> Tensor:
        """Mix places: (b, c, t, h, w) to (b, c, t, h, w)."""
        b, _, t, h, w = x.shape
        y = self.norm(x)
        fold = "b c t h w -> (b h w) t c" if self.over_time else "b c t h w -> (b t) (h w) c"
        q, k, v = (rearrange(p(y), fold) for p in (self.q, self.k, self.v))
        mask = None
        if self.over_time:
            k, v = remember(self.k, k, 1), remember(self.v, v, 1)
            places = torch.arange(k.shape[1], device=x.device)
            mask = places[None] <= places[-t:, None]  # a chunk's frames come last
        y = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], attn_mask=mask)[:, 0]
        before, after = fold.split(" -> ")
        return x + self.proj_out(rearrange(y, f"{after} -> {before}", b=b, t=t, h=h, w=w))


class Middle(nn.Sequential):
    """Residual block, attention, residual block.

    Args:
        block_1: the first one.
        attn_1: over space, or over space and then over time.
        block_2: the last one.
    """

    def __init__(self, block_1: nn.Module, attn_1: nn.Module, block_2: nn.Module):
        super().__init__(OrderedDict(block_1=block_1, attn_1=attn_1, block_2=block_2))


def res_blocks(block: Callable[[int, int], nn.Module], in_channels: int, width: int, count: int) -> Iterator[nn.Module]:
    """Blocks in a row, of which the first changes the width.

    Args:
        block: makes one from the channels that it reads and writes.
        in_channels: channels that the first one reads.
        width: channels of the others.
        count: how many.

    Yields:
        The blocks.
    """
    for number in range(count):
        yield block(in_channels if number == 0 else width, width)


class Level(nn.Module):
    """Blocks of one width, then the step to the next level where there is one.

    Args:
        blocks: of ``res_blocks``.
        downsample: the encoder's step behind them, or None.
        upsample: the decoder's step behind them, or None.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], *, downsample: nn.Module | None = None, upsample: nn.Module | None = None
    ):
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.downsample, self.upsample = downsample, upsample

    def forward(self, x: Tensor) -> Tensor:
        """Refine, then resize: (b, c, t, h, w) to (b, width, t', h', w')."""
        for block in self.block:
            x = block(x)
        for step in (self.downsample, self.upsample):
            if step is not None:
                x = step(x)
        return x


class FsqGridTokenizer(GridTokenizer):
    """A subclass writes ``encode_latents`` and ``decode_latents``; codes are mixed-radix numbers of the levels.

    Attributes:
        levels: of each latent channel.
    """

    levels: tuple[int, ...]

    def __init__(self, params: Any):
        super().__init__()
        self.params, self.levels = params, params.levels
        self.codebook_size = math.prod(params.levels)
        self.stride, self.fps = params.stride, params.fps

    def encode_latents(self, video: Tensor) -> Tensor:
        """Latents before the quantiser: (b, 3, t, h, w) in [-1, 1] to (b, d, t', h', w') float32."""
        raise NotImplementedError

    def decode_latents(self, values: Tensor) -> Tensor:
        """Quantised latents (b, d, t, h, w), multiples of 1 / (L // 2), to video, not clamped and with gradients."""
        raise NotImplementedError

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction, not clamped, with gradients through the rounding, and the latents (b, d, t', h', w')."""
        self.grid(*video.shape[2:])
        latents = self.encode_latents(video)
        return self.decode_latents(fsq_quantize(latents, self.levels)), latents

    def codes_of(self, video: Tensor) -> Tensor:
        """Codes without checks, see ``GridTokenizer``; (b, 3, t, h, w) in [-1, 1] to (b, 1, t', h', w') int64."""
        return fsq_codes(self.encode_latents(video), self.levels)[:, None]

    def video_of(self, codes: Tensor) -> Tensor:
        """Pixels without checks, not clamped, see ``GridTokenizer``."""
        return self.decode_latents(fsq_values(codes[:, 0], self.levels))
