"""Baseline codec, digit classifier and the comparison, on made-up digits: a chord for each digit, a pitch for each speaker."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from mmtok.audio.soundstream import build_soundstream
from mmtok.contract import AudioTokenizer
from mmtok.media.audio import write_wav
from mmtok.metrics.audio import LogMelDistance
from recipes.cli import build_parser
from recipes.corpora.spoken_digits import SPLITS, digit_strings, open_digits, split_digits
from recipes.evaluate import speech as module
from recipes.evaluate.contract import Result, Subject, weights_of
from recipes.evaluate.digit_classifier import FRAMES, DigitClassifier, _framed, accuracy, train_classifier
from recipes.evaluate.mel_kmeans import MelKMeansCodec
from recipes.evaluate.speech import measure_speech, speech_table


def _spoken(digit: int, speaker: int, take: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * take + digit)
    length = 2000 + int(torch.randint(800, (1,), generator=generator))
    time = torch.arange(length) / 8000
    tones = [0.3 * torch.sin(2 * math.pi * f * time) for f in (300 + 280 * digit, 150 + 40 * speaker)]
    return sum(tones) + 0.005 * torch.randn(length, generator=generator)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    for digit in range(10):
        for speaker, name in enumerate(("ann", "bob", "cy")):
            for take in range(5):
                write_wav(folder / f"{digit}_{name}_{take}.wav", _spoken(digit, speaker, take), 8000)
    return folder


@pytest.fixture(scope="module")
def classifier(digits: Path) -> DigitClassifier:
    split = split_digits(open_digits(digits), held_out=["bob"], test_takes=2)
    return train_classifier(split.classifier, epochs=8, batch_size=10)


def _codec(**sizes: int) -> MelKMeansCodec:
    return MelKMeansCodec(**{"codebook_size": 32, "phase_steps": 8, "inversion_steps": 20, **sizes})


def _tones(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(8000) / 16_000
    return [
        0.4 * torch.sin(2 * math.pi * (200 + 3000 * float(torch.rand(1, generator=generator))) * time)
        for _ in range(12)
    ]


def test_the_baseline_keeps_the_contract_and_is_repeatable() -> None:
    codec = _codec()
    assert isinstance(codec, AudioTokenizer) and codec.frame_rate == 50 and MelKMeansCodec().codebook_size == 1024
    assert codec.fit(_tones()) == 12 * 25
    sound = torch.stack([s[:7001] for s in _tones(1)[:2]])[:, None]
    codes = codec.encode(sound)
    assert codes.shape == (2, 4, 21) and codes.dtype == torch.int64 and codes.min() >= 0 and codes.max() < 32
    for wanted in (None, 7001, 1, 320 * 22 - 1):
        again = codec.decode(codes, num_samples=wanted)
        assert again.shape == (2, 1, wanted or 6720) and float(again.abs().max()) <= 1
        assert torch.equal(again, codec.decode(codes, num_samples=wanted))
    assert torch.equal(codec.encode(sound[:1]), codes[:1])
    short = codec.decode(codec.encode(sound[..., :320]), num_samples=639)
    assert short.shape == (2, 1, 639) and short.isfinite().all()
    other = _codec()
    state = torch.random.get_rng_state()
    other.fit(_tones())
    codec.decode(codes)
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's draws are disturbed
    assert torch.equal(other.encode(sound), codes)  # the same seed fits the same codes
    for wrong in (0, 320 * 22):
        with pytest.raises(ValueError, match=r"num_samples must lie in 1\.\.7039"):
            codec.decode(codes, num_samples=wrong)
    with pytest.raises(ValueError, match="shorter than one hop"):
        codec.encode(sound[..., :319])
    with pytest.raises(ValueError, match=r"audio must be a float tensor \(b, 1, n\)"):
        codec.encode(sound[:, 0])
    with pytest.raises(ValueError, match="25 frames are too few to fit 32 codes"):
        _codec().fit([*_tones()[:1], torch.zeros(100)])


def test_more_levels_are_nearer_and_codes_matter() -> None:
    codec = _codec(codebook_size=8)  # so coarse that every level is heard
    codec.fit(_tones())
    sounds = torch.stack(_tones(1))[:, None]
    distance = LogMelDistance(sample_rate=16_000)
    codes = codec.encode(sounds)
    figures = [float(distance(codec.decode(codes[:, :k]), sounds).mean()) for k in (1, 2, 4)]
    assert figures == sorted(figures, reverse=True) and figures[-1] < 0.97 * figures[0], figures
    frames = codec.frames(sounds)
    errors = [float((codec.quantizer.decode(codes[:, :k]) - frames).square().mean()) for k in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.9 * errors[0], errors
    shuffled = codes[torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    assert float(distance(codec.decode(shuffled), sounds).mean()) > 1.2 * figures[-1]


def test_mel_levels_are_inverted() -> None:
    """Magnitudes found for mel levels have these levels, and are not negative."""
    codec = _codec(inversion_steps=100)
    levels = codec.mel(torch.stack(_tones())[:, None])
    magnitudes = codec._magnitudes(levels)
    assert magnitudes.min() >= 0
    again = codec.mel.filters @ magnitudes * (2 / codec.mel.hann.sum())
    assert float((again - levels).norm() / levels.norm()) < 0.03


def test_frames_for_the_fit_are_bounded() -> None:
    codec = _codec()
    assert codec.fit((s for _ in range(8) for s in _tones()), most=500, iterations=1) == 500


def test_the_classifier_learns_and_is_repeatable(digits: Path, classifier: DigitClassifier) -> None:
    split = split_digits(open_digits(digits), held_out=["bob"], test_takes=2)
    assert accuracy(classifier, split.test) >= 0.9
    recordings = split.classifier[::9]
    one, two, other = (train_classifier(recordings, seed=seed, epochs=1, batch_size=4) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)
    with pytest.raises(ValueError, match="needs recordings and epochs, got 0"):
        train_classifier([])


def test_what_the_classifier_sees(classifier: DigitClassifier) -> None:
    sound = _spoken(3, 0, 0)
    picture = classifier.picture(sound, 8000)
    assert picture.shape == (40, len(sound) // 80 + 1) and picture.min() >= 0 and picture.max() < 1.05
    torch.testing.assert_close(classifier.picture(0.1 * sound, 8000), picture, atol=1e-4, rtol=0)  # loudness is free
    assert float(classifier.picture(torch.zeros(800), 8000).abs().max()) < 1e-5
    assert _framed(picture, 0.5).shape == (40, FRAMES) == _framed(torch.zeros(40, 250), 1.0).shape
    assert classifier.understand([sound, torch.zeros(50)], 8000)[0] == 3


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
