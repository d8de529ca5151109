"""MAGVIT-v2: a causal 3-D convolutional tokenizer for images and video with lookup-free quantisation.

Yu et al. 2023, "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation", arXiv 2310.05737, the
appendix's figure; VideoPoet (arXiv 2312.14125), section 3.1, uses it at 17 frames of 128 x 128 and 8 fps: (5, 16, 16)
tokens of 2^18 codes.

Unusual here:
- there is no codebook: a code is the signs of the latent's channels (lookup-free);
- norms take their statistics per frame and the adaptive norm works per position, the strictly causal reading of an
  ambiguous text: the tokens of an image are the first slice of those of any clip that starts with it;
- the signs enter the decoder again before every level, through the adaptive norm;
- a new video model is the inflation of an image model: past slices of its kernels are zero;
- a Haar patch may stand in front, which carries most of the stride (``patch_size``; not the paper's).

Shape letters: b batch, c channels, t h w time/height/width, d bits of the latent.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mmtok.find import require_known
from mmtok.nn.causal3d import CausalConv3d, DepthToSpaceUpsample
from mmtok.nn.norm import AdaptiveGroupNorm, VideoGroupNorm
from mmtok.nn.patch import HaarPatch
from mmtok.pretrained import load_strictly
from mmtok.quantize.lfq import LfqLosses, codes_from_latents, lfq_losses, quantize_signs, signs_from_codes
from mmtok.visual.grid import GridTokenizer


@dataclass(frozen=True)
class Magvit2Params:
    """Sizes and switches of a MAGVIT-v2 network.

    Attributes:
        channels: base width.
        channel_multipliers: width of each level over ``channels``, full resolution first.
        num_res_blocks: residual blocks per level, in the encoder and in the decoder.
        num_mid_blocks: residual blocks at the deepest grid, after the encoder's and before the decoder's levels.
        spatial_downsample: for each step between levels, whether height and width are halved.
        temporal_downsample: for each step between levels, whether time is halved.
        bits: latent channels; the vocabulary is 2^bits.
        patch_size: Haar patch in front of the network, ordered time, height, width; (1, 1, 1) is the paper.
        patch_normalize: bring the bands of the patch to one size, see ``HaarPatch``.
        norm_groups: groups of every group norm.
        normalize_latents: divide the latent of every position by its root mean square before the sign. The code does
            not change; commitment and entropy gradients then work at a fixed scale (as in binary spherical
            quantisation, Zhao et al. 2024), the affine-free norm that LFQ's author asks of the encoder.
        temporal_kernel: 3, or 1 for an image model (see ``image_params``).
        norm_scope: "frame" (causal) or "clip" (Open-MAGVIT2): where norms take statistics and the adaptive norm its
            scale.
        dropped_frame: which copy of the first frame is dropped when time is doubled, 0 or 1 (Open-MAGVIT2).
        stem_channels: width after the encoder's first convolution, or None for that of the first level (the paper has
            a multiplier of 1 there, so the two agree; Open-MAGVIT2 always starts at its base width).
        num_decoder_mid_blocks: the decoder's blocks at the deepest grid where they differ from ``num_mid_blocks``.
        fps: pictures per second of the training clips.
    """

    channels: int
    channel_multipliers: tuple[int, ...]
    num_res_blocks: int
    num_mid_blocks: int
    spatial_downsample: tuple[bool, ...]
    temporal_downsample: tuple[bool, ...]
    bits: int
    patch_size: tuple[int, int, int] = (1, 1, 1)
    patch_normalize: bool = False
    norm_groups: int = 32
    normalize_latents: bool = False
    temporal_kernel: int = 3
    norm_scope: str = "frame"
    dropped_frame: int = 0
    stem_channels: int | None = None
    num_decoder_mid_blocks: int | None = None
    fps: float = 8.0

    def __post_init__(self) -> None:
        steps = len(self.channel_multipliers) - 1
        if len(self.spatial_downsample) != steps or len(self.temporal_downsample) != steps:
            raise ValueError(
                f"{len(self.channel_multipliers)} channel_multipliers need {steps} flags in spatial_downsample and "
                f"temporal_downsample, got {len(self.spatial_downsample)} and {len(self.temporal_downsample)}"
            )
        for width in (*self.widths, self.stem_width):
            if width % self.norm_groups:
                raise ValueError(f"a level's width ({width}) must be a multiple of norm_groups ({self.norm_groups})")
        if not 1 <= self.bits <= 24:
            raise ValueError(f"bits ({self.bits}) must be between 1 and 24")
        if self.temporal_kernel not in (1, 3):
            raise ValueError(f"temporal_kernel ({self.temporal_kernel}) must be 3, or 1 for an image model")
        require_known(self.norm_scope, ("clip", "frame"), "norm_scope")
        if self.dropped_frame not in (0, 1):
            raise ValueError(f"dropped_frame ({self.dropped_frame}) must be 0 or 1")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, full resolution first."""
        return tuple(self.channels * m for m in self.channel_multipliers)

    @property
    def stem_width(self) -> int:
        """Channels after the encoder's first convolution."""
        return self.widths[0] if self.stem_channels is None else self.stem_channels

    @property
    def kernel_size(self) -> tuple[int, int, int]:
        """Kernel of every convolution but the pointwise ones."""
        return (self.temporal_kernel, 3, 3)

    def step_factor(self, i: int) -> tuple[int, int, int]:
        """Reduction, 1 or 2, between level ``i`` and ``i + 1``, ordered time, height, width."""
        space = 2 if self.spatial_downsample[i] else 1
        return (2 if self.temporal_downsample[i] else 1, space, space)

    def factor_from(self, level: int) -> tuple[int, int, int]:
        """Reduction from ``level`` (0 is full resolution after the patch) to the latent grid, time, height, width."""
        steps = [self.step_factor(i) for i in range(level, len(self.widths) - 1)]
        return tuple(math.prod(step[axis] for step in steps) for axis in range(3))  # type: ignore[return-value]

    @property
    def stride(self) -> tuple[int, int, int]:
        """Frames and pixels per token."""
        t, h, w = self.factor_from(0)
        return (t * self.patch_size[0], h * self.patch_size[1], w * self.patch_size[2])


