"""What the tokenizers of a whole model lose, on scenes and on real files that were kept out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmtok.media.audio import write_wav
from mmtok.media.video import write_film
from mmtok.metrics.visual import psnr_db
from recipes.corpora.folder import MediaFolder
from recipes.corpora.shapes import render_video
from recipes.evaluate.contract import Subject, weights_of
from recipes.evaluate.held_out import held_out_scenes
from recipes.evaluate.reconstruction import evaluate_reconstruction
from recipes.pipeline.cinepoet import CinePoetPipeline

SUBJECT = Subject("random", "", "abc", "0")


@pytest.fixture(scope="module")
def pipe(bundle: Path) -> CinePoetPipeline:
    return CinePoetPipeline.from_pretrained(bundle, device="cpu")


def test_figures_are_means_over_scenes(pipe: CinePoetPipeline) -> None:
    result = evaluate_reconstruction(SUBJECT, pipe, scenes=5, size=32)
    with torch.inference_mode():
        clips = torch.stack([render_video(s, size=32, num_frames=17) for s in held_out_scenes(5)])
        again = pipe.visual.decode(pipe.visual.encode(clips))
    figures = result.figures
    assert figures["shapes/psnr_db"] == pytest.approx(float(psnr_db(again, clips).mean()), abs=2e-3)
    assert figures["shapes/log_mel_distance"] > 0 < figures["shapes/log_mel_distance_silence"]
    assert len(figures["shapes/audio_codes"]) == pipe.audio.num_codebooks and figures["shapes/visual_codes"]["used"] > 0
    assert "5 held-out scenes, 17 frames of 32x32" in result.material and result.subject == SUBJECT
    assert not any(name.startswith(("real", "all")) for name in figures)


def test_real_files_are_those_kept_out(pipe: CinePoetPipeline, tmp_path: Path) -> None:
    for name in "abc":  # the third one is kept out
        write_film(tmp_path / f"{name}.mp4", torch.rand(3, 17, 32, 32) * 2 - 1, fps=8.0)
    result = evaluate_reconstruction(SUBJECT, pipe, media=MediaFolder.open(tmp_path), scenes=1, size=32)
    assert result.figures["real/clips"] == 1 and result.figures["real/psnr_db"] > 0
    assert result.figures["real/sounds"] == 0 and "real/log_mel_distance" not in result.figures
    for name in "abc":
        write_wav(tmp_path / f"{name}.wav", 0.3 * torch.randn(16_000 * 5).clamp(-1, 1))
    result = evaluate_reconstruction(SUBJECT, pipe, media=MediaFolder.open(tmp_path), scenes=1, size=32)
    assert result.figures["real/sounds"] == 2 and result.figures["real/log_mel_distance"] > 0  # 5 s hold two pieces
    assert result.figures["all/visual_codes"]["used"] >= result.figures["shapes/visual_codes"]["used"]


def test_the_command(cinepoet: Callable[..., tuple[int, str, str]], bundle: Path, tmp_path: Path) -> None:
    words = ("evaluate", "reconstruction", "--model", bundle)
    code, shown, err = cinepoet(*words, "--scenes", 1, "--size", 32, "--out", tmp_path)
    assert code == 0, err
    assert json.loads(shown) == json.loads((tmp_path / "reconstruction.json").read_text())
    assert json.loads(shown)["subject"]["weights"] == weights_of(bundle)
    for wrong, told in (
        (("--media-list", "x.csv"), "give --media too"),
        (("--media", tmp_path / "no"), "does not exist"),
        (("--prompts", 3), "unknown option --prompts"),
    ):
        code, _, err = cinepoet(*words, *wrong)
        assert code == 2 and told in err and err.count("\n") == 1
