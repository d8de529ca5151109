"""Group normalisation over video: statistics per frame, and a form steered by the quantised latent.

MAGVIT-v2 (Yu et al. 2023, arXiv 2310.05737), appendix figure, in the reading of O2-MAGVIT2 that keeps causality:
statistics of one frame never see another frame, and the adaptive form scales and shifts per position. The reading of
Open-MAGVIT2 (whole-clip statistics, one scale and shift per clip) is not causal and exists to run its weights.
Shape letters: b batch, c channels, t h w time/height/width, d latent width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.nn.streaming import is_first


def frame_group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Group norm with the statistics of each frame by itself."""
    # Frames are folded into the batch; in the channels-last layout this is a view and nothing is copied.
    b, t = x.shape[0], x.shape[2]
    frames = x.transpose(1, 2).flatten(0, 1)  # (b * t, c, h, w)
    return F.group_norm(frames, groups, weight, bias, eps).unflatten(0, (b, t)).transpose(1, 2)


class VideoGroupNorm(nn.GroupNorm):
    """Group norm of a video.

    Args:
        groups: number of channel groups.
        channels: channels, a multiple of ``groups``.
        scope: "frame" for statistics per frame (causal), "clip" for statistics over all of t, h, w.
        eps: added to the variance.
        affine: whether a learned scale and shift follow.
    """

    def __init__(self, groups: int, channels: int, *, scope: str, eps: float, affine: bool = True):
        super().__init__(groups, channels, eps=eps, affine=affine)
        self.scope = scope

    def forward(self, x: Tensor) -> Tensor:
        """Normalise: (b, c, t, h, w) to the same shape."""
        if self.scope == "clip":
            return super().forward(x)
        return frame_group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class AdaptiveGroupNorm(nn.Module):
    """Group norm without its own affine part, scaled and shifted by the quantised latent.

    Args:
        groups: number of channel groups.
        channels: channels of the features.
        latent_dim: channels of the quantised latent.
        upsample: (ft, fh, fw) from the latent's grid to the features'.
        scope: "frame": the latent is enlarged by nearest copies (dropping the same leading frames as the features) and
            gives ``gn(x) * (1 + gamma) + beta`` per position; "clip": its standard deviation and mean over t, h, w
            give ``gn(x) * gamma + beta`` for the whole clip (Open-MAGVIT2, not causal).
        eps: added to the variance.
    """

    def __init__(
        self, groups: int, channels: int, latent_dim: int, *, upsample: tuple[int, int, int], scope: str, eps: float
    ):
        super().__init__()
        self.norm = VideoGroupNorm(groups, channels, scope=scope, eps=eps, affine=False)
        self.gamma = nn.Linear(latent_dim, channels)
        self.beta = nn.Linear(latent_dim, channels)
        self.upsample, self.scope, self.eps = upsample, scope, eps

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Normalise and modulate.

        Args:
            x: (b, c, ft * (t - 1) + 1, fh * h, fw * w) features.
            latent: (b, d, t, h, w) quantised latent.

        Returns:
            The shape of ``x``.
        """
        x = self.norm(x)
        if self.scope == "clip":
            flat = latent.flatten(2).float()
            std = (flat.var(dim=2) + self.eps).sqrt()
            gamma, beta = self.gamma(std.to(x.dtype)), self.beta(flat.mean(dim=2).to(x.dtype))
            return x * gamma[..., None, None, None] + beta[..., None, None, None]
        # a linear map and nearest copies commute, so the maps run on the small grid
        latent = latent.movedim(1, -1)  # (b, t, h, w, d)
        dropped = self.upsample[0] - 1 if is_first(self) else 0
        gamma, beta = (self._enlarge(linear(latent))[:, dropped:].movedim(-1, 1) for linear in (self.gamma, self.beta))
        return torch.addcmul(x + beta, x, gamma)

    def _enlarge(self, y: Tensor) -> Tensor:
        """(b, t, h, w, c) on the latent's grid, copied to the features' grid."""
        for axis, factor in zip((1, 2, 3), self.upsample, strict=True):
            if factor > 1:
                y = y.repeat_interleave(factor, dim=axis)
        return y


def inverse_rms(x: Tensor, eps: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """One over the root of the mean square, in two passes: torch's own norm takes five or more on a CPU.

    Args:
        x: (..., dim).
        eps: () added to the mean square, of the result's type.
        dtype: of the sum and of the result, or None for that of ``x``.

    Returns:
        (..., 1).
    """
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype)
    return torch.addcmul(eps, length, length, value=1 / x.shape[-1]).rsqrt_()


class RMSNorm(nn.Module):
    """Divide by the root of the mean square, times a learned weight; statistics in float32.

    Args:
        dim: width.
        eps: added to the mean square.
    """

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis: (..., dim) to like ``x``."""
        if x.device.type != "cpu":
            return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)
        wide = torch.promote_types(x.dtype, torch.float32)
        scale = inverse_rms(x, x.new_full((), self.eps, dtype=wide), dtype=wide)
        return x * scale.to(x.dtype) * self.weight.to(x.dtype)
