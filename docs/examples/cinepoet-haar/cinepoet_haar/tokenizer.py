"""A visual tokenizer without a network: patches of 4 x 8 x 8 become six rounded Haar coefficients, which are one token.

Kept of each patch are the mean brightness, the two mean colours (YCoCg), and how the brightness differs between left
and right, top and bottom, early and late. A coefficient is squashed by tanh before it is rounded, so that levels lie
densest where coefficients are. Unusual: all that is learned is one scale a coefficient, in one pass over some clips.

Shape letters: b batch, k coefficients kept, t h w time/height/width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmtok.nn.patch import HaarPatch
from mmtok.visual.grid import GridTokenizer

# Coefficients kept: band of the Haar packet of 4 x 8 x 8 (the coarsest difference of an axis is one bit) and colour.
_KEPT = ((0, 0), (0, 1), (0, 2), (64, 0), (128, 0), (32, 0))
_TO_YCOCG = ((0.25, 0.5, 0.25), (0.5, 0.0, -0.5), (-0.25, 0.5, -0.25))


@dataclass(frozen=True)
class HaarParams:
    """Sizes.

    Attributes:
        levels: of each coefficient kept; odd numbers have a level for exactly 0.
        fps: pictures per second.

    Raises:
        ValueError: if there are not six levels of at least 2.
    """

    levels: tuple[int, ...] = (12, 7, 7, 5, 5, 3)
    fps: float = 8.0

    def __post_init__(self) -> None:
        if len(self.levels) != len(_KEPT) or min(self.levels) < 2:
            raise ValueError(f"levels must be {len(_KEPT)} numbers of at least 2, got {self.levels}")


class HaarTokenizer(GridTokenizer):
    """See the module's docstring and ``mmtok.contract.VisualTokenizer``."""

    family = "haar"
    params_class = HaarParams
    is_causal = True
    stride = (4, 8, 8)

    scales: Tensor
    colours: Tensor

    def __init__(self, params: HaarParams):
        super().__init__()
        self.params, self.fps = params, params.fps
        self.codebook_size = math.prod(params.levels)
        self.patch = HaarPatch(self.stride)
        self.register_buffer("scales", torch.tensor([0.5, 0.2, 0.2, 0.1, 0.1, 0.05]))
        self.register_buffer("colours", torch.empty(3, 3), persistent=False)
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Fill the constant that files leave out."""
        if not self.colours.is_meta:
            self.colours.copy_(torch.tensor(_TO_YCOCG))

    @torch.no_grad()
    def fit(self, video: Tensor) -> None:
        """Learn the scales: one and a half times the root mean square of each coefficient.

        Args:
            video: (b, 3, t, h, w) in [-1, 1].
        """
        self.grid(*video.shape[2:])
        self.scales.copy_(1.5 * self._coefficients(video).pow(2).mean((0, 2, 3, 4)).sqrt().clamp(min=1e-3))

    def _coefficients(self, video: Tensor) -> Tensor:
        """(b, k, t', h', w') float32."""
        bands = self.patch(torch.einsum("dc,bcthw->bdthw", self.colours, video.float()))
        return bands[:, [3 * band + colour for band, colour in _KEPT]]

    def codes_of(self, video: Tensor) -> Tensor:
        """(b, 1, t', h', w') int64: digits of mixed radix, the first coefficient least significant."""
        squashed = torch.tanh(self._coefficients(video) / self.scales.float().view(-1, 1, 1, 1))
        code, base = torch.zeros_like(squashed[:, 0], dtype=torch.int64), 1
        for channel, levels in zip(squashed.unbind(1), self.params.levels, strict=True):
            code += ((channel + 1) / 2 * (levels - 1)).round().long() * base
            base *= levels
        return code[:, None]

    def video_of(self, codes: Tensor) -> Tensor:
        """(b, 3, t', h', w') float32 from (b, 1, t, h, w); what was not kept is zero."""
        rest, channels = codes[:, 0], []
        for levels in self.params.levels:
            # the outermost levels stand for all that is larger; half a step inwards keeps them finite
            most = 1 - 0.5 / (levels - 1)
            channels.append(torch.atanh((rest % levels / (levels - 1) * 2 - 1).clamp(-most, most)))
            rest = rest // levels
        kept = torch.stack(channels, 1) * self.scales.float().view(-1, 1, 1, 1)
        bands = kept.new_zeros(len(kept), self.patch.out_channels, *kept.shape[2:])
        bands[:, [3 * band + colour for band, colour in _KEPT]] = kept
        return torch.einsum("cd,bdthw->bcthw", torch.linalg.inv(self.colours), self.patch.inverse(bands))


PRESETS = {"haar-4x8x8": HaarParams()}
