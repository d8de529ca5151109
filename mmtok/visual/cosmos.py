"""Cosmos' discrete video tokenizers (DV): a factorised causal network on a Haar packet, with scalar quantisation.

NVIDIA's Cosmos Tokenizer, NVIDIA/Cosmos-Tokenizer and nvidia-cosmos/cosmos-predict1 (code Apache-2.0; the published
weights have NVIDIA's Open Model License).

Unusual here: the patch carries most of the stride; space and time are convolved in turn; the past is filled with the
first frame and not with zeros; the middle attends over each frame and then causally over all earlier ones, so that the
state of a stream grows. Strictly causal: an image's codes are the first slice of those of any clip that starts with it.

Shape letters: b batch, c channels, t h w time/height/width, d latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.nn.causal3d import CausalConv3d
from mmtok.nn.norm import VideoGroupNorm
from mmtok.nn.patch import HaarPatch
from mmtok.nn.streaming import is_first, with_past
from mmtok.visual.fsq_grid import Attention, FsqGridTokenizer, Level, Middle, ResBlock, res_blocks


@dataclass(frozen=True)
class CosmosParams:
    """Sizes of a Cosmos DV network.

    Attributes:
        stride: frames and pixels per token, powers of two, not below the patch.
        patch_size: side of the Haar patch, 2 or 4, in time, height and width alike.
        z_channels: width between network and quantiser.
        channels: base width.
        channel_multipliers: width of each level over ``channels``.
        num_res_blocks: residual blocks a level of the encoder; the decoder has one more.
        levels: levels of each quantised channel.
        fps: pictures per second; Cosmos does not bind it.
    """

    stride: tuple[int, int, int] = (4, 8, 8)
    patch_size: int = 4
    z_channels: int = 16
    channels: int = 128
    channel_multipliers: tuple[int, ...] = (2, 4, 4)
    num_res_blocks: int = 2
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    fps: float = 24.0

    def __post_init__(self) -> None:
        if self.stride[1] != self.stride[2]:
            raise ValueError(f"stride {self.stride} must be the same in height and width")
        for name, factor in (("patch_size", self.patch_size), ("stride", self.stride[0]), ("stride", self.stride[1])):
            if factor < self.patch_size or factor & (factor - 1):
                raise ValueError(f"{name} ({factor}) must be a power of two, at least the patch ({self.patch_size})")
        if max(self.doublings) > len(self.channel_multipliers) - 1:
            raise ValueError(f"stride {self.stride} needs more than {len(self.channel_multipliers)} levels")

    @property
    def doublings(self) -> tuple[int, int]:
        """Halvings of time and of space behind the patch."""
        time, space = (side // self.patch_size for side in self.stride[:2])
        return time.bit_length() - 1, space.bit_length() - 1

    def down_step(self, level: int) -> tuple[bool, bool]:
        """Whether the encoder halves time and space behind ``level``."""
        time, space = self.doublings
        return level < time, level < space

    def up_step(self, level: int) -> tuple[bool, bool]:
        """Whether the decoder doubles time and space behind ``level``."""
        time, space = self.doublings
        above = len(self.channel_multipliers) - 1 - level  # levels done before
        doubles_time = 0 < above < time + 1
        return doubles_time, doubles_time or (above < space and space > time)


def _conv(in_channels: int, out_channels: int, kernel_size: tuple[int, int, int], **options: object) -> CausalConv3d:
    return CausalConv3d(in_channels, out_channels, kernel_size, repeat_first=True, **options)  # type: ignore[arg-type]


def _factorized(in_channels: int, out_channels: int) -> nn.Sequential:
    """A convolution over space, then one over time."""
    return nn.Sequential(_conv(in_channels, out_channels, (1, 3, 3)), _conv(out_channels, out_channels, (3, 1, 1)))


def _norm(channels: int) -> VideoGroupNorm:
    return VideoGroupNorm(1, channels, scope="frame", eps=1e-6)


def _block(in_channels: int, out_channels: int) -> ResBlock:
    return ResBlock(in_channels, out_channels, norm=_norm, conv=_factorized)


class Downsample(nn.Module):
    """Halve space and time, each by a strided convolution plus a mean; then a pointwise convolution.

    Args:
        channels: width.
        time: halve time.
        space: halve height and width.
    """

    def __init__(self, channels: int, *, time: bool, space: bool):
        super().__init__()
        if space:
            self.conv1 = nn.Conv3d(channels, channels, (1, 3, 3), stride=(1, 2, 2))
        if time:
            self.conv2 = _conv(channels, channels, (3, 1, 1), stride=(2, 1, 1))
        self.conv3 = _conv(channels, channels, (1, 1, 1))
        self.time, self.space = time, space

    def forward(self, x: Tensor) -> Tensor:
        """Reduce: (b, c, t, h, w) to (b, c, (t - 1) / 2 + 1, h / 2, w / 2), an axis that is not halved as it was."""
        if self.space:
            mean = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
            x = self.conv1(F.pad(x, (0, 1, 0, 1))) + mean
        if self.time:
            pairs = with_past(self, x, 1, stride=2, repeat_first=True)
            pairs = pairs[:, :, : pairs.shape[2] // 2 * 2]
            x = self.conv2(x) + (pairs[:, :, ::2] + pairs[:, :, 1::2]) / 2
        return self.conv3(x)


class Upsample(nn.Module):
    """Double time and space by copies, each refined by a convolution beside the identity; then a pointwise convolution.

    Args:
        channels: width.
        time: double time; t becomes 2 t - 1.
        space: double height and width.
    """

    def __init__(self, channels: int, *, time: bool, space: bool):
        super().__init__()
        if time:
            self.conv1 = _conv(channels, channels, (3, 1, 1))
        if space:
            self.conv2 = _conv(channels, channels, (1, 3, 3))
        self.conv3 = _conv(channels, channels, (1, 1, 1))
        self.time, self.space = time, space

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge: (b, c, t, h, w) to (b, c, 2 t - 1, 2 h, 2 w), an axis that is not doubled as it was."""
        if self.time:
            x = x.repeat_interleave(2, dim=2)[:, :, 1 if is_first(self) else 0 :]
            x = self.conv1(x) + x
        if self.space:
            x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
            x = self.conv2(x) + x
        return self.conv3(x)


