"""``cinepoet evaluate tokenizer`` for sound: figures by level against a codec whose errors are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmtok.audio.soundstream import build_soundstream
from mmtok.contract import AudioTokenizer
from mmtok.features.yamnet import YAMNet
from mmtok.media.audio import write_wav
from mmtok.media.video import write_film
from recipes.evaluate.audio_tokenizer import evaluate_audio, usual_levels
from recipes.evaluate.contract import Material, Subject, weights_of

SUBJECT = Subject("codec", "", "abc", "0")


class Halves:
    """Remembers what it heard; k levels give all of it but the share 2^-k."""

    sample_rate, hop_length, frame_rate, num_codebooks, codebook_size = 16_000, 160, 100.0, 3, 8

    def encode(self, audio: Tensor) -> Tensor:
        self.heard = audio
        t = audio.shape[-1] // self.hop_length
        return torch.stack([torch.arange(t) % 8, torch.arange(t) % 2, torch.zeros(t).long()])[None]

    def decode(self, codes: Tensor, num_samples: int | None = None) -> Tensor:
        return self.heard[..., :num_samples] * (1 - 2.0 ** -codes.shape[1])


class Power:
    """An embedding of two numbers."""

    sample_rate, window, hop, dim, source = 16_000, 1000, 500, 2, "power"

    def embed(self, windows: Tensor) -> Tensor:
        return torch.stack([windows.abs().mean(1), windows.square().mean(1)], 1)


def _noise(seconds: float, seed: int = 0, rate: int = 16_000) -> Tensor:
    return (0.3 * torch.randn(round(seconds * rate), generator=torch.Generator().manual_seed(seed))).clamp(-1, 1)


def test_figures_level_by_level(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    sounds = [("a", _noise(0.6)), ("b", _noise(0.405, 1))]
    codec = Halves()
    assert isinstance(codec, AudioTokenizer)
    told = evaluate_audio(
        SUBJECT,
        codec,
        Material("noise", iter(sounds)),
        embedding=Power(),
        sheet=tmp_path / "sheet.png",
        listener=lambda name, k, sound: heard.append((name, k, len(sound))),
    )
    result = told.figures
    assert [row["levels"] for row in result["levels"]] == [1, 2, 3]
    assert [row["kbps"] for row in result["levels"]] == pytest.approx([0.3, 0.6, 0.9])
    for row in result["levels"]:
        share = 1 - 2.0 ** -row["levels"]
        assert row["log_mel_distance"] == pytest.approx(-math.log(share), abs=3e-3)  # the floor takes a little
        assert row["stft_distance"] == pytest.approx(1 - share - math.log(share), abs=1e-2)
        assert row["si_sdr_db"] > 119  # gain is free
    fads = [row["fad"] for row in result["levels"]]
    assert fads == sorted(fads, reverse=True) and 0 < fads[0] < 1
    assert result["silence"]["stft_distance"] > result["levels"][0]["stft_distance"]
    used, perplexity = ([row[name] for row in result["codes"]] for name in ("used", "perplexity"))
    assert used == [1, 0.25, 0.125] and perplexity == pytest.approx([8, 2, 1], abs=0.1)
    assert [row["entropy_kbps"] for row in result["codes"]] == pytest.approx([0.3, 0.1, 0], abs=2e-3)
    assert told.material.startswith("2 sounds, 1.0 s at 16000 Hz; noise; compared at 16000 Hz")
    assert "power" in told.protocol["fad"] and all(told.protocol[n] for n in ("stoi", "stft_distance", "kbps"))
    assert heard[:4] == [("a", 0, 9600), ("a", 1, 9600), ("a", 2, 9600), ("a", 3, 9600)]
    assert heard[-1] == ("b", 3, 6480)
    assert Image.open(tmp_path / "sheet.png").size == (2 * 404 + 4, 4 * 138)


def test_another_rate_of_comparison_and_chosen_levels() -> None:
    lengths = []
    sounds = Material("noise", [("a", _noise(0.5))])
    told = evaluate_audio(
        SUBJECT,
        Halves(),
        sounds,
        levels=(3, 1),
        rate=8000,
        listener=lambda name, k, sound: lengths.append(len(sound)),
    )
    assert [row["levels"] for row in told.figures["levels"]] == [1, 3] and lengths == [4000] * 3
    assert "compared at 8000 Hz" in told.material
    for wrong in ((0,), (4,), ()):
        with pytest.raises(ValueError, match=r"levels must lie in 1\.\.3"):
            evaluate_audio(SUBJECT, Halves(), sounds, levels=wrong)
    with pytest.raises(ValueError, match="nothing to measure: none"):
        evaluate_audio(SUBJECT, Halves(), Material("none"))


def test_figures_that_cannot_be_had_say_why() -> None:
    short = Material("short", [("a", _noise(0.05))])
    result = evaluate_audio(SUBJECT, Halves(), short, levels=[1], embedding=Power())
    assert "stoi" not in result.figures["levels"][0] and "fad" not in result.figures["levels"][0]
    assert "at least two vectors" in result.protocol["fad"]
    result = evaluate_audio(SUBJECT, Halves(), Material("noise", [("a", _noise(0.6))]), levels=[1])
    assert "--yamnet" in result.protocol["fad"]
    pytest.importorskip("pystoi")
    result = evaluate_audio(SUBJECT, Halves(), short, levels=[1])
    assert "384 ms" in result.protocol["stoi"]


def test_usual_levels() -> None:
    assert usual_levels(4) == (1, 2, 3, 4)
    assert usual_levels(12) == (1, 2, 4, 8, 12)
    assert usual_levels(32) == (1, 2, 4, 8, 16, 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    media = tmp_path / "media"
    media.mkdir()
    for i in range(4):
        write_wav(media / f"{i}.wav", _noise(1.3, i))
    write_film(media / "film.mp4", torch.rand(3, 9, 32, 32) * 2 - 1, fps=8.0, audio=_noise(1.1), sample_rate=16_000)
    return media


Command = Callable[..., tuple[int, str, str]]


def test_the_command(folder: Path, tmp_path: Path, cinepoet: Command) -> None:
    torch.manual_seed(0)
    build_soundstream("smoke").save_pretrained(tmp_path / "codec")
    arrays = {}
    for name, tensor in YAMNet().state_dict().items():
        if name.endswith(".weight"):
            arrays[name + "_int8"] = np.random.default_rng(0).integers(-9, 9, tuple(tensor.shape)).astype(np.int8)
            arrays[name + "_scale"] = np.full(len(tensor), 0.05, np.float32)
        else:
            arrays[name] = tensor.numpy()
    np.savez(tmp_path / "yamnet.npz", **arrays)
    words = ["evaluate", "tokenizer", "--tokenizer", tmp_path / "codec", "--media", folder, "--out", tmp_path / "out"]
    code, out, err = cinepoet(*words, "--every-file", "--yamnet", tmp_path / "yamnet.npz", "--levels", "4")
    assert code == 0, err
    shown = json.loads(out)
    assert shown == json.loads((tmp_path / "out" / "audio_tokenizer.json").read_text())
    assert shown["material"].startswith("5 sounds, 6.") and "5 files in the folder" in shown["material"]
    assert shown["subject"]["weights"] == weights_of(tmp_path / "codec")
    levels = shown["figures"]["levels"]
    assert [row["levels"] for row in levels] == [4] and math.isfinite(levels[0]["fad"])
    assert Image.open(tmp_path / "out" / "rate_distortion.png").size[0] > 500
    assert Image.open(tmp_path / "out" / "spectrograms.png").size == (3 * 404 + 4, 2 * 138)
    code, out, _ = cinepoet(*words, "--levels", "1,4")
    assert code == 0 and json.loads(out)["material"].startswith("1 sounds")  # every third file of a kind is kept out
    assert [row["levels"] for row in json.loads(out)["figures"]["levels"]] == [1, 4]


def test_the_sound_of_a_model_that_has_pictures_too(bundle: Path, cinepoet: Command) -> None:
    words = ["evaluate", "tokenizer", "--tokenizer", bundle, "--part", "audio", "--scenes", "2"]
    code, out, _ = cinepoet(*words, "--levels", "2")
    shown = json.loads(out)
    assert code == 0 and "held-out scenes" in shown["material"] and shown["figures"]["levels"][0]["levels"] == 2
    assert shown["subject"]["weights"] == weights_of(bundle / "audio")


def test_mistakes_are_one_line(folder: Path, bundle: Path, tmp_path: Path, cinepoet: Command) -> None:
    build_soundstream("smoke").save_pretrained(tmp_path / "codec")
    audio = ["evaluate", "tokenizer", "--tokenizer", tmp_path / "codec"]
    (tmp_path / "empty").mkdir()
    for words, told in (
        ((*audio, "--part", "visual"), "has no visual tokenizer"),
        ((*audio, "--squeezenet", "x.npz"), "--squeezenet has no meaning for a tokenizer of audio"),
        (("evaluate", "tokenizer", "--tokenizer", bundle, "--levels", "1"), "--levels has no meaning"),
        ((*audio, "--every-file"), "--every-file is for --media"),
        ((*audio, "--media", folder, "--scenes", "3"), "no meaning with --media"),
        ((*audio, "--seconds", "3"), "are for --media"),
        ((*audio, "--media", tmp_path / "no"), "does not exist"),
        ((*audio, "--media", tmp_path / "empty"), "holds no clips or sounds"),
        ((*audio, "--media", folder, "--levels", "9"), "levels must lie in 1..4, got 9"),
        ((*audio, "--media", folder, "--levels", "1,x"), "expected a whole number, got 'x'"),
        ((*audio, "--media", folder, "--yamnet", tmp_path / "no.npz"), "do not exist"),
    ):
        code, _, err = cinepoet(*words)
        assert code == 2 and told in err and err.count("\n") == 1, (words, err)


def test_the_baseline(tmp_path: Path, cinepoet: Command) -> None:
    media = tmp_path / "media"
    media.mkdir()
    generator = torch.Generator().manual_seed(0)
    for name, seconds in (("a", 12), ("b", 12), ("c", 1)):  # the third one is kept out
        write_wav(media / f"{name}.wav", (0.2 * torch.randn(16_000 * seconds, generator=generator)).clamp(-1, 1))
    words = ["evaluate", "tokenizer", "--baseline", "--media", media, "--out", tmp_path / "out", "--seconds", "3"]
    code, shown, err = cinepoet(*words)
    assert code == 0, err
    result = json.loads((tmp_path / "out" / "audio_tokenizer.json").read_text())
    assert result == json.loads(shown)
    assert result["subject"]["name"] == "mel k-means, fitted on 1200 frames of 2 files"
    assert [row["kbps"] for row in result["figures"]["levels"]] == [0.5, 1, 1.5, 2]
    assert result["material"].startswith("1 sounds") and result["subject"]["weights"]
    assert (tmp_path / "out" / "rate_distortion.png").is_file()
    for bad, told in (
        ([*words, "--pieces", "1"], "300 frames are too few to fit 1024 codes"),
        (["evaluate", "tokenizer", "--baseline", "--media", tmp_path / "no"], "does not exist"),
        (["evaluate", "tokenizer", "--baseline"], "--baseline needs --media"),
        ([*words, "--tokenizer", "tiny"], "--tokenizer has no meaning with --baseline"),
    ):
        code, _, err = cinepoet(*bad)
        assert code == 2 and told in err.splitlines()[-1], err
