"""recipes/pipeline/plan.py: what a request means for a model, found out without any weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from llm.tasks import TASKS
from recipes.bundle.config import BundleConfig
from recipes.pipeline.output import Output
from recipes.pipeline.plan import make_plan
from recipes.pipeline.request import Request, Segment

TODAY = BundleConfig(size=64, num_frames=17, fps=8.0, upscaled_size=128)
WHOLE = BundleConfig(
    size=128,
    num_frames=17,
    fps=8.0,
    upscaled_size=256,
    tasks=tuple(TASKS),
    more_num_frames=(41,),
    aspects=("square", "portrait"),
    sources=("clean", "raw"),
)
IMAGE, VIDEO, AUDIO = torch.zeros(3, 8, 8), torch.zeros(3, 17, 8, 8), torch.zeros(1, 900)
GIVEN = {"prompt": "a circle", "image": IMAGE, "video": VIDEO, "audio": AUDIO, "mask": "central"}


def output(frames=17, height=8, fps=8.0, sound=True):
    audio = torch.zeros(1, 1, 900) if sound else None
    return Output(torch.zeros(1, 3, frames, height, 8), fps, audio, 16000, {})


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_planned_with_what_it_needs_and_refused_without(task: str) -> None:
    needed = TASKS[task].needs
    plan = make_plan(Request(**{name: GIVEN[name] for name in needed}, task=task), WHOLE)
    assert plan.task == task and plan.row is TASKS[task] and plan.size == (128, 128) and plan.sharp_size == (256, 256)
    for name in needed:
        with pytest.raises(ValueError, match=r"takes|needs a prompt"):
            make_plan(Request(**{other: GIVEN[other] for other in needed if other != name}, task=task), WHOLE)


@pytest.mark.parametrize(
    ("given", "task"),
    [
        ((), "unconditional"),
        (("prompt",), "text_to_video"),
        (("prompt", "image"), "image_to_video"),
        (("video",), "continue_video"),
        (("video", "audio"), "continue_av"),
        (("audio",), "audio_to_video"),
        (("video", "mask"), "inpaint"),
        (("prompt", "video", "image"), "stylize_from_image"),
    ],
)
def test_the_task_follows_from_what_is_given(given: tuple[str, ...], task: str) -> None:
    assert make_plan(Request(**{name: GIVEN[name] for name in given}), WHOLE).task == task


def test_untrained_tasks_are_refused_by_name_with_the_trained_ones() -> None:
    for task in set(TASKS) - set(TODAY.tasks):
        given = {name: GIVEN[name] for name in TASKS[task].needs}
        with pytest.raises(ValueError, match=f"task {task} is not trained in this model; trained: unconditional, text"):
            make_plan(Request(**given, task=task), TODAY)
    assert make_plan(Request(video=VIDEO, audio=AUDIO), TODAY).task == "continue_video"


def test_control_tokens_stand_only_for_what_is_not_usual() -> None:
    usual = make_plan(Request("x"), WHOLE)
    assert (usual.source, usual.resolution, usual.duration) == (None, None, None)
    other = make_plan(Request("x", num_frames=41, aspect="portrait", source="raw"), WHOLE)
    assert (other.source, other.resolution, other.duration) == (1, 0, 0)
    assert other.size == (224, 128) and other.sharp_size == (448, 256) and other.num_frames == 41


def test_segments_are_extensions_and_the_last_prompt_stays() -> None:
    plan = make_plan(Request("a", segments=["b", Segment("c", image=IMAGE)], extensions=3), WHOLE)
    assert [s.prompt for s in plan.segments] == ["b", "c", None]
    assert [s.image is None for s in plan.segments] == [True, False, True]
    assert len(make_plan(Request("a", segments=["b"]), WHOLE).segments) == 1


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("x", num_frames=25), r"num_frames must be 17 or 41 \(this model's clips\)"),
        (Request("x", aspect="wide"), "aspect 'wide' is not trained in this model; trained: square, portrait"),
        (Request("x", source="best"), "source 'best' is not one of this model's; it has: clean, raw"),
        (Request("x", given_frames=5), "given_frames goes with continue_video, continue_av, not with text_to_video"),
        (Request(video=VIDEO, given_frames=17), r"given_frames must lie in \[1, 16\], got 17"),
        (Request("x", temperature=float("nan")), "temperature must be a number that is not negative, got nan"),
        (Request("x", guidance_scale=-3.0), "guidance_scale must be a number that is not negative, got -3"),
        (Request("x", guidance_scale=1.0, negative_prompt="y"), "which guidance_scale 1 turns off"),
        (Request(["x", 3]), "a prompt is a text or a list of texts"),
        (Request("x", segments="it grows"), "segments is a list, one entry an extension, got the text 'it grows'"),
        (Request("x", num_candidates=0), "num_candidates must be at least 1"),
        (Request("x", guidance_interval=(0.5, 0.2)), "guidance_interval must be two shares"),
        (Request("x", paste_back=True), "paste_back goes with inpaint and outpaint, not with text_to_video"),
        (Request(video=VIDEO, mask="central", feather_px=2), "ask for paste_back too"),
        (Request("x", exact_first_frame=True), "exact_first_frame goes with image_to_video"),
        (Request("x", segments=["a", "b"], extensions=1), "2 segments need as many extensions, got 1"),
        (Request("x", segments=[" "]), "the prompt is empty"),
        (Request("x", num_frames=1, extensions=1), "text_to_image makes one picture"),
        (Request(video=VIDEO, mask="vertical", task="inpaint"), "task inpaint has no mask 'vertical'; it has: central"),
        (Request(video=VIDEO, mask="central", given_frames=2), "given frames go with the masks"),
        (Request(video=VIDEO, mask=torch.ones(8, 8)), "the mask hides everything"),
        (Request(video=VIDEO, mask=torch.zeros(8, 8)), "the mask hides nothing"),
        (Request(video=VIDEO, mask=(0, 0, 1, 1)), "the mask hides everything"),
        (Request(video=VIDEO, mask=(0.5, 0, 0.2, 1)), "a box is top < bottom"),
        (Request(video=VIDEO, audio=AUDIO, task="continue_av", sound=False), "without sound nothing is left"),
        (Request(image=IMAGE, mask="central"), "no task takes image and mask together"),
        (Request(video=output(height=12)), "the film has pictures of 8x12; this model makes: square, portrait"),
    ],
)
def test_contradictions(request_: Request, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(request_, WHOLE)


def test_extensions_need_a_model_that_continues() -> None:
    config = dataclasses.replace(TODAY, tasks=("text_to_video",))
    with pytest.raises(ValueError, match="extensions need continue_video, which is not trained"):
        make_plan(Request("x", extensions=1), config)
