"""Sheets of pictures: reconstructions, films, tasks, spectrograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmtok.contract import VisualTokenizer, decode_clip
from mmtok.media.container import replacing
from mmtok.media.image import to_bytes, write_png
from mmtok.media.preview import spectrogram_image

STRIP = 5  # pictures of a film on a sheet
GAP, LABEL = 4, 14  # pixels
_SIDE = 64  # of a film's pictures on the sheet of tasks, and the height of its spectrograms, pixels
_PAPER, _INK = (250, 250, 248), (60, 60, 60)


def picture_of(pixels: Tensor) -> Image.Image:
    """(3, h, w) in [-1, 1] as a picture."""
    return Image.fromarray(to_bytes(pixels.float().cpu()).permute(1, 2, 0).contiguous().numpy())


def write_page(
    path: Path, rows: Sequence[Sequence[Image.Image]], labels: Mapping[int, Sequence[str]], *, least: int = 0
) -> None:
    """Write pictures in rows as one PNG, in full or not at all; every sheet with words on it is one of these.

    Args:
        path: the file; its folder is made.
        rows: pictures from left to right, columns as wide as their widest.
        labels: row to texts that stand above its pictures.
        least: pixels that a column is wide at least, so that its label has room.

    Raises:
        MediaError: if it cannot be written.
    """
    columns = max(map(len, rows))
    widths = [max([least, *(row[i].width for row in rows if i < len(row))]) + GAP for i in range(columns)]
    heights = [max(picture.height for picture in row) + GAP for row in rows]
    page = Image.new("RGB", (sum(widths) + GAP, sum(heights) + LABEL * len(labels)), _PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default()
    lefts = [GAP + sum(widths[:i]) for i in range(columns)]
    y = 0
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        for x, text in zip(lefts, labels.get(number, ()), strict=False):
            draw.text((x, y + 1), text, fill=_INK, font=font)
        y += LABEL * (number in labels)
        for x, picture in zip(lefts, row, strict=False):
            page.paste(picture, (x, y))
        y += height
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        page.save(scratch, format="PNG")


def film_strip(film: Tensor, count: int = STRIP) -> Tensor:
    """Pictures of a film side by side, spread over it from the first to the last.

    Args:
        film: (3, t, h, w).
        count: pictures at most; a shorter film has fewer.

    Returns:
        (3, h, count * w).
    """
    chosen = torch.linspace(0, film.shape[1] - 1, min(count, film.shape[1])).round().long()
    return rearrange(film[:, chosen], "c t h w -> c h (t w)")


@torch.no_grad()
def reconstruction_sheet(model: VisualTokenizer, videos: list[Tensor], path: Path) -> None:
    """Write a PNG with originals above their reconstructions, some frames of each clip.

    Args:
        model: the tokenizer.
        videos: clips (b, 3, t, h, w) of any sizes.
        path: the file, replaced atomically.
    """
    strips = []
    for video in videos:
        again = decode_clip(model, model.encode(video), (video.shape[2], video.shape[3], video.shape[4]))
        rows = [torch.cat([film_strip(film, 4) for film in films[:6]], -1) for films in (video, again)]
        strips.append(torch.cat(rows, 1))
    width = max(strip.shape[2] for strip in strips)
    write_png(path, torch.cat([F.pad(strip, (0, width - strip.shape[2])) for strip in strips], 1).float().cpu())


def write_film_rows(films: list[Tensor], path: Path) -> None:
    """Strips of films, one a row, in two columns.

    Args:
        films: (3, t, h, w) in [-1, 1] each.
        path: PNG to write.
    """
    strips = [film_strip(film) for film in films]
    half = (len(strips) + 1) // 2
    strips += [torch.full_like(strips[0], -1.0)] * (2 * half - len(strips))
    write_png(path, rearrange(torch.stack(strips), "(n m) c h w -> c (m h) (n w)", n=2).float().cpu())


def write_spectrograms(path: Path, sounds: Sequence[dict[int, Tensor]], sample_rate: int) -> None:
    """A sheet of spectrograms: a column a sound, the original on top, below it fewest to most levels.

    Args:
        path: PNG.
        sounds: number of levels (0 for the original) to (n,) sound, the same numbers for all.
        sample_rate: Hz.
    """
    told = ["original" if k == 0 else f"{k} level{'s' if k > 1 else ''}" for k in sounds[0]]
    rows = [
        [spectrogram_image(versions[k], sample_rate, width=400, height=120) for versions in sounds] for k in sounds[0]
    ]
    write_page(path, rows, {row: [text] * len(sounds) for row, text in enumerate(told)})


def _shown(media: Tensor, rate: int) -> Image.Image:
    """Some pictures of a film side by side, or the spectrogram of a sound in as much room."""
    if media.ndim == 2:
        return spectrogram_image(media.float().cpu(), rate, width=STRIP * _SIDE, height=_SIDE)
    strip, width = picture_of(film_strip(media)), _SIDE * min(STRIP, media.shape[1])
    return strip.resize((width, round(strip.height * width / strip.width)), Image.Resampling.NEAREST)


def write_sheet(path: Path, shown: dict[str, tuple[Tensor, Tensor]], sample_rate: int) -> None:
    """For each task what was given, or the truth that a film goes on to, and below it what the model made.

    Args:
        path: PNG to write.
        shown: row to given and made films (b, 3, t, h, w) in [-1, 1], or sounds (b, 1, n).
        sample_rate: Hz of the sounds.
    """
    rows = [[_shown(one, sample_rate) for one in side] for both in shown.values() for side in both]
    write_page(path, rows, {2 * number: [name] for number, name in enumerate(shown)})
