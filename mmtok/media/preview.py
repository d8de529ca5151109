"""A film on one sheet: its pictures with their times, and under them waveform and spectrogram as one PNG.

Drawn with Pillow and numpy alone, so it takes milliseconds and touches no plotting state. Shape letters: t h w
time/height/width, n samples.
"""

from __future__ import annotations

import math
import os

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmtok.media.audio import as_sound
from mmtok.media.container import replacing, require_suffix
from mmtok.media.image import IMAGE_SUFFIXES, to_bytes

_PAPER, _INK, _WAVE = (250, 250, 248), (60, 60, 60), (40, 90, 160)
_GAP, _LABEL = 4, 14  # pixels between pictures, and height of a line of text
# dark to bright through blue, red and yellow; equal steps of loudness look like equal steps
_HEAT = np.array(
    [[8, 8, 30], [56, 20, 110], [130, 30, 125], [205, 62, 90], [248, 130, 60], [252, 250, 190]], np.float64
)
_RANGE_DB = 80.0


def contact_sheet(frames: Tensor, columns: int | None = None, *, fps: float = 8.0, tile_px: int = 192) -> Image.Image:
    """All pictures of a film in reading order, each with its time in seconds.

    Args:
        frames: (3, t, h, w) float in [-1, 1].
        columns: pictures in a row; None makes the sheet somewhat wider than high.
        fps: pictures per second, for the times.
        tile_px: longest side of one picture on the sheet; larger ones are shrunk, smaller ones stay as they are.

    Returns:
        The sheet.

    Raises:
        ValueError: if ``frames`` has another shape or a value that is not finite, or ``columns`` is not positive.
    """
    if frames.ndim != 4 or frames.shape[0] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be (3, t, h, w), got {tuple(frames.shape)}")
    num_frames, height, width = frames.shape[1:]
    if columns is None:
        columns = min(num_frames, max(1, math.ceil(math.sqrt(num_frames * 1.6 * height / width))))
    if columns < 1:
        raise ValueError(f"columns must be positive, got {columns}")
    scale = min(1.0, tile_px / max(height, width))
    tile_w, tile_h = max(1, round(width * scale)), max(1, round(height * scale))
    rows = math.ceil(num_frames / columns)
    step_x, step_y = max(tile_w, 36) + _GAP, tile_h + _LABEL + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    pixels = to_bytes(frames).permute(1, 2, 3, 0).contiguous().numpy()  # (t, h, w, 3)
    for index in range(num_frames):
        x, y = _GAP + index % columns * step_x, _GAP + index // columns * step_y
        tile = Image.fromarray(pixels[index])
        sheet.paste(tile if scale == 1.0 else tile.resize((tile_w, tile_h), Image.Resampling.BICUBIC), (x, y))
        draw.text((x + 1, y + tile_h + 1), f"{index / fps:.2f} s", fill=_INK, font=font)
    return sheet


def waveform_image(audio: Tensor, *, width: int = 640, height: int = 64) -> Image.Image:
    """Lowest to highest sample of every column; full height is [-1, 1]."""
    mono = as_sound(audio).mean(dim=0).numpy()
    image = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    draw.line([(0, height // 2), (width, height // 2)], fill=(215, 215, 215))
    edges = np.linspace(0, len(mono), width + 1).astype(int)
    for x in range(width):
        piece = mono[edges[x] : max(edges[x + 1], edges[x] + 1)]
        if piece.size:
            top, bottom = ((1.0 - level) * 0.5 * (height - 1) for level in (piece.max(), piece.min()))
            draw.line([(x, round(top)), (x, round(bottom))], fill=_WAVE)
    return image


def spectrogram_image(audio: Tensor, sample_rate: int, *, width: int = 640, height: int = 160) -> Image.Image:
    """Spectrogram of a sound: time to the right, 0 to half the sample rate upwards, 80 dB below the peak is dark.

    Args:
        audio: (n,), (1, n) or (2, n) float in [-1, 1]; channels are averaged.
        sample_rate: samples per second.
        width: pixels.
        height: pixels.

    Returns:
        The picture, with the highest frequency and the length written in.
    """
    mono = as_sound(audio).mean(dim=0)
    num_samples = len(mono)
    window = 512 if sample_rate <= 24000 else 1024
    padded = torch.nn.functional.pad(mono, (window // 2, window))
    starts = torch.linspace(0, max(0, num_samples - 1), width).long()  # the window of column x is centred at its time
    pieces = padded[starts[:, None] + torch.arange(window)] * torch.hann_window(window)  # (width, window)
    power_db = 20 * torch.log10(torch.fft.rfft(pieces).abs().clamp_min(1e-7))  # (width, window / 2 + 1)
    peak = max(float(power_db.max()), -60.0)  # silence stays dark instead of showing rounding noise
    level = ((power_db - peak) / _RANGE_DB + 1.0).clamp(0.0, 1.0).T.flip(0).numpy()  # (frequency, width), high on top
    place = level * (len(_HEAT) - 1)
    below = np.minimum(place.astype(int), len(_HEAT) - 2)
    rest = (place - below)[..., None]
    pixels = (_HEAT[below] * (1 - rest) + _HEAT[below + 1] * rest).round().astype(np.uint8)
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default()
    draw.text((3, 1), f"{sample_rate / 2000:g} kHz", fill=(255, 255, 255), font=font)
    length = f"{num_samples / sample_rate:.3f} s"
    draw.text((width - 3 - draw.textlength(length, font=font), 1), length, fill=(255, 255, 255), font=font)
    return image


def write_preview(
    path: str | os.PathLike[str],
    frames: Tensor,
    fps: float = 8.0,
    audio: Tensor | None = None,
    sample_rate: int = 16000,
) -> None:
    """Write contact sheet, waveform and spectrogram of a film as one PNG, in full or not at all.

    Args:
        path: file ending in ``.png``.
        frames: (3, t, h, w) float in [-1, 1].
        fps: pictures per second.
        audio: (n,), (1, n) or (2, n) float in [-1, 1], or None for a silent film.
        sample_rate: samples per second of ``audio``.

    Raises:
        MediaError: if the file cannot be written.
        ValueError: if a tensor has another shape or a value that is not finite.
    """
    require_suffix(path, IMAGE_SUFFIXES)
    parts = [contact_sheet(frames, fps=fps)]
    if audio is not None and audio.numel():
        width = max(320, parts[0].width - 2 * _GAP)
        parts.append(waveform_image(audio, width=width))
        parts.append(spectrogram_image(audio, sample_rate, width=width))
    page_w = max(part.width for part in parts[1:]) + 2 * _GAP if len(parts) > 1 else parts[0].width
    page = Image.new("RGB", (page_w, sum(part.height + _GAP for part in parts)), _PAPER)
    y = 0
    for index, part in enumerate(parts):
        page.paste(part, (_GAP if index else 0, y))
        y += part.height + _GAP
    with replacing(path) as scratch:
        page.save(scratch, format="PNG")
