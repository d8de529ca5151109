"""The command line: real files in and out, every mistake one line and exit code 2, nothing half-written."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mmtok.media.image import write_png
from mmtok.media.video import write_film
from recipes.cli import COMMANDS
from recipes.commands.train import COMMANDS as TRAININGS
from recipes.corpora.shapes import ShapesCorpus, render_audio, render_video
from recipes.runtime.config import load_config
from recipes.studies import tasks as study_tasks
from recipes.studies.larp_prior import StudyConfig
from recipes.train.larp import LarpTrainConfig
from recipes.train.larp_ar import LarpARTrainConfig
from recipes.train.lm import LMTrainConfig
from recipes.train.soundstream import SoundStreamTrainConfig
from recipes.train.superres import PixelTrainConfig
from recipes.train.tiny import TinyConfig

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "configs"
PROMPT = "a red circle moves left"
Cinepoet = Callable[..., tuple[int, str, str]]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A film of 3 s with sound."""
    scene = ShapesCorpus(0).scene(0)
    path = tmp_path / "clip.mp4"
    sound = render_audio(scene, num_samples=48000)
    write_film(path, render_video(scene, size=48, num_frames=24), fps=8, audio=sound, sample_rate=16000)
    return path


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    soundfile.write(path, 0.5 * np.sin(np.arange(44100) / 20), 44100)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    write_png(path, render_video(ShapesCorpus(0).scene(1), size=50, num_frames=1)[:, 0, :33])
    return path


def film_facts(path: Path) -> tuple[int, float, tuple[int, int], float | None]:
    """Frames, pictures per second, width and height, and seconds of sound (None when silent), as PyAV decodes them."""
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.name == "h264"
        frames = [frame.pts * stream.time_base for frame in film.decode(stream)]
        assert all(b - a == 1 / stream.average_rate for a, b in itertools.pairwise(frames))
        size = (stream.width, stream.height)
        fps = float(stream.average_rate)
    with av.open(str(path)) as film:
        if not film.streams.audio:
            return len(frames), fps, size, None
        sound = film.streams.audio[0]
        assert sound.codec_context.name == "aac"
        return len(frames), fps, size, float(sound.duration * sound.time_base)


def assert_refused(result: tuple[int, str, str], pattern: str) -> None:
    code, out, err = result
    assert code == 2, (code, out, err)
    errors = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1, err
    assert errors[0].startswith("cinepoet: ")
    assert re.search(pattern, errors[0]), errors[0]
    assert "Traceback" not in err


# Good input.


