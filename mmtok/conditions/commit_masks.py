"""COMMIT conditions: a full-size clip in which the visible pixels stay and the hidden ones are filled (MAGVIT, Yu et
al. 2022, 3.2).

The language model reads the tokens of that filled clip, never those of the complete one, because a tokenizer's
receptive field would let hidden pixels leak into visible tokens. Geometries after MAGVIT's appendix B.1; MAGVIT's
pixels lie in [0, 1], so its zero is black, -1 here.

Shape letters: b batch, c channels, t h w time/height/width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmtok.contract import require_video
from mmtok.find import find

BLACK = -1.0


@dataclass(frozen=True)
class Condition:
    """What a model may see of a clip.

    Attributes:
        video: (b, 3, t, h, w) in [-1, 1], hidden pixels filled.
        known: (t, h, w) bool, True where a pixel is as in the clip.
        latent_known: (t', h', w') bool, True where every pixel of every frame under a token is known.
    """

    video: Tensor
    known: Tensor
    latent_known: Tensor


def _box(t: int, h: int, w: int, rows: tuple[int, int], left: list[int], width: int) -> Tensor:
    """True in the given rows and, in each frame, in ``width`` columns from ``left``."""
    inside = torch.zeros(t, h, w, dtype=torch.bool)
    for frame, start in enumerate(left):
        inside[frame, rows[0] : rows[1], start : start + width] = True
    return inside


Step = tuple[int, int, int]
"""Pixels that edges move by, ordered time, height, width: a token's for exact masks, else 1."""
Region = Callable[[int, int, int, int, Step], Tensor]
"""(t, h, w, given frames, step) to (t, h, w) bool."""


def _sweep(t: int, distance: int, step: Step) -> list[int]:
    """Left edge in each frame, from 0 to ``distance``; frames of one token share theirs."""
    slices = [0 if frame == 0 else 1 + (frame - 1) // step[0] for frame in range(t)]
    places = [distance * number / max(1, slices[-1]) for number in slices]
    return [min(distance, round(place / step[2]) * step[2]) for place in places]


def _whole(frames: int, step: int) -> int:
    return -(-frames // step) * step


def _first(t: int, h: int, w: int, frames: int, step: Step) -> Tensor:
    count = 1 + _whole(frames - 1, step[0])  # the first frame is a token's alone
    return (torch.arange(t) < count)[:, None, None].expand(t, h, w)


def _ends(t: int, h: int, w: int, frames: int, step: Step) -> Tensor:
    places = torch.arange(t)
    before, after = 1 + _whole(frames - 1, step[0]), _whole(frames, step[0])
    return ((places < before) | (places >= t - after))[:, None, None].expand(t, h, w)


def _quarters(size: int, step: int) -> tuple[int, int]:
    return round(size / 4 / step) * step, round(size * 3 / 4 / step) * step


def _boxed(*, rows: bool, columns: bool = True, moves: bool = False) -> Region:
    """A box, its rows or columns cut or not, that stands in the middle or moves from left to right."""

    def mask(t: int, h: int, w: int, frames: int, step: Step) -> Tensor:
        upright = _quarters(h, step[1]) if rows else (0, h)
        if moves:
            width = w // 2 // step[2] * step[2]
            return _box(t, h, w, upright, _sweep(t, w - width, step), width)
        left, right = _quarters(w, step[2]) if columns else (0, w)
        return _box(t, h, w, upright, [left] * t, right - left)

    return mask


def _outside(region: Region) -> Region:
    return lambda *sizes: ~region(*sizes)


def _repeat_last(video: Tensor, known: Tensor) -> Tensor:
    last = int(known[:, 0, 0].nonzero().max())
    return video[:, :, last : last + 1].expand_as(video)


def _blend(video: Tensor, known: Tensor) -> Tensor:
    """Linear blend between the inner known frames."""
    hidden = (~known[:, 0, 0]).nonzero().flatten().tolist()
    before, after = hidden[0] - 1, hidden[-1] + 1
    part = ((torch.arange(video.shape[2], device=video.device) - before) / (after - before)).clamp(0, 1)
    part = part[:, None, None].to(video.dtype)
    return video[:, :, before : before + 1] * (1 - part) + video[:, :, after : after + 1] * part


def _black(video: Tensor, known: Tensor) -> Tensor:
    return torch.full_like(video, BLACK)


def _edges(video: Tensor, known: Tensor) -> Tensor:
    """Every pixel takes the nearest one of the visible box of all frames; black where that one is hidden itself."""
    rows, columns = known.any(2).any(0).nonzero().flatten(), known.any(1).any(0).nonzero().flatten()
    y = torch.arange(video.shape[3], device=video.device).clamp(int(rows[0]), int(rows[-1]))
    x = torch.arange(video.shape[4], device=video.device).clamp(int(columns[0]), int(columns[-1]))
    return torch.where(known[:, y][..., x], video[:, :, :, y][..., x], BLACK)


# name -> (which pixels are known, how the others are filled)
GEOMETRIES: dict[str, tuple[Region, Callable[[Tensor, Tensor], Tensor]]] = {
    "frame_prediction": (_first, _repeat_last),
    "interpolation": (_ends, _blend),
    "outpaint_central": (_boxed(rows=True), _edges),
    "outpaint_vertical": (_boxed(rows=False), _edges),
    "outpaint_horizontal": (_boxed(rows=True, columns=False), _edges),
    "outpaint_dynamic": (_boxed(rows=False, moves=True), _black),
    "inpaint_central": (_outside(_boxed(rows=True)), _black),
    "inpaint_dynamic": (_outside(_boxed(rows=True, moves=True)), _black),
}


# How pixels are filled that a mask of one's own hides.
FILLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"black": _black, "edges": _edges}
COUNTED = ("frame_prediction", "interpolation")  # geometries that give a number of frames
PAINTINGS = {
    task: tuple(name for name in GEOMETRIES if name.startswith(f"{task}_")) for task in ("inpaint", "outpaint")
}
"""Task to the geometries that hide a part of the picture."""


def make_condition(
    video: Tensor,
    geometry: str,
    *,
    stride: tuple[int, int, int] = (4, 8, 8),
    frames: int | None = None,
    latent_exact: bool = False,
) -> Condition:
    """Hide a part of a clip.

    Args:
        video: (b, 3, t, h, w) in [-1, 1], t = 1 + a multiple of ``stride[0]``, h and w multiples of the others.
        geometry: a key of ``GEOMETRIES``.
        stride: pixels per token, ordered time, height, width.
        frames: given frames of "frame_prediction", and at each end of "interpolation"; None is 1.
        latent_exact: True moves edges to multiples of the stride in space and time, so that no token is half visible.

    Returns:
        The filled clip and its masks.

    Raises:
        ValueError: for an unknown geometry, a clip that does not fit the stride, ``frames`` that leave nothing hidden
            or that the geometry does not have.
    """
    require_video(video)
    region, fill = find(GEOMETRIES, geometry, "geometry")
    t, h, w = _fitting(video, stride)
    if frames is not None and geometry not in COUNTED:
        raise ValueError(f"{geometry} has no number of given frames; only {' and '.join(COUNTED)} have")
    frames = 1 if frames is None else frames
    known = region(t, h, w, frames, stride if latent_exact else (1, 1, 1))
    if bool(known.all()) or not bool(known.any()):
        raise ValueError(
            f"{geometry} with frames={frames} hides {'nothing' if known.all() else 'everything'} of {t} frames"
        )
    return _condition(video, known.to(video.device), fill, stride)


def hide(
    video: Tensor,
    hidden: Tensor,
    *,
    fill: str = "black",
    stride: tuple[int, int, int] = (4, 8, 8),
    latent_exact: bool = False,
) -> Condition:
    """Hide the part of a clip that a mask says.

    Args:
        video: as in ``make_condition``.
        hidden: (h, w) or (t, h, w) bool, True where a pixel is hidden.
        fill: "black" (inpainting), or "edges" (outpainting): the nearest visible pixels.
        stride: pixels per token, ordered time, height, width.
        latent_exact: True grows the hidden part to whole tokens, so that no token is half visible.

    Returns:
        The filled clip and its masks.

    Raises:
        ValueError: for an unknown fill, a clip that does not fit the stride, a mask of another size or type, or one
            that hides everything or nothing.
    """
    require_video(video)
    t, h, w = _fitting(video, stride)
    filled = find(FILLS, fill, "fill")
    if hidden.dtype != torch.bool or tuple(hidden.shape) not in ((h, w), (t, h, w)):
        raise ValueError(
            f"a mask of {t} pictures of {h} x {w} must be bool of shape ({h}, {w}) or ({t}, {h}, {w}), got "
            f"{hidden.dtype} of {tuple(hidden.shape)}"
        )
    require_part(hidden)
    known = ~hidden.expand(t, h, w).to(video.device)
    if latent_exact:
        known = _pixels(_latent(known, stride), stride)
        if not bool(known.any()):
            raise ValueError(f"the mask hides everything once it covers whole tokens of {stride[1]} x {stride[2]}")
    return _condition(video, known, filled, stride)


def require_part(hidden: Tensor) -> None:
    """Raise ValueError unless a bool mask, True where a pixel is hidden, hides neither everything nor nothing."""
    if bool(hidden.all()) or not bool(hidden.any()):
        raise ValueError(f"the mask hides {'everything' if bool(hidden.any()) else 'nothing'}")


def _fitting(video: Tensor, stride: tuple[int, int, int]) -> tuple[int, int, int]:
    t, h, w = video.shape[2:]
    if (t - 1) % stride[0] or h % stride[1] or w % stride[2]:
        raise ValueError(f"a clip of {t} x {h} x {w} does not fit the stride {stride}; use 1 + k frames and multiples")
    return t, h, w


def _condition(
    video: Tensor, known: Tensor, fill: Callable[[Tensor, Tensor], Tensor], stride: tuple[int, int, int]
) -> Condition:
    return Condition(torch.where(known, video, fill(video, known)), known, _latent(known, stride))


def _latent(known: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """(t', h', w'): a token is known when all of its frames (the first alone, then groups) and pixels are."""
    _, h, w = known.shape
    slices = torch.cat([known[:1], known[1:].reshape(-1, stride[0], h, w).all(1)])
    return slices.reshape(len(slices), h // stride[1], stride[1], w // stride[2], stride[2]).all(4).all(2)


def _pixels(latent: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """(t, h, w): what is known of tokens, for the pixels under them."""
    wide = latent.repeat_interleave(stride[1], 1).repeat_interleave(stride[2], 2)
    return torch.cat([wide[:1], wide[1:].repeat_interleave(stride[0], 0)])
