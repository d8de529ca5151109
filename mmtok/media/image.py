"""Pictures in and out: any file Pillow reads to (3, h, w) in [-1, 1], and PNG back.

Shape letters: c channels, h w height/width. The resizing and cropping here also serves the frames of films.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from mmtok.find import require_known
from mmtok.media.container import open_media, replacing, require_suffix
from mmtok.media.errors import MediaError

FITS = ("crop", "pad", "stretch")
IMAGE_SUFFIXES = (".png",)


def to_signed(pixels: Tensor) -> Tensor:
    """8-bit pixels of any shape as float32 in [-1, 1]: 0 becomes -1, 255 becomes 1."""
    return pixels.float().div_(127.5).sub_(1.0)


def to_bytes(pixels: Tensor) -> Tensor:
    """Floats in [-1, 1] as 8-bit pixels, rounded; what lies outside is clipped.

    Args:
        pixels: float tensor of any shape.

    Returns:
        uint8 tensor of the same shape, on the CPU.

    Raises:
        ValueError: if a value is not finite.
    """
    pixels = pixels.detach().to("cpu", torch.float32)
    if not torch.isfinite(pixels).all():
        raise ValueError("pictures contain NaN or infinite values")
    return ((pixels.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


def resolve_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """The height and width wanted; an int means a square, None means as the source is.

    Args:
        size: side of a square, (height, width), or None.

    Returns:
        (height, width) or None.

    Raises:
        ValueError: if a side is not positive.
    """
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size must be positive, got {size}")
    return height, width


def fit_picture(
    pixels: Tensor, size: tuple[int, int] | None, *, fit: str = "crop", pixel_aspect: float = 1.0
) -> Tensor:
    """Bring a picture to a size with an antialiased bicubic resize.

    ``crop`` scales until both sides are covered and cuts the centre out, ``pad`` scales until the whole picture is
    inside and adds black, ``stretch`` ignores the proportions.

    Args:
        pixels: (3, h, w) uint8.
        size: (height, width), or None to keep the size (non-square pixels are made square in any case).
        fit: ``crop``, ``pad`` or ``stretch``.
        pixel_aspect: width of a pixel over its height.

    Returns:
        (3, *size) uint8.

    Raises:
        ValueError: if ``fit`` is unknown.

    Source: ours; the filter is PIL's (widened when shrinking), in torch's implementation.
    """
    require_known(fit, FITS, "fit")
    h, w = pixels.shape[-2:]
    shown_w = w * pixel_aspect
    if size is None:
        size = (h, max(1, round(shown_w)))
    height, width = size
    if fit == "stretch":
        scaled = size
    else:
        scales = (height / h, width / shown_w)
        scale = max(scales) if fit == "crop" else min(scales)
        scaled = (max(1, round(h * scale)), max(1, round(shown_w * scale)))
    if scaled != (h, w):
        resized = F.interpolate(pixels[None], scaled, mode="bicubic", align_corners=False, antialias=True)
        pixels = resized[0]
    top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2  # negative where pad leaves room
    if fit == "pad":
        return F.pad(pixels, (-left, width - scaled[1] + left, -top, height - scaled[0] + top))
    return pixels[:, top : top + height, left : left + width]


def over_white(pixels: np.ndarray) -> np.ndarray:
    """Lay a picture with transparency over white.

    Args:
        pixels: (h, w, 4) uint8, red, green, blue and opacity (not premultiplied).

    Returns:
        (h, w, 3) uint8.
    """
    opacity = pixels[..., 3:].astype(np.uint16)
    if opacity.min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    mixed = (pixels[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255
    return mixed.astype(np.uint8)


def read_image(path: str | os.PathLike[str], size: int | tuple[int, int] | None = None, *, fit: str = "crop") -> Tensor:
    """Read a picture upright (EXIF applied), transparency over white, 16-bit and palettes brought to 8-bit RGB.

    Args:
        path: PNG, JPEG, WebP, GIF (its first frame), TIFF or whatever else Pillow reads.
        size: side of a square, (height, width), or None for the picture's own size.
        fit: ``crop``, ``pad`` or ``stretch``, see :func:`fit_picture`.

    Returns:
        (3, h, w) float32 in [-1, 1].

    Raises:
        MediaError: if the file is missing, empty, truncated or no picture.
    """
    wanted = resolve_size(size)
    try:
        with Image.open(path) as picture:
            pixels = _rgb(ImageOps.exif_transpose(picture))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(path, _image_problem(path, error)) from None
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)  # (3, h, w)
    return to_signed(fit_picture(tensor, wanted, fit=fit).contiguous())


def _rgb(picture: Image.Image) -> np.ndarray:
    """A Pillow picture of any mode as (h, w, 3) uint8."""
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow's own convert would clip to white
        grey = np.asarray(picture).astype(np.float64)
        grey = (grey / (257 if grey.max(initial=0) > 255 else 1)).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode == "F":
        raise ValueError("holds floating-point pixels of unknown range; save it as 8- or 16-bit")
    if picture.has_transparency_data:
        return over_white(np.asarray(picture.convert("RGBA")))
    return np.asarray(picture.convert("RGB"))


def _image_problem(path: str | os.PathLike[str], error: Exception) -> str:
    try:
        with open_media(path) as container:  # says "no such file", "is empty", "is a folder" in the words of films
            kind = container.format.long_name
    except MediaError as problem:
        if not problem.problem.startswith("is not a media file"):
            return problem.problem
        kind = ""
    if isinstance(error, Image.UnidentifiedImageError):
        return f"is not a picture ({kind})" if kind else "is not a picture that can be read"
    return f"is a damaged or unusable picture ({error})"


def write_png(path: str | os.PathLike[str], image: Tensor) -> None:
    """Write a picture as an 8-bit PNG, in full or not at all.

    Args:
        path: file ending in ``.png``.
        image: (3, h, w) float in [-1, 1]; values outside are clipped.

    Raises:
        MediaError: if the file cannot be written.
        ValueError: if ``image`` has another shape or a value that is not finite.
    """
    require_suffix(path, IMAGE_SUFFIXES)
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image must be (3, h, w), got {tuple(image.shape)}")
    picture = Image.fromarray(to_bytes(image).permute(1, 2, 0).contiguous().numpy())
    with replacing(path) as scratch:
        picture.save(scratch, format="PNG")
