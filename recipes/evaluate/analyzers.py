"""Reading colour, shape, motion and pitch back from a finished film of corpus ``shapes``.

The analyzers see pixels and samples only. They assume what the corpus promises: one saturated shape over a grey ground.
"""

from __future__ import annotations

import colorsys
import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.corpora.shapes import COLOURS, PITCHES_HZ, SHAPES, Scene, outline

ATTRIBUTES = ("colour", "shape", "motion", "pitch")
_DIRECTIONS = 72  # rays of a radial profile, 5 degrees apart


@dataclass(frozen=True)
class Reading:
    """What an analyzer saw; ``None`` where it saw nothing."""

    colour: str | None  # a key of ``COLOURS``
    shape: str | None  # one of ``SHAPES``
    motion: str | None  # a key of ``MOTIONS``, or "still"


def _hue_distance(a: float, b: float) -> float:
    gap = abs(a - b) % 1.0
    return min(gap, 1 - gap)


def _segment(frames: Tensor) -> Tensor:
    """Soft mask of the saturated shape: (3, t, h, w) in [0, 1] to (t, h, w) in [0, 1]."""
    saturation = frames.amax(0) - frames.amin(0)  # (t, h, w)
    level = torch.quantile(saturation.flatten(1), 0.98, dim=1).clamp(min=0.2)[:, None, None]
    return ((saturation / level - 0.35) / 0.3).clamp(0, 1)


def _profiles(mask: Tensor, cx: Tensor, cy: Tensor, radius: Tensor) -> Tensor:
    """Edge distance by direction: (t, directions), in half frame widths."""
    angle = torch.arange(_DIRECTIONS) * (2 * math.pi / _DIRECTIONS)
    reach = torch.linspace(0, 1, 48)[None] * radius[:, None] * 2.2  # (t, steps)
    x = cx[:, None, None] + reach[:, None] * torch.sin(angle)[None, :, None]
    y = cy[:, None, None] - reach[:, None] * torch.cos(angle)[None, :, None]
    values = F.grid_sample(mask[:, None], torch.stack([x, y], -1), align_corners=False)[:, 0]  # (t, directions, steps)
    return values.mean(-1) * radius[:, None] * 2.2  # the covered length of each ray


def _templates() -> Tensor:
    """(shapes, directions) outlines of unit mean."""
    angle = torch.arange(_DIRECTIONS) * (2 * math.pi / _DIRECTIONS)
    lines = torch.stack([outline(shape, angle) for shape in SHAPES])
    return lines / lines.mean(-1, keepdim=True)


def _turns(profiles: Tensor) -> float:
    """Total clockwise turn over the clip in radians, from shifts between pictures two apart."""
    total = 0.0
    fine = F.interpolate(profiles[:, None], scale_factor=4, mode="linear")[:, 0]
    fine = fine - fine.mean(-1, keepdim=True)
    if float(fine.std()) < 1e-4:
        return 0.0
    limit = 4 * 7  # at most 35 degrees either way, below half the symmetry of a star
    for before, after in itertools.pairwise(fine):
        scores = torch.stack([(before.roll(s) * after).sum() for s in range(-limit, limit + 1)])
        total += (int(scores.argmax()) - limit) * 2 * math.pi / (4 * _DIRECTIONS)
    return total


