"""Published codecs in the commands for media and in the pipeline."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mmtok
from llm.model import PrefixLM
from mmtok.audio import long_sound as command
from mmtok.audio.dac import Dac
from mmtok.audio.encodec import Encodec
from mmtok.audio.orders import ORDERS
from mmtok.audio.soundstream import PRESETS, SoundStream
from mmtok.media import video
from mmtok.media.audio import read_audio, write_wav
from recipes.pipeline.cinepoet import CinePoetPipeline

Command = Callable[..., tuple[int, str, str]]


def save_encodec(folder: Path) -> Path:
    """24 kHz, hop 640, five levels of 16 codes with random vectors."""
    config, model = Encodec._classes()
    sizes = {"num_filters": 2, "hidden_size": 8, "upsampling_ratios": [10, 8, 8], "num_lstm_layers": 1}
    codec = Encodec(model(config(**sizes, codebook_size=16, target_bandwidths=[0.16, 0.8])))
    for number, layer in enumerate(codec.model.quantizer.layers):
        layer.codebook.embed.normal_(generator=torch.Generator().manual_seed(number))
    codec.save_pretrained(folder)
    return folder


def save_dac(folder: Path) -> Path:
    """16 kHz, hop 320, three levels of 16 codes."""
    config, model = Dac._classes()
    sizes = {"encoder_hidden_size": 4, "decoder_hidden_size": 32, "downsampling_ratios": [2, 4, 5, 8]}
    Dac(model(config(**sizes, n_codebooks=3, codebook_size=16))).save_pretrained(folder)
    return folder


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """1.03 s of two tones in stereo at 44.1 kHz, another rate than that of the codecs."""
    t = torch.arange(45_423) / 44_100
    tones = torch.stack([0.4 * torch.sin(2 * math.pi * f * t) for f in (330.0, 523.0)])
    write_wav(tmp_path / "song.wav", tones, 44_100)
    return tmp_path / "song.wav"


@pytest.mark.parametrize(
    ("save", "rate", "frames", "levels"), [(save_encodec, 24_000, 39, 5), (save_dac, 16_000, 52, 3)]
)
def test_a_sound_goes_through_a_codecs_folder_and_back(
    cinepoet: Command, tmp_path: Path, song: Path, save, rate, frames, levels
) -> None:
    codec, codes, again = save(tmp_path / "codec"), tmp_path / "codes.safetensors", tmp_path / "again.wav"
    code, shown, fault = cinepoet("reconstruct", song, "--tokenizer", codec, "--out", again)
    assert code == 0, fault
    assert f"1.030 s of sound at {rate} Hz" in shown and f"{frames * levels} tokens" in shown
    heard = read_audio(again, sample_rate=rate)
    assert heard.samples.shape == (1, round(1.03 * rate))

    assert cinepoet("tokenize", song, "--tokenizer", codec, "--out", codes)[0] == 0
    assert load_file(codes)["audio"].shape == (levels, frames)
    assert cinepoet("tokenize", "--decode", codes, "--out", tmp_path / "decoded.wav")[0] == 0
    assert torch.equal(read_audio(tmp_path / "decoded.wav", sample_rate=rate).samples, heard.samples)


def test_levels_are_chosen_at_the_command_line(cinepoet: Command, tmp_path: Path, song: Path, bundle: Path) -> None:
    codec, codes = save_encodec(tmp_path / "codec"), tmp_path / "codes.safetensors"
    few, wav = tmp_path / "few.safetensors", tmp_path / "a.wav"
    assert cinepoet("tokenize", song, "--tokenizer", codec, "--out", codes)[0] == 0
    assert cinepoet("tokenize", song, "--tokenizer", codec, "--levels", 2, "--out", few)[0] == 0
    assert torch.equal(load_file(few)["audio"], load_file(codes)["audio"][:2])
    assert cinepoet("tokenize", "--decode", few, "--out", wav)[0] == 0  # with the codec that has them all
    code, shown, _ = cinepoet("reconstruct", song, "--tokenizer", codec, "--levels", 1, "--out", wav)
    assert code == 0 and "39 tokens" in shown
    code, shown, _ = cinepoet("reconstruct", song, "--tokenizer", bundle / "audio", "--levels", 1, "--out", wav)
    assert code == 0, "ours has a choice too"
    for words, told in (
        (("reconstruct", song, "--tokenizer", codec, "--levels", 6), "num_codebooks must lie in 1..5"),
        (("reconstruct", song, "--tokenizer", bundle, "--levels", 6), "num_codebooks must lie in 1.."),
        (("reconstruct", song, "--tokenizer", bundle / "visual", "--levels", 2), "is a choice of sound tokenizers"),
        (("tokenize", "--decode", few, "--levels", 2), "--levels does not go with --decode"),
    ):
        code, _, fault = cinepoet(*words, "--out", wav)
        assert code == 2 and told in fault and fault.count("\n") == 1


@pytest.mark.parametrize("order", ORDERS)
def test_the_pipeline_speaks_a_codec_in_any_order(bundle: Path, tmp_path: Path, order: str) -> None:
    shutil.copytree(bundle, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "audio")
    save_encodec(tmp_path / "all")
    codec = mmtok.load(tmp_path / "all", num_codebooks=2)
    codec.save_pretrained(tmp_path / "model" / "audio")
    lm = PrefixLM.from_pretrained(bundle / "lm")
    with pytest.raises(ValueError, match=r"audio_levels is 2 in the tokenizers, 4 in the model"):
        CinePoetPipeline.from_pretrained(tmp_path / "model", device="cpu").lm  # noqa: B018
    torch.manual_seed(0)
    sizes = {"audio_levels": codec.num_codebooks, "audio_codes": codec.codebook_size, "audio_order": order}
    PrefixLM(type(lm.config)(**{**vars(lm.config), **sizes})).save_pretrained(tmp_path / "model" / "lm")

    pipe = CinePoetPipeline.from_pretrained(tmp_path / "model", device="cpu")
    film = pipe("a red circle", upscale=False)
    assert film.sample_rate == 24_000 and film.audio.shape == (1, 1, 51_000)  # 17 pictures at 8 a second
    assert film.codes["audio"].shape == (1, 2, 51_000 // 640)
    assert film.codes["audio"].unique().numel() > 4
    expected = codec.decode(film.codes["audio"], num_samples=51_000)
    torch.testing.assert_close(film.audio, expected)
    heard = pipe(audio=film.audio[0], upscale=False, sound=True)
    assert torch.equal(heard.codes["audio"], codec.encode(film.audio))


@pytest.mark.parametrize("late", [False, True])
def test_a_long_sound_goes_block_by_block_and_nothing_changes(
    cinepoet: Command, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    song, model = tmp_path / "long.wav", bundle / "audio"
    if late:  # a codec on spectra finishes a hop when the next one comes
        torch.manual_seed(0)
        sizes = {"spectral_window": 640, "hidden_dim": 8, "encoder_layers": 1, "decoder_layers": 1}
        SoundStream(replace(PRESETS["smoke"], **sizes)).save_pretrained(model := tmp_path / "late")
    write_wav(song, 0.5 * torch.sin(torch.arange(40_123) * 0.07), 16_000)
    names = ("codes.safetensors", "decoded.wav", "again.wav")
    whole, parts = ([tmp_path / f"{kind}_{name}" for name in names] for kind in ("whole", "parts"))
    lines = []
    for codes, decoded, again in (whole, parts):
        assert cinepoet("tokenize", song, "--tokenizer", model, "--out", codes)[0] == 0
        assert cinepoet("tokenize", "--decode", codes, "--out", decoded)[0] == 0
        code, shown, _ = cinepoet("reconstruct", song, "--tokenizer", model, "--out", again)
        assert code == 0
        lines.append(shown)
        monkeypatch.setattr(command, "LONG_SOUND_S", 1.0)
        monkeypatch.setattr(command, "BLOCK_S", 0.5)
    assert torch.equal(load_file(whole[0])["audio"], load_file(parts[0])["audio"])
    for one, other in zip(whole[1:], parts[1:], strict=True):
        a, b = (read_audio(file).samples for file in (one, other))
        assert a.shape == b.shape == (1, 40_123) and torch.allclose(a, b, atol=1e-4)
    assert "mean of blocks of 0.5 s" in lines[1] and "mean of blocks" not in lines[0]
    assert f"{4 * 126} tokens" in lines[0] and f"{4 * 126} tokens" in lines[1]
    for option in ("--side-by-side", "--preview"):
        code, _, fault = cinepoet("reconstruct", song, "--tokenizer", model, option, "--out", tmp_path / "no.wav")
        assert code == 2 and f"{option} needs pictures" in fault
    code, shown, fault = cinepoet("tokenize", song, "--tokenizer", model, "--seconds", 1.5, "--out", parts[0])
    assert code == 0 and "the first 1.5 s are taken" in fault and load_file(parts[0])["audio"].shape == (4, 75)


def test_a_short_sound_takes_no_room_for_the_seconds_asked(
    cinepoet: Command, tmp_path: Path, song: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded = []
    pad = np.pad
    monkeypatch.setattr(np, "pad", lambda array, *rest: (padded.append(array.shape), pad(array, *rest))[1])
    words = ("tokenize", song, "--tokenizer", bundle / "audio", "--out", tmp_path / "codes.safetensors")
    code, _, fault = cinepoet(*words, "--seconds", 36_000)
    assert code == 0 and not padded and not fault  # ten hours of silence behind the second would be 2.3 GB
    assert load_file(tmp_path / "codes.safetensors")["audio"].shape == (4, 52)
    code, _, fault = cinepoet(*words, "--seconds", 0.5)
    assert code == 0 and fault.count("the first 0.5 s are taken") == 1
    assert load_file(tmp_path / "codes.safetensors")["audio"].shape == (4, 25)


def test_one_sample_is_a_sound_or_told_to_be_none(cinepoet: Command, tmp_path: Path, bundle: Path) -> None:
    for rate, refused in ((8_000, False), (16_000, False), (192_000, True)):
        write_wav(tmp_path / "one.wav", torch.full((1, 1), 0.5), rate)
        code, _, fault = cinepoet(
            "tokenize", tmp_path / "one.wav", "--tokenizer", bundle / "audio", "--out", tmp_path / "codes.safetensors"
        )
        assert (code, "too short: its sound gives no sample at 16000 Hz" in fault) == (
            (2, True) if refused else (0, False)
        )


def test_hours_are_refused_where_they_cannot_go_block_by_block(
    cinepoet: Command, tmp_path: Path, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = save_encodec(tmp_path / "codec")
    monkeypatch.setattr(command, "LONG_SOUND_S", 0.2)
    monkeypatch.setattr(command, "WHOLE_SOUND_S", 0.5)
    for words in (
        ("tokenize", song, "--out", tmp_path / "c.safetensors"),
        ("reconstruct", song, "--out", tmp_path / "a.wav"),
    ):
        code, _, fault = cinepoet(*words, "--tokenizer", codec)
        assert code == 2 and "take at most --seconds 0.5" in fault and fault.count("\n") == 1
        assert cinepoet(*words, "--tokenizer", codec, "--seconds", 0.5)[0] == 0


def test_a_sound_of_unknown_length_goes_block_by_block(
    cinepoet: Command, tmp_path: Path, song: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = video.probe
    words = ("tokenize", song, "--tokenizer", bundle / "audio", "--seconds", 36_000, "--out")
    assert cinepoet(*words, tmp_path / "whole.safetensors")[0] == 0
    monkeypatch.setattr(video, "probe", lambda path: replace(known(path), duration_s=None))
    monkeypatch.setattr(command, "BLOCK_S", 0.4)
    long_sound, blocks = command.long_sound, []
    monkeypatch.setattr(command, "long_sound", lambda *a, **o: (blocks.append(r) or r for r in long_sound(*a, **o)))
    assert cinepoet(*words, tmp_path / "blocks.safetensors")[0] == 0
    one, two = (load_file(tmp_path / f"{name}.safetensors")["audio"] for name in ("whole", "blocks"))
    assert len(blocks) == 3 and torch.equal(one, two)


def test_codes_that_do_not_fit_their_length_or_rate_are_refused(
    cinepoet: Command, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "codes.safetensors", tmp_path / "out.wav"
    facts = {"format": "cinepoet-tokens-1", "tokenizer": str(bundle / "audio"), "media": "a.wav", "sample_rate": 16_000}
    facts |= {"num_samples": 16_000, "audio_codes": 16}
    codes = torch.zeros(4, 50, dtype=torch.int32)
    for long_s in (120.0, 0.5):  # as a whole and block by block
        monkeypatch.setattr(command, "LONG_SOUND_S", long_s)
        for changed, tensor, told in (
            ({}, codes, None),
            ({"num_samples": 16_319}, codes, None),  # the contract's own count leaves the tail out
            ({"num_samples": 160_000}, codes, "holds 50 frames of codes for 160000 samples, which are 500"),
            ({"num_samples": 100}, codes, "holds 50 frames of codes for 100 samples, which are 1 "),
            ({"sample_rate": 24_000}, codes, "was made at 24000 Hz; the tokenizer given is for 16000 Hz"),
            ({"sample_rate": "x"}, codes, "is damaged: its sample_rate is 'x'"),
            ({}, torch.zeros(5, 50, dtype=torch.int32), "holds 5 levels of codes; the tokenizer given has 4"),
            ({}, codes[0].contiguous(), "is damaged: audio must be (levels, frames)"),
        ):
            save_file({"audio": tensor}, file, {"cinepoet": json.dumps(facts | changed)})
            code, shown, fault = cinepoet("tokenize", "--decode", file, "--out", out)
            if told is None:
                samples = (facts | changed)["num_samples"]
                assert (
                    code == 0 and read_audio(out).samples.shape[1] == samples and f"{samples / 16_000:.3f} s" in shown
                )
            else:
                assert code == 2 and told in fault, (changed, fault)


def test_options_that_would_change_nothing_are_refused(
    cinepoet: Command, tmp_path: Path, song: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, sound = tmp_path / "mute.mp4", {"tokenize": tmp_path / "c.safetensors", "reconstruct": tmp_path / "a.wav"}
    video.write_film(film, torch.zeros(3, 5, 32, 32), fps=8)
    for long_s in (120.0, 0.5):  # as a whole and block by block
        monkeypatch.setattr(command, "LONG_SOUND_S", long_s)
        for words in (("tokenize", "--size", 32), ("tokenize", "--stream"), ("reconstruct", "--tile", 32)):
            code, _, fault = cinepoet(*words, song, "--tokenizer", bundle, "--out", sound[words[0]])
            assert code == 2 and f"{words[1]} needs pictures, and {song} gives none" in fault
    code, _, fault = cinepoet("tokenize", film, "--levels", 2, "--tokenizer", bundle, "--out", sound["tokenize"])
    assert code == 2 and f"--levels needs sound, and {film} gives none" in fault
    assert cinepoet("tokenize", song, "--tokenizer", bundle / "audio", "--out", sound["tokenize"])[0] == 0
    code, _, fault = cinepoet("tokenize", "--decode", sound["tokenize"], "--tile", 32, "--out", sound["reconstruct"])
    assert code == 2 and f"--tile needs pictures, and {sound['tokenize']} gives none" in fault
