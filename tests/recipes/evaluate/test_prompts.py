"""Films from captions that training never saw, read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from recipes.evaluate.contract import Result, Subject, weights_of
from recipes.evaluate.prompts import CEILINGS, evaluate_prompts
from recipes.pipeline.cinepoet import CinePoetPipeline

Cinepoet = Callable[..., tuple[int, str, str]]


def test_the_command(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    words = ("--prompts", 2, "--batch-size", 2, "--no-upscale", "--out", out)
    code, shown, err = cinepoet("evaluate", "prompts", "--model", bundle, *words)
    assert code == 0, err
    result = Result.load(out / "prompts.json")
    assert result.record() == json.loads(shown) and result.subject.weights == weights_of(bundle)
    assert set(result.figures["generated"]) == {"colour", "shape", "motion", "pitch"}
    assert set(result.figures) == {"seconds_per_film", "generated", "ground_truth", "reconstructed"}
    with Image.open(out / "films.png") as sheet:
        assert sheet.size == (2 * 5 * 32, 32)


def test_the_ground_truth_is_read_right_and_upscaled_films_are_the_same_ones(bundle: Path) -> None:
    pipe = CinePoetPipeline.from_pretrained(bundle, device="cpu")
    subject = Subject("random", "", "abc", "0")
    result = evaluate_prompts(subject, pipe, prompts=3, batch_size=2, seed=7)
    assert {"generated", "upscaled", *CEILINGS} < set(result.figures)
    assert set(result.figures["ground_truth"].values()) == {100.0}
    assert "3 captions" in result.material and "sampling seed 7" in result.material and result.subject == subject
    with pytest.raises(ValueError, match="prompts must be positive, got 0"):
        evaluate_prompts(subject, pipe, prompts=0)
