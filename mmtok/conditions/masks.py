"""What of a clip is to be made anew: a mask by COMMIT's name, a box, or one's own picture, brought to the clip.

Shape letters: b batch, t h w time/height/width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmtok.conditions.commit_masks import COUNTED, Condition, hide, make_condition, require_part

# family -> short name -> geometry of mmtok.conditions.commit_masks
NAMES: dict[str, dict[str, str]] = {
    "inpaint": {
        "central": "inpaint_central",
        "dynamic": "inpaint_dynamic",
        "interpolation": "interpolation",
        "frame_prediction": "frame_prediction",
    },
    "outpaint": {
        "central": "outpaint_central",
        "vertical": "outpaint_vertical",
        "horizontal": "outpaint_horizontal",
        "dynamic": "outpaint_dynamic",
    },
}
FILLS = {"inpaint": "black", "outpaint": "edges"}  # behind a mask of one's own
Mask = str | Sequence[float] | Tensor
"""A name, a box (top, left, bottom, right) in shares of the picture, or (h, w) or (t, h, w), True or 1.0 where the clip
is made anew."""


def family_of(mask: Mask | None) -> str:
    """The family of masks that a mask belongs to: "outpaint" where its name begins so, else "inpaint"."""
    return next((f for f in FILLS if isinstance(mask, str) and mask.startswith(f"{f}_")), "inpaint")


def geometry_of(name: str, family: str) -> str:
    """COMMIT's geometry behind a name.

    Args:
        name: short, such as "central", or whole, such as "inpaint_central".
        family: a key of ``NAMES``.

    Returns:
        A key of ``mmtok.conditions.commit_masks.GEOMETRIES``.

    Raises:
        ValueError: if the family has no such mask, with those it has.
    """
    known = NAMES[family]
    if name not in known and name not in known.values():
        raise ValueError(
            f"task {family} has no mask {name!r}; it has: {', '.join(known)}, a box of four shares, or a picture"
        )
    return known.get(name, name)


def check_mask(mask: Mask, family: str, *, given_frames: int | None = None) -> None:
    """Everything about a mask that shows before there is a clip.

    Args:
        mask: see ``Mask``.
        family: a key of ``NAMES``.
        given_frames: pictures that a mask along time leaves visible, or None.

    Raises:
        ValueError: for an unknown name, a box outside the picture, a tensor of another form or with NaN, a number of
            frames where the mask has none, or a mask that hides everything or nothing.
    """
    if given_frames is not None and not (isinstance(mask, str) and geometry_of(mask, family) in COUNTED):
        raise ValueError(f"given frames go with the masks {' and '.join(COUNTED)}")
    if isinstance(mask, str):
        geometry_of(mask, family)
    elif isinstance(mask, Tensor):
        _hidden(mask)
    else:
        _box(mask, 1000, 1000)


def _hidden(mask: Tensor) -> Tensor:
    """The mask as bool."""
    if mask.ndim not in (2, 3) or not mask.numel():
        raise ValueError(f"a mask must have shape (h, w) or (t, h, w), got {tuple(mask.shape)}")
    if mask.dtype != torch.bool:
        low, high = torch.aminmax(mask)
        if not (low >= 0 and high <= 1):  # NaN fails too
            raise ValueError(f"a mask must be bool or lie in [0, 1], got {mask.dtype} in [{low:.3g}, {high:.3g}]")
    hidden = mask > 0.5
    require_part(hidden)
    return hidden


def _box(box: Sequence[float], height: int, width: int) -> Tensor:
    """(height, width), True inside the box."""
    if len(box) != 4:
        raise ValueError(f"a box has four shares (top, left, bottom, right), got {len(box)}")
    top, left, bottom, right = (float(share) for share in box)
    if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
        raise ValueError(f"a box is top < bottom and left < right, all in [0, 1], got {tuple(box)}")
    hidden = torch.zeros(height, width, dtype=torch.bool)
    hidden[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    require_part(hidden)
    return hidden


def make_mask(
    mask: Mask,
    family: str,
    video: Tensor,
    *,
    given_size: tuple[int, int],
    fit: Callable[[Tensor], Tensor],
    stride: tuple[int, int, int],
    given_frames: int | None = None,
) -> Condition:
    """Hide a part of a clip: as models are trained where the mask has a name, else whole tokens.

    Args:
        mask: see ``Mask``.
        family: a key of ``NAMES``.
        video: (b, 3, t, h, w) in [-1, 1], the clip as the language model's tokenizer takes it.
        given_size: (h, w) of the film before it was brought to that size; a mask of that size is brought along.
        fit: what brought it.
        stride: pixels per token, ordered time, height, width.
        given_frames: pictures that a mask along time leaves visible, or None for one.

    Returns:
        The clip with its masks.

    Raises:
        ValueError: as of ``check_mask``, for a mask of another size than the film's, or one that hides everything once
            it covers whole tokens.
    """
    check_mask(mask, family, given_frames=given_frames)
    t, h, w = video.shape[2:]
    if isinstance(mask, str):
        geometry = geometry_of(mask, family)
        return make_condition(video, geometry, stride=stride, frames=given_frames)
    if not isinstance(mask, Tensor):
        return hide(video, _box(mask, h, w), fill=FILLS[family], stride=stride, latent_exact=True)
    hidden = _hidden(mask)
    if tuple(hidden.shape[-2:]) not in (given_size, (h, w)):
        raise ValueError(f"the mask has {tuple(hidden.shape[-2:])} pixels (h, w), the film {given_size}")
    if hidden.ndim == 3 and len(hidden) < t:  # as a shorter film holds its last picture
        hidden = torch.cat([hidden, hidden[-1:].expand(t - len(hidden), -1, -1)])
    pictures = hidden[None] if hidden.ndim == 2 else hidden[:t]
    if tuple(hidden.shape[-2:]) != (h, w):
        signed = (2 * pictures.float() - 1).expand(3, -1, -1, -1)
        pictures = fit(signed)[0, 0] > 0
    return hide(
        video, pictures[0] if hidden.ndim == 2 else pictures, fill=FILLS[family], stride=stride, latent_exact=True
    )