def test_generate_writes_a_film_with_exact_clocks(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
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
    cinepoet: Cinepoet, bundle: Path, tmp_path: Path, photo: Path, clip: Path, song: Path
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


def test_generate_extends_and_leaves_out(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
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


def test_reconstruct_film_sound_and_picture(
    cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path, song: Path, photo: Path
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


def test_a_single_tokenizer_comes_from_the_hub_too(
    cinepoet: Cinepoet, bundle: Path, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
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
    cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path
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


def test_upscale_keeps_length_and_sound(cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path) -> None:
    out = tmp_path / "sharp.mp4"
    words = ("--prompt", (PROMPT + " ") * 12 + "zebra", "--seconds", 2.5)
    code, _, err = cinepoet("upscale", clip, "--model", bundle, *words, "--out", out)
    assert code == 0, err
    assert film_facts(out) == (20, 8.0, (64, 64), 2.5)
    assert "note:" in err and "3.0 s long" in err
    assert re.search(r"note: the prompt is longer than 16 tokens; left out: '.*zebra'", err)


def test_demo(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
    code, shown, err = cinepoet("demo", "--model", bundle, "--out", tmp_path / "films")
    assert code == 0, err
    names = sorted(p.name for p in (tmp_path / "films").iterdir())
    assert [n for n in names if n.endswith(".mp4")] == ["blue-square.mp4", "green-triangle.mp4", "red-circle.mp4"]
    assert len(names) == 6 and str(tmp_path / "films") in shown and "cinepoet generate" in shown


def test_models_lists_parts_sizes_and_families(cinepoet: Cinepoet, bundle: Path) -> None:
    code, shown, _ = cinepoet("models", bundle)
    assert code == 0
    assert "17 frames of 32x32 at 8 fps, then 64x64" in shown and "Apache-2.0" in shown
    assert "tasks: text_to_video, text_to_image" in shown and "continue_av" in shown
    assert "further lengths: 25; aspects: portrait; sources: clean, raw" in shown
    for part in ("visual", "audio", "text", "lm", "superres"):
        assert re.search(rf"^    {part} .*M parameters", shown, re.M), shown
    code, shown, _ = cinepoet("models")
    assert code == 0
    for word in ("magvit2-base", "soundstream-16k", "8b", "sr1-1b", "families"):
        assert word in shown


# Bad input.


def test_usage_mistakes(cinepoet: Cinepoet, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "f.mp4")
    assert_refused(cinepoet("genrate"), "unknown command 'genrate'; did you mean generate")
    assert_refused(cinepoet("generate", "x", "--ot", "f.mp4"), "unknown option --ot; did you mean --out")
    assert_refused(cinepoet("generate", "x"), "--out")
    assert_refused(cinepoet("generate", "two", "words", *out), "unexpected argument 'words'")
    assert_refused(cinepoet("generate", "x", "--seed", "soon", *out), "--seed: expected a whole number")
    assert_refused(cinepoet("generate", "x", "--top-p", "1.5", *out), "--top-p: must be at least 0 and at most 1")
    assert_refused(cinepoet("generate", "x", "--temperature", "nan", *out), "--temperature: must be")
    assert_refused(cinepoet("generate", "", *out), "prompt is empty")
    assert_refused(cinepoet("generate", " \n", *out), "prompt is empty")
    assert_refused(cinepoet("generate", *out), "give a PROMPT")
    assert_refused(cinepoet("evaluate", "prompts", "--scenes", "3"), "unknown option --scenes")
    assert_refused(cinepoet("evaluate", "shapes"), "evaluate shapes is now evaluate prompts")
    assert_refused(cinepoet("evaluate", "prompt"), "unknown command 'evaluate prompt'; did you mean prompts")
    assert_refused(
        cinepoet("train", "huge"), "unknown command 'train huge'; known: tiny, smoke, lm, superres, soundstream, larp"
    )
    assert_refused(cinepoet("train", "smok"), "unknown command 'train smok'; did you mean smoke")
    assert_refused(cinepoet("train"), "cinepoet train needs one of tiny, smoke, lm, .*larp-ar")
    assert_refused(cinepoet("train", "--media", "x"), "cinepoet train needs one of|unknown option --media")
    assert_refused(cinepoet("train", "lm", "--tokenizers", "tiny"), "--tokenizers is now --tokenizer$")
    assert_refused(cinepoet("train", "lm", "--dato", "x"), "unknown option --dato; did you mean --data")
    assert_refused(cinepoet("tokenize", *out), "give MEDIA to encode, or --decode")


def test_wrong_models(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "f.mp4")
    assert_refused(cinepoet("generate", "x", "--model", "tinny", *out), "unknown model 'tinny'.*known: ")
    assert_refused(cinepoet("generate", "x", "--model", tmp_path, *out), "not a cinepoet model")
    assert_refused(cinepoet("generate", "x", "--model", bundle, "--device", "tpu9", *out), "unknown device 'tpu9'")
    assert_refused(cinepoet("generate", "x", "--model", bundle, "--task", "dream", *out), "unknown task 'dream'; known")
    assert_refused(cinepoet("models", "tinny"), "unknown model 'tinny'")
    assert_refused(cinepoet("reconstruct", "x.mp4", "--tokenizer", bundle / "text", *out), "text encoder")
    assert not (tmp_path / "f.mp4").exists()


def test_contradictions(cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path, song: Path) -> None:
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
    cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
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


def test_bad_media_files(cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path, song: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a film " * 99)
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:60])
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan, 0.2] * 999, np.float32), 16000, subtype="FLOAT")
    out = tmp_path / "out.mp4"
    bad = {
        "absent.mp4": "no such file",
        "empty.mp4": "empty",
        "text.mp4": "not a",
        "cut.mp4": "damaged|truncated|nor sound that can be decoded|not a picture|no sound track",
        ".": "folder",
    }
    for name, pattern in bad.items():
        path = tmp_path / name
        for words in (("generate", "--video"), ("generate", "--image"), ("generate", "--audio")):
            assert_refused(cinepoet(*words, path, "--model", bundle, "--out", out), pattern)
        assert_refused(cinepoet("reconstruct", path, "--tokenizer", bundle, "--out", out), pattern)
        assert_refused(cinepoet("tokenize", path, "--tokenizer", bundle, "--out", tmp_path / "t.safetensors"), pattern)
        assert_refused(cinepoet("upscale", path, "--model", bundle, "--out", out), pattern)
    for words in (("generate", "--video", song), ("generate", "--image", song)):
        assert_refused(cinepoet(*words, "--model", bundle, "--out", out), "sound but no pictures|not a picture")
    assert_refused(cinepoet("upscale", song, "--model", bundle, "--out", out), "no pictures")
    nan = tmp_path / "nan.wav"
    assert_refused(cinepoet("generate", "--audio", nan, "--model", bundle, "--out", out), "NaN")
    assert_refused(cinepoet("reconstruct", nan, "--tokenizer", bundle, "--out", tmp_path / "o.wav"), "NaN")
    assert_refused(cinepoet("reconstruct", song, "--tokenizer", bundle, "--out", out), "unknown ending '.mp4'")
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"clip.mp4", "song.wav", "empty.mp4", "text.mp4", "cut.mp4", "nan.wav"}


