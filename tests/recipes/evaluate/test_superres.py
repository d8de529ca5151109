"""cinepoet evaluate superres: every method on the same clips, seams, and the curve over steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmtok.media.resize import resized
from recipes.corpora.shapes import ShapesCorpus, render_video
from recipes.evaluate.contract import Subject, weights_of
from recipes.evaluate.held_out import Clips
from recipes.evaluate.superres import METHODS, _closed, evaluate_superres, lanczos
from recipes.pipeline.cinepoet import CinePoetPipeline

SCENES = tuple(ShapesCorpus(0, "heldout").scene(i) for i in range(2))
SUBJECT = Subject("random", "", "abc", "0")


class Mean:
    """Stands for a network: the colours of each picture's four quarters."""

    source = "means"

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def drawn(size: int, frames: int = 5, count: int = 2) -> Clips:
    clips = torch.stack([render_video(s, size=size, num_frames=frames) for s in SCENES[:count]])
    return Clips(((clips + 1) * 127.5).round().to(torch.uint8), "two scenes", SCENES[:count])


@pytest.fixture(scope="module")
def pipe(bundle: Path) -> CinePoetPipeline:
    return CinePoetPipeline.from_pretrained(bundle, device="cpu")


def test_every_method_is_measured_on_the_same_clips(pipe: CinePoetPipeline, tmp_path: Path) -> None:
    told = evaluate_superres(
        SUBJECT,
        pipe,
        {"shapes": drawn(64)},
        films={"shapes": drawn(64, frames=18, count=1)},
        steps=(1, 2),
        networks={"squeezenet": Mean()},
        batch_size=1,
        folder=tmp_path,
    )
    result = told.figures
    shapes = result["sets"]["shapes"]
    assert shapes["material"].startswith("2 clips of 5 frames of 64x64") and "shapes: 2 clips" in told.material
    assert "10 + 10 vectors" in shapes["protocol"]["frechet_squeezenet_frames"]
    assert "8 + 8 vectors" in shapes["protocol"]["frechet_squeezenet_differences"]
    assert set(shapes["methods"]) == set(METHODS)
    video = drawn(64).pixels.float() / 127.5 - 1
    again = resized(resized(video, (32, 32)), (64, 64))
    error = (again - video).square().flatten(1).mean(1)
    expected = float((10 * torch.log10(4 / error)).mean())
    assert shapes["methods"]["bicubic"]["psnr_db"] == pytest.approx(expected, abs=2e-3)
    assert shapes["methods"]["bicubic"]["sharpness"] < 1.0 < shapes["methods"]["ours"]["sharpness"], "ours is random"
    assert shapes["text_following_percent"]["original"]["colour"] == 100.0
    assert set(shapes["text_following_percent"]) == {*METHODS, "original", "before"}
    # the bundle itself takes two steps, so that point of the curve is the same films
    ours = shapes["methods"]["ours"]
    assert {name: shapes["steps"]["2"][name] for name in ours} == ours
    assert shapes["steps"]["1"]["frechet_squeezenet_frames"] != ours["frechet_squeezenet_frames"]
    seams = result["films"]["shapes"]
    assert "1 films of 18 frames in 2 windows that share 9" in seams["material"]
    assert set(seams["seams"]) == {"time"} and seams["seams"]["time"]["original"] < 2
    assert "32x32 -> 64x64 (superres, 2 steps)" in told.protocol["way"]
    for name in ("superres.png", "superres_steps.png"):
        assert Image.open(tmp_path / name).size[0] > 100


def test_tiles_have_seams_too(pipe: CinePoetPipeline) -> None:
    result = evaluate_superres(
        SUBJECT, pipe, {"a": drawn(128, count=1)}, films={"a": drawn(128, frames=2, count=1)}, to=128
    ).figures
    assert set(result["films"]["a"]["seams"]) == {"rows", "columns"}  # two pictures are one window


def test_the_closed_share_goes_from_bicubic_to_the_ceiling() -> None:
    values = {"bicubic": 10.0, "bicubic_of_tokens": 14.0, "ours": 5.0, "ceiling": 2.0}
    figures: dict[str, dict[str, float | None]] = {n: {"lpips": v, "psnr_db": v} for n, v in values.items()}
    shares = _closed(figures, figures["ours"])
    assert shares == {"bicubic": {"lpips": 62.5}, "bicubic_of_tokens": {"lpips": 75.0}}
    figures["ceiling"] = {"lpips": 11.0}
    shares = _closed(figures, figures["ours"])
    assert shares == {"bicubic": {"lpips": None}, "bicubic_of_tokens": {"lpips": 300.0}}


def test_lanczos_is_that_of_pillow() -> None:
    video = torch.rand(2, 3, 2, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    out = lanczos(video, (16, 24))
    assert out.shape == (2, 3, 2, 16, 24)
    pixels = ((video[1, :, 1] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    wanted = Image.fromarray(pixels).resize((24, 16), Image.Resampling.LANCZOS)
    shown = ((out[1, :, 1] + 1) * 127.5).round().byte().permute(1, 2, 0)
    assert shown.numpy().tobytes() == wanted.tobytes()


def test_the_embedded_model_is_measured() -> None:
    tiny = CinePoetPipeline.from_pretrained("tiny", device="cpu")
    result = evaluate_superres(SUBJECT, tiny, {"shapes": drawn(128, count=1)}, changes={"num_steps": 2}).figures
    methods = result["sets"]["shapes"]["methods"]
    assert methods["ceiling"]["psnr_db"] > 20 and methods["ours"]["psnr_db"] > 15, methods
    assert methods["bicubic_of_tokens"]["sharpness"] < methods["ceiling"]["sharpness"]


def test_from_the_command_line(cinepoet: Callable[..., tuple[int, str, str]], bundle: Path, tmp_path: Path) -> None:
    words: list[Any] = ["evaluate", "superres", "--model", bundle]
    code, shown, err = cinepoet(*words, "--scenes", 1, "--films", 1, "--out", tmp_path / "out")
    assert code == 0, err
    result = json.loads(shown)
    assert "1 films of 41 frames in 4 windows" in result["figures"]["films"]["shapes"]["material"]
    assert result["subject"]["weights"] == weights_of(bundle)
    assert result == json.loads((tmp_path / "out" / "superres.json").read_text())
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"superres.json", "superres.png"}
    for wrong, message in (
        (("--to", 100), "100 pixels cannot be reached: this model doubles 32 to one of 64, 128, 256, 512"),
        (("--media", tmp_path / "no"), "does not exist"),
        (("--every-file",), "--every-file is for --media"),
        (("--prompts", 3), "unknown option --prompts"),
    ):
        code, _, err = cinepoet(*words, *wrong)
        assert code == 2 and message in err and err.count("\n") == 1, err
