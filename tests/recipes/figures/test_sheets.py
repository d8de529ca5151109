"""Sheets: pictures stand where they belong, whatever their number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from recipes.figures.sheets import (
    GAP,
    LABEL,
    film_strip,
    reconstruction_sheet,
    write_film_rows,
    write_page,
    write_sheet,
    write_spectrograms,
)

RED, BLUE = (255, 0, 0), (0, 0, 255)


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def test_a_page_has_rows_and_labels_above_them(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (30, 10), RED), Image.new("RGB", (20, 40), BLUE)
    write_page(tmp_path / "new" / "page.png", [[red, blue], [blue]], {1: ["blue"]})
    page = _opened(tmp_path / "new" / "page.png")
    assert page.size == (30 + 20 + 3 * GAP, 40 + 40 + 2 * GAP + LABEL)
    assert page.getpixel((GAP, 0)) == RED and page.getpixel((GAP + 30 + GAP, 39)) == BLUE
    assert page.getpixel((GAP, 40 + GAP + LABEL)) == BLUE
    label = page.crop((0, 44, page.width, 44 + LABEL))
    assert min(min(pixel) for pixel in label.getdata()) < 100, "the label is written"
    write_page(tmp_path / "wide.png", [[red]], {}, least=90)
    assert _opened(tmp_path / "wide.png").width == 90 + 2 * GAP


def test_a_strip_goes_from_the_first_picture_to_the_last() -> None:
    film = torch.arange(9.0).view(1, 9, 1, 1).expand(3, 9, 2, 2)
    assert film_strip(film)[0, 0].tolist() == [v for v in (0, 2, 4, 6, 8) for _ in range(2)]
    assert film_strip(film[:, :2], 4).shape == (3, 2, 4)


class Inverts:
    """A tokenizer that gives the negative."""

    def encode(self, video: Tensor) -> Tensor:
        self.seen = video
        return video

    def decode(self, codes: Tensor) -> Tensor:
        return -self.seen


def test_reconstructions_stand_below_their_originals(tmp_path: Path) -> None:
    videos = [torch.ones(2, 3, 5, 8, 8), torch.ones(1, 3, 1, 16, 16)]
    reconstruction_sheet(Inverts(), videos, tmp_path / "r.png")  # type: ignore[arg-type]
    page = _opened(tmp_path / "r.png")
    assert page.size == (2 * 4 * 8, 2 * 8 + 2 * 16)
    assert [page.getpixel((0, y))[0] for y in (0, 8, 16, 32)] == [255, 0, 255, 0]
    assert page.getpixel((60, 20)) == pytest.approx((128, 128, 128), abs=1)  # the shorter row is filled with grey


def test_films_stand_in_two_columns_from_top_to_bottom(tmp_path: Path) -> None:
    films = [torch.full((3, 5, 4, 4), level) for level in (1.0, 0.0, 0.5)]
    write_film_rows(films, tmp_path / "films.png")
    page = _opened(tmp_path / "films.png")
    assert page.size == (2 * 5 * 4, 2 * 4)
    places = ((0, 0), (0, 4), (20, 0), (20, 4))
    assert [page.getpixel(place)[0] for place in places] == [255, 128, 191, 0]


def test_sounds_and_films_share_a_sheet(tmp_path: Path) -> None:
    sound, film = torch.rand(2, 1, 8000) - 0.5, torch.ones(2, 3, 5, 32, 32)
    write_sheet(tmp_path / "s.png", {"hear": (film, sound), "see": (sound, film)}, 16_000)
    page = _opened(tmp_path / "s.png")
    assert page.size == (2 * (320 + GAP) + GAP, 2 * (LABEL + 2 * (64 + GAP)))
    assert page.getpixel((GAP, LABEL)) == (255, 255, 255)
    write_spectrograms(tmp_path / "p.png", [{0: sound[0, 0], 4: sound[1, 0]}], 16_000)
    assert _opened(tmp_path / "p.png").size == (404 + GAP, 2 * (120 + LABEL + GAP))