def _centres(mask: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """(t,) places of (t, h, w) masks on an axis of their sides, across and down; NaN for empty ones."""
    weight = mask / mask.sum((1, 2), keepdim=True)
    return (weight.sum(1) * axis).sum(-1), (weight.sum(2) * axis).sum(-1)


def read_video(frames: Tensor) -> Reading:
    """Colour, shape and motion of a square clip (3, t, h, w) in [-1, 1]; all None where no saturated shape is there."""
    frames = frames.float().clamp(-1, 1) / 2 + 0.5
    mask = _segment(frames)
    area = mask.mean((1, 2)) * 4  # in half widths squared
    seen = (area > 0.02) & (area < 2.4)
    if int(seen.sum()) < max(1, frames.shape[1] // 2):
        return Reading(None, None, None)
    frames, mask, area = frames[:, seen], mask[seen], area[seen]
    cx, cy = _centres(mask, (torch.arange(mask.shape[-1]) + 0.5) / mask.shape[-1] * 2 - 1)  # (t,) in half widths

    core = (mask > 0.95).float()
    rgb = (frames * core).sum((1, 2, 3)) / core.sum().clamp(min=1)
    hue = colorsys.rgb_to_hsv(*rgb.tolist())[0]
    colour = min(COLOURS, key=lambda name: _hue_distance(hue, colorsys.rgb_to_hsv(*COLOURS[name])[0]))

    radius = (area / math.pi).sqrt()
    profiles = _profiles(mask, cx, cy, radius)
    unit = profiles / profiles.mean(-1, keepdim=True).clamp(min=1e-6)
    templates = _templates()
    shifted = torch.stack([templates.roll(s, -1) for s in range(_DIRECTIONS)], 1)  # (shapes, shifts, directions)
    error = ((unit[:, None, None] - shifted) ** 2).mean(-1).amin(-1)  # (t, shapes)
    shape = SHAPES[int(error.median(0).values.argmin())]

    return Reading(colour, shape, _read_motion(cx, cy, radius, profiles))


def read_centres(frames: Tensor) -> Tensor:
    """(t, 2) pixels from left and top of the shape in (3, t, h, w) in [-1, 1], square; NaN where none is seen."""
    mask = _segment(frames.float().clamp(-1, 1) / 2 + 0.5)
    return torch.stack(_centres(mask, torch.arange(mask.shape[-1]) + 0.5), -1)


def _read_motion(cx: Tensor, cy: Tensor, radius: Tensor, profiles: Tensor) -> str:
    if len(cx) < 3:
        return "still"
    ends = max(1, len(cx) // 8)
    dx, dy = (float(v[-ends:].mean() - v[:ends].mean()) for v in (cx, cy))
    growth = math.log(float(radius[-ends:].mean() / radius[:ends].mean()))
    height = float(cy.max() - cy.min())
    if abs(growth) > 0.3 and max(abs(dx), abs(dy)) < 0.4:
        return "grows" if growth > 0 else "shrinks"
    if height > 0.3 and abs(dy) < 0.5 * height and abs(dx) < 0.4:
        return "bounces"
    if max(abs(dx), abs(dy)) > 0.25:
        return ("right" if dx > 0 else "left") if abs(dx) > abs(dy) else ("down" if dy > 0 else "up")
    return "spins" if abs(_turns(profiles)) > math.pi / 4 else "still"


def read_pitch(audio: Tensor, sample_rate: int) -> str | None:
    """The shape that the sound names by its pitch.

    The power within 5 % of each known pitch is compared; every timbre of the corpus is strongest at its fundamental.

    Args:
        audio: (1, n) in [-1, 1], at least a quarter of a second.
        sample_rate: Hz.

    Returns:
        One of ``SHAPES``, or None for silence.
    """
    samples = audio.float().mean(0)
    if float(samples.square().mean().sqrt()) < 0.01:  # no more than a room's hiss
        return None
    window = 4096 * max(1, round(sample_rate / 16000))
    if samples.numel() < window:
        samples = F.pad(samples, (0, window - samples.numel()))
    pieces = samples.unfold(0, window, window // 4) * torch.hann_window(window)
    power = torch.fft.rfft(pieces, n=4 * window).abs().square().mean(0)
    hz = torch.arange(power.numel()) * sample_rate / (4 * window)

    strength = {name: float(power[(hz - p).abs() < 0.05 * p].sum()) for name, p in PITCHES_HZ.items()}
    return max(PITCHES_HZ, key=strength.__getitem__)


def judge(scene: Scene, frames: Tensor, audio: Tensor | None, sample_rate: int) -> dict[str, bool]:
    """Which attributes a film got right.

    Args:
        scene: what was asked for.
        frames: (3, t, h, w) in [-1, 1].
        audio: (1, n), or None.
        sample_rate: Hz.

    Returns:
        Attribute to right or wrong; "pitch" only when there is sound.
    """
    reading = read_video(frames)
    right = {name: getattr(reading, name) == getattr(scene, name) for name in ("colour", "shape", "motion")}
    if audio is not None:
        right["pitch"] = read_pitch(audio, sample_rate) == scene.shape
    return right


def percent_right(rows: list[dict[str, bool]]) -> dict[str, float]:
    """Attribute to the per cent of films that have it right; what the films do not have is left out."""
    return {n: round(100 * sum(r[n] for r in rows) / len(rows), 1) for n in ATTRIBUTES if rows and n in rows[0]}
