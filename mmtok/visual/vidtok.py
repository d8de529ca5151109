"""VidTok's causal tokenizers with scalar quantisation (FSQ), versions 1.0 and 1.1.

Tang et al. 2024, "VidTok: A Versatile and Open-Source Video Tokenizer", arXiv 2412.13061; microsoft/VidTok, code and
weights MIT. Each level has a residual block over space, then one over time; the middle is 3-D.

Unusual here: upstream reshapes to 2-D and 1-D convolutions, ours are 3-D ones with kernels of 1 on the other axes,
which never transpose. The clip is filled in front to whole groups of frames, so 1 + k * stride_t frames give 1 + k
slices, and what the filling makes is cut away. The encoder is causal, but the decoder of version 1.1 looks three frames
ahead.

Shape letters: b batch, c channels, t h w time/height/width, d latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.find import require_known
from mmtok.nn.causal3d import CausalConv3d
from mmtok.nn.streaming import is_first, is_last, swap, with_past
from mmtok.visual.fsq_grid import Attention, FsqGridTokenizer, Level, Middle, ResBlock, res_blocks

VERSIONS = ("v1_0", "v1_1")


@dataclass(frozen=True)
class VidTokParams:
    """Sizes of a VidTok FSQ network.

    Attributes:
        version: "v1_0" (zeros before the clip, doubling time by copies) or "v1_1" (first frame repeated, linear).
        channels: base width.
        channel_multipliers: width of each level; space is halved between all of them.
        num_res_blocks: pairs of blocks a level of the encoder; the decoder has one more.
        temporal_down: levels of the encoder behind which time is halved.
        temporal_up: levels of the decoder behind which time is doubled, as many.
        levels: levels of each quantised channel.
        fps: pictures per second of the training clips.
    """

    version: str = "v1_0"
    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_down: tuple[int, ...] = (1, 2)
    temporal_up: tuple[int, ...] = (1, 2)
    levels: tuple[int, ...] = (8, 8, 8, 8, 8, 8)
    fps: float = 30.0

    def __post_init__(self) -> None:
        require_known(self.version, VERSIONS, "VidTok version")
        if len(self.temporal_down) != len(self.temporal_up):
            raise ValueError(f"temporal_down {self.temporal_down} and temporal_up {self.temporal_up} differ in length")

    @property
    def stride(self) -> tuple[int, int, int]:
        """Frames and pixels per token."""
        space = 2 ** (len(self.channel_multipliers) - 1)
        return (2 ** len(self.temporal_down), space, space)

    @property
    def repeat_first(self) -> bool:
        """Whether the past of a clip is its first frame instead of zeros."""
        return self.version == "v1_1"


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of every place."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise: (b, c, t, h, w) to the same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)  # in the channels-last layout both moves are views


def _block(in_channels: int, out_channels: int, *, kernel_size: tuple[int, int, int], repeat_first: bool) -> ResBlock:
    conv = partial(CausalConv3d, kernel_size=kernel_size, repeat_first=repeat_first)
    return ResBlock(in_channels, out_channels, norm=ChannelNorm, conv=conv)


def _middle(channels: int, *, repeat_first: bool) -> Middle:
    """Attention over space between two 3-D residual blocks."""
    block = partial(_block, channels, channels, kernel_size=(3, 3, 3), repeat_first=repeat_first)
    return Middle(block(), Attention(channels, norm=ChannelNorm), block())


class SpaceDown(nn.Module):
    """Halve height and width: a strided convolution, zeros on the right and below."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, (1, 3, 3), stride=(1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Reduce: (b, c, t, h, w) to (b, c, t, h / 2, w / 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class SpaceUp(nn.Module):
    """Double height and width: copies, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = CausalConv3d(channels, channels, (1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge: (b, c, t, h, w) to (b, c, t, 2 h, 2 w)."""
        return self.conv(x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4))


