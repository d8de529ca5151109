"""Tasks, lengths, candidates, long films and chaining of the pipeline, on a bundle with random weights."""

from __future__ import annotations

import dataclasses
import gc
import importlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recipes.bundle.folder import Bundle, open_bundle
from recipes.corpora.shapes import ShapesCorpus, render_audio, render_video
from recipes.pipeline.cinepoet import CinePoetPipeline
from recipes.pipeline.output import Output
from recipes.pipeline.request import Segment
from recipes.runtime.device import choose_compute

PROMPT = "a red circle moves left"
SMALL = {"upscale": False, "sound": False}
SCENE = ShapesCorpus(0).scene(6)


@pytest.fixture(scope="module")
def pipe(bundle: Path) -> CinePoetPipeline:
    return CinePoetPipeline.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def keen(bundle: Path) -> CinePoetPipeline:
    """A language model far from its small initial weights, so that everything it reads shows in what it writes."""
    pipe = CinePoetPipeline.from_pretrained(bundle, device="cpu")
    draw = seeded()
    for weight in pipe.lm.parameters():
        torch.nn.init.normal_(weight, std=0.5, generator=draw)
    return pipe


def knows(bundle: Path, *tasks: str) -> CinePoetPipeline:
    opened = open_bundle(bundle)
    config = dataclasses.replace(opened.config, tasks=tasks)
    return CinePoetPipeline(Bundle(opened.folder, config), choose_compute("cpu"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def film(num_frames: int = 17, size: int = 64) -> Tensor:
    return render_video(SCENE, size=size, num_frames=num_frames)


def sound(num_frames: int = 17) -> Tensor:
    return render_audio(SCENE, num_samples=round(num_frames / 8 * 16000))


# Painting.


@pytest.mark.parametrize(
    ("task", "mask"),
    [
        ("inpaint", "central"),
        ("inpaint", "interpolation"),
        ("outpaint", "dynamic"),
        ("outpaint", (0.0, 0.0, 1.0, 0.5)),
        ("inpaint", torch.arange(64).expand(64, 64) < 16),
    ],
)
def test_painting_reads_the_masked_clip_and_makes_all_of_it(pipe: CinePoetPipeline, task: str, mask) -> None:
    out = pipe(video=film(), mask=mask, task=task, **SMALL)
    assert out.frames.shape == (1, 3, 17, 32, 32) and out.codes["low"].shape == (1, 1, 5, 4, 4)
    with_text = pipe(PROMPT, video=film(), mask=mask, task=task, guidance_scale=30.0, **SMALL)
    assert not torch.equal(out.frames, with_text.frames)


def test_hidden_pixels_change_nothing_and_visible_ones_do(keen: CinePoetPipeline) -> None:
    clip, other = film(size=32), film(size=32)
    other[..., 8:24, 8:24] = 0.3
    one, two = (keen(video=v, mask="central", task="inpaint", temperature=0.0, **SMALL).frames for v in (clip, other))
    assert torch.equal(one, two)
    other[..., :8, :] = 0.9
    three = keen(video=other, mask="central", task="inpaint", temperature=0.0, **SMALL).frames
    assert not torch.equal(one, three)


def test_what_was_visible_is_pasted_back(pipe: CinePoetPipeline) -> None:
    given = {"video": film(), "mask": "central", "task": "inpaint", "sound": False}
    plain, pasted = (pipe(**given, paste_back=back).frames[0] for back in (False, True))
    hidden = torch.zeros(64, 64, dtype=torch.bool)
    hidden[16:48, 16:48] = True
    assert torch.equal(pasted[..., ~hidden], film()[..., ~hidden]) and torch.equal(
        pasted[..., hidden], plain[..., hidden]
    )
    soft = pipe(**given, paste_back=True, feather_px=4).frames[0]
    assert torch.equal(soft[..., hidden], plain[..., hidden]) and not torch.equal(soft, pasted)
    assert torch.equal(soft[..., :12, :], pasted[..., :12, :])


def test_a_mask_that_leaves_no_whole_token_is_refused_before_the_language_model_is_loaded(bundle: Path) -> None:
    fresh = CinePoetPipeline.from_pretrained(bundle, device="cpu")
    with pytest.raises(ValueError, match="hides everything once it covers whole tokens"):
        fresh.stream(video=film(), mask=(0.1, 0.1, 0.9, 0.9))
    assert "lm" not in vars(fresh.parts)


def test_a_film_that_is_painted_keeps_its_sound_or_gets_one(pipe: CinePoetPipeline) -> None:
    given = {"video": film(), "mask": "central", "upscale": False}
    kept = pipe(**given, audio=sound())
    assert kept.audio is not None
    torch.testing.assert_close(kept.audio[0], sound())
    made = pipe(**given)
    assert made.audio is not None and made.audio.shape == (1, 1, 34000) and made.codes["audio"].shape == (1, 4, 106)


def test_silence_of_a_model_that_cannot_make_sound_is_told(bundle: Path) -> None:
    out = knows(bundle, "inpaint")(video=film(), mask="central", upscale=False)
    assert out.audio is None and out.notes == ["inpaint is silent in this model: it was not trained on video_to_audio"]


# Stylization.


@pytest.mark.parametrize("task", ["stylize", "stylize_from_image"])
def test_stylization_reads_flow_and_depth(keen: CinePoetPipeline, task: str) -> None:
    more = {"image": film()[:, 3]} if task == "stylize_from_image" else {}
    still = film(1).expand(-1, 17, -1, -1)
    moving, resting = (keen(PROMPT, video=v, task=task, temperature=0.0, **more, **SMALL) for v in (film(), still))
    assert moving.frames.shape == (1, 3, 17, 32, 32)
    assert not torch.equal(moving.frames, resting.frames)  # the same picture first, another motion


def test_a_missing_extra_is_told_before_the_language_model_is_loaded(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = CinePoetPipeline.from_pretrained(bundle, device="cpu")
    imported = importlib.import_module

    def absent(name: str) -> object:
        if name == "cv2":
            raise ImportError(name)
        return imported(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match=r"optical flow needs OpenCV: pip install"):
        fresh.stream(PROMPT, video=film(), task="stylize")
    assert "lm" not in vars(fresh.parts)


# Going on.


@pytest.mark.parametrize("count", [1, 5, 9, 13])
def test_prediction_from_any_number_of_given_frames(pipe: CinePoetPipeline, count: int) -> None:
    out = pipe(video=film(20, size=32), given_frames=count, **SMALL)
    given = pipe.visual.encode(film(20, size=32)[None, :, -count:])
    assert out.frames.shape[2] == 17
    assert torch.equal(out.codes["low"][:, :, : given.shape[2]], given)


@pytest.mark.parametrize("trained", [True, False])
def test_a_film_goes_on_with_its_sound(pipe: CinePoetPipeline, bundle: Path, trained: bool) -> None:
    if not trained:  # then the picture goes on, and its sound follows from where the film's stopped
        pipe = knows(bundle, "continue_video", "video_to_audio")
    out = pipe(video=film(20), audio=sound(20), upscale=False)
    past = sound(20)[None, :, round(11 / 8 * 16000) :]
    assert torch.equal(out.codes["audio"][:, :, :56], pipe.audio.encode(past)[..., :56])
    assert out.codes["audio"].shape == (1, 4, 106) and out.audio is not None and out.audio.shape[-1] == 34000
    assert ("sample continue_av" in out.seconds) == trained
    assert ("sample video_to_audio" in out.seconds) != trained


def test_given_frames_that_do_not_fit(pipe: CinePoetPipeline) -> None:
    with pytest.raises(ValueError, match="a clip of 6 frames does not fill whole slices"):
        pipe(video=film(), given_frames=6)
    with pytest.raises(ValueError, match="given_frames is 9, the video has 5 pictures"):
        pipe(video=film(5), given_frames=9)


# Lengths and forms.


def test_longer_clips_and_portraits(pipe: CinePoetPipeline) -> None:
    long = pipe(PROMPT, num_frames=25, generator=seeded())
    assert long.frames.shape == (1, 3, 25, 64, 64) and long.codes["low"].shape == (1, 1, 7, 4, 4)
    assert long.audio is not None and long.audio.shape[-1] == 50000
    high = pipe(PROMPT, aspect="portrait", source="raw", **SMALL)
    assert high.frames.shape == (1, 3, 17, 56, 32)
    assert pipe(PROMPT, aspect="portrait", num_frames=1, **SMALL).frames.shape == (1, 3, 1, 56, 32)
    sharp = pipe(PROMPT, aspect="portrait", generator=seeded())  # in tiles: the grid of the bundle is square
    assert sharp.frames.shape == (1, 3, 17, 112, 64)


def test_control_tokens_reach_the_model(keen: CinePoetPipeline) -> None:
    plain, tagged = (keen(PROMPT, source=source, temperature=0.0, **SMALL).codes["low"] for source in (None, "clean"))
    assert not torch.equal(plain, tagged)


# Several films.


def test_films_depend_neither_on_their_neighbours_nor_on_their_number(pipe: CinePoetPipeline) -> None:
    prompts = [PROMPT, "a blue square grows", "a green star"]
    together = pipe(prompts, generator=[seeded(s) for s in (5, 6, 7)])
    alone = pipe(prompts[1], generator=seeded_list(6))
    assert together.audio is not None and alone.audio is not None
    assert all(torch.equal(alone.codes[name], together.codes[name][1:2]) for name in ("low", "audio", "high"))
    torch.testing.assert_close(alone.frames, together.frames[1:2], atol=1e-4, rtol=0)
    torch.testing.assert_close(alone.audio, together.audio[1:2], atol=1e-4, rtol=0)


def seeded_list(*seeds: int) -> list[torch.Generator]:
    return [seeded(s) for s in seeds]


def test_candidates_stand_next_to_each_other_and_the_first_is_the_single_film(pipe: CinePoetPipeline) -> None:
    prompts = [PROMPT, "a blue square grows"]
    out = pipe(prompts, num_candidates=3, upscale=False, generator=seeded(1))
    single = pipe(prompts, upscale=False, generator=seeded(1))
    assert out.frames.shape[0] == 6 and out.codes["audio"].shape[0] == 6
    assert torch.equal(out.codes["low"][[0, 3]], single.codes["low"])
    assert out.codes["low"].unique(dim=0).shape[0] == 6
    picked = out.film(4)
    assert torch.equal(picked.frames, out.frames[4:5]) and torch.equal(picked.codes["low"], out.codes["low"][4:5])
    with pytest.raises(ValueError, match="there are films 0 to 5, got 6"):
        out.film(6)
    heard = pipe(video=film(), task="video_to_audio", num_candidates=2, upscale=False)
    assert heard.audio is not None and len(heard.audio) == len(heard.frames) == 2


def test_the_first_picture_is_the_image_where_asked(pipe: CinePoetPipeline) -> None:
    image = film(1)[:, 0]
    out, plain = (pipe(image=image, sound=False, exact_first_frame=exact) for exact in (True, False))
    assert torch.equal(out.frames[0, :, 0], image) and torch.equal(out.frames[:, :, 1:], plain.frames[:, :, 1:])
    assert not torch.equal(plain.frames[0, :, 0], image)
    cut = list(pipe.stream(PROMPT, segments=[Segment(image=image)], exact_first_frame=True, sound=False))
    assert torch.equal(cut[1].frames[0, :, 0], image)


# Long films.


def test_the_pieces_of_a_stream_are_the_film_of_the_call(pipe: CinePoetPipeline) -> None:
    given = {"segments": ["it grows"], "upscale": False}
    whole = pipe(PROMPT, generator=seeded(), **given)
    pieces = list(pipe.stream(PROMPT, generator=seeded(), **given))
    assert [p.frames.shape[2] for p in pieces] == [17, 8] and whole.audio is not None
    assert torch.equal(torch.cat([p.frames for p in pieces], 2), whole.frames)
    assert torch.equal(torch.cat([p.audio for p in pieces if p.audio is not None], -1), whole.audio)
    assert [p.look for p in pieces] == whole.looks and whole.audio.shape[-1] == round(25 / 8 * 16000)


def test_a_segments_prompt_changes_what_comes_after_it(pipe: CinePoetPipeline) -> None:
    def pieces(*prompts: str) -> list[Tensor]:
        given = {"guidance_scale": 30.0, "generator": seeded(), **SMALL}
        return [p.frames for p in pipe.stream(PROMPT, segments=prompts, **given)]

    one, two = pieces("it grows", "it spins"), pieces("it grows", "a blue square moves up")
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1]) and not torch.equal(one[2], two[2])


def test_a_segment_with_a_picture_is_a_new_clip_that_starts_from_it(pipe: CinePoetPipeline) -> None:
    image = film(1, size=32)[:, 0]
    segments = [Segment("it spins", image=image), "it grows"]
    pieces = list(pipe.stream(PROMPT, segments=segments, exact_first_frame=False, upscale=False, generator=seeded()))
    assert [p.frames.shape[2] for p in pieces] == [17, 17, 8]
    assert torch.equal(pieces[1].codes["low"][:, :, :1], pipe.visual.encode(image[None, :, None]))
    assert torch.equal(pieces[2].codes["low"][:, :, :3], pipe.visual.encode(pieces[1].frames[:, :, -9:]))
    assert sum(p.audio.shape[-1] for p in pieces if p.audio is not None) == round(42 / 8 * 16000)


def test_ten_extensions_keep_no_more_than_one(pipe: CinePoetPipeline) -> None:
    def alive() -> int:
        gc.collect()
        tensors = (o for o in gc.get_objects() if type(o) is torch.Tensor)
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    sizes = []
    for number, block in enumerate(pipe.stream(PROMPT, extensions=10, **SMALL)):
        assert block.frames.shape[2] == (8 if number else 17)
        del block
        if number in (1, 10):
            sizes.append(alive())
    assert sizes[1] <= sizes[0], sizes


def test_drift_is_measured_on_every_piece(pipe: CinePoetPipeline) -> None:
    out = pipe(PROMPT, extensions=2, **SMALL)
    assert len(out.looks) == 3 and all(1 <= look.codes <= 32 for look in out.looks)


# Chaining.


def test_an_output_is_the_next_tasks_input(pipe: CinePoetPipeline) -> None:
    first = pipe(PROMPT, num_candidates=2, upscale=False, generator=seeded())
    longer = pipe(video=first, upscale=False)
    assert len(longer.frames) == 2 and first.audio is not None
    past = pipe.audio.encode(first.audio[..., -18000:])
    assert torch.equal(longer.codes["audio"][:, :, :56], past[..., :56])  # its sound came along
    picture = pipe(PROMPT, num_frames=1, **SMALL)
    moved = pipe(image=picture, **SMALL)
    painted = pipe(video=moved, mask="central", paste_back=True, **SMALL)
    styled = pipe("a blue star", video=painted, task="stylize", **SMALL)
    seen = pipe(audio=first.film(0), **SMALL)
    high = pipe(video=pipe(PROMPT, aspect="portrait", **SMALL), **SMALL)
    for out in (moved, painted, styled, seen):
        assert isinstance(out, Output) and out.frames.shape == (1, 3, 17, 32, 32)
    assert high.frames.shape == (1, 3, 17, 56, 32)  # a film goes on in its own form
