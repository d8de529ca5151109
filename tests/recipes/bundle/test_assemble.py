"""cinepoet assemble: parts of several models become one that works, or nothing is written."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from llm.model import PrefixLM
from mmtok.audio.soundstream import build_soundstream
from mmtok.visual.magvit2 import Magvit2
from recipes.bundle.assemble import config_for, tell_clips
from recipes.bundle.config import BundleConfig
from recipes.bundle.folder import open_bundle

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_folder(bundle: Path, tmp_path: Path) -> Path:
    """A language model as cinepoet train lm leaves it."""
    shutil.copytree(bundle / "lm", tmp_path / "run" / "model")
    weights = {"text_to_video": 0.5, "inpaint": 0.5, "stylize": 0}
    (tmp_path / "run" / "config.json").write_text(json.dumps({"task_weights": weights, "sources": ["web"]}))
    return tmp_path / "run" / "model"


def test_a_trained_language_model_becomes_a_model_that_makes_films(
    bundle: Path, run_folder: Path, cinepoet: Command, tmp_path: Path
) -> None:
    words = ("assemble", "--model", bundle, "--lm", run_folder, "--out", tmp_path / "mine", "temperature=0.5")
    code, shown, fault = cinepoet(*words)
    assert code == 0 and "mine" in shown, fault
    made = open_bundle(tmp_path / "mine")
    assert made.config.tasks == ("text_to_video", "inpaint") and made.config.temperature == 0.5
    assert made.config.sources == ("web",)  # token 0 of its run, not the first one of the base
    assert made.card["parts"] == {"lm": str(run_folder)} and "--lm" in made.card["command"]
    code, _, fault = cinepoet("generate", "a red circle", "--model", tmp_path / "mine", "--out", tmp_path / "film.mp4")
    assert code == 0, fault
    code, _, fault = cinepoet(*words)
    assert code == 2 and "mine exists; name another folder" in fault


def test_forms_and_lengths_are_those_of_the_run(bundle: Path, run_folder: Path, cinepoet: Command) -> None:
    base = open_bundle(bundle)

    def of(sizes: list[tuple[int, int]], durations: list[int], *changes: str) -> BundleConfig:
        structure = {"flow": "farneback", "depth": "saturation"}
        tell_clips(run_folder.parent, sizes, durations, stride=(4, 8, 8), structure=structure)
        return config_for(base, {"lm": str(run_folder)}, list(changes))

    made = of([(8, 8), (14, 8)], [5, 11])
    assert (made.size, made.aspects, made.num_frames, made.more_num_frames) == (64, ("square", "portrait"), 17, (41,))
    assert made.flow == "farneback" and made.upscaled_size == 2 * made.size
    assert of([(8, 8)], [5], "size=32").size == 32
    odd = of([(14, 8), (8, 8)], [])  # the portrait one has no token here, which a model's portrait always has
    assert (odd.size, odd.aspects, odd.num_frames) == (base.config.size, base.config.aspects, base.config.num_frames)


def test_super_resolution_keeps_its_tokenizer_under_another(bundle: Path, cinepoet: Command, tmp_path: Path) -> None:
    other = Magvit2.from_pretrained(bundle / "visual")
    with torch.no_grad():
        next(other.parameters()).add_(0.01)
    other.save_pretrained(tmp_path / "visual")
    code, _, fault = cinepoet(
        "assemble", "--model", bundle, "--visual", tmp_path / "visual", "--out", tmp_path / "mine"
    )
    assert code == 0, fault
    made = open_bundle(tmp_path / "mine")
    kept = (made.part("superres_visual") / "model.safetensors").read_bytes()
    assert kept == (bundle / "visual" / "model.safetensors").read_bytes()
    assert kept != (made.part("visual") / "model.safetensors").read_bytes()


def test_parts_that_do_not_fit_leave_nothing(bundle: Path, cinepoet: Command, tmp_path: Path) -> None:
    build_soundstream("tiny").save_pretrained(tmp_path / "audio")  # 1,024 codes a level instead of 16
    lm = PrefixLM.from_pretrained(bundle / "lm").config
    PrefixLM(replace(lm, max_grid=(3, 4, 4))).save_pretrained(tmp_path / "short")
    PrefixLM(replace(lm, text_dim=8)).save_pretrained(tmp_path / "deaf")
    for words, told in (
        (("--audio", tmp_path / "audio"), "audio"),
        (("--lm", tmp_path / "short"), "the language model has places for (3, 4, 4)"),
        (("--lm", tmp_path / "deaf"), "reads text vectors of 8, text gives 16"),
        (("--lm", bundle / "visual"), "lm"),
        (("--lm", tmp_path / "nowhere"), "nowhere"),
        (("depth=nothere", "tasks=[stylize]"), "nothere"),
        (("upscaled_size=48",), "48 is not 32 doubled"),
        (("more_num_frames=[41]",), "square clips of 41 pictures are (11, 4, 4) tokens, the language model has places"),
        (("temprature=2",), "temperature"),
        ((), "name at least one part"),
    ):
        code, _, fault = cinepoet("assemble", "--model", bundle, *words, "--out", tmp_path / "mine")
        assert code == 2 and told in fault and fault.count("\n") == 1, (words, fault)
    assert {p.name for p in tmp_path.iterdir()} == {"audio", "short", "deaf"}
