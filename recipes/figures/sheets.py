"""Sheets of pictures: reconstructions, films, tasks, spectrograms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmtok.contract import VisualTokenizer, decode_clip
from mmtok.files import writing
from mmtok.media.container import replacing
from mmtok.media.image import to_bytes, write_png
from mmtok.media.preview import spectrogram_image

STRIP = 5  # pictures of a film on a sheet
_WIDE, _HIGH = STRIP * 64, 64  # pixels of a film's pictures on the sheet, and of a spectrogram
_PAPER, _INK, _GAP, _LABEL = (250, 250, 248), (60, 60, 60), 4, 14


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
        shown = sorted({round(i * (video.shape[2] - 1) / 3) for i in range(4)})
        rows = [v[:6, :, shown].permute(1, 3, 0, 2, 4).flatten(2) for v in (video, again)]  # (c, h, b * t * w)
        strips.append(torch.cat(rows, dim=1))
    width = max(strip.shape[2] for strip in strips)
    strips = [torch.nn.functional.pad(strip, (0, width - strip.shape[2])) for strip in strips]
    picture = ((torch.cat(strips, dim=1).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    with writing(path) as scratch:
        Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()).save(scratch)


def write_spectrograms(path: Path, sounds: Sequence[dict[int, Tensor]], sample_rate: int) -> None:
    """A sheet of spectrograms: a column a sound, the original on top, below it fewest to most levels.

    Args:
        path: PNG.
        sounds: number of levels (0 for the original) to (n,) sound, the same numbers for all.
        sample_rate: Hz.

    Raises:
        MediaError: if it cannot be written.
    """
    width, height, gap, label = 400, 120, 4, 14
    rows = list(sounds[0])
    sheet = Image.new("RGB", (len(sounds) * (width + gap) + gap, len(rows) * (height + label + gap)), (250, 250, 248))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for column, versions in enumerate(sounds):
        for row, k in enumerate(rows):
            x, y = gap + column * (width + gap), row * (height + label + gap)
            told = "original" if k == 0 else f"{k} level{'s' if k > 1 else ''}"
            draw.text((x, y + 1), told, fill=(60, 60, 60), font=font)
            sheet.paste(spectrogram_image(versions[k], sample_rate, width=width, height=height), (x, y + label))
    with replacing(path) as scratch:
        sheet.save(scratch, format="PNG")


def film_strip(film: Tensor, count: int = STRIP) -> Tensor:
    """Pictures of a film side by side, spread over it from the first to the last.

    Args:
        film: (3, t, h, w).
        count: pictures at most; a shorter film has fewer.

    Returns:
        (3, h, count * w).
    """
    count = min(count, film.shape[1])
    chosen = torch.linspace(0, film.shape[1] - 1, count).round().long()
    return rearrange(film[:, chosen], "c t h w -> c h (t w)")


def write_film_rows(films: list[Tensor], path: Path) -> None:
    """Strips of films, one a row, in two columns.

    Args:
        films: (3, t, h, w) in [-1, 1] each.
        path: PNG to write.
    """
    strips = [film_strip(film) for film in films]
    half = (len(strips) + 1) // 2
    strips += [torch.full_like(strips[0], -1.0)] * (2 * half - len(strips))
    columns = [torch.cat(strips[:half], 1), torch.cat(strips[half:], 1)]
    write_png(path, torch.cat(columns, 2).float().cpu())


def _strip(shown: Tensor, rate: int) -> Image.Image:
    """Some pictures of a film side by side, or the spectrogram of a sound in as much room."""
    if shown.ndim == 2:
        return spectrogram_image(shown, rate, width=_WIDE, height=_HIGH)
    strip = Image.fromarray(to_bytes(film_strip(shown)).permute(1, 2, 0).contiguous().numpy())
    width = _HIGH * min(STRIP, shown.shape[1])
    return strip.resize((width, round(strip.height * width / strip.width)), Image.Resampling.NEAREST)


def write_sheet(path: Path, shown: dict[str, tuple[Tensor, Tensor]], sample_rate: int) -> None:
    """For each task what was given, or the truth that a film goes on to, and below it what the model made.

    Args:
        path: PNG to write.
        shown: row to given and made films (b, 3, t, h, w) in [-1, 1], or sounds (b, 1, n).
        sample_rate: Hz of the sounds.
    """
    font = ImageFont.load_default()
    rows = []
    for name, both in shown.items():
        pairs = [tuple(_strip(one.float().cpu(), sample_rate) for one in pair) for pair in zip(*both, strict=True)]
        width = max(strip.width for pair in pairs for strip in pair)
        above, below = (max(pair[half].height for pair in pairs) for half in (0, 1))
        row = Image.new("RGB", ((width + _GAP) * len(pairs) + _GAP, _LABEL + above + below + 3 * _GAP), _PAPER)
        ImageDraw.Draw(row).text((_GAP, 1), name, fill=_INK, font=font)
        for place, (given, made) in enumerate(pairs):
            x = _GAP + place * (width + _GAP)
            row.paste(given, (x, _LABEL))
            row.paste(made, (x, _LABEL + above + _GAP))
        rows.append(row)
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), _PAPER)
    y = 0
    for row in rows:
        sheet.paste(row, (0, y))
        y += row.height
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")
