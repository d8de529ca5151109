"""cinepoet tokenize: codes that decode to what reconstruct gives, and damaged ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

Cinepoet = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("options", "at_decoding", "slices"),
    [([], [], (5, 3)), (["--stream"], [], (5, 2)), (["--tile", "32"], ["--tile", "32"], (5, 3))],
)
def test_tokens_decode_to_what_reconstruct_gives(
    cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path, options: list, at_decoding: list, slices: tuple
) -> None:
    codes, films = tmp_path / "clip.safetensors", [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    code, shown, err = cinepoet("tokenize", clip, "--tokenizer", bundle, *options, "--out", codes)
    assert code == 0, err
    tensors = load_file(codes)
    assert {k: tuple(v.shape) for k, v in tensors.items()} == {
        "visual.0": (1, slices[0], 8, 8),
        "visual.1": (1, slices[1], 8, 8),
        "audio": (4, 150),
    }
    assert "790 tokens" not in shown and f"{sum(t.numel() for t in tensors.values())} tokens" in shown
    assert cinepoet("tokenize", "--decode", codes, *at_decoding, "--out", films[0])[0] == 0
    assert cinepoet("reconstruct", clip, "--tokenizer", bundle, *options, "--out", films[1])[0] == 0
    assert films[0].read_bytes() == films[1].read_bytes()


def test_damaged_codes(assert_refused: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path, song: Path) -> None:
    codes, out = tmp_path / "c.safetensors", tmp_path / "o.wav"
    assert cinepoet("tokenize", song, "--tokenizer", bundle, "--out", codes)[0] == 0
    whole = codes.read_bytes()
    decode = ("tokenize", "--decode", codes, "--out", out)
    assert cinepoet(*decode)[0] == 0
    out.unlink()
    codes.write_bytes(whole[:-50])
    assert_refused(cinepoet(*decode), "damaged")
    codes.write_bytes(b"")
    assert_refused(cinepoet(*decode), "damaged")
    assert_refused(cinepoet("tokenize", "--decode", tmp_path / "no.safetensors", "--out", out), "no such file")
    assert not out.exists()
    codes.write_bytes(whole)
    assert_refused(cinepoet(*decode, "--seconds", 1), "--seconds does not go with --decode")
    with safe_open(codes, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        facts = json.loads(file.metadata()["cinepoet"])
    for name, value in (
        ("num_samples", "x"),
        ("num_samples", 0),
        ("audio_codes", None),
        ("size", [8]),
        ("num_frames", 10**9),
        ("num_frames", 17),
    ):
        save_file(
            tensors,
            codes,
            {"cinepoet": json.dumps({"clip": 17, "visual_codes": 9, "fps": 8.0} | facts | {name: value})},
        )
        assert_refused(cinepoet(*decode), "damaged")
