"""recipes/pipeline/request.py: media of a request as tensors, those of other outputs among them, and their number."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from llm.sampling import film_generators
from llm.tasks import TASKS
from recipes.bundle.config import BundleConfig
from recipes.pipeline.output import Output
from recipes.pipeline.plan import make_plan
from recipes.pipeline.request import Request, check_media, number_of_films, require_sound, texts_of, with_own_sound

WHOLE = BundleConfig(
    size=128, num_frames=17, fps=8.0, upscaled_size=256, tasks=tuple(TASKS), aspects=("square", "portrait")
)
VIDEO = torch.zeros(3, 17, 8, 8)


def output(frames=17, height=8, fps=8.0, sound=True):
    audio = torch.zeros(1, 1, 900) if sound else None
    return Output(torch.zeros(1, 3, frames, height, 8), fps, audio, 16000, {})


def test_prompts_are_texts() -> None:
    assert texts_of(None) is None and texts_of("a") == ["a"] and texts_of(["a", "b"]) == ["a", "b"]
    for wrong, message in (
        ([], "empty"),
        (["a", " "], "empty"),
        (["a", 3], "a text or a list of texts"),
        (3, "a text"),
    ):
        with pytest.raises(ValueError, match=message):
            texts_of(wrong)  # type: ignore[arg-type]


def test_silence_is_refused_where_a_sound_is_what_it_is_about() -> None:
    silence, heard = ({"audio": torch.full((1, 1, 900), value)} for value in (0.0, 0.5))
    for task, asked in (
        ("audio_to_video", "auto"),
        ("audio_to_video", "audio_to_video"),
        ("continue_av", "continue_av"),
    ):
        require_sound(task, asked, heard)
        with pytest.raises(ValueError, match=f"task {task} needs a sound to go by, and the audio is silence"):
            require_sound(task, asked, silence)
    require_sound("continue_av", "auto", silence)  # the film's own sound, which may be silence
    require_sound("inpaint", "inpaint", silence)


def test_a_task_that_makes_the_sound_does_not_get_the_films_own() -> None:
    assert with_own_sound(Request(video=output(), task="stylize")).audio is not None
    for request in (Request(video=output(), task="video_to_audio"), Request(video=output(), sound=False)):
        assert with_own_sound(request).audio is None
    with pytest.raises(ValueError, match="unknown task 'dream'"):
        with_own_sound(Request(video=output(), task="dream"))


def test_outputs_stand_for_media() -> None:
    request = with_own_sound(Request(video=output(height=14)))
    assert make_plan(request, WHOLE).task == "continue_av" and make_plan(request, WHOLE).resolution == 0
    assert set(check_media(request, WHOLE)) == {"video", "audio"}
    assert with_own_sound(Request(video=output(), task="video_to_audio")).audio is None
    assert check_media(Request(image=output(frames=1)), WHOLE)["image"].shape == (1, 3, 8, 8)
    for bad, message in (
        (Request(video=output(fps=25.0)), "an output at 25 pictures per second, this model's are 8"),
        (Request(image=output()), "image is an output of 17 pictures; pick one"),
        (Request(audio=output(sound=False)), "audio is an output without sound"),
        (Request(video=dataclasses.replace(output(), frames=VIDEO.numpy())), "numpy arrays"),
    ):
        with pytest.raises(ValueError, match=message):
            check_media(bad, WHOLE)


def test_films_are_counted_and_each_has_a_generator() -> None:
    assert number_of_films(["a", "b"], {"image": torch.zeros(1, 3, 8, 8)}) == 2
    with pytest.raises(ValueError, match="disagree about the number of films"):
        number_of_films(["a", "b"], {"image": torch.zeros(3, 3, 8, 8)})

    def seeds(generator, films, candidates):
        return [g.initial_seed() for g in film_generators(generator, films, candidates)]

    def fresh(seed=0):
        return torch.Generator().manual_seed(seed)

    assert len(set(seeds(fresh(), 2, 3))) == 6
    assert seeds(fresh(), 1, 3) == seeds(fresh(), 2, 3)[:3]  # more films change nothing for the first
    assert seeds(fresh(), 1, 1) == seeds(fresh(), 1, 3)[:1]  # nor do more candidates
    assert seeds([fresh(7), fresh(8)], 2, 2)[2:] == seeds([fresh(8)], 1, 2)
    assert seeds(None, 1, 1) == seeds(fresh(), 1, 1)
    with pytest.raises(ValueError, match="there are 3 films and 2 generators"):
        film_generators([fresh(), fresh()], 3, 1)
