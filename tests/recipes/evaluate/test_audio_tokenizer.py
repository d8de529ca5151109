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
from recipes.corpora.folder import sound_pieces
from recipes.evaluate import audio_tokenizer as module
from recipes.evaluate.audio_tokenizer import evaluate_audio, folder_sounds, usual_levels


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
    result = evaluate_audio(
        codec,
        iter(sounds),
        protocol="noise",
        embedding=Power(),
        sheet=tmp_path / "sheet.png",
        listener=lambda name, k, sound: heard.append((name, k, len(sound))),
    )
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
    assert result["protocol"].startswith("2 sounds, 1.0 s at 16000 Hz; noise; compared at 16000 Hz")
    assert "power" in result["fad_protocol"] and all(result[f"{n}_protocol"] for n in ("stoi", "stft_distance", "kbps"))
    assert heard[:4] == [("a", 0, 9600), ("a", 1, 9600), ("a", 2, 9600), ("a", 3, 9600)]
    assert heard[-1] == ("b", 3, 6480)
    assert Image.open(tmp_path / "sheet.png").size == (2 * 404 + 4, 4 * 138)


def test_another_rate_of_comparison_and_chosen_levels() -> None:
    lengths = []
    result = evaluate_audio(
        Halves(),
        [("a", _noise(0.5))],
        protocol="noise",
        levels=(3, 1),
        rate=8000,
        listener=lambda name, k, sound: lengths.append(len(sound)),
    )
    assert [row["levels"] for row in result["levels"]] == [1, 3] and lengths == [4000] * 3
    assert "compared at 8000 Hz" in result["protocol"]
    for wrong in ((0,), (4,), ()):
        with pytest.raises(ValueError, match=r"levels must lie in 1\.\.3"):
            evaluate_audio(Halves(), [("a", _noise(0.5))], protocol="noise", levels=wrong)
    with pytest.raises(ValueError, match="no sounds"):
        evaluate_audio(Halves(), [], protocol="none")


def test_figures_that_cannot_be_had_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    short = [("a", _noise(0.05))]
    result = evaluate_audio(Halves(), short, protocol="short", levels=[1], embedding=Power())
    assert "stoi" not in result["levels"][0] and "fad" not in result["levels"][0]
    assert "at least two windows" in result["fad_protocol"]
    pytest.importorskip("pystoi")
    assert "384 ms" in result["stoi_protocol"]
    found = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "pystoi" else found(name))
    result = evaluate_audio(Halves(), [("a", _noise(0.6))], protocol="noise", levels=[1])
    assert "pip install" in result["stoi_protocol"] and "--yamnet" in result["fad_protocol"]
    assert "stoi" not in result["levels"][0]


def test_usual_levels() -> None:
    assert usual_levels(4) == (1, 2, 3, 4)
    assert usual_levels(12) == (1, 2, 4, 8, 12)
    assert usual_levels(32) == (1, 2, 4, 8, 16, 32)


def test_pieces_are_spread_and_short_sounds_whole(tmp_path: Path) -> None:
    ramp = torch.linspace(-0.9, 0.9, 16_000 * 5)
    write_wav(tmp_path / "long.wav", ramp)
    pieces = list(sound_pieces(tmp_path / "long.wav", sample_rate=16_000, seconds=1.0, most=3))
    assert [len(piece) for piece in pieces] == [16_000] * 3
    assert [float(p[0]) for p in pieces] == pytest.approx([-0.9, -0.18, 0.54], abs=1e-3)
    write_wav(tmp_path / "short.wav", ramp[:5000])
    (only,) = sound_pieces(tmp_path / "short.wav", sample_rate=16_000, seconds=1.0, most=3)
    assert len(only) == 5000


def test_bad_files_are_named_and_good_ones_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(tmp_path / "a.wav", _noise(0.3))
    (tmp_path / "b.wav").write_bytes(b"RIFF nothing")
    write_wav(tmp_path / "c.wav", torch.zeros(4000))
    write_film(tmp_path / "d.mp4", torch.rand(3, 5, 32, 32) * 2 - 1, fps=8.0)
    write_film(tmp_path / "e.mp4", torch.rand(3, 5, 32, 32) * 2 - 1, fps=8.0, audio=_noise(0.6), sample_rate=16_000)
    left_out: list[str] = []
    options = {"sample_rate": 8000, "seconds": 2.0, "most": 2}
    given = dict(folder_sounds(sorted(tmp_path.iterdir()), **options, left_out=left_out))
    assert list(given) == ["a.wav", "e.mp4"] and len(given["a.wav"]) == 2400
    assert [Path(line.split(": ")[0]).name for line in left_out] == ["b.wav", "c.wav", "d.mp4"]
    assert "silent" in left_out[1] and "no sound" in left_out[2]
    shown = capsys.readouterr().err
    assert all(name in shown for name in ("b.wav", "c.wav", "d.mp4"))
    with pytest.raises(ValueError, match=r"none of 1 files gives a sound, such as .*silent"):
        list(folder_sounds([tmp_path / "c.wav"], **options, left_out=[]))


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
    assert shown["protocol"].startswith("5 sounds, 6.") and "5 files in the folder" in shown["protocol"]
    assert [row["levels"] for row in shown["levels"]] == [4] and math.isfinite(shown["levels"][0]["fad"])
    assert Image.open(tmp_path / "out" / "rate_distortion.png").size[0] > 500
    assert Image.open(tmp_path / "out" / "spectrograms.png").size == (3 * 404 + 4, 2 * 138)
    code, out, _ = cinepoet(*words, "--levels", "1,4")
    assert code == 0 and json.loads(out)["protocol"].startswith("1 sounds")  # every third file of a kind is kept out
    assert [row["levels"] for row in json.loads(out)["levels"]] == [1, 4]


def test_the_sound_of_a_model_that_has_pictures_too(bundle: Path, cinepoet: Command) -> None:
    words = ["evaluate", "tokenizer", "--tokenizer", bundle, "--part", "audio", "--scenes", "2"]
    code, out, _ = cinepoet(*words, "--levels", "2")
    shown = json.loads(out)
    assert code == 0 and "held-out scenes" in shown["protocol"] and shown["levels"][0]["levels"] == 2


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
    assert result["tokenizer"] == "mel k-means, fitted on 1200 frames of 2 files"
    assert [row["kbps"] for row in result["levels"]] == [0.5, 1, 1.5, 2] and result["protocol"].startswith("1 sounds")
    assert (tmp_path / "out" / "rate_distortion.png").is_file()
    for bad, told in (
        ([*words, "--pieces", "1"], "300 frames are too few to fit 1024 codes"),
        (["evaluate", "tokenizer", "--baseline", "--media", tmp_path / "no"], "does not exist"),
        (["evaluate", "tokenizer", "--baseline"], "--baseline needs --media"),
        ([*words, "--tokenizer", "tiny"], "--tokenizer has no meaning with --baseline"),
    ):
        code, _, err = cinepoet(*bad)
        assert code == 2 and told in err.splitlines()[-1], err
