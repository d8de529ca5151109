"""Corpus ``shapes``: endless, seeded, captioned, sounding clips whose ground truth is known exactly.

One coloured shape moves, bounces, grows or spins over a grey textured background. It sounds all the while: the pitch
tells the shape, the timbre the colour, loudness and stereo place follow the motion, and every bounce clicks. A scene
is a few numbers; picture and sound are rendered from it at any size, length and rate. One (colour, shape, motion)
triple in six is never drawn for training (``split="heldout"``), while each pair of attributes is.

Shape letters: c channels, t time, h w height and width, n samples.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

CLIP_S = 2.125  # VideoPoet's clip: 17 pictures at 8 per second
COLOURS: dict[str, tuple[float, float, float]] = {  # RGB in [0, 1]; hues at least 45 degrees apart
    "red": (0.92, 0.14, 0.14),
    "yellow": (0.95, 0.86, 0.12),
    "green": (0.14, 0.74, 0.22),
    "cyan": (0.10, 0.84, 0.90),
    "blue": (0.16, 0.26, 0.95),
    "purple": (0.66, 0.16, 0.86),
}
TIMBRES: dict[str, tuple[float, ...]] = {  # amplitude of harmonics 1, 2, ...
    "red": (1.0,),
    "yellow": (1.0, 0.0, 0.0, 0.45),
    "green": (1.0, 0.0, 0.5, 0.0, 0.25),
    "cyan": (1.0, 0.0, 0.0, 0.0, 0.0, 0.35),
    "blue": (1.0, 0.6, 0.35, 0.2),
    "purple": (1.0, 0.8),
}
# Primes: no whole number of periods fills a codec's frame, so a steady tone is not one code repeated.
PITCHES_HZ: dict[str, float] = {"circle": 241.0, "square": 281.0, "triangle": 331.0, "star": 389.0, "cross": 449.0}
SHAPES = tuple(PITCHES_HZ)
# (finite verb phrase, participle phrase), the first is the usual one
MOTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "left": (("moves left", "moving left"), ("slides to the left", "sliding to the left")),
    "right": (("moves right", "moving right"), ("slides to the right", "sliding to the right")),
    "up": (("moves up", "moving up"), ("rises", "rising")),
    "down": (("moves down", "moving down"), ("sinks", "sinking")),
    "bounces": (("bounces", "bouncing"), ("bounces up and down", "bouncing up and down")),
    "grows": (("grows", "growing"), ("gets bigger", "getting bigger")),
    "shrinks": (("shrinks", "shrinking"), ("gets smaller", "getting smaller")),
    "spins": (("spins", "spinning"), ("turns around", "turning around")),
}
TONES = {"dark": -0.62, "light": 0.5}  # grey level of the background in [-1, 1]
TEXTURES = ("plain", "striped", "dotted")
ROOM_TONE = 0.003  # RMS of the hiss under every tone; no real recording is digitally silent between its partials
_BOUNCE_S = CLIP_S / 2  # a bouncing shape touches the floor then, and once a clip length later again
_FLOOR, _BOUNCE_HEIGHT = 0.3, 0.6


def is_heldout(colour: str, shape: str, motion: str) -> bool:
    """Whether a triple is kept out of training, by a Latin-square rule: every pair of attributes still trains."""
    indices = list(COLOURS).index(colour) + SHAPES.index(shape) + list(MOTIONS).index(motion)
    return indices % 6 == 0


@dataclass(frozen=True)
class Scene:
    """One clip as numbers. Places are in half frame widths from the centre, x to the right and y downwards.

    Attributes:
        shape: one of ``SHAPES``.
        colour: a key of ``COLOURS``.
        motion: a key of ``MOTIONS``; a circle never spins (nobody would see it).
        tone: "dark" or "light" background.
        texture: one of ``TEXTURES``.
        offset: place across the direction of motion, in [-0.2, 0.2].
        radius: mean radius, in [0.50, 0.56].
        shade: slope of the background's grey, as (x, y).
        angle: direction of the texture, radians.
        phase: of the texture, radians.
        template: which caption template, 0 to 5.
        wording: which verb phrase, 0 or 1.
        hiss: seed of the room tone.
    """

    shape: str
    colour: str
    motion: str
    tone: str = "dark"
    texture: str = "plain"
    offset: float = 0.0
    radius: float = 0.53
    shade: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    phase: float = 0.0
    template: int = 0
    wording: int = 0
    hiss: int = 0

    @cached_property
    def caption(self) -> str:
        """An English sentence that says what is seen."""
        verb, participle = MOTIONS[self.motion][self.wording]
        thing = f"{self.colour} {self.shape}"
        ground = f"{self.tone} {self.texture} background"
        return (
            f"a {thing} {verb} on a {ground}",
            f"a {thing} {participle} over a {ground}",
            f"on a {ground}, a {thing} {verb}",
            f"a video of a {thing} that {verb}, {ground}",
            f"the {self.shape} is {self.colour} and {verb}, the background is {self.tone} and {self.texture}",
            f"a {thing} {verb}",
        )[self.template]


class ShapesCorpus:
    """Endless scenes, a pure function of (seed, split, index).

    Args:
        seed: of the whole corpus.
        split: "train" draws triples that are not held out, "heldout" only the others, "all" any.

    Raises:
        ValueError: for an unknown split.
    """

    def __init__(self, seed: int = 0, split: str = "train"):
        if split not in ("train", "heldout", "all"):
            raise ValueError(f"unknown split {split!r}; known: all, heldout, train")
        self.seed, self.split = seed, split
        self._triples = [
            (c, s, m)
            for c in COLOURS
            for s in SHAPES
            for m in MOTIONS
            if not (s == "circle" and m == "spins") and (split == "all" or is_heldout(c, s, m) == (split == "heldout"))
        ]

    def scene(self, index: int) -> Scene:
        """Scene number ``index``, any that is not negative."""
        digest = hashlib.blake2b(f"{self.seed}/{self.split}/{index}".encode(), digest_size=8).digest()
        draw = np.random.default_rng(int.from_bytes(digest, "little"))
        colour, shape, motion = self._triples[draw.integers(len(self._triples))]
        return Scene(
            shape=shape,
            colour=colour,
            motion=motion,
            tone=str(draw.choice(list(TONES))),
            texture=TEXTURES[draw.integers(len(TEXTURES))],
            offset=float(draw.uniform(-0.2, 0.2)),
            radius=float(draw.uniform(0.50, 0.56)),
            shade=(float(draw.uniform(-0.15, 0.15)), float(draw.uniform(-0.15, 0.15))),
            angle=float(draw.integers(4) * math.pi / 4),
            phase=float(draw.uniform(0, 2 * math.pi)),
            template=int(draw.integers(6)),
            wording=int(draw.random() < 0.25),
            hiss=int(draw.integers(2**31)),
        )


def outline(shape: str, angle: Tensor) -> Tensor:
    """Distance of a shape's edge from its centre, by direction; the five shapes look equally large.

    Args:
        shape: one of ``SHAPES``.
        angle: radians, any shape; 0 points up.

    Returns:
        Edge distance in units of the scene's radius, same shape as ``angle``.
    """
    if shape == "circle":
        return torch.full_like(angle, 1.05)
    if shape in ("square", "triangle"):
        corners, size = (4, 1.32) if shape == "square" else (3, 1.5)
        turn = angle + (math.pi / 4 if shape == "square" else 0.0)
        sector = 2 * math.pi / corners
        return size * math.cos(sector / 2) / torch.cos(torch.remainder(turn, sector) - sector / 2)
    if shape == "star":
        outer, inner, half = 1.48, 0.62, math.pi / 5
        fold = (torch.remainder(angle + half, 2 * half) - half).abs()
        return outer * inner * math.sin(half) / (outer * torch.sin(fold) + inner * torch.sin(half - fold))
    length, width = 1.34, 0.46  # cross
    fold = (torch.remainder(angle + math.pi / 4, math.pi / 2) - math.pi / 4).abs()
    return torch.minimum(length / torch.cos(fold), width / torch.sin(fold).clamp(min=1e-6))


def trajectory(scene: Scene, time_s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, y (half frame widths), scale and turn (radians, clockwise) of the shape, each (t,), at (t,) seconds."""
    part = time_s / CLIP_S
    zero = torch.zeros_like(part)
    x, y, scale, turn = zero + scene.offset, zero, zero + 1, zero
    run = 0.64 * part - 0.32
    if scene.motion in ("left", "right"):
        x, y = (run if scene.motion == "right" else -run), zero + scene.offset
    elif scene.motion in ("up", "down"):
        y = run if scene.motion == "down" else -run
    elif scene.motion == "bounces":
        y = _FLOOR - _BOUNCE_HEIGHT * torch.cos(math.pi * part).abs()
    elif scene.motion in ("grows", "shrinks"):
        through = part if scene.motion == "grows" else 1 - part
        scale = 0.5 + 0.7 * through
    elif scene.motion == "spins":
        turn = 1.2 * math.pi * part
    return x, y, scale, turn


