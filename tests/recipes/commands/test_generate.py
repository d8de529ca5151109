"""``cinepoet generate``: every task from real files, contradictions found before any weights are read."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mmtok
from llm.larp_ar import LarpAR
from mmtok.media import probe, read_audio, read_video
from mmtok.media.image import write_png
from mmtok.media.video import write_film
from mmtok.visual.larp import Larp
from recipes.bundle.folder import BUNDLE_FILE
from recipes.corpora.shapes import ShapesCorpus, render_audio, render_video

Cinepoet = Callable[..., tuple[int, str, str]]
PROMPT = "a red circle moves left"
SCENE = ShapesCorpus(0).scene(0)


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A wide film of 3 s with sound."""
    path = tmp_path / "clip.mp4"
    frames = render_video(SCENE, size=64, num_frames=24)[:, :, :48]
    write_film(path, frames, fps=8, audio=render_audio(SCENE, num_samples=48000), sample_rate=16000)
    return path


@pytest.fixture
def generate(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Run the command with the small model, into ``out`` of the test's folder."""

    def run(*words: object, out: str = "out.mp4", model: Path = bundle) -> tuple[int, str, str]:
        return cinepoet("generate", *words, "--model", model, "--no-upscale", "--out", tmp_path / out)

    return run


def test_films_from_films(generate: Callable[..., tuple[int, str, str]], wide: Path, tmp_path: Path) -> None:
    hole = torch.full((3, 48, 64), -1.0)
    hole[:, 12:36, 16:48] = 1.0
    write_png(tmp_path / "hole.png", hole)
    write_png(tmp_path / "photo.png", render_video(SCENE, size=40, num_frames=1)[:, 0])
    runs = {
        "named": (PROMPT, "--task", "inpaint", "--video", wide, "--mask", "central", "--paste-back", "--feather", 2),
        "drawn": ("--video", wide, "--mask", tmp_path / "hole.png"),
        "box": ("--task", "outpaint", "--video", wide, "--mask", "0,0,1,0.5"),
        "styled": ("a blue star", "--task", "stylize", "--video", wide),
        "from_image": ("--task", "stylize_from_image", "--video", wide, "--image", tmp_path / "photo.png"),
        "with_sound": ("--task", "continue_av", "--video", wide, "--given-frames", 5),
    }
    for name, words in runs.items():
        code, shown, err = generate(*words, out=f"{name}.mp4")
        assert code == 0, (name, err)
        assert f"{name}.mp4: 17 frames of 32x32 at 8 fps, 2.125 s, with sound" in shown, name
    kept = read_audio(tmp_path / "named.mp4", sample_rate=16000, num_samples=34000).samples
    original = render_audio(SCENE, num_samples=34000)
    assert float((kept - original).pow(2).mean()) < 0.05 * float(original.pow(2).mean())  # AAC twice
    corner = read_video(tmp_path / "named.mp4", size=32).frames[:, :, :4, :4]
    torch.testing.assert_close(corner, read_video(wide, size=32).frames[:, :, :4, :4], atol=0.2, rtol=0)


def test_the_films_own_sound_goes_on_in_step(
    generate: Callable[..., tuple[int, str, str]], bundle: Path, wide: Path, tmp_path: Path
) -> None:
    assert generate("--task", "continue_av", "--video", wide)[0] == 0
    tokenizer = mmtok.load(bundle / "audio")
    tail = read_audio(wide, sample_rate=16000, num_samples=18000, start_s=15 / 8).samples[None]
    expected = tokenizer.decode(tokenizer.encode(tail), num_samples=17000)[0]
    heard = read_audio(tmp_path / "out.mp4", sample_rate=16000, num_samples=17000).samples
    error, size = (heard - expected)[:, :16000].pow(2).mean(), expected[:, :16000].pow(2).mean()
    assert float(error) < 0.1 * float(size), (float(error), float(size))


def test_candidates_and_long_films_are_files_of_their_own(
    generate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    write_png(tmp_path / "photo.png", render_video(SCENE, size=40, num_frames=1)[:, 0])
    words = ("--then", "it grows", "--then", "it spins", "--then-from", tmp_path / "photo.png", "--candidates", 2)
    code, shown, err = generate(PROMPT, *words, "--preview", "--profile")
    assert code == 0, err
    made = {p.name for p in tmp_path.glob("out*")}
    assert made == {"out_0.mp4", "out_1.mp4", "out_0.preview.png", "out_1.preview.png"}
    films = [read_video(tmp_path / f"out_{i}.mp4", num_frames=None).frames for i in range(2)]
    assert films[0].shape[1] == 17 + 8 + 17 and not torch.equal(*films)
    assert probe(tmp_path / "out_1.mp4").has_audio
    assert re.search(r"^ +drift( +[+-]\d+ %){6}$", shown, re.M), shown


def test_other_lengths_and_forms(generate: Callable[..., tuple[int, str, str]]) -> None:
    words = ("--num-frames", 25, "--aspect", "portrait", "--source", "clean", "--guidance-interval", 0.1, 0.6)
    code, shown, err = generate(PROMPT, *words, "--no-sound")
    assert code == 0, err
    assert "25 frames of 32x56 at 8 fps, 3.125 s, silent" in shown


def test_prompts_in_other_scripts_are_read_and_reported(generate: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = generate("красный круг 🙂", "--no-sound")
    assert code == 0 and "note: the text encoder has no pieces for 'красный'" in err


def test_a_silent_sound_is_refused(generate: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    write_film(tmp_path / "mute.mp4", torch.zeros(3, 17, 48, 64), fps=8, audio=torch.zeros(1, 34000))
    code, _, err = generate("--audio", tmp_path / "mute.mp4")
    assert code == 2 and "mute.mp4: the first 2.125 s, which the pictures are made for, are silence" in err


def test_contradictions_are_one_line_before_weights_are_read(
    generate: Callable[..., tuple[int, str, str]], bundle: Path, wide: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "model"  # what a bundle says, without a single weight
    shutil.copytree(bundle, empty, ignore=shutil.ignore_patterns("*.safetensors"))
    stored = json.loads((empty / BUNDLE_FILE).read_text())
    for name, value in (("full", 1.0), ("none", -1.0), ("high", 1.0)):
        picture = torch.full((3, 48, 64), value)
        picture[:, 40:] *= -1 if name == "high" else 1
        write_png(tmp_path / f"{name}.png", picture if name != "high" else picture.transpose(1, 2))
    silent = tmp_path / "silent.mp4"
    write_film(silent, torch.zeros(3, 17, 48, 64), fps=8)
    video = ("--video", wide)
    cases = [
        ((*video, "--mask", tmp_path / "full.png"), "the mask hides everything"),
        ((*video, "--mask", tmp_path / "none.png"), "the mask hides nothing"),
        ((*video, "--mask", tmp_path / "high.png"), "48x64 pixels, which is neither the form of the film"),
        ((*video, "--mask", "0,0,1"), "a box has four shares"),
        ((*video, "--mask", "a,b,c,d"), "--mask takes a name, top,left,bottom,right in shares"),
        ((*video, "--mask", "middle"), "task inpaint has no mask 'middle'; it has: central, dynamic"),
        ((*video, "--mask", "absent.png"), "no such file"),
        (("x", "--mask", "central"), "--mask says which part of --video"),
        (("--task", "inpaint", *video), "task inpaint takes video and mask, got video"),
        (("--task", "stylize", "x"), "task stylize takes video, got no media"),
        (("--task", "continue_av", "--video", silent), "silent.mp4 has no sound"),
        (("--task", "continue_av", *video, "--no-sound"), "without sound nothing is left of the task continue_av"),
        (("x", "--num-frames", 41), r"num_frames must be 17 or 25"),
        (("x", "--aspect", "wide"), "aspect 'wide' is not trained"),
        (("x", "--source", "best"), "source 'best' is not one of this model's; it has: clean, raw"),
        (("x", "--given-frames", 5), "given_frames goes with continue_video"),
        (("x", "--then-from", "a.png"), "put it behind that --then"),
        (("x", "--then", " "), "the prompt is empty"),
        (("x", "--then", "y", "--extensions", 0), "--extensions 0 are fewer than the 1 --then"),
        ((*video, "--guidance-scale", 4), "--guidance-scale guides by the text of a prompt; give a PROMPT or --then"),
        (("x", "--guidance-interval", 0.5, 0.1), "guidance_interval must be two shares"),
        (("x", "--exact-first-frame"), "exact_first_frame goes with image_to_video"),
        (("x", "--paste-back"), "paste_back goes with inpaint"),
        (("x", "--num-frames", 1), "choose a .png"),
    ]
    for words, pattern in cases:
        code, _, err = generate(*words, model=empty)
        assert code == 2 and re.search(pattern, err) and len(err.splitlines()) == 1, (words, err)
    stored["config"]["tasks"] = ["text_to_video"]
    (empty / BUNDLE_FILE).write_text(json.dumps(stored))
    code, _, err = generate(*video, model=empty)
    assert code == 2 and "task continue_video is not trained in this model; trained: text_to_video" in err
    assert not list(tmp_path.glob("out*"))


# LARP generators.


@pytest.fixture
def square(tmp_path: Path) -> Path:
    path = tmp_path / "given.mp4"
    write_film(path, render_video(SCENE, size=64, num_frames=17), fps=8.0)
    return path


def test_a_class_or_the_first_frames_become_a_film_and_its_sheet(
    cinepoet: Cinepoet, larp_pair: dict[str, Path], square: Path, tmp_path: Path
) -> None:
    for words in (
        ("--model", larp_pair["class"], "--class", "star spins"),
        ("--model", larp_pair["frames"], "--video", square),
    ):
        out = tmp_path / "made.mp4"
        code, shown, fault = cinepoet("generate", *words, "--out", out, "--preview", "--profile")
        assert code == 0 and "made.mp4: 16 frames of 32x32 at 8 fps, 2.000 s, silent" in shown, fault
        assert not probe(out).has_audio and (tmp_path / "made.preview.png").exists()
        assert re.search(r"^codes .* s$", shown, re.M) and "peak memory" in shown
        (tmp_path / "made.preview.png").unlink()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--model", "CLASS", "--class", "moon"), "unknown class 'moon'; known: 0 to 38, or circle left"),
        (("--model", "CLASS", "--class", "39"), "unknown class '39'"),
        (("--model", "CLASS"), "takes either --class"),
        (("--model", "CLASS", "--class", "1", "--video", "FILM"), "takes either --class"),
        (("--model", "CLASS", "--video", "FILM"), "makes clips of classes"),
        (("--model", "FRAMES", "--class", "1"), "continues first frames"),
        (("--model", "FRAMES", "--video", "FILM", "--first-frames", "16"), "give 1 to 15 known frames"),
        (("a prompt", "--model", "CLASS"), "a PROMPT is for whole models, and "),
        (("--class", "1"), "--class is for LARP generators, and tiny is a whole model"),
        (("a prompt", "--tokenizer", "x"), "--tokenizer is for LARP generators"),
        (("a prompt", "--cfg-steps", "3"), "--cfg-steps is for LARP generators"),
        (("--model", "CLASS", "--class", "1", "--no-upscale"), "--no-upscale is for whole models"),
        (("--model", "CLASS", "--class", "1", "--first-frames", "3"), "--class takes none"),
        (("--model", "CLASS", "--class", "1", "--device", "foo"), "unknown device 'foo'"),
        (("--model", "CLASS", "--class", "1", "--cfg-steps", "3", "--guidance-scale", "1"), "give cfg_scale too"),
        (("--model", "FRAMES", "--video", "FILM", "--guidance-scale", "2"), "no null condition"),
    ],
)
def test_what_a_generator_does_not_take_is_one_line(
    cinepoet: Cinepoet,
    larp_pair: dict[str, Path],
    square: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    told: str,
) -> None:
    names = {"CLASS": larp_pair["class"], "FRAMES": larp_pair["frames"], "FILM": square}
    out = tmp_path / "no.mp4"
    code, _, fault = cinepoet("generate", *(names.get(w, w) for w in words), "--out", out)
    assert code == 2 and told in fault and fault.count("\n") == 1 and not out.exists()


def test_a_foreign_tokenizer_is_named(
    cinepoet: Cinepoet, larp_pair: dict[str, Path], bundle: Path, tmp_path: Path
) -> None:
    params = mmtok.load(larp_pair["tokenizer"]).params
    Larp(dataclasses.replace(params, codebook_size=16)).save_pretrained(tmp_path / "other")
    words = ("generate", "--model", larp_pair["class"], "--class", "1", "--out", tmp_path / "no.mp4", "--tokenizer")
    code, _, fault = cinepoet(*words, tmp_path / "other")
    assert code == 2 and "8 tokens of 16 codes, the generator was trained on 8 of 32" in fault
    code, _, fault = cinepoet(*words, bundle / "visual")
    assert code == 2 and "is not a LARP tokenizer" in fault
    shutil.copytree(larp_pair["class"], tmp_path / "alone", ignore=shutil.ignore_patterns("tokenizer"))
    code, _, fault = cinepoet("generate", "--model", tmp_path / "alone", "--class", "1", "--out", tmp_path / "no.mp4")
    assert code == 2 and "does not hold its tokenizer" in fault
    code, _, _ = cinepoet(
        "generate",
        "--model",
        tmp_path / "alone",
        "--class",
        1,
        "--tokenizer",
        larp_pair["tokenizer"],
        "--out",
        tmp_path / "a.mp4",
    )
    assert code == 0


def test_sampling_options_reach_the_model(cinepoet: Cinepoet, larp_pair: dict[str, Path], tmp_path: Path) -> None:
    seen: list[dict[str, object]] = []
    generate = LarpAR.generate

    def spied(self: LarpAR, condition: Tensor, **options: object) -> Tensor:
        seen.append(options)
        return generate(self, condition, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LarpAR, "generate", spied)
        words = ("--cfg-steps", 2, "--num-tokens", 5, "--guidance-scale", 2, "--top-k", 3, "--temperature", 0.5)
        out = tmp_path / "film.mp4"
        code, _, fault = cinepoet("generate", "--model", larp_pair["class"], "--class", 1, *words, "--out", out)
    assert code == 0, fault
    wanted = {"cfg_steps": 2, "num_tokens": 5, "cfg_scale": 2.0, "top_k": 3, "temperature": 0.5}
    assert {name: seen[0][name] for name in wanted} == wanted


def test_generate_writes_a_film_with_exact_clocks(
    film_facts: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path
) -> None:
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
    film_facts: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path, photo: Path, clip: Path, song: Path
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


def test_generate_extends_and_leaves_out(
    film_facts: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path
) -> None:
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


def test_contradictions(
    assert_refused: Callable, cinepoet: Cinepoet, bundle: Path, tmp_path: Path, clip: Path, song: Path
) -> None:
    model = ("--model", bundle)
    film, picture = ("--out", tmp_path / "f.mp4"), ("--out", tmp_path / "f.png")
    assert_refused(
        cinepoet("generate", "--video", clip, "--audio", song, *model, *film), "give one of --video and --audio"
    )
    both = ("--image", clip, "--audio", song)  # the table of tasks says what goes together, not the command
    assert_refused(cinepoet("generate", *both, *model, *film), "no task takes image and audio together")
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
    assert_refused: Callable,
    cinepoet: Cinepoet,
    bundle: Path,
    tmp_path: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
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


def test_ctrl_c_is_quiet(cinepoet: Cinepoet, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recipes.pipeline.cinepoet.CinePoetPipeline.stream", interrupted)
    code, _, err = cinepoet("generate", PROMPT, "--model", bundle, "--out", tmp_path / "f.mp4")
    assert code == 130 and err == "cinepoet: stopped\n"
    assert not list(tmp_path.iterdir())
