"""The same pictures side by side, whole and as an enlarged crop, on one sheet.

Shape letters: n pictures, h w height/width.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from mmtok.media.container import require_suffix
from mmtok.media.image import IMAGE_SUFFIXES
from mmtok.metrics.visual import gradient_energy
from recipes.figures.sheets import picture_of, write_page

WHOLE_PX = 192
CROP = 4  # a crop has a quarter of the picture's sides
_BOX = (230, 60, 40)


def busiest_place(picture: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    """(top, left) of the window of (h, w) where a picture (3, h, w) has the largest gradient energy."""
    energy = gradient_energy(picture[None, :, None])[:, 0]  # (1, h, w)
    sums = F.avg_pool2d(energy[None], size, stride=1)[0, 0]
    return divmod(int(sums.argmax()), sums.shape[1])


def write_comparison(path: Path, columns: dict[str, Tensor]) -> None:
    """One row a picture: all columns whole, with the crop marked, then the crops four times as large.

    The crop lies where the last column has most detail.

    Args:
        path: ending in .png, written in full or not at all.
        columns: label to (n, 3, h, w) in [-1, 1], all of one shape.

    Raises:
        MediaError: if the file cannot be written.
        ValueError: if there are no pictures, or columns differ in shape.
    """
    require_suffix(path, IMAGE_SUFFIXES)
    shapes = {tuple(pictures.shape) for pictures in columns.values()}
    if len(shapes) != 1 or not next(iter(shapes))[0]:
        raise ValueError(f"columns of a sheet must be pictures of one shape, got {sorted(shapes)}")
    n, _, h, w = shapes.pop()
    crop = (max(1, h // CROP), max(1, w // CROP))
    scale = WHOLE_PX / max(h, w)
    tile = (max(1, round(w * scale)), max(1, round(h * scale)))
    last = list(columns.values())[-1].float().cpu()
    rows = []
    for row in range(n):
        top, left = busiest_place(last[row], crop)
        corners = (left, top, left + crop[1], top + crop[0])
        wholes = [picture_of(pictures[row]) for pictures in columns.values()]
        crops = [whole.crop(corners).resize(tile, Image.Resampling.NEAREST) for whole in wholes]
        filter_ = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        wholes = [whole.resize(tile, filter_) for whole in wholes]
        for whole in wholes:
            ImageDraw.Draw(whole).rectangle([round(c * scale) - (i > 1) for i, c in enumerate(corners)], outline=_BOX)
        rows.append([*wholes, *crops])
    write_page(path, rows, {0: [*columns, *(f"{label}, {CROP}x" for label in columns)]}, least=90)


def spread(count: int, most: int) -> list[int]:
    """Numbers of pictures spread over a film.

    Args:
        count: pictures of the film, at least one.
        most: wanted.

    Returns:
        At most ``most`` different numbers from 0, rising.
    """
    wanted = min(count, most)
    return torch.linspace(0, count, 2 * wanted + 1)[1::2].long().tolist()