def render_video(scene: Scene, *, size: int = 128, num_frames: int = 17) -> Tensor:
    """Draw a scene, anti-aliased.

    Args:
        scene: what to draw.
        size: height and width in pixels.
        num_frames: pictures at 8 per second.

    Returns:
        (3, t, size, size) float32 in [-1, 1].
    """
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    gy, gx = torch.meshgrid(axis, axis, indexing="ij")  # (h, w) pixel centres
    along = gx * math.cos(scene.angle) + gy * math.sin(scene.angle)
    across = gy * math.cos(scene.angle) - gx * math.sin(scene.angle)
    ground = TONES[scene.tone] + scene.shade[0] * gx + scene.shade[1] * gy
    if scene.texture == "striped":
        ground = ground + 0.16 * torch.sin(8 * along + scene.phase)
    elif scene.texture == "dotted":
        ground = ground + 0.22 * torch.sin(9 * along + scene.phase) * torch.sin(9 * across + scene.phase)

    x, y, scale, turn = (v[:, None, None] for v in trajectory(scene, torch.arange(num_frames) / 8.0))
    dx, dy = gx - x, gy - y  # (t, h, w)
    direction = torch.atan2(dx, -dy) - turn
    edge = outline(scene.shape, direction) * scene.radius * scale
    distance = edge - torch.sqrt(dx**2 + dy**2)
    cover = (distance * size / 2 + 0.5).clamp(0, 1)  # share of the pixel inside
    lit = 1 - 0.12 * (dy / scene.radius).clamp(-1, 1)  # a little light from above
    colour = torch.tensor(COLOURS[scene.colour])[:, None, None, None] * lit * 2 - 1  # (3, t, h, w)
    return (ground * (1 - cover) + colour * cover).clamp(-1, 1)


