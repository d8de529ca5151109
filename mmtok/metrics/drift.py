"""How far a film has drifted from its beginning: what each extension looks like, and what its codes are.

A model that continues its own pictures repeats its own mistakes: films go dark or grey, blur, or freeze on few codes.
Each block of a film gets one row of numbers, and the change of a row from the first one is the drift.
Shape letters: b films, t h w time/height/width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Look:
    """Statistics of some pictures and their codes, means over films.

    Attributes:
        brightness: mean of the pixels in [0, 1].
        contrast: deviation of a picture's pixels, in the same unit.
        colour: mean distance of the channels from their grey, in the same unit.
        sharpness: mean difference of neighbouring pixels, in the same unit.
        motion: mean difference of pictures that follow each other, in the same unit; 0.0 for a single one.
        codes: effective number of different visual codes, the exponential of their entropy.
    """

    brightness: float
    contrast: float
    colour: float
    sharpness: float
    motion: float
    codes: float


def look_at(frames: Tensor, codes: Tensor) -> Look:
    """Measure pictures.

    Args:
        frames: (b, 3, t, h, w) in [-1, 1].
        codes: (b, 1, t', h', w') of the same pictures.

    Returns:
        The statistics.
    """
    light = (frames.float() + 1) / 2
    grey = light.mean(1, keepdim=True)
    across = (light[..., 1:] - light[..., :-1]).abs().mean() + (light[..., 1:, :] - light[..., :-1, :]).abs().mean()
    motion = (light[:, :, 1:] - light[:, :, :-1]).abs().mean() if light.shape[2] > 1 else light.new_zeros(())
    used = []
    for film in codes.flatten(1):
        shares = film.unique(return_counts=True)[1] / film.numel()
        used.append(torch.exp(-(shares * shares.log()).sum()))
    return Look(
        brightness=float(light.mean()),
        contrast=float(grey.flatten(3).std(-1).mean()),
        colour=float((light - grey).abs().mean()),
        sharpness=float(across / 2),
        motion=float(motion),
        codes=float(torch.stack(used).mean()),
    )


def drift_table(looks: Sequence[Look]) -> str:
    """Lines of text: a row for the first clip and each extension, and the change of the last row from the first."""
    names = [f.name for f in dataclasses.fields(Look)]
    lines = ["".join(f"{name:>12}" for name in ("extension", *names))]
    lines += [
        f"{number:>12}" + "".join(f"{getattr(look, n):12.3f}" for n in names) for number, look in enumerate(looks)
    ]
    change = [f"{100 * (getattr(looks[-1], n) / (getattr(looks[0], n) or 1e-9) - 1):+.0f} %" for n in names]
    return "\n".join([*lines, f"{'drift':>12}" + "".join(f"{c:>12}" for c in change)])


def drift_note(looks: Sequence[Look]) -> str | None:
    """What has changed much between the first clip and the last extension, in one line.

    Args:
        looks: of the first clip and of each extension.

    Returns:
        Such as "the film drifts: sharpness -41 % after 10 extensions"; None when everything but motion stays within a
        quarter of what it was.
    """
    if len(looks) < 2:
        return None
    found = []
    for name in ("brightness", "contrast", "colour", "sharpness", "codes"):
        first, last = getattr(looks[0], name), getattr(looks[-1], name)
        if first > 0 and abs(last / first - 1) > 0.25:
            found.append(f"{name} {100 * (last / first - 1):+.0f} %")
    count = len(looks) - 1
    plural = "s" if count > 1 else ""
    return f"the film drifts: {', '.join(found)} after {count} extension{plural}" if found else None
