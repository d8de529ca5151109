"""cinepoet upscale: exact clocks, any form and rate, sheets, times, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmtok.media import probe, read_audio, read_video, write_film
from recipes.corpora.shapes import ShapesCorpus, render_video

PROMPT = "a red circle moves left"

Cinepoet = Callable[..., tuple[int, str, str]]


def make_film(path: Path, *, frames: int = 20, fps: float = 12.5, height: int = 48, width: int = 80) -> Path:
    """A film with two tones, left and right, at a rate of its own."""
    picture = render_video(ShapesCorpus(0).scene(1), size=max(height, width), num_frames=frames)
    time_s = torch.arange(round(frames / fps * 22050)) / 22050
    sound = 0.4 * torch.stack([torch.sin(2 * torch.pi * hz * time_s) for hz in (440.0, 660.0)])
    write_film(path, picture[..., :height, :width], fps=fps, audio=sound, sample_rate=22050)
    return path


def test_clocks_sound_and_form_stay(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
    film, out, sheet = make_film(tmp_path / "film.mp4"), tmp_path / "sharp.mp4", tmp_path / "sheet.png"
    words = ("--steps", 1, "--guidance", "stage2", "--temperature", 0.5, "--schedule", "linear")
    code, shown, err = cinepoet(
        "upscale", film, "--model", bundle, *words, "--prompt", " ", "--sheet", sheet, "--profile", "--out", out
    )
    assert code == 0, err
    before, after = probe(film), probe(out)
    assert (after.num_frames, after.fps, after.duration_s) == (before.num_frames, before.fps, before.duration_s)
    assert (after.num_frames, after.fps, after.sample_rate, after.channels) == (20, 12.5, 22050, 2)
    assert (after.height, after.width) == (64, 112)  # 80 over 48 of 32 pixels, to the nearest token of eight
    heard, was = (read_audio(path, sample_rate=22050, channels=2).samples for path in (out, film))
    assert heard.shape == was.shape
    assert float((heard - was)[:, 4096:-4096].abs().max()) < 0.05  # stored as AAC twice, which blurs the ends
    assert "56x32 -> 112x64 (superres in 2 tiles, 1 steps), 2 windows" in shown
    assert "80x48 is shrunk to 56x32" in err and "the prompt is empty" in err
    assert Image.open(sheet).width > 700
    for stage in ("read", "encode", "transformer", "decode", "write", "total", "peak memory"):
        assert re.search(rf"^{stage} ", shown, re.M), shown


def test_rate_form_and_size_can_be_chosen(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
    film, out = make_film(tmp_path / "film.mp4", frames=13), tmp_path / "sharp.mp4"
    words = ("--fps", 5, "--aspect", "square", "--to", 128, "--no-sound", "--steps", 1)
    code, shown, err = cinepoet("upscale", film, "--model", bundle, *words, "--out", out)
    assert code == 0, err
    after = probe(out)
    assert (after.num_frames, after.fps, after.has_audio, after.height, after.width) == (6, 5.0, False, 128, 128)
    assert "32x32 -> 64x64 (superres, 1 steps) -> 128x128 (superres in 9 tiles, 1 steps)" in shown


def test_layers_are_compiled_when_asked(
    cinepoet: Cinepoet, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from superres.model import SuperResTransformer

    inductor = SuperResTransformer.compile_layers
    monkeypatch.setattr(SuperResTransformer, "compile_layers", lambda self: inductor(self, backend="eager"))
    torch._dynamo.utils.counters.clear()
    films = []
    for words in ((), ("--compile",)):
        out = tmp_path / "sharp.mp4"
        film = make_film(tmp_path / "film.mp4", frames=3, height=48, width=48)
        code, _, err = cinepoet("upscale", film, "--model", bundle, "--steps", 1, *words, "--out", out)
        assert code == 0, err
        assert bool(torch._dynamo.utils.counters["stats"]["unique_graphs"]) == bool(words)
        films.append(read_video(out, fps=12.5, num_frames=3).frames)
    assert films[0].equal(films[1])


def test_a_picture_is_a_film_of_one(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / "red.png")
    code, _, err = cinepoet("upscale", tmp_path / "red.png", "--model", bundle, "--out", tmp_path / "sharp.gif")
    assert code == 0, err
    assert read_video(tmp_path / "sharp.gif", num_frames=None).frames.shape == (3, 1, 64, 64)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", 100), "100 pixels cannot be reached: this model doubles 32 to one of 64, 128, 256, 512"),
        (("--guidance", "strong"), "unknown guidance 'strong'; known: none, stage1, stage2"),
        (("--schedule", "cubic"), "unknown schedule 'cubic'; known: cosine, linear, square, root"),
        (("--aspect", "wide"), "unknown aspect 'wide'; known: own, square, portrait"),
        (("--text-scale", 4), "--text-scale is the strength of --prompt; give that too"),
        (("--temperature", -1), "must be at least 0"),
        (("--sheet", "sheet.jpg"), "unknown ending '.jpg'"),
    ],
)
def test_mistakes_are_one_line(
    cinepoet: Cinepoet, bundle: Path, tmp_path: Path, words: tuple[object, ...], message: str
) -> None:
    film, out = make_film(tmp_path / "film.mp4", frames=2), tmp_path / "sharp.mp4"
    code, shown, err = cinepoet("upscale", film, "--model", bundle, *words, "--out", out)
    assert code == 2 and message in err and err.count("\n") == 1 and not shown, err
    assert not out.exists()


def test_upscale_keeps_length_and_sound(
    film_facts: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path
) -> None:
    out = tmp_path / "sharp.mp4"
    words = ("--prompt", (PROMPT + " ") * 12 + "zebra", "--seconds", 2.5)
    code, _, err = cinepoet("upscale", clip, "--model", bundle, *words, "--out", out)
    assert code == 0, err
    assert film_facts(out) == (20, 8.0, (64, 64), 2.5)
    assert "note:" in err and "3.0 s long" in err
    assert re.search(r"note: the prompt is longer than 16 tokens; left out: '.*zebra'", err)