class TimeDown(nn.Module):
    """Halve time: a learned mix of a mean over three frames and a strided convolution."""

    def __init__(self, channels: int, *, repeat_first: bool):
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([2.0]))
        self.conv = CausalConv3d(channels, channels, (3, 3, 3), stride=(2, 1, 1), repeat_first=repeat_first, past=1)

    def forward(self, x: Tensor) -> Tensor:
        """Reduce: (b, c, t, h, w), t even, to (b, c, t / 2, h, w)."""
        share = torch.sigmoid(self.mix_factor).to(x.dtype)
        y = with_past(self, x, 1, kernel=3, stride=2, repeat_first=self.conv.repeat_first)
        windows = (y.shape[2] - 3) // 2 + 1
        mean = sum(y[:, :, i : i + 2 * windows - 1 : 2] for i in range(3)) / 3
        return share * mean + (1 - share) * self.conv(x)


class TimeUp(nn.Module):
    """Double time: a learned mix of copied (or linearly interpolated) frames and their convolution.

    Args:
        channels: width.
        repeat_first: see ``CausalConv3d``.
        apart: frames at the start of a clip that are interpolated by themselves, or 0 for copies instead.
    """

    def __init__(self, channels: int, *, repeat_first: bool, apart: int):
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([2.0]))
        self.conv = CausalConv3d(channels, channels, (3, 3, 3), repeat_first=repeat_first)
        self.apart = apart

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge: (b, c, t, h, w) to (b, c, 2 t, h, w)."""
        if not self.apart:
            y = x.repeat_interleave(2, dim=2)
        else:
            cut = self.apart if is_first(self) else 0
            y = torch.cat((_double_linearly(x[:, :, :cut]), self._double_stream(x[:, :, cut:])), 2)
        share = torch.sigmoid(self.mix_factor).to(x.dtype)
        return share * y + (1 - share) * self.conv(y)

    def _double_stream(self, x: Tensor) -> Tensor:
        """``_double_linearly`` of a clip in chunks: the frame that needs the next chunk's first one waits for it."""
        kept = swap(self, None)  # the last two frames; of the newer one the second half is still owed
        told = 0 if kept is None else 2 * kept.shape[2] - 1
        x = x if kept is None else torch.cat((kept, x), 2)
        y = _double_linearly(x)
        if not is_last() and x.shape[2]:
            swap(self, x[:, :, -2:].clone())
            y = y[:, :, :-1]
        return y[:, :, told:]


def _double_linearly(x: Tensor) -> Tensor:
    """Twice the frames, each a quarter of the way between two neighbours; the ends repeat."""
    before, after = torch.cat((x[:, :, :1], x[:, :, :-1]), 2), torch.cat((x[:, :, 1:], x[:, :, -1:]), 2)
    return torch.stack((0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after), 3).flatten(2, 3)


def _run_levels(x: Tensor, space: Level, time: Level) -> Tensor:
    """A level: blocks over space and time in turn, then the steps of both."""
    for over_space, over_time in zip(space.block, time.block, strict=True):
        x = over_time(over_space(x))
    for step in (space.downsample, time.downsample, space.upsample, time.upsample):
        if step is not None:
            x = step(x)
    return x