def test_usable_but_unusual_films(cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path) -> None:
    half = tmp_path / "half.mp4"
    half.write_bytes(clip.read_bytes()[: clip.stat().st_size * 6 // 10])
    out = tmp_path / "half.out.mp4"
    code, _, err = cinepoet("reconstruct", half, "--tokenizer", bundle, "--out", out)
    assert code == 0, err
    assert 1 <= film_facts(out)[0] < 24  # what decodes of a film that breaks off

    irregular = tmp_path / "irregular.mkv"
    with av.open(str(irregular), "w") as film:
        stream = film.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for stamp in (0, 7, 9, 40, 55, 130, 200):  # hundredths of a second
            picture = av.VideoFrame.from_ndarray(np.full((32, 48, 3), stamp, np.uint8), format="rgb24")
            picture.pts, picture.time_base = stamp, Fraction(1, 100)
            film.mux(stream.encode(picture))
        film.mux(stream.encode(None))
    code, _, err = cinepoet("reconstruct", irregular, "--tokenizer", bundle, "--seconds", 2, "--out", out)
    assert code == 0, err
    assert film_facts(out)[0] == 16

    one = tmp_path / "one.mp4"
    write_film(one, torch.zeros(3, 1, 35, 51), fps=8)
    for words in (("--video", one), ("--image", one), ("--video", one, "--task", "video_to_audio")):
        out = tmp_path / "out.mp4"
        code, _, err = cinepoet("generate", *words, "--model", bundle, "--no-upscale", "--out", out)
        assert code == 0, err
        assert film_facts(out) == (17, 8.0, (32, 32), 2.125)
        out.unlink()


def test_unusual_real_files(cinepoet: Cinepoet, bundle: Path, tmp_path: Path, shared: Path) -> None:
    files = sorted((shared / "data" / "formats").iterdir())
    assert len(files) >= 8
    for file in files:  # 10 bit, rotated, odd sizes, MPEG-1 and 2, AV1, a clock that does not begin at zero
        out = tmp_path / f"{file.stem}.mp4"
        words = ("--tokenizer", bundle, "--size", 32, "--seconds", 1, "--out", out)
        code, shown, err = cinepoet("reconstruct", file, *words)
        assert code == 0, (file.name, err)
        assert film_facts(out)[0] <= 8 and "PSNR" in shown


def test_damaged_codes(cinepoet: Cinepoet, bundle: Path, tmp_path: Path, song: Path) -> None:
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


def test_ctrl_c_is_quiet(cinepoet: Cinepoet, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recipes.pipeline.cinepoet.CinePoetPipeline.stream", interrupted)
    code, _, err = cinepoet("generate", PROMPT, "--model", bundle, "--out", tmp_path / "f.mp4")
    assert code == 130 and err == "cinepoet: stopped\n"
    assert not list(tmp_path.iterdir())


# The program around the commands.


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_prints_with_examples(cinepoet: Cinepoet, command: str) -> None:
    code, shown, _ = cinepoet(*([command] if command else []), "--help")
    assert code == 0 and "usage: cinepoet" in shown
    assert (f"  cinepoet {command} " in shown or f"  cinepoet {command}\n" in shown) if command else "doctor" in shown


@pytest.mark.parametrize("name", TRAININGS)
def test_each_training_shows_its_own_options(cinepoet: Cinepoet, name: str) -> None:
    code, shown, _ = cinepoet("train", name, "--help")
    owners = {"--data": {"lm"}, "--stages": {"tiny", "smoke"}, "--captions": {"superres"}, "--config": set(TRAININGS)}
    owners["--init"] = {"lm", "superres", "soundstream", "larp"}
    assert code == 0 and f"  cinepoet train {name} " in shown
    assert {option for option, who in owners.items() if name in who} == {o for o in owners if f" {o} " in shown}


def test_help_and_mistakes_import_nothing_heavy() -> None:
    script = (
        "import sys, recipes.cli as c; c.main(['--help']); c.main(['generate', '--help']); c.main(['generate', ''])\n"
        "heavy = {'torch', 'transformers', 'av', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_real_process_exits_with_two_and_one_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "recipes.cli", "reconstruct", str(tmp_path / "no.mp4"), "--out", "x.docx"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("cinepoet: ") and done.stderr.count("\n") == 1


def test_every_shipped_config_loads() -> None:
    files = sorted(CONFIGS.glob("*.yaml"))
    assert {"smoke", "tiny"} <= {f.stem for f in files}
    others = {
        "larp_l_long": LarpTrainConfig,
        "larp_tiny": LarpTrainConfig,
        "larp_ar_lp": LarpARTrainConfig,
        "larp_ar_tiny": LarpARTrainConfig,
        "larp_prior_study": StudyConfig,
        "task_study": study_tasks.StudyConfig,
        **{f"lm_{size}": LMTrainConfig for size in ("tiny", "300m", "1b", "8b")},
        **{f"superres_{size}": PixelTrainConfig for size in ("tiny", "1b", "500m")},
        "soundstream_16k": SoundStreamTrainConfig,
        "soundstream_spectral": SoundStreamTrainConfig,
        "soundstream_spectral_adversarial": SoundStreamTrainConfig,
        "soundstream_spectral_fine": SoundStreamTrainConfig,
        "soundstream_tiny": SoundStreamTrainConfig,
    }
    for file in files:
        if file.stem in others:
            load_config(others[file.stem], file, [])
            continue
        config = load_config(TinyConfig, file, [])
        assert config.lm_tokens.size == config.superres_tokens.size == config.bundle.size
        assert config.superres_tokens.upscale and config.bundle.upscaled_size == 2 * config.bundle.size
        assert config.lm_tokens.num_frames == config.superres_tokens.num_frames == config.bundle.num_frames


def test_misspelt_keys_are_named_with_the_nearest(cinepoet: Cinepoet, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    assert_refused(cinepoet("train", "smoke", "lm.step=3", *out), "unknown key lm.step; did you mean lm.steps")
    assert_refused(cinepoet("train", "smoke", "lm.warmup=3", *out), "lm.warmup is now lm.optim.warmup_steps$")
    assert_refused(cinepoet("train", "smoke", "lm.steps=soon", *out), "lm.steps must be of type int")
    assert_refused(cinepoet("train", "smoke", "steps", *out), "expected key=value, got 'steps'")
    assert_refused(cinepoet("train", "smoke", "--stages", "lm,visuals", *out), "unknown stages visuals; known: text")
    assert_refused(cinepoet("train", "smoke", "--config", tmp_path / "no.yaml", *out), "no.yaml does not exist")
    assert_refused(cinepoet("train", "smoke", "--media", tmp_path / "no", *out), "does not exist")
    assert_refused(cinepoet("train", "smoke", "--media-list", "x.csv", *out), "give --media too")
    tokenizers = ("--tokenizer", "tiny")
    assert_refused(cinepoet("train", "smoke", *tokenizers, "--media", tmp_path, *out), "name in --stages which train")
    assert_refused(cinepoet("train", "smoke", "--tokenizer", "nobody", *out), "unknown model 'nobody'")
    assert not list(tmp_path.iterdir())


def test_train_smoke_resumes_after_a_kill_and_its_bundle_makes_films(
    cinepoet: Cinepoet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole line from nothing; one stage is killed in the middle and must go on as if it had not been."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, _, err = cinepoet("train", "smoke", "--device", "cpu", "--out", whole)
    assert code == 0, err

    # The language model again, from the same tokens, killed behind its fifth step.
    from recipes.loop.run import Run

    killed.mkdir()
    for name in ("text", "visual", "audio", "lm_tokens"):
        (killed / name).symlink_to(whole / name)
    logged, save = Run.log, Run.save

    def log_then_die(self: Run, step: int, values: dict) -> None:
        logged(self, step, values)
        if step >= 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "log", log_then_die)
    monkeypatch.setattr(Run, "maybe_save", lambda self, step: save(self, step + 1))
    words = ("train", "smoke", "--device", "cpu", "--stages", "lm", "--out", killed)
    assert cinepoet(*words)[0] == 130
    monkeypatch.undo()
    assert not (killed / "lm" / "model").exists()
    code, _, err = cinepoet(*words)
    assert code == 0, err

    def losses(folder: Path) -> list[tuple[int, float]]:
        rows = [json.loads(line) for line in (folder / "lm" / "log.jsonl").read_text().splitlines()]
        return [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]

    assert losses(killed) == losses(whole) and len(losses(whole)) >= 4

    # A finished training is kept, and its bundle is a model.
    code, shown, err = cinepoet("train", "smoke", "--device", "cpu", "--stages", "text,lm,superres", "--out", whole)
    assert code == 0 and shown.count("finished before, kept") == 3, err
    code, _, err = cinepoet("generate", PROMPT, "--model", whole / "bundle", "--out", tmp_path / "film.mp4")
    assert code == 0, err
    assert film_facts(tmp_path / "film.mp4") == (17, 8.0, (64, 64), 2.125)
