"""recipes/pipeline/inputs.py: shapes, clocks and codes of what a clip is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recipes.bundle.folder import open_bundle
from recipes.bundle.parts import Parts
from recipes.pipeline.inputs import Inputs
from recipes.pipeline.plan import make_plan
from recipes.pipeline.request import Request, check_media
from recipes.runtime.device import choose_compute

VIDEO = torch.rand(3, 20, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
SOUND = torch.rand(1, 40000, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def inputs(bundle: Path) -> Inputs:
    parts = Parts(open_bundle(bundle), choose_compute("cpu"))
    return Inputs(parts, parts.config)


def read(inputs: Inputs, **given: object):
    request = Request(**given)  # type: ignore[arg-type]
    plan = make_plan(request, inputs.config)
    media = check_media(request, inputs.config)
    found = inputs.open(request, plan, media)
    inputs.read(found, request, plan, media)
    return found


def test_shapes_follow_from_the_tokenizers_clocks(inputs: Inputs) -> None:
    assert (inputs.samples(17), inputs.second) == (34000, 9)
    assert inputs.clip_shape(17).grid == (5, 4, 4) and inputs.clip_shape(17).audio_frames == 106
    assert inputs.clip_shape(25, (56, 32), sound=False).grid == (7, 7, 4)
    assert inputs.clip_shape(25, sound=False).audio_frames == 0


def test_a_film_that_goes_on_is_read_from_its_end_with_its_sound(inputs: Inputs) -> None:
    found = read(inputs, video=VIDEO, audio=SOUND)
    assert found.slices == 3 and found.clip is None and found.sound is None
    assert found.tokens["visual"].equal(inputs.encode(VIDEO[None, :, -9:], (32, 32)))
    assert found.tokens["audio"].shape == (1, 4, 56)  # as many frames as the tasks count for three slices of five
    assert set(read(inputs, video=VIDEO, audio=SOUND, task="continue_video", sound=False).tokens) == {"visual"}


def test_a_clip_keeps_what_its_task_does_not_make(inputs: Inputs) -> None:
    painted = read(inputs, video=VIDEO, audio=SOUND, mask="central")
    assert set(painted.tokens) == {"condition"} and painted.hidden is not None and painted.clip is not None
    assert painted.clip.shape == (1, 3, 17, 40, 40) and painted.sound is not None
    assert painted.sound.equal(SOUND[None, :, :34000])
    heard = read(inputs, audio=SOUND)
    assert set(heard.tokens) == {"audio"} and heard.sound is not None
    assert set(read(inputs, video=VIDEO, task="video_to_audio").tokens) == {"visual"}
    assert set(read(inputs, video=VIDEO, image=VIDEO[:, 0]).tokens) == {"visual", "condition"}


def test_texts_are_none_where_there_are_none(inputs: Inputs) -> None:
    assert inputs.texts(None, "a dog", []) == (None, None)
    text, negative = inputs.texts(["a circle", "a star"], "a dog", [])
    assert text is not None and text[0].shape[:2] == (2, 16) and negative is not None and len(negative[0]) == 1
