"""cinepoet generate on real files: exact clocks, the same film from the same seed, contradictions, nothing half-written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

PROMPT = "a red circle moves left"
Cinepoet = Callable[..., tuple[int, str, str]]


def test_generate_writes_a_film_with_exact_clocks(
    film_facts: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "film.mp4"
    code, shown, err = cinepoet("generate", PROMPT, "--model", bundle, "--out", out, "--preview", "--profile")
    assert code == 0, err
    assert film_facts(out) == (17, 8.0, (64, 64), 2.125)
    assert f"{out}: 17 frames of 64x64 at 8 fps, 2.125 s, with sound" in shown
    assert (tmp_path / "film.preview.png").read_bytes().startswith(b"\x89PNG")
    for stage in ("imports", "load lm", "text", "sample text_to_video", "super-resolution", "writing", "total", "peak"):
        assert re.search(rf"^{stage}", shown, re.M), shown


def test_same_seed_same_file(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
    def film(name: str, seed: int) -> bytes:
        assert cinepoet("generate", PROMPT, "--model", bundle, "--seed", seed, "--out", tmp_path / name)[0] == 0
        return (tmp_path / name).read_bytes()

    assert film("a.mp4", 5) == film("b.mp4", 5)
    assert film("a.mp4", 5) != film("c.mp4", 6)


def test_generate_from_photo_film_and_sound(
    film_facts: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path, photo: Path, clip: Path, song: Path
) -> None:
    runs = {
        "photo.mp4": ("a prompt", "--image", photo),
        "frame.mp4": ("--image", clip),
        "more.mp4": ("--video", clip),
        "heard.mp4": ("--video", clip, "--task", "video_to_audio"),
        "seen.mp4": ("--audio", song),
        "score.mp4": ("--audio", clip),
    }
    for name, words in runs.items():
        code, _, err = cinepoet("generate", *words, "--model", bundle, "--no-upscale", "--out", tmp_path / name)
        assert code == 0, (name, err)
        assert film_facts(tmp_path / name) == (17, 8.0, (32, 32), 2.125), name


def test_generate_extends_and_leaves_out(
    film_facts: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "long.mp4"
    words = ("--extensions", 1, "--no-upscale", "--no-sound", "--temperature", 0.9, "--top-k", 5, "--top-p", 0.9)
    code, shown, err = cinepoet("generate", PROMPT, *words, "--model", bundle, "--out", out)
    assert code == 0, err
    assert film_facts(out) == (25, 8.0, (32, 32), None)
    assert "silent" in shown


def test_png_is_one_picture(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
    code, shown, err = cinepoet("generate", PROMPT, "--model", bundle, "--out", tmp_path / "one.png")
    assert code == 0, err
    assert "one picture of 64x64" in shown


def test_long_prompt_is_used_and_the_cut_is_told(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
    words = (PROMPT + " ") * 12 + "zebra"
    out = tmp_path / "f.mp4"
    code, _, err = cinepoet("generate", words, "--model", bundle, "--no-upscale", "--no-sound", "--out", out)
    assert code == 0 and out.exists()
    assert re.search(r"note: the prompt is longer than 16 tokens; left out: '.*zebra'", err)


def test_contradictions(
    assert_refused: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path, song: Path
) -> None:
    model = ("--model", bundle)
    film, picture = ("--out", tmp_path / "f.mp4"), ("--out", tmp_path / "f.png")
    assert_refused(
        cinepoet("generate", "--video", clip, "--audio", song, *model, *film), "give one of --image, --video"
    )
    assert_refused(cinepoet("generate", "x", "--task", "image_to_video", *model, *film), "takes image")
    assert_refused(cinepoet("generate", "x", "--extensions", 1, *model, *picture), "one picture")
    assert_refused(cinepoet("generate", "x", "--task", "text_to_image", *model, *film), "choose a .png")
    assert_refused(cinepoet("generate", "--audio", song, "--no-sound", *model, *film), "--no-sound")
    assert_refused(
        cinepoet("generate", "--video", clip, "--negative-prompt", "x", *model, *film), "--negative-prompt guides"
    )
    assert_refused(cinepoet("generate", "x", *model, "--out", tmp_path / "f.gif"), "gif holds no sound")
    assert_refused(cinepoet("generate", "--preview", "x", *model, *film), "give a PROMPT|put the PROMPT before")
    assert_refused(cinepoet("reconstruct", song, "--side-by-side", "--tokenizer", bundle, *film), "needs pictures")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "song.wav"]


def test_unwritable_outputs_are_found_before_the_work(
    assert_refused: Callable,
    cinepoet: Cinepoet,
    bundle: Path,
    tmp_path: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the expensive work was started")

    monkeypatch.setattr("recipes.pipeline.cinepoet.CinePoetPipeline._blocks", never)
    (tmp_path / "file").write_text("x")
    model = ("generate", "x", "--model", bundle, "--out")
    assert_refused(cinepoet(*model, tmp_path / "absent" / "f.mp4"), "not an existing folder")
    assert_refused(cinepoet(*model, tmp_path / "f.docx"), "unknown ending '.docx'")
    assert_refused(cinepoet(*model, tmp_path / "f"), "unknown ending ''")
    assert_refused(cinepoet(*model, tmp_path / "file" / "f.mp4"), "cannot be written")
    assert_refused(
        cinepoet(*model, tmp_path / "f.mp4", "--preview", tmp_path / "no" / "p.png"), "not an existing folder"
    )
    assert_refused(cinepoet("generate", "--video", clip, "--model", bundle, "--out", clip), "would overwrite")
    assert_refused(cinepoet("demo", "--model", bundle, "--out", tmp_path / "file"), "cannot be written to")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "file"]


def test_ctrl_c_is_quiet(cinepoet: Cinepoet, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recipes.pipeline.cinepoet.CinePoetPipeline.stream", interrupted)
    code, _, err = cinepoet("generate", PROMPT, "--model", bundle, "--out", tmp_path / "f.mp4")
    assert code == 130 and err == "cinepoet: stopped\n"
    assert not list(tmp_path.iterdir())
