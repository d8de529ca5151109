"""The same pictures side by side, whole and as an enlarged crop, on one sheet.

Shape letters: n pictures, h w height/width.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmtok.media.container import replacing, require_suffix
from mmtok.media.image import IMAGE_SUFFIXES, to_bytes
from mmtok.metrics.visual import gradient_energy

WHOLE_PX, GAP, LABEL = 192, 4, 14
CROP = 4  # a crop has a quarter of the picture's sides
_PAPER, _INK, _BOX = (250, 250, 248), (60, 60, 60), (230, 60, 40)


def busiest_place(picture: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    """Where a picture has most detail.

    Args:
        picture: (3, h, w).
        size: (h, w) of the window that is looked for.

    Returns:
        (top, left) of the window with the largest gradient energy.
    """
    energy = gradient_energy(picture[None, :, None])[:, 0]  # (1, h, w)
    sums = F.avg_pool2d(energy[None], size, stride=1)[0, 0]
    return divmod(int(sums.argmax()), sums.shape[1])


def comparison_sheet(columns: dict[str, Tensor]) -> Image.Image:
    """One row a picture: all columns whole, with the crop marked, then the crops four times as large.

    The crop lies where the last column has most detail.

    Args:
        columns: label to (n, 3, h, w) in [-1, 1], all of one shape.

    Returns:
        The sheet.

    Raises:
        ValueError: if there are no pictures, or columns differ in shape.
    """
    shapes = {tuple(pictures.shape) for pictures in columns.values()}
    if len(shapes) != 1 or not next(iter(shapes))[0]:
        raise ValueError(f"columns of a sheet must be pictures of one shape, got {sorted(shapes)}")
    n, _, h, w = shapes.pop()
    crop = (max(1, h // CROP), max(1, w // CROP))
    scale = WHOLE_PX / max(h, w)
    tile = (max(1, round(w * scale)), max(1, round(h * scale)))
    step_x, step_y = max(tile[0], 90) + GAP, tile[1] + GAP
    sheet = Image.new("RGB", (2 * len(columns) * step_x + GAP, n * step_y + LABEL + GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for column, label in enumerate(columns):
        for half, text in enumerate((label, f"{label}, {CROP}x")):
            draw.text((GAP + (half * len(columns) + column) * step_x, 1), text, fill=_INK, font=font)
    last = list(columns.values())[-1]
    for row in range(n):
        top, left = busiest_place(last[row].float(), crop)
        y = LABEL + GAP + row * step_y
        for column, pictures in enumerate(columns.values()):
            pixels = to_bytes(pictures[row]).permute(1, 2, 0).contiguous().numpy()
            whole, x = Image.fromarray(pixels), GAP + column * step_x
            piece = whole.crop((left, top, left + crop[1], top + crop[0]))
            sheet.paste(whole.resize(tile, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST), (x, y))
            box = [x + left * scale, y + top * scale, x + (left + crop[1]) * scale - 1, y + (top + crop[0]) * scale - 1]
            draw.rectangle([round(value) for value in box], outline=_BOX)
            sheet.paste(piece.resize(tile, Image.Resampling.NEAREST), (x + len(columns) * step_x, y))
    return sheet


def write_comparison(path: Path, columns: dict[str, Tensor]) -> None:
    """Write a ``comparison_sheet``, in full or not at all.

    Args:
        path: ending in .png.
        columns: as of ``comparison_sheet``.

    Raises:
        MediaError: if the file cannot be written.
        ValueError: as of ``comparison_sheet``.
    """
    require_suffix(path, IMAGE_SUFFIXES)
    page = comparison_sheet({label: pictures.float().cpu() for label, pictures in columns.items()})
    with replacing(path) as scratch:
        page.save(scratch, format="PNG")


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
