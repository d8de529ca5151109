"""recipes/evaluate/tasks.py: figures are right for a model that knows the answer, and tasks untrained are left out."""

import dataclasses
import json

import pytest
import torch
from PIL import Image

import recipes.evaluate.tasks as recipe
from llm.tasks import TASKS
from recipes.bundle.folder import Bundle, open_bundle
from recipes.corpora.shapes import Scene, render_video
from recipes.evaluate.analyzers import read_centres
from recipes.evaluate.contract import Subject, weights_of
from recipes.pipeline.cinepoet import CinePoetPipeline
from recipes.runtime.device import choose_compute

SUBJECT = Subject("oracle", "", "abc", "0")


@dataclasses.dataclass
class Film:
    frames: torch.Tensor
    audio: torch.Tensor | None = None
    sample_rate: int = 16_000


class Knows:
    """A pipeline that answers with the truth, moved or recoloured as told."""

    def __init__(self, pipe, shift=0):
        self.config, self.audio, self.visual, self.shift = pipe.config, pipe.audio, pipe.visual, shift
        self.captioned = []

    def __call__(self, prompt=None, *, task, video=None, audio=None, **options):
        batch = self.truth
        if task == "video_to_audio":
            assert prompt in (None, [s.caption for s in batch.scenes])
            self.captioned.append(prompt is not None)
        if task == "stylize":
            names = list(recipe.COLOURS)
            scenes = [
                dataclasses.replace(s, colour=names[(names.index(s.colour) + 1) % len(names)]) for s in batch.scenes
            ]
            assert prompt == [s.caption for s in scenes]
            return Film(torch.stack([render_video(s, size=batch.video.shape[-1], num_frames=17) for s in scenes]))
        return Film(batch.video.roll(self.shift, -1), batch.audio)


@pytest.fixture
def pipe(bundle):
    opened = open_bundle(bundle)
    config = dataclasses.replace(opened.config, tasks=tuple(TASKS))
    return CinePoetPipeline(Bundle(opened.folder, config, opened.card), choose_compute("cpu", "float32"))


def test_the_truth_gets_full_marks_and_a_shift_is_measured(pipe, monkeypatch):
    for shift, strayed in ((0, 0.0), (2, 2.0)):
        oracle = Knows(pipe, shift)
        make = recipe._batch

        def remember(pipe, scenes, oracle=oracle, make=make):
            oracle.truth = make(pipe, scenes)
            return oracle.truth

        monkeypatch.setattr(recipe, "_batch", remember)
        rows = recipe.evaluate_tasks(SUBJECT, oracle, scenes=3, batch_size=2).figures["tasks"]
        monkeypatch.setattr(recipe, "_batch", make)
        assert rows["continue_video"]["strayed_px_median"] == pytest.approx(strayed, abs=0.3)
        assert rows["video_to_audio"]["pitch"] == rows["video_to_audio captioned"]["pitch"] == 100
        assert oracle.captioned == [False, True] * 2  # two batches
        better = rows["inpaint central"]["psnr_db"] - rows["inpaint central"]["fill_psnr_db"]
        assert (better > 60) == (shift == 0)
        assert {row.split()[0] for row in rows} == {name for name, task in TASKS.items() if task.judged_by}
    assert rows["stylize"]["colour"] == 100


def test_centres_are_pixels_from_the_left_and_the_top():
    film = render_video(Scene("circle", "red", "right"), size=64, num_frames=17)
    centres = read_centres(film)
    assert centres.shape == (17, 2)
    assert centres[-1, 0] - centres[0, 0] > 10 and (centres[:, 1] - 32).abs().max() < 3
    assert read_centres(torch.zeros(3, 2, 16, 16)).isnan().all()


def test_the_command_runs_every_trained_task_on_a_real_model(cinepoet, bundle, tmp_path):
    words = ("evaluate", "tasks", "--model", bundle, "--scenes", 1, "--device", "cpu", "--out", tmp_path)
    code, _, notes = cinepoet(*words)
    assert code == 0, notes
    told = json.loads((tmp_path / "tasks.json").read_text())
    result = told["figures"]
    assert told["subject"]["weights"] == weights_of(bundle) and "1 scenes of held-out" in told["material"]
    assert set(result["tasks"]) == set(recipe.measures()) and result["not_trained"] == []
    with Image.open(tmp_path / "tasks.png") as sheet:  # one scene, two strips a task
        assert sheet.width == 5 * 64 + 8 and sheet.height == len(result["tasks"]) * (2 * 64 + 22)
    code, _, notes = cinepoet("evaluate", "tasks", "--prompts", 3)
    assert code == 2 and "unknown option --prompts" in notes


def test_tasks_without_training_are_left_out(bundle):
    opened = open_bundle(bundle)
    config = dataclasses.replace(opened.config, tasks=("text_to_video", "video_to_audio"))
    pipe = CinePoetPipeline(Bundle(opened.folder, config, opened.card), choose_compute("cpu", "float32"))
    result = recipe.evaluate_tasks(SUBJECT, pipe, scenes=1, only=("video_to_audio", "inpaint central")).figures
    assert set(result["tasks"]) == {"video_to_audio"} and result["not_trained"] == ["inpaint"]


def test_bad_arguments(pipe):
    with pytest.raises(ValueError, match="unknown rows dance; known: audio_to_video"):
        recipe.evaluate_tasks(SUBJECT, pipe, only=("dance",))
    with pytest.raises(ValueError, match="must be positive, got 0 and 10"):
        recipe.evaluate_tasks(SUBJECT, pipe, scenes=0)
