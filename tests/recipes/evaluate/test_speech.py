"""How much speech is still understood behind tokenizers, on made-up digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from mmtok.audio.soundstream import build_soundstream
from recipes.cli import build_parser
from recipes.corpora.spoken_digits import SPLITS, digit_strings, open_digits, split_digits
from recipes.evaluate import speech as module
from recipes.evaluate.contract import Result, Subject, weights_of
from recipes.evaluate.digit_classifier import DigitClassifier
from recipes.evaluate.mel_kmeans import MelKMeansCodec
from recipes.evaluate.speech import measure_speech, speech_table


def _codec(**sizes: int) -> MelKMeansCodec:
    return MelKMeansCodec(**{"codebook_size": 32, "phase_steps": 8, "inversion_steps": 20, **sizes})


class Identity:
    """Keeps the digits of the even places only, with its one level."""

    sample_rate, hop_length, frame_rate, num_codebooks, codebook_size = 16_000, 160, 100.0, 2, 4

    def encode(self, audio: Tensor) -> Tensor:
        self.heard = audio
        return torch.zeros(1, 2, audio.shape[-1] // 160, dtype=torch.int64)

    def decode(self, codes: Tensor, num_samples: int | None = None) -> Tensor:
        sound = self.heard[..., :num_samples].clone()
        if codes.shape[1] == 1:
            sound[..., sound.shape[-1] // 2 :] = 0
        return sound


def test_intelligibility_is_accuracy_over_that_of_the_originals(digits: Path, classifier: DigitClassifier) -> None:
    split = split_digits(open_digits(digits), held_out=["bob"], test_takes=2)
    strings = digit_strings(split.test, 16_000)[:1]
    subject = Subject("identity", "", "abc", "0")
    told = measure_speech(subject, Identity(), strings, classifier, whose="made up")
    result = told.figures
    originals = result["originals"]
    assert originals["recordings"] == 10 and originals["digit_accuracy"] >= 0.9
    half, whole = result["levels"]
    assert whole["digit_accuracy"] == originals["digit_accuracy"] and whole["intelligibility"] == 1
    assert half["intelligibility"] == pytest.approx(half["digit_accuracy"] / originals["digit_accuracy"], abs=1e-3)
    assert 0.4 <= half["digit_accuracy"] <= 0.65  # half of each string, and a guess at silence
    shown = speech_table([told])
    assert shown.count("\n") == 3 and "intelligibility" in shown and "| identity | 2 | 0.4 |" in shown


def test_the_comparison(
    digits: Path, tmp_path: Path, cinepoet: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    build_soundstream("smoke").save_pretrained(tmp_path / "codec")
    monkeypatch.setattr(module, "MelKMeansCodec", _codec)
    words = ["evaluate", "speech", "--digits", digits, "--out", tmp_path / "out", "--takes", "1", "--epochs", "1"]
    code, shown, err = cinepoet(*words, "--held-out", "bob", "--tokenizer", tmp_path / "codec", "--device", "cpu")
    assert code == 0, err
    results = [Result.load(tmp_path / "out" / f"speech_{i}.json") for i in range(2)]
    assert [result.subject.name for result in results] == [str(tmp_path / "codec"), "mel k-means"]
    assert results[0].subject.weights == weights_of(tmp_path / "codec") != results[1].subject.weights
    for result in results:
        levels = result.figures["levels"]
        assert levels[-1]["kbps"] > 0 and len(levels) == 4
        assert all(0 <= row["digit_accuracy"] <= 1 for row in levels)
        assert result.protocol["held_out"].startswith("bob; baseline fitted on")
        assert "the other takes of all speakers (120)" in result.protocol["digit_accuracy"]
    assert "| mel k-means | 4 |" in shown
    assert Image.open(tmp_path / "out" / "speech.png").size[0] > 500
    assert (tmp_path / "out" / "spectrograms_1.png").is_file()
    for bad, told in (
        (["--held-out", "dora"], "unknown speaker dora; known: ann, bob, cy"),
        (["--held-out", "bob", "--digits", tmp_path / "no"], "does not exist"),
        (["--held-out", "bob", "--tokenizer", tmp_path / "no"], "no"),
        (["--held-out", "bob", "--yamnet", tmp_path / "no.npz"], "do not exist"),
        (["--held-out", "bob", "--split", "voice"], "unknown choice 'voice'; known: takes, speaker"),
    ):
        code, _, err = cinepoet(*words, *bad)
        assert code == 2 and told in err and err.startswith("cinepoet: ") and err.count("\n") == 1, err


def test_the_command_knows_the_splits() -> None:
    shown = build_parser().commands["evaluate"].commands["speech"].format_help()
    assert f"{{{','.join(SPLITS)}}}" in shown
