"""recipes/cli.py: help, every mistake one line and exit code 2; and what concerns several commands."""

from __future__ import annotations

import dataclasses
import importlib
import json
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

from mmtok.media.video import write_film
from recipes.cli import COMMANDS
from recipes.commands.train import COMMANDS as TRAININGS
from recipes.runtime.config import load_config
from recipes.studies import tasks as study_tasks
from recipes.studies.larp_prior import StudyConfig
from recipes.train.larp_ar import LarpARTrainConfig
from recipes.train.superres import PixelTrainConfig
from recipes.train.tiny import TinyConfig

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "configs"
PROMPT = "a red circle moves left"
Cinepoet = Callable[..., tuple[int, str, str]]


def test_usage_mistakes(assert_refused: Callable, cinepoet: Cinepoet, tmp_path: Path) -> None:
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


def test_wrong_models(assert_refused: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "f.mp4")
    assert_refused(cinepoet("generate", "x", "--model", "tinny", *out), "unknown model 'tinny'.*known: ")
    assert_refused(cinepoet("generate", "x", "--model", tmp_path, *out), "not a cinepoet model")
    assert_refused(cinepoet("generate", "x", "--model", bundle, "--device", "tpu9", *out), "unknown device 'tpu9'")
    assert_refused(cinepoet("generate", "x", "--model", bundle, "--task", "dream", *out), "unknown task 'dream'; known")
    assert_refused(cinepoet("models", "tinny"), "unknown model 'tinny'")
    assert_refused(cinepoet("reconstruct", "x.mp4", "--tokenizer", bundle / "text", *out), "text encoder")
    assert not (tmp_path / "f.mp4").exists()


def test_bad_media_files(
    assert_refused: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path, song: Path
) -> None:
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


def test_usable_but_unusual_films(
    film_facts: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path
) -> None:
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


def _config_class(stem: str) -> type:
    """The config of the program whose name a YAML's begins with; studies' end in it."""
    if stem.endswith("_study"):
        return {"larp_prior_study": StudyConfig, "task_study": study_tasks.StudyConfig}[stem]
    programs = sorted((f.stem for f in (ROOT / "recipes" / "train").glob("*.py")), key=len, reverse=True)
    program = next((p for p in programs if stem.startswith(p) and stem != "magvit2_base"), "tiny")  # a line's numbers
    module = importlib.import_module(f"recipes.train.{program}")
    last = [c for c in vars(module).values() if dataclasses.is_dataclass(c) and c.__module__ == module.__name__]
    return [c for c in last if c.__name__.endswith("Config")][-1]  # the widest stands last


def test_every_shipped_config_loads() -> None:
    files = sorted(CONFIGS.glob("*.yaml"))
    assert {"smoke", "tiny"} <= {f.stem for f in files}
    assert _config_class("larp_ar_lp") is LarpARTrainConfig and _config_class("superres_1b") is PixelTrainConfig
    for file in files:
        config = load_config(_config_class(file.stem), file, [])
        if isinstance(config, TinyConfig):
            assert config.lm_tokens.size == config.superres_tokens.size == config.bundle.size
            assert config.superres_tokens.upscale and config.bundle.upscaled_size == 2 * config.bundle.size
            assert config.lm_tokens.num_frames == config.superres_tokens.num_frames == config.bundle.num_frames


def test_misspelt_keys_are_named_with_the_nearest(assert_refused: Callable, cinepoet: Cinepoet, tmp_path: Path) -> None:
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
    film_facts: Callable, cinepoet: Cinepoet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_old_spellings_name_the_new_ones(cinepoet: Cinepoet, assert_refused: Callable) -> None:
    for words, told in (
        (("prepare", "shapes", "--model", "tiny", "--out", "x"), "--model is now --tokenizer"),
        (("assemble", "--from", "tiny", "--out", "x"), "--from is now --model"),
        (("train", "lm", "--tokenizers", "tiny"), "--tokenizers is now --tokenizer"),
    ):
        assert_refused(cinepoet(*words), f"^cinepoet: {told}")
    assert_refused(cinepoet("prepare", "shapes", "--high", "--out", "x"), "unknown option --high")
