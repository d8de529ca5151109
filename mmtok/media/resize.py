"""Pictures and films in other sizes.

Shape letters: b films, c channels, t h w time/height/width.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def half_size(video: Tensor) -> Tensor:
    """Bicubic, anti-aliased half of each side: what the language model's resolution means.

    Args:
        video: (b, 3, t, h, w) in [-1, 1].

    Returns:
        (b, 3, t, h / 2, w / 2) in [-1, 1].
    """
    b = len(video)
    frames = rearrange(video, "b c t h w -> (b t) c h w")
    frames = F.interpolate(frames, scale_factor=0.5, mode="bicubic", antialias=True).clamp(-1, 1)
    return rearrange(frames, "(b t) c h w -> b c t h w", b=b).contiguous()


def resized(video: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic, with antialiasing where it shrinks.

    Args:
        video: (b, 3, t, h, w) in [-1, 1].
        size: (h, w) pixels wanted.

    Returns:
        (b, 3, t, *size) in [-1, 1]; ``video`` itself where it has that size.
    """
    if tuple(video.shape[-2:]) == tuple(size):
        return video
    b = len(video)
    frames = rearrange(video, "b c t h w -> (b t) c h w")
    frames = F.interpolate(frames, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
    return rearrange(frames, "(b t) c h w -> b c t h w", b=b)


def cover(video: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (bicubic, antialiased) until both sides are covered, and crop the centre.

    Args:
        video: (b, 3, t, h, w) in [-1, 1].
        size: (h, w) pixels wanted.

    Returns:
        (b, 3, t, *size) float32 in [-1, 1].
    """
    high, wide = size
    h, w = video.shape[-2:]
    video = video.float()
    if (h, w) != (high, wide):
        scale = max(high / h, wide / w)
        shape = (max(high, round(h * scale)), max(wide, round(w * scale)))
        top, left = (shape[0] - high) // 2, (shape[1] - wide) // 2
        video = resized(video, shape)[..., top : top + high, left : left + wide]
    return video.contiguous()
