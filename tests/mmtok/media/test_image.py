"""Pictures: upright, any mode to RGB in [-1, 1], antialiased, and back without loss."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmtok.media import MediaError, read_image, write_film, write_png
from mmtok.media.image import fit_picture


def test_write_then_read_is_exact(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (3, 13, 7), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    write_png(tmp_path / "a.png", image)
    torch.testing.assert_close(read_image(tmp_path / "a.png"), image, atol=1e-6, rtol=0)


def test_exif_turns_the_picture_upright(tmp_path: Path) -> None:
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to show
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 20, 10) and image[:, :10].min() == 1 and image[:, 10:].max() == -1


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    half = Image.new("RGB", (8, 8), (128, 128, 128))
    deep = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
    pictures = {
        "L": half.convert("L"), "P": half.convert("P", palette=Image.Palette.ADAPTIVE), "CMYK": half.convert("CMYK"),
        "16": deep, "RGBA": Image.new("RGBA", (8, 8), (0, 0, 0, 127)), "LA": Image.new("LA", (8, 8), (0, 127)),
    }  # fmt: skip
    for name, picture in pictures.items():
        file = tmp_path / f"{name}.{'tif' if name == 'CMYK' else 'png'}"
        picture.save(file)
        image = read_image(file)
        assert image.shape == (3, 8, 8)
        torch.testing.assert_close(image, torch.zeros_like(image), atol=0.02, rtol=0, msg=name)
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png").min() == 1, "full transparency shows white"


def test_resize_is_antialiased_and_crop_is_central() -> None:
    checks = torch.zeros(3, 64, 64, dtype=torch.uint8)
    checks[:, ::2, ::2] = 255
    checks[:, 1::2, 1::2] = 255
    small = fit_picture(checks, (8, 8)).float()
    assert (small - 127.5).abs().max() < 8, "single pixels show through"
    wide = torch.zeros(3, 16, 48, dtype=torch.uint8)
    wide[:, :, 16:32] = 200
    assert fit_picture(wide, (16, 16)).unique().tolist() == [200]
    reference = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8))
    ours = fit_picture(torch.from_numpy(np.asarray(reference).copy()).permute(2, 0, 1), (30, 20))
    pillow = torch.from_numpy(np.asarray(reference.resize((20, 30), Image.Resampling.BICUBIC)).copy()).permute(2, 0, 1)
    assert (ours.int() - pillow.int()).abs().max() <= 2


def test_sizes(tmp_path: Path) -> None:
    Image.new("RGB", (33, 21)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape == (3, 21, 33)
    for size, shape in ((16, (3, 16, 16)), ((10, 50), (3, 10, 50))):
        for fit in ("crop", "pad", "stretch"):
            assert read_image(tmp_path / "a.jpg", size, fit=fit).shape == shape
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        read_image(tmp_path / "a.jpg", 0)


def test_bad_pictures_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    write_film(tmp_path / "film.mp4", torch.zeros(3, 2, 16, 16))
    for name, message in [
        ("gone.png", "gone.png: no such file"),
        ("empty.png", r"empty.png: is empty \(0 bytes\)"),
        ("text.png", "text.png: is not a picture"),
        ("cut.png", "cut.png: is a damaged or unusable picture"),
        ("film.mp4", r"film.mp4: is not a picture \(QuickTime / MOV\)"),
        (".", "is a folder"),
    ]:
        with pytest.raises(MediaError, match=message) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_write_png_errors(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"unknown ending '\.jpg'; known: \.png"):
        write_png(tmp_path / "a.jpg", torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"image must be \(3, h, w\), got \(4, 4\)"):
        write_png(tmp_path / "a.png", torch.zeros(4, 4))
    with pytest.raises(MediaError, match="is not an existing folder"):
        write_png(tmp_path / "no" / "a.png", torch.zeros(3, 4, 4))
    assert os.listdir(tmp_path) == []