class Encoder(nn.Module):
    """Pixels to latents."""

    def __init__(self, params: VidTokParams):
        super().__init__()
        first = params.repeat_first
        over_space, over_time = (partial(_block, kernel_size=k, repeat_first=first) for k in ((1, 3, 3), (3, 1, 1)))
        widths = [params.channels * m for m in params.channel_multipliers]
        incoming = [params.channels, *widths[:-1]]
        self.conv_in = CausalConv3d(3, params.channels, (3, 3, 3), repeat_first=first)
        self.down, self.down_temporal = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            space = SpaceDown(width) if i < len(widths) - 1 else None
            time = TimeDown(width, repeat_first=first) if i in params.temporal_down else None
            count = params.num_res_blocks
            self.down.append(Level(res_blocks(over_space, incoming[i], width, count), downsample=space))
            self.down_temporal.append(Level(res_blocks(over_time, width, width, count), downsample=time))
        self.mid = _middle(widths[-1], repeat_first=first)
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], len(params.levels), (3, 3, 3), repeat_first=first)

    def forward(self, x: Tensor) -> Tensor:
        """Encode: (b, 3, t, h, w), t a multiple of the temporal stride, to (b, d, t', h', w')."""
        x = self.conv_in(x)
        for space, time in zip(self.down, self.down_temporal, strict=True):
            x = _run_levels(x, space, time)  # type: ignore[arg-type]
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Quantised latents to pixels."""

    def __init__(self, params: VidTokParams):
        super().__init__()
        first = params.repeat_first
        over_space, over_time = (partial(_block, kernel_size=k, repeat_first=first) for k in ((1, 3, 3), (3, 1, 1)))
        widths = [params.channels * m for m in params.channel_multipliers]
        incoming = [*widths[1:], widths[-1]]
        deepest_first = sorted(params.temporal_up, reverse=True)
        apart = {level: 2**i if params.version == "v1_1" else 0 for i, level in enumerate(deepest_first)}
        self.conv_in = CausalConv3d(len(params.levels), widths[-1], (3, 3, 3), repeat_first=first)
        self.mid = _middle(widths[-1], repeat_first=first)
        self.up, self.up_temporal = nn.ModuleList(), nn.ModuleList()  # index 0 is the finest level and runs last
        for i, width in enumerate(widths):
            space = SpaceUp(width) if i > 0 else None
            time = TimeUp(width, repeat_first=first, apart=apart[i]) if i in apart else None
            count = params.num_res_blocks + 1
            self.up.append(Level(res_blocks(over_space, incoming[i], width, count), upsample=space))
            self.up_temporal.append(Level(res_blocks(over_time, width, width, count), upsample=time))
        self.norm_out = ChannelNorm(widths[0])
        self.conv_out = CausalConv3d(widths[0], 3, (3, 3, 3), repeat_first=first)

    def forward(self, z: Tensor) -> Tensor:
        """Decode: (b, d, t, h, w) to (b, 3, t * stride_t, h', w')."""
        x = self.mid(self.conv_in(z))
        for i in reversed(range(len(self.up))):
            x = _run_levels(x, self.up[i], self.up_temporal[i])  # type: ignore[arg-type]
        return self.conv_out(F.silu(self.norm_out(x)))


class VidTokFSQ(FsqGridTokenizer):
    """The tokenizer: see the module's docstring and ``mmtok.contract.VisualTokenizer``.

    The encoder is strictly causal. Version 1.1 interpolates linearly when it doubles time, so its decoder looks up to
    three frames ahead: as a stream it holds them back until the next chunk, and is exact.

    Args:
        params: the network's sizes.
    """

    family = "vidtok-fsq"
    params_class = VidTokParams
    is_causal = True

    def __init__(self, params: VidTokParams):
        super().__init__(params)
        self.encoder, self.decoder = Encoder(params), Decoder(params)

    def encode_latents(self, video: Tensor) -> Tensor:
        """See ``FsqGridTokenizer``: (b, 3, t, h, w) in [-1, 1] to latents (b, d, t', h', w')."""
        copies = self.stride[0] - 1 if is_first(self) else 0
        video = torch.cat((video[:, :, :1].expand(-1, -1, copies, -1, -1), video), 2)
        return self.encoder(self.to_network(video)).float()

    def decode_latents(self, values: Tensor) -> Tensor:
        """See ``FsqGridTokenizer``: (b, d, t, h, w) quantised to video (b, 3, t', h', w')."""
        video = self.decoder(self.to_network(values)).float()
        return video[:, :, self.stride[0] - 1 if is_first(self) else 0 :]


_488, _41616 = (1, 2, 4, 4), (1, 2, 4, 4, 4)
PRESETS: dict[str, VidTokParams] = {
    "vidtok-fsq-488-262144": VidTokParams(),
    "vidtok-fsq-488-32768": VidTokParams(levels=(8,) * 5),
    "vidtok-fsq-488-4096": VidTokParams(levels=(8,) * 4),
    "vidtok-fsq-41616-262144": VidTokParams(channel_multipliers=_41616, temporal_down=(2, 3), temporal_up=(1, 2)),
    "vidtok-fsq-488-32768-v1.1": VidTokParams(version="v1_1", levels=(8,) * 5),
    "vidtok-fsq-41616-262144-v1.1": VidTokParams(
        version="v1_1", channel_multipliers=_41616, temporal_down=(2, 3), temporal_up=(1, 2)
    ),
    "vidtok-fsq-888-32768-v1.1": VidTokParams(
        version="v1_1", levels=(8,) * 5, temporal_down=(0, 1, 2), temporal_up=(1, 2, 3)
    ),
}
