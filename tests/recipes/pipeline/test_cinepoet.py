"""The pipeline's tasks on a bundle with random weights: shapes, clocks, seeds, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llm.tasks import TASKS
from mmtok.visual.long_video import reconstruct_video
from recipes.corpora.shapes import ShapesCorpus, render_audio, render_video
from recipes.pipeline.cinepoet import CinePoetPipeline

PROMPT = "a red circle moves left"
FRAMES, SAMPLES = 17, 34000


@pytest.fixture(scope="module")
def pipe(bundle: Path) -> CinePoetPipeline:
    return CinePoetPipeline.from_pretrained(bundle, device="cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_text_gives_film_with_exact_sound(pipe: CinePoetPipeline) -> None:
    out = pipe(PROMPT, generator=seeded())
    assert out.frames.shape == (1, 3, FRAMES, 64, 64)
    assert out.audio is not None and out.audio.shape == (1, 1, SAMPLES)
    assert (out.fps, out.sample_rate) == (8.0, 16000)
    assert {k: tuple(v.shape) for k, v in out.codes.items()} == {
        "low": (1, 1, 5, 4, 4),
        "audio": (1, 4, 106),
        "high": (1, 1, 5, 8, 8),
    }
    assert out.frames.abs().max() <= 1.0


def test_same_seed_same_film_and_another_seed_another(pipe: CinePoetPipeline) -> None:
    one, two, three = (pipe(PROMPT, generator=seeded(s)) for s in (3, 3, 4))
    assert torch.equal(one.frames, two.frames) and one.audio is not None and two.audio is not None
    assert torch.equal(one.audio, two.audio)
    assert not torch.equal(one.codes["low"], three.codes["low"])


def test_prompts_make_a_batch(pipe: CinePoetPipeline) -> None:
    out = pipe([PROMPT, "a blue square grows"], upscale=False, generator=seeded())
    assert out.frames.shape == (2, 3, FRAMES, 32, 32)
    assert out.audio is not None and out.audio.shape == (2, 1, SAMPLES)


def test_without_sound_and_upscaling(pipe: CinePoetPipeline) -> None:
    out = pipe(PROMPT, upscale=False, sound=False, generator=seeded())
    assert out.audio is None and out.frames.shape[-1] == 32 and set(out.codes) == {"low"}


def test_text_to_image(pipe: CinePoetPipeline) -> None:
    out = pipe(PROMPT, num_frames=1, generator=seeded())
    assert out.frames.shape == (1, 3, 1, 64, 64) and out.audio is None


def test_unconditional(pipe: CinePoetPipeline) -> None:
    out = pipe(upscale=False, generator=seeded())
    assert out.frames.shape == (1, 3, FRAMES, 32, 32) and out.audio is not None


def test_image_stays_the_first_slice(pipe: CinePoetPipeline) -> None:
    image = render_video(ShapesCorpus(0).scene(0), size=48, num_frames=1)[:, 0]
    out = pipe(PROMPT, image=image, upscale=False, generator=seeded())
    wanted = pipe.visual.encode(pipe.fit(image[:, None]))
    assert torch.equal(out.codes["low"][:, :, :1], wanted)
    assert out.audio is not None


@pytest.mark.parametrize("length", [1, 3, 9, 30])
def test_video_is_continued_from_its_end(pipe: CinePoetPipeline, length: int) -> None:
    video = render_video(ShapesCorpus(0).scene(1), size=40, num_frames=length)
    out = pipe(PROMPT, video=video, upscale=False, generator=seeded())
    assert out.frames.shape == (1, 3, FRAMES, 32, 32)
    kept = {1: 1, 3: 1, 9: 9, 30: 9}[length]
    wanted = pipe.visual.encode(pipe.fit(video[:, -kept:]))
    assert torch.equal(out.codes["low"][:, :, : wanted.shape[2]], wanted)
    assert out.audio is not None and out.audio.shape[-1] == SAMPLES


def test_sound_for_a_video_keeps_its_pictures(pipe: CinePoetPipeline) -> None:
    video = render_video(ShapesCorpus(0).scene(2), size=64, num_frames=FRAMES)
    out = pipe(video=video, task="video_to_audio", generator=seeded())
    torch.testing.assert_close(out.frames[0], video)  # at the upscaled size: the film as it was given
    assert out.audio is not None and out.audio.shape == (1, 1, SAMPLES)


def test_video_for_a_sound_keeps_the_sound(pipe: CinePoetPipeline) -> None:
    sound = render_audio(ShapesCorpus(0).scene(3), num_samples=20000)
    out = pipe(audio=sound, upscale=False, generator=seeded())
    assert out.audio is not None
    torch.testing.assert_close(out.audio[0, :, :20000], sound)
    assert not out.audio[0, :, 20000:].any()
    assert out.frames.shape == (1, 3, FRAMES, 32, 32)


@pytest.mark.parametrize("upscale", [False, True])
def test_extensions_keep_clock_and_beginning(pipe: CinePoetPipeline, upscale: bool) -> None:
    short = pipe(PROMPT, upscale=upscale, generator=seeded())
    long = pipe(PROMPT, upscale=upscale, extensions=2, generator=seeded())
    assert long.frames.shape[2] == FRAMES + 2 * 8
    assert long.audio is not None and long.audio.shape[-1] == round(33 / 8 * 16000)
    torch.testing.assert_close(long.frames[:, :, :FRAMES], short.frames)


def test_long_prompt_is_cut_and_the_cut_is_named(pipe: CinePoetPipeline) -> None:
    words = "a red circle moves left on a dark plain background " * 4 + "zebra"
    out = pipe(words, upscale=False, sound=False, generator=seeded())
    assert len(out.notes) == 1 and "left out" in out.notes[0] and "zebra" in out.notes[0]


def test_guidance_and_negative_prompt_change_the_film(pipe: CinePoetPipeline) -> None:
    plain = {"upscale": False, "sound": False}
    codes = [
        pipe(PROMPT, generator=seeded(), **plain, **more).codes["low"]  # type: ignore[arg-type]
        for more in (
            {"guidance_scale": 1.0},
            {"guidance_scale": 40.0},
            {"guidance_scale": 40.0, "negative_prompt": "a dog"},
        )
    ]
    assert not torch.equal(codes[0], codes[1]) and not torch.equal(codes[1], codes[2])


def test_numpy_output(pipe: CinePoetPipeline) -> None:
    out = pipe(PROMPT, upscale=False, sound=False, output_type="np", generator=seeded())
    assert tuple(out.frames.shape) == (1, FRAMES, 32, 32, 3)
    assert out.frames.min() >= 0 and out.frames.max() <= 1


@pytest.mark.parametrize("weights", ["bfloat16", "float16", "int8"])
def test_the_language_model_runs_with_fewer_bits(bundle: Path, weights: str) -> None:
    pipe = CinePoetPipeline.from_pretrained(bundle, device="cpu", lm_weights=weights)
    film = pipe("a red circle moves left", upscale=False, temperature=0.0, generator=torch.Generator().manual_seed(0))
    assert film.frames.isfinite().all() and film.audio is not None
    assert pipe.lm.is_quantized == (weights == "int8")
    table = pipe.lm.model.embed_tokens.weight
    assert table.dtype == (torch.float32 if weights == "int8" else getattr(torch, weights))
    with pytest.raises(ValueError, match="unknown lm_weights 'int4'; known: float32"):
        CinePoetPipeline.from_pretrained(bundle, lm_weights="int4")


def test_progress_and_times(pipe: CinePoetPipeline) -> None:
    steps: list[tuple[str, int, int]] = []
    out = pipe(PROMPT, generator=seeded(), on_step=lambda *step: steps.append(step))
    sampled = [s for s in steps if s[0] == "text_to_video"]
    assert sampled[-1][1] == sampled[-1][2] and len(sampled) == 5 * 4 * 4 + 4 * 106
    assert ("super-resolution", 2, 2) in steps
    assert {"text", "sample text_to_video", "decode picture", "decode sound", "super-resolution"} <= set(out.seconds)


def test_a_pipeline_says_what_it_is_and_what_is_loaded(bundle: Path) -> None:
    fresh = CinePoetPipeline.from_pretrained(bundle, device="cpu")
    told = f"CinePoetPipeline(random: 17 pictures of 32x32 -> 64 at 8 fps, {len(TASKS)} tasks, on cpu, loaded: "
    assert repr(fresh) == f"{told}nothing yet)"
    assert fresh.visual is fresh.parts.visual and repr(fresh) == f"{told}visual)"
    fresh.depth = torch.zeros_like  # another estimator, which the parts then use
    assert fresh.parts.depth is torch.zeros_like


def test_times_do_not_count_loading_twice(bundle: Path) -> None:
    import time

    fresh = CinePoetPipeline.from_pretrained(bundle, device="cpu")
    start = time.monotonic()
    out = fresh(PROMPT, generator=seeded())
    assert sum(out.seconds.values()) <= time.monotonic() - start + 0.01
    assert {f"load {part}" for part in ("visual", "audio", "text", "lm", "superres")} <= set(out.seconds)


def test_upscale_any_length(pipe: CinePoetPipeline) -> None:
    video = render_video(ShapesCorpus(0).scene(4), size=50, num_frames=30)
    assert pipe.upscale(video, prompt=PROMPT).shape == (1, 3, 30, 64, 64)
    assert pipe.upscale(video[:, :3]).shape == (1, 3, 3, 64, 64)


@pytest.mark.parametrize("length", [1, 2, 17, 20])
def test_reconstruct_video_keeps_length(pipe: CinePoetPipeline, length: int) -> None:
    video = render_video(ShapesCorpus(0).scene(5), size=32, num_frames=length)[None]
    out, codes = reconstruct_video(pipe.visual, video, clip=FRAMES)
    assert out.shape == video.shape
    assert len(codes) == -(-length // FRAMES)


def test_fit_crops_the_centre(pipe: CinePoetPipeline) -> None:
    wide = torch.full((3, 1, 32, 96), -1.0)
    wide[..., 32:64] = 1.0
    assert pipe.fit(wide).shape == (1, 3, 1, 32, 32)
    assert float(pipe.fit(wide).min()) == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": ""}, "empty"),
        ({"prompt": []}, "empty"),
        ({"prompt": PROMPT, "task": "text_to_vide"}, "unknown task 'text_to_vide'; known:"),
        ({"prompt": PROMPT, "task": "inpaint"}, "takes video and mask, got no media"),
        ({"prompt": PROMPT, "num_frames": 33}, "num_frames must be 17"),
        ({"prompt": PROMPT, "extensions": -1}, "extensions must not be negative"),
        ({"prompt": PROMPT, "output_type": "pil"}, "unknown output_type 'pil'"),
        ({"task": "text_to_video"}, "needs a prompt"),
        ({"task": "image_to_video"}, "takes image, got no media"),
        (
            {"image": torch.zeros(3, 8, 8), "mask": "central"},
            "no task takes image and mask together; give one of image, video and audio",
        ),
        ({"prompt": PROMPT, "temperature": -1.0}, "temperature"),
        ({"prompt": PROMPT, "top_p": 0.0}, "top_p"),
        ({"prompt": [PROMPT] * 2, "image": torch.zeros(3, 3, 8, 8)}, "disagree about the number of films"),
        ({"image": torch.full((3, 8, 8), float("nan"))}, "image must lie in"),
        ({"audio": torch.full((1, 900), float("nan"))}, "audio must lie in"),
        ({"audio": torch.zeros(1, 34000)}, "task audio_to_video needs a sound to go by, and the audio is silence"),
        (
            {"video": torch.zeros(3, 9, 8, 8), "audio": torch.zeros(1, 18000), "task": "continue_av"},
            "task continue_av needs a sound",
        ),
        ({"image": "photo.png"}, r"image must be a tensor of shape \(3, h, w\) or an output, got str"),
        ({"image": torch.zeros(8, 8)}, r"image must be"),
        ({"video": torch.zeros(3, 8, 8)}, r"video must be"),
        ({"audio": torch.zeros(900)}, r"audio must be"),
    ],
)
def test_bad_input(pipe: CinePoetPipeline, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipe(**given)


def test_bundle_without_superres_says_so(bundle: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(bundle, tmp_path / "m", ignore=shutil.ignore_patterns("superres"))
    with pytest.raises(ValueError, match="no super-resolution part"):
        CinePoetPipeline.from_pretrained(tmp_path / "m", device="cpu")(PROMPT)