def _middle(channels: int) -> Middle:
    """Attention over space, then over time, between two residual blocks."""
    return Middle(
        _block(channels, channels),
        nn.Sequential(*(Attention(channels, norm=_norm, over_time=over_time) for over_time in (False, True))),
        _block(channels, channels),
    )


class Encoder(nn.Module):
    """Patched pixels to the width before the quantiser."""

    def __init__(self, params: CosmosParams, in_channels: int):
        super().__init__()
        widths = [params.channels * m for m in params.channel_multipliers]
        incoming = [params.channels, *widths[:-1]]
        self.conv_in = _factorized(in_channels, params.channels)
        self.down = nn.ModuleList()
        for i, width in enumerate(widths):
            time, space = params.down_step(i) if i < len(widths) - 1 else (False, False)
            step = Downsample(width, time=time, space=space) if time or space else None
            self.down.append(Level(res_blocks(_block, incoming[i], width, params.num_res_blocks), downsample=step))
        self.mid = _middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = _factorized(widths[-1], params.z_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Encode: (b, c, t, h, w) after the patch to (b, z_channels, t', h', w')."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """The width behind the quantiser to patched pixels."""

    def __init__(self, params: CosmosParams, out_channels: int):
        super().__init__()
        widths = [params.channels * m for m in params.channel_multipliers]
        incoming = [*widths[1:], widths[-1]]
        self.conv_in = _factorized(params.z_channels, widths[-1])
        self.mid = _middle(widths[-1])
        self.up = nn.ModuleList()  # index 0 is the finest level; they run from the last to the first
        for i, width in enumerate(widths):
            time, space = params.up_step(i) if i > 0 else (False, False)
            step = Upsample(width, time=time, space=space) if time or space else None
            blocks = res_blocks(_block, incoming[i], width, params.num_res_blocks + 1)
            self.up.append(Level(blocks, upsample=step))
        self.norm_out = _norm(widths[0])
        self.conv_out = _factorized(widths[0], out_channels)

    def forward(self, z: Tensor) -> Tensor:
        """Decode: (b, z_channels, t, h, w) to (b, c, t', h', w') before the inverse patch."""
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class CosmosDV(FsqGridTokenizer):
    """The tokenizer: see the module's docstring and ``mmtok.contract.VisualTokenizer``.

    Args:
        params: the network's sizes.
    """

    family = "cosmos-dv"
    params_class = CosmosParams
    is_causal = True

    def __init__(self, params: CosmosParams):
        super().__init__(params)
        p = params.patch_size
        self.patch = HaarPatch((p, p, p))
        self.encoder = Encoder(params, self.patch.out_channels)
        self.decoder = Decoder(params, self.patch.out_channels)
        self.quant_conv = _conv(params.z_channels, len(params.levels), (1, 1, 1))
        self.post_quant_conv = _conv(len(params.levels), params.z_channels, (1, 1, 1))

    def encode_latents(self, video: Tensor) -> Tensor:
        """See ``FsqGridTokenizer``: (b, 3, t, h, w) in [-1, 1] to latents (b, d, t', h', w')."""
        x = self.to_network(self.patch(video))
        return self.quant_conv(self.encoder(x)).float()

    def decode_latents(self, values: Tensor) -> Tensor:
        """See ``FsqGridTokenizer``: (b, d, t, h, w) quantised to video (b, 3, t', h', w')."""
        values = self.to_network(values)
        return self.patch.inverse(self.decoder(self.post_quant_conv(values))).float()


PRESETS: dict[str, CosmosParams] = {
    "cosmos-0.1-dv4x8x8": CosmosParams(stride=(4, 8, 8)),
    "cosmos-0.1-dv8x8x8": CosmosParams(stride=(8, 8, 8)),
    "cosmos-dv8x16x16": CosmosParams(stride=(8, 16, 16)),
    "cosmos-tokenize1-dv4x8x8-360p": CosmosParams(stride=(4, 8, 8), patch_size=2, z_channels=256),
}