class ResBlock(nn.Module):
    """Norm, swish, causal convolution, twice, beside the identity (or a pointwise convolution if the width changes)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: tuple[int, int, int], groups: int, scope: str
    ):
        super().__init__()
        self.norm1 = VideoGroupNorm(groups, in_channels, scope=scope, eps=1e-6)
        self.conv1 = CausalConv3d(in_channels, out_channels, kernel_size, bias=False)
        self.norm2 = VideoGroupNorm(groups, out_channels, scope=scope, eps=1e-6)
        self.conv2 = CausalConv3d(out_channels, out_channels, kernel_size, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = CausalConv3d(in_channels, out_channels, (1, 1, 1), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Refine the features: (b, c_in, t, h, w) to (b, c_out, t, h, w)."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return self.shortcut(x) + y


def _res_blocks(in_channels: int, width: int, count: int, params: Magvit2Params) -> nn.ModuleList:
    """``count`` blocks of one level; the first one changes the width."""
    return nn.ModuleList(
        ResBlock(
            in_channels if j == 0 else width,
            width,
            kernel_size=params.kernel_size,
            groups=params.norm_groups,
            scope=params.norm_scope,
        )
        for j in range(count)
    )


class Encoder(nn.Module):
    """(Patched) pixels to latents."""

    def __init__(self, params: Magvit2Params, in_channels: int):
        super().__init__()
        kernel, widths = params.kernel_size, params.widths

        incoming = [params.stem_width, *widths[:-1]]
        self.conv_in = CausalConv3d(in_channels, params.stem_width, kernel, bias=False)
        self.levels = nn.ModuleList(
            _res_blocks(incoming[i], width, params.num_res_blocks, params) for i, width in enumerate(widths)
        )
        self.downs = nn.ModuleList(
            CausalConv3d(width, width, kernel, stride=params.step_factor(i)) for i, width in enumerate(widths[:-1])
        )
        self.mid = _res_blocks(widths[-1], widths[-1], params.num_mid_blocks, params)
        self.norm_out = VideoGroupNorm(params.norm_groups, widths[-1], scope=params.norm_scope, eps=1e-6)
        self.conv_out = CausalConv3d(widths[-1], params.bits, (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Encode: (b, c, t, h, w) after the patch to (b, d, t', h', w')."""
        x = self.conv_in(x)
        for i, level in enumerate(self.levels):
            for block in level:  # type: ignore[attr-defined]
                x = block(x)
            if i < len(self.downs):
                x = self.downs[i](x)
        for block in self.mid:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Signs to (patched) pixels; the signs enter again through the adaptive norm before every level."""

    def __init__(self, params: Magvit2Params, out_channels: int):
        super().__init__()
        kernel, widths = params.kernel_size, params.widths
        incoming = [*widths[1:], widths[-1]]  # width that level i receives from the one below it
        self.conv_in = CausalConv3d(params.bits, widths[-1], kernel)
        blocks = params.num_mid_blocks if params.num_decoder_mid_blocks is None else params.num_decoder_mid_blocks
        self.mid = _res_blocks(widths[-1], widths[-1], blocks, params)
        self.norms = nn.ModuleList(
            AdaptiveGroupNorm(
                params.norm_groups,
                incoming[i],
                params.bits,
                upsample=params.factor_from(i),
                scope=params.norm_scope,
                eps=1e-6,
            )
            for i in range(len(widths))
        )
        self.levels = nn.ModuleList(
            _res_blocks(incoming[i], width, params.num_res_blocks, params) for i, width in enumerate(widths)
        )
        self.ups = nn.ModuleList(
            DepthToSpaceUpsample(widths[i + 1], params.step_factor(i), kernel, dropped_frame=params.dropped_frame)
            for i in range(len(widths) - 1)
        )
        self.norm_out = VideoGroupNorm(params.norm_groups, widths[0], scope=params.norm_scope, eps=1e-6)
        self.conv_out = CausalConv3d(widths[0], out_channels, kernel)

    def forward(self, signs: Tensor) -> Tensor:
        """Decode: (b, d, t, h, w) of +-1 to (b, c, t', h', w') before the inverse patch."""
        x = self.conv_in(signs)
        for block in self.mid:
            x = block(x)
        for i in reversed(range(len(self.levels))):
            x = self.norms[i](x, signs)
            for block in self.levels[i]:  # type: ignore[attr-defined]
                x = block(x)
            if i > 0:
                x = self.ups[i - 1](x)
        return self.conv_out(F.silu(self.norm_out(x)))


@dataclass(frozen=True)
class Magvit2Output:
    """What training needs of one pass.

    Attributes:
        reconstruction: (b, 3, t, h, w) float32, not clamped.
        latents: (b, d, t', h', w') before the sign.
        codes: (b, 1, t', h', w') int64.
        losses: unweighted terms of the quantiser.
    """

    reconstruction: Tensor
    latents: Tensor
    codes: Tensor
    losses: LfqLosses


class Magvit2(GridTokenizer):
    """The tokenizer: see the module's docstring and ``mmtok.contract.VisualTokenizer``.

    Args:
        params: the network's sizes.
    """

    family = "magvit2"
    params_class = Magvit2Params

    def __init__(self, params: Magvit2Params):
        super().__init__()
        self.params = params
        self.codebook_size = 2**params.bits
        self.stride = params.stride
        self.fps = params.fps
        self.is_causal = params.norm_scope == "frame" or params.temporal_kernel == 1
        self.patch = HaarPatch(params.patch_size, normalize=params.patch_normalize)
        self.encoder = Encoder(params, self.patch.out_channels)
        self.decoder = Decoder(params, self.patch.out_channels)
        self._initialise()

    def _initialise(self) -> None:
        """A new video model is the inflation of a new image model: past slices of kernels are zero, steering is off."""
        for module in self.modules():
            if isinstance(module, CausalConv3d):
                now = module.weight[:, :, -1]
                nn.init.kaiming_normal_(now, nonlinearity="linear")
                with torch.no_grad():
                    module.weight[:, :, :-1].zero_()
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, AdaptiveGroupNorm):
                for linear in (module.gamma, module.beta):
                    nn.init.normal_(linear.weight, std=0.02)
                    nn.init.zeros_(linear.bias)
        # time-doubling convolutions start with two equal frames
        for up in self.decoder.ups:
            assert isinstance(up, DepthToSpaceUpsample), "ups hold upsamplers"
            if up.factor[0] == 2:
                with torch.no_grad():
                    half = up.conv.out_channels // 2
                    up.conv.weight[half:] = up.conv.weight[:half]

    def encode_latents(self, video: Tensor) -> Tensor:
        """Latents before the sign: (b, 3, t, h, w) in [-1, 1] to (b, d, t', h', w') float32."""
        pictures = self.params.temporal_kernel == 1  # an image model sees every frame by itself
        frames = video.shape[2]
        if pictures:
            video = rearrange(video, "b c t h w -> (b t) c 1 h w")
        x = self.to_network(self.patch(video))
        latents = self.encoder(x).float()
        if pictures:
            latents = rearrange(latents, "(b t) d 1 h w -> b d t h w", t=frames)
        if self.params.normalize_latents:
            latents = latents * (latents.square().mean(dim=1, keepdim=True) + 1e-6).rsqrt()
        return latents

    def decode_signs(self, signs: Tensor) -> Tensor:
        """Pixels (b, 3, t', h', w') float32 from (b, d, t, h, w) of +-1, not clamped and with gradients."""
        pictures, frames = self.params.temporal_kernel == 1, signs.shape[2]
        if pictures:
            signs = rearrange(signs, "b d t h w -> (b t) d 1 h w")
        signs = self.to_network(signs)
        video = self.patch.inverse(self.decoder(signs)).float()
        return rearrange(video, "(b t) c 1 h w -> b c t h w", t=frames) if pictures else video

    def forward(self, video: Tensor, *, temperature: float = 0.01) -> Magvit2Output:
        """One pass for training.

        Args:
            video: (b, 3, t, h, w) in [-1, 1].
            temperature: of the entropy terms.

        Returns:
            Reconstruction, latents, codes and the quantiser's terms.

        Raises:
            ValueError: if the clip does not fit the grid.
        """
        self.grid(*video.shape[2:])
        latents = self.encode_latents(video)
        reconstruction = self.decode_signs(quantize_signs(latents))
        codes = codes_from_latents(latents.detach())[:, None]
        return Magvit2Output(reconstruction, latents, codes, lfq_losses(latents, temperature=temperature))

    def code_vectors(self) -> Tensor:
        """What the codes mean, their bits: (codebook_size, bits) float32, exactly +-1."""
        return signs_from_codes(torch.arange(self.codebook_size)[None], self.params.bits)[0].T.contiguous()

    def codes_of(self, video: Tensor) -> Tensor:
        """Codes without checks, see ``GridTokenizer``; (b, 3, t, h, w) in [-1, 1] to (b, 1, t', h', w') int64."""
        return codes_from_latents(self.encode_latents(video))[:, None]

    def video_of(self, codes: Tensor) -> Tensor:
        """Pixels without checks, not clamped, see ``GridTokenizer``."""
        return self.decode_signs(signs_from_codes(codes[:, 0], self.params.bits))


