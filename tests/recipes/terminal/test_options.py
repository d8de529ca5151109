"""recipes/terminal/options.py: numbers are checked, and options that would change nothing are refused."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from recipes.terminal.options import (
    add_media_coding,
    add_preview,
    add_tokenizer,
    add_tokenizer_parts,
    number,
    preview_path,
    require_use,
)


@pytest.mark.parametrize(
    ("read", "text", "told"),
    [
        (number(int), "1.5", "expected a whole number, got '1.5'"),
        (number(float), "soon", "expected a number, got 'soon'"),
        (number(float), "inf", "must be a finite number"),
        (number(int, 1), "0", "must be at least 1, got 0"),
        (number(float, 0, 1), "2", "must be at least 0 and at most 1, got 2"),
    ],
)
def test_numbers_are_checked(read, text: str, told: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=told):
        read(text)
    assert number(int, 1)("3") == 3 and number(float, 0)("0.5") == 0.5


def test_tokenizers_have_one_spelling() -> None:
    parser = argparse.ArgumentParser()
    add_tokenizer(parser)
    add_tokenizer_parts(parser)
    args = parser.parse_args(["--visual", "tiny/visual"])
    assert (args.tokenizer, args.visual, args.audio) == ("tiny", "tiny/visual", None)


def test_a_preview_lies_beside_the_film_or_where_it_is_told() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    add_preview(parser)
    for words, path in (
        ([], None),
        (["--preview"], Path("films/a.preview.png")),
        (["--preview", "b.PNG"], Path("b.PNG")),
    ):
        assert preview_path(parser.parse_args(["--out", "films/a.mp4", *words]), before="MEDIA") == path
    with pytest.raises(ValueError, match=r"ending in \.png, got 'clip\.mp4'; put MEDIA before it"):
        preview_path(parser.parse_args(["--preview", "clip.mp4"]), before="MEDIA")


def test_options_of_the_other_kind_of_media_are_refused() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("media")
    add_media_coding(parser)
    args = parser.parse_args(["a.wav", "--tile", "32"])
    with pytest.raises(ValueError, match=r"--tile needs pictures, and a\.wav gives none"):
        require_use(args, pictures=False, sound=True)
    require_use(args, pictures=True, sound=False)
    with pytest.raises(ValueError, match="--levels needs sound"):
        require_use(parser.parse_args(["a.png", "--levels", "2"]), pictures=True, sound=False)
