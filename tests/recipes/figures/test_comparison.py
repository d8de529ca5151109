"""Sheets that show the same pictures side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from recipes.figures.comparison import WHOLE_PX, busiest_place, spread, write_comparison
from recipes.figures.sheets import GAP, LABEL


def test_the_crop_lies_where_detail_is() -> None:
    picture = torch.zeros(3, 32, 32)
    picture[:, 20:24, 9:13] = torch.tensor([1.0, -1.0]).repeat(2)
    top, left = busiest_place(picture, (8, 8))
    assert top <= 20 and top + 8 >= 24 and left <= 9 and left + 8 >= 13


def test_a_sheet_shows_whole_pictures_and_crops(tmp_path: Path) -> None:
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(2, 3, 32, 32)
    blue = red.flip(1)
    write_comparison(tmp_path / "sheet.png", {"bicubic": red, "ours": blue})
    sheet = Image.open(tmp_path / "sheet.png")
    step = WHOLE_PX + GAP
    assert sheet.size == (4 * step + GAP, 2 * step + LABEL)
    for row in range(2):
        for column, colour in enumerate([(255, 0, 0), (0, 0, 255)] * 2):
            place = (GAP + column * step + 150, LABEL + row * step + 150)
            assert sheet.getpixel(place) == colour, (row, column)
    with pytest.raises(ValueError, match="pictures of one shape"):
        write_comparison(tmp_path / "no.png", {"a": red, "b": blue[:1]})


def test_pictures_are_spread_over_a_film() -> None:
    assert spread(100, 4) == [12, 37, 62, 87] and spread(2, 4) == [0, 1] and spread(1, 4) == [0]
