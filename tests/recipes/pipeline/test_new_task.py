"""A task is one row of ``llm/tasks.py`` and, where it is to be judged, one measure: nothing else knows its name."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import recipes.evaluate.tasks as evaluate
from llm.batching import Pool, make_groups
from llm.tasks import TASKS, Clip, Task, default_weights, task_content, task_layout
from mmtok.vocabulary import Vocabulary
from recipes.bundle.folder import BUNDLE_FILE, open_bundle
from recipes.corpora.shapes import ShapesCorpus, render_audio, render_video
from recipes.evaluate.contract import Subject
from recipes.pipeline.cinepoet import CinePoetPipeline
from recipes.pipeline.plan import make_plan
from recipes.pipeline.request import Request
from recipes.train.lm import LMTrainConfig

SCENE = ShapesCorpus(0).scene(0)
SUBJECT = Subject("random", "", "abc", "0")
# The row: repaint what a mask hides for a sound that is given, which the film then keeps.
ROW = Task(
    "paint",
    needs=("video", "mask", "audio"),
    masks="outpaint",
    condition=("outpaint",),
    audio_in="whole",
    weight=0.25,
    judged_by="repainted",
)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> str:
    """The row, and its measure."""
    monkeypatch.setitem(TASKS, "repaint", ROW)

    def repainted(pipe, batch, *, task, mask, **sampling):
        made = pipe(video=batch.video, audio=batch.audio, task=task, mask=mask, upscale=False, **sampling)
        return evaluate._Done([{"same_db": 1.0}] * len(batch.scenes), batch.video, made.frames)

    monkeypatch.setitem(evaluate.MEASURES, "repainted", repainted)
    return "repaint"


@pytest.fixture
def trained(task: str, bundle: Path, tmp_path: Path) -> Path:
    """A model that says that it was trained on it."""
    folder = tmp_path / "model"
    shutil.copytree(bundle, folder)
    stored = json.loads((folder / BUNDLE_FILE).read_text())
    stored["config"]["tasks"] = [*stored["config"]["tasks"], task]
    (folder / BUNDLE_FILE).write_text(json.dumps(stored))
    return folder


def test_its_sequences_are_laid_out_and_trained(task: str) -> None:
    vocabulary, clip = Vocabulary(visual_codes=50, audio_levels=2, audio_codes=11), Clip((3, 2, 3), 6)
    layout = task_layout(task, vocabulary, clip, text_slots=4)
    codes, sound = torch.randint(50, (1, 1, 3, 2, 3)), torch.randint(11, (1, 2, 6))
    content = task_content(task, clip, audio=sound, condition=codes, outputs=False)
    assert set(content) == {"condition", "audio_in"} and layout.fill(content, 1)[1][: layout.prefix_length].all()
    assert default_weights()[task] == LMTrainConfig().task_weights[task] == 0.25
    pools = [Pool(clip, conditions=("outpaint_central", "inpaint_central"))]
    assert [group.condition for group in make_groups({task: 1.0}, vocabulary, pools, text_slots=4)] == [
        "outpaint_central"
    ]
    with pytest.raises(ValueError, match=r"repaint needs a clip with sound and a clip with a condition named outpaint"):
        make_groups({task: 1.0}, vocabulary, Clip((3, 2, 3)), text_slots=4)


def test_its_requests_are_planned_and_refused(task: str, trained: Path) -> None:
    config = open_bundle(trained).config
    video, audio = torch.zeros(3, 17, 8, 8), torch.zeros(1, 900)
    assert make_plan(Request(video=video, audio=audio, mask="vertical", task=task), config).row is ROW
    assert make_plan(Request(video=video, audio=audio, mask="central"), config).task == "inpaint"  # unless it is named
    for missing, message in (
        ({"audio": None}, "task repaint takes video and audio and mask, got video and mask"),
        ({"mask": "interpolation"}, "task outpaint has no mask 'interpolation'"),
        ({"prompt": "x", "image": torch.zeros(3, 8, 8)}, "got image and video and audio and mask"),
        ({"given_frames": 5, "mask": (0, 0, 1, 0.5)}, "given frames go with the masks"),
    ):
        given = {"video": video, "audio": audio, "mask": "vertical", "task": task} | missing
        with pytest.raises(ValueError, match=message):
            make_plan(Request(**given), config)
    untrained = dataclasses.replace(config, tasks=("text_to_video",))
    with pytest.raises(ValueError, match="task repaint is not trained in this model"):
        make_plan(Request(video=video, audio=audio, mask="vertical", task=task), untrained)


def test_its_films_are_made_from_python_and_by_the_command(
    task: str, trained: Path, tmp_path: Path, cinepoet: Callable[..., tuple[int, str, str]]
) -> None:
    from mmtok.media.video import write_film

    pipe = CinePoetPipeline.from_pretrained(trained, device="cpu")
    sound = render_audio(SCENE, num_samples=34000)
    film = render_video(SCENE, size=32, num_frames=17)
    out = pipe(video=film, audio=sound, mask="vertical", task=task, paste_back=True, upscale=False)
    assert out.frames.shape == (1, 3, 17, 32, 32) and out.audio is not None and out.audio[0].equal(sound)
    assert out.frames[0, ..., 8:24].equal(film[..., 8:24]), "the visible columns come back"
    path = tmp_path / "clip.mp4"
    write_film(path, film, fps=8.0, audio=sound, sample_rate=16000)
    words = ("generate", "--task", task, "--video", path, "--mask", "vertical", "--no-upscale", "--model", trained)
    code, shown, fault = cinepoet(*words, "--out", tmp_path / "out.mp4")
    assert code == 0 and "17 frames of 32x32" in shown, fault
    code, _, fault = cinepoet(*words, "--no-sound", "--out", tmp_path / "out.mp4")
    assert code == 2 and "task repaint takes video and audio and mask, got video and mask" in fault


def test_it_is_judged(task: str, trained: Path) -> None:
    pipe = CinePoetPipeline.from_pretrained(trained, device="cpu")
    result = evaluate.evaluate_tasks(SUBJECT, pipe, scenes=1, only=("repaint vertical",))
    assert result.figures["tasks"] == {"repaint vertical": {"same_db": 1.0}}