def image_params(params: Magvit2Params) -> Magvit2Params:
    """Sizes of the image model that ``inflate`` turns into a video model of ``params``."""
    still = (False,) * len(params.temporal_downsample)
    return dataclasses.replace(params, temporal_kernel=1, temporal_downsample=still)


@torch.no_grad()
def finish_images(model: Magvit2, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Complete the inflation of a video model that was trained on one-frame clips.

    One frame passes one half of the output channels of each time-doubling convolution; the other half, the dropped
    frame, learned nothing. It becomes a copy, so that a still clip looks the same in every frame.

    Args:
        model: changed.
        optimizer: whose running moments of these weights are copied as well, or None.
    """
    for up in model.decoder.ups:
        assert isinstance(up, DepthToSpaceUpsample), "built above"
        if up.factor[0] == 1:
            continue
        half = up.conv.out_channels // 2
        seen, other = slice(half, None), slice(0, half)
        if up.dropped_frame == 1:
            seen, other = other, seen
        for weight in up.conv.parameters():
            moments = [] if optimizer is None else [v for v in optimizer.state[weight].values() if v.ndim]
            for tensor in (weight, *moments):
                tensor[other] = tensor[seen]


def inflate(image_model: Magvit2, params: Magvit2Params) -> Magvit2:
    """The video model that treats one frame exactly as ``image_model`` does.

    The 2-D kernels go into the last temporal slice of zero kernels (the padding is causal), and the output channels of
    time-doubling convolutions are repeated (the block of time is outermost). A video model trained on one-frame clips
    has the kernels already and needs ``finish_images`` for the channels.

    Args:
        image_model: a model of ``image_params(params)``.
        params: the video model's sizes.

    Returns:
        A new video model.

    Raises:
        ValueError: if the two do not belong together.

    Source: MAGVIT-v2's inflation as ported in Open-MAGVIT2 (last slice, repeated output channels).
    """
    if image_model.params != image_params(params) or params.temporal_kernel == 1:
        wanted, got = dataclasses.asdict(image_params(params)), dataclasses.asdict(image_model.params)
        told = ", ".join(
            f"{name}={got[name]} instead of {wanted[name]}" for name in wanted if got[name] != wanted[name]
        )
        raise ValueError(f"inflating needs the image model of these sizes; {told}")
    video_model = Magvit2(params)
    flat = image_model.state_dict()
    inflated = {}
    for name, tensor in video_model.state_dict().items():
        now = flat[name]
        copies = tensor.shape[0] // now.shape[0]  # 2 where time is doubled
        now = now.repeat(copies, *[1] * (now.ndim - 1))
        if now.shape != tensor.shape:
            now = F.pad(now, (0, 0, 0, 0, tensor.shape[2] - 1, 0))
        inflated[name] = now
    load_strictly(video_model, inflated)
    return video_model


def deepen_decoder(model: Magvit2, num_mid_blocks: int) -> Magvit2:
    """The model with more decoder blocks at the deepest grid; until they are trained, they change nothing.

    Args:
        model: where weights come from; left as it is.
        num_mid_blocks: the decoder's blocks at the deepest grid from now on, at least as many as now.

    Returns:
        A new model that encodes and decodes as ``model`` does.

    Raises:
        ValueError: if it has more blocks already.
    """
    now = len(model.decoder.mid)
    if num_mid_blocks < now:
        raise ValueError(f"the decoder has {now} blocks at its deepest grid, cannot make them {num_mid_blocks}")
    deeper = Magvit2(dataclasses.replace(model.params, num_decoder_mid_blocks=num_mid_blocks))
    weights = model.state_dict()
    for i in range(now, num_mid_blocks):
        nn.init.zeros_(deeper.get_parameter(f"decoder.mid.{i}.conv2.weight"))
    load_strictly(deeper, deeper.state_dict() | weights)
    return deeper


PRESETS: dict[str, Magvit2Params] = {
    # the figure's network: encoder 144.9 M, decoder 225.7 M parameters
    "magvit2-base": Magvit2Params(
        channels=128,
        channel_multipliers=(1, 2, 2, 4),
        num_res_blocks=4,
        num_mid_blocks=4,
        spatial_downsample=(True, True, True),
        temporal_downsample=(False, True, True),
        bits=18,
    ),
    # trains on two CPU cores: Cosmos' Haar patch carries most of the stride
    "tiny": Magvit2Params(
        channels=16,
        channel_multipliers=(3, 5),
        num_res_blocks=1,
        num_mid_blocks=1,
        spatial_downsample=(True,),
        temporal_downsample=(False,),
        bits=12,
        patch_size=(4, 4, 4),
        patch_normalize=True,
        norm_groups=8,
        normalize_latents=True,
    ),
}


PRESETS["magvit2-base-image"] = image_params(PRESETS["magvit2-base"])  # what ``inflate`` makes magvit2-base of
# Open-MAGVIT2's sizes, to train on from their weights: the image model of 128 pixels inflates to the video one
PRESETS["open-magvit2-video"] = dataclasses.replace(
    PRESETS["magvit2-base"], norm_scope="clip", dropped_frame=1, stem_channels=128
)
PRESETS["open-magvit2-image-128"] = image_params(PRESETS["open-magvit2-video"])
PRESETS["open-magvit2-image-256"] = dataclasses.replace(
    PRESETS["open-magvit2-image-128"],
    channel_multipliers=(1, 1, 2, 2, 4),
    spatial_downsample=(True,) * 4,
    temporal_downsample=(False,) * 4,
)
PRESETS["open-magvit2-image-256-16384"] = dataclasses.replace(PRESETS["open-magvit2-image-256"], bits=14)


def magvit2_params(preset: str) -> Magvit2Params:
    """The sizes of a preset of ``PRESETS``; ValueError for an unknown name."""
    require_known(preset, sorted(PRESETS), "MAGVIT-v2 preset")
    return PRESETS[preset]


def magvit2(preset: str) -> Magvit2:
    """A new model of a preset's size, with random weights; ValueError for an unknown name."""
    return Magvit2(magvit2_params(preset))
