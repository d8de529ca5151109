"""cinepoet reconstruct: films, sounds and pictures there and back, unusual files, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from PIL import Image

Cinepoet = Callable[..., tuple[int, str, str]]


def test_reconstruct_film_sound_and_picture(
    assert_refused: Callable,
    film_facts: Callable,
    cinepoet: Cinepoet,
    bundle: Path,
    tmp_path: Path,
    clip: Path,
    song: Path,
    photo: Path,
) -> None:
    code, shown, err = cinepoet(
        "reconstruct", clip, "--tokenizer", bundle, "--out", tmp_path / "a.mp4", "--side-by-side", "--preview"
    )
    assert code == 0, err
    with Image.open(tmp_path / "a.preview.png") as sheet:
        assert sheet.width > 320 and sheet.height > 64 and f"{tmp_path / 'a.preview.png'}: preview" in shown
    assert film_facts(tmp_path / "a.mp4") == (24, 8.0, (128, 64), 3.0)
    assert re.search(r"PSNR \d+\.\d+ dB", shown) and re.search(r"log-mel distance \d+\.\d+", shown)

    code, shown, err = cinepoet("reconstruct", song, "--tokenizer", bundle, "--out", tmp_path / "a.wav")
    assert code == 0, err
    assert soundfile.info(tmp_path / "a.wav").frames == 16000 and "PSNR" not in shown
    words = ("reconstruct", song, "--tokenizer", bundle, "--out", tmp_path / "b.wav")
    assert_refused(cinepoet(*words, "--preview"), "--preview needs pictures")
    assert_refused(cinepoet(*words, "--preview", "b.jpg"), "put MEDIA before it")

    code, _, err = cinepoet(
        "reconstruct", photo, "--tokenizer", bundle / "visual", "--size", 32, "--out", tmp_path / "a.png"
    )
    assert code == 0, err


def test_a_single_tokenizer_comes_from_the_hub_too(
    assert_refused: Callable,
    cinepoet: Cinepoet,
    bundle: Path,
    tmp_path: Path,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def snapshot_download(name: str, **_: object) -> str:
        asked.append(name)
        return str(bundle / "visual")

    monkeypatch.setattr("mmtok.pretrained.snapshot_download", snapshot_download)
    words = ("reconstruct", photo, "--size", 32, "--out", tmp_path / "a.png")
    code, _, err = cinepoet(*words, "--tokenizer", "someone/tokenizer")
    assert code == 0 and set(asked) == {"someone/tokenizer"}, err
    assert_refused(cinepoet(*words, "--tokenizer", "nothing_of_that_name"), "unknown model 'nothing_of_that_name'")


def test_streams_and_tiles_that_cannot_be_are_refused(
    assert_refused: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path
) -> None:
    words = ("reconstruct", clip, "--tokenizer", bundle, "--out", tmp_path / "a.mp4")
    assert_refused(cinepoet(*words, "--tile", 30), r"tile \(30\) must be a positive multiple of 8 pixels")
    assert_refused(cinepoet(*words, "--tile", 32, "--stream"), "cannot carry its state")
    codes = tmp_path / "codes.safetensors"
    assert cinepoet("tokenize", clip, "--tokenizer", bundle, "--out", codes)[0] == 0
    assert_refused(
        cinepoet("tokenize", "--decode", codes, "--stream", "--out", tmp_path / "a.mp4"), "does not go with --decode"
    )
    assert not (tmp_path / "a.mp4").exists()


def test_unusual_real_files(
    film_facts: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path, shared: Path
) -> None:
    files = sorted((shared / "data" / "formats").iterdir())
    assert len(files) >= 8
    for file in files:  # 10 bit, rotated, odd sizes, MPEG-1 and 2, AV1, a clock that does not begin at zero
        out = tmp_path / f"{file.stem}.mp4"
        words = ("--tokenizer", bundle, "--size", 32, "--seconds", 1, "--out", out)
        code, shown, err = cinepoet("reconstruct", file, *words)
        assert code == 0, (file.name, err)
        assert film_facts(out)[0] <= 8 and "PSNR" in shown