def render_audio(scene: Scene, *, num_samples: int = 34000, sample_rate: int = 16000, channels: int = 1) -> Tensor:
    """The sound of a scene.

    Args:
        scene: what to play.
        num_samples: length.
        sample_rate: Hz.
        channels: 1, or 2 for left and right by the place of the shape.

    Returns:
        (channels, n) float32 in [-1, 1].

    Raises:
        ValueError: if ``channels`` is neither 1 nor 2.
    """
    if channels not in (1, 2):
        raise ValueError(f"channels must be 1 or 2, got {channels}")
    time_s = torch.arange(num_samples, dtype=torch.float64) / sample_rate
    harmonics = TIMBRES[scene.colour]
    tone = torch.zeros_like(time_s)
    for number, amplitude in enumerate(harmonics, start=1):
        if amplitude and number * PITCHES_HZ[scene.shape] < sample_rate / 2:
            tone += amplitude * torch.sin(2 * math.pi * number * PITCHES_HZ[scene.shape] * time_s)
    tone = tone / sum(harmonics)

    x, y, scale, _ = trajectory(scene, time_s)
    loud = 0.35 + 0.65 * (scale - 0.5) / 0.7 if scene.motion in ("grows", "shrinks") else torch.ones_like(time_s)
    if scene.motion in ("left", "right"):
        loud = 1 - 1.4 * x.abs()  # nearest in the middle
    elif scene.motion in ("up", "down"):
        loud = 0.65 - 0.9 * y  # louder when higher
    elif scene.motion == "spins":
        loud = 0.7 + 0.3 * torch.cos(2 * math.pi * 4 * time_s)
    elif scene.motion == "bounces":
        since = torch.remainder(time_s + _BOUNCE_S, 2 * _BOUNCE_S)  # since the last touch
        loud = torch.exp(-1.2 * since)
        click = torch.exp(-400 * since) * torch.sin(2 * math.pi * 2500 * since)
        tone = tone + torch.where((since < 0.02) & (time_s >= _BOUNCE_S), 1.2 * click, 0.0)
    fade = (torch.minimum(time_s, (num_samples / sample_rate) - time_s) / 0.01).clamp(0, 1)
    hiss = np.random.default_rng(scene.hiss).standard_normal(num_samples)  # a longer sound begins like a shorter one
    mono = 0.5 * tone * loud.clamp(min=0.1) * fade + ROOM_TONE * torch.from_numpy(hiss)
    if channels == 1:
        return mono[None].float().clamp(-1, 1)
    pan = (x.clamp(-1, 1) + 1) * math.pi / 4
    return torch.stack([mono * torch.cos(pan), mono * torch.sin(pan)]).mul(math.sqrt(2)).float().clamp(-1, 1)
