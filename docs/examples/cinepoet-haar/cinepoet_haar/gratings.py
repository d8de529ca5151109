"""Stripes that drift, each colour with its tone: films with captions, drawn once into the user's cache."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import torch

from mmtok.media.video import write_film

_COLOURS = {"red": (0.8, -0.7, -0.7), "green": (-0.7, 0.6, -0.6), "blue": (-0.7, -0.5, 0.8), "grey": (0.1, 0.1, 0.1)}
_WAYS = {"left": (1.0, 0.0), "right": (-1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0)}
_TONES_HZ = {"red": 262.0, "green": 330.0, "blue": 392.0, "grey": 523.0}
_SIZE, _FRAMES, _FPS, _RATE = 64, 25, 8.0, 16_000


def draw() -> Path:
    """The listing; its films are drawn where it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "cinepoet-haar" / "gratings"
    listing = folder / "captions.csv"
    if listing.is_file():
        return listing
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for colour, rgb in _COLOURS.items():
        for way, (across, down) in _WAYS.items():
            y, x = torch.meshgrid(torch.arange(_SIZE), torch.arange(_SIZE), indexing="ij")
            t = torch.arange(_FRAMES)[:, None, None]
            wave = torch.sin(2 * math.pi * ((across * x + down * y) / 16 + t / 8))  # (t, h, w)
            name = f"{colour}_{way}.mp4"
            tone = 0.3 * torch.sin(2 * math.pi * _TONES_HZ[colour] * torch.arange(int(_FRAMES / _FPS * _RATE)) / _RATE)
            film = torch.tensor(rgb)[:, None, None, None] * wave
            write_film(folder / name, film, fps=_FPS, audio=tone[None], sample_rate=_RATE)
            rows.append((name, f"{colour} stripes drift {way}"))
    scratch = listing.with_suffix(".part")  # the listing comes last and whole, so that a stopped drawing starts anew
    with scratch.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "caption"), *rows])
    scratch.rename(listing)
    return listing
