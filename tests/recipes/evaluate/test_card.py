"""The card of a model: what was measured of it, and of no other."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from recipes.bundle.folder import open_bundle
from recipes.evaluate.card import model_card, write_card
from recipes.evaluate.contract import Result, Subject, subject_of

RIGHT = {"colour": 100.0, "shape": 50.0}
USE = {"used": 0.25, "entropy_bits": 3.5}
FIGURES = {
    "prompts": {"seconds_per_film": 1.5, "generated": RIGHT, "ground_truth": RIGHT},
    "reconstruction": {
        "shapes/psnr_db": 28.34,
        "shapes/log_mel_distance": 0.29,
        "shapes/log_mel_distance_silence": 2.9,
        "shapes/visual_codes": USE,
        "shapes/audio_codes": [USE, USE],
    },
    "tasks": {"not_trained": [], "tasks": {"inpaint central": {"psnr_db": 21.5, "fill_psnr_db": 7.29}}},
    "superres": {"sets": {"shapes": {"methods": {"ours": {"psnr_db": 26.1, "lpips": 1234.5}, "bicubic": {}}}}},
}
REAL = {
    "real/clips": 2,
    "real/psnr_db": 21.06,
    "real/sounds": 3,
    "real/log_mel_distance": 0.86,
    "real/log_mel_distance_silence": 4.53,
    "all/visual_codes": USE,
    "all/audio_codes": [USE, USE],
}


def _measured(subject: Subject, of: str, folder: Path, figures: dict | None = None) -> Result:
    protocol = {"way": "32x32 -> 64x64", "seed": "0"}
    result = Result(of, subject, f"what {of} were measured on", protocol, figures or FIGURES[of])
    result.save(folder)
    return result


def test_a_card_tells_what_was_measured(bundle: Path, tmp_path: Path) -> None:
    subject, opened = subject_of("random", bundle), open_bundle(bundle)
    for of in ("prompts", "reconstruction"):
        _measured(subject, of, tmp_path)
    text = model_card(opened, tmp_path, "## Limits")
    assert text.startswith("# cinepoet random\n") and text.endswith("## Limits\n")
    assert "what prompts were measured on; 1.5 s a film in batches." in text
    assert "| generated, 32x32 | 100.0 % | 50.0 % |" in text and "| pictures, held-out shapes | 28.3 dB |" in text
    assert "every other task" not in text and "real" not in text
    _measured(subject, "reconstruction", tmp_path, FIGURES["reconstruction"] | REAL)
    for of in ("tasks", "superres"):
        _measured(subject, of, tmp_path)
    text = model_card(opened, tmp_path)
    assert "| inpaint central | hidden region 21.5 dB, its fill 7.3 dB |" in text
    assert "32x32 -> 64x64, seed 0. What superres were measured on." in text
    assert "| shapes, ours | 26.10 | 1,234 |" in text and "| shapes, bicubic |  |  |" in text
    assert "2 real clips kept out of training | 21.1 dB" in text and "25 %, 3.5 bits" in text


@pytest.mark.parametrize("of", ["prompts", "superres"])
def test_figures_of_another_model_are_refused(
    bundle: Path, tmp_path: Path, of: str, cinepoet: Callable[..., tuple[int, str, str]]
) -> None:
    """A model trained for some steps more must not show the figures of the one before."""
    mine, results = tmp_path / "mine", tmp_path / "results"
    shutil.copytree(bundle, mine)
    for name in ("prompts", "reconstruction", of):
        _measured(subject_of("mine", mine), name, results)
    words = ("evaluate", "card", "--model", mine, "--results", results)
    assert cinepoet(*words)[0] == 0
    card = (mine / "README.md").read_text()
    _measured(subject_of("random", bundle), of, results)
    assert cinepoet(*words)[0] == 0, "the same weights at another place are the same model"
    weights = load_file(mine / "lm" / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: torch.zeros_like(weights[name])}, mine / "lm" / "model.safetensors")
    code, _, err = cinepoet(*words)
    assert code == 2 and err.count("\n") == 1
    assert "prompts.json measured" in err and f"measure it with cinepoet evaluate prompts --model {mine}" in err
    assert (mine / "README.md").read_text() == card


def test_results_that_name_no_model_are_refused(bundle: Path, tmp_path: Path) -> None:
    opened, subject = open_bundle(bundle), subject_of("random", bundle)
    with pytest.raises(FileNotFoundError, match="make it with cinepoet evaluate prompts"):
        model_card(opened, tmp_path)
    for of in ("prompts", "reconstruction"):
        _measured(subject, of, tmp_path)
    (tmp_path / "tasks.json").write_text('{"protocol": "100 scenes", "tasks": {}}')  # of before results named a model
    with pytest.raises(ValueError, match=r"tasks.json does not say which model it measured; measure again with"):
        model_card(opened, tmp_path)


def test_a_result_of_another_kind_is_refused(bundle: Path, tmp_path: Path) -> None:
    subject = subject_of("random", bundle)
    _measured(subject, "reconstruction", tmp_path).save(tmp_path, "prompts")
    with pytest.raises(ValueError, match=r"prompts.json holds a result of evaluate reconstruction; prompts is needed"):
        model_card(open_bundle(bundle), tmp_path)


def test_a_result_that_lacks_a_figure_is_told(bundle: Path, tmp_path: Path) -> None:
    subject = subject_of("random", bundle)
    _measured(subject, "reconstruction", tmp_path)
    _measured(subject, "prompts", tmp_path, {"generated": RIGHT})
    with pytest.raises(ValueError, match="lacks the figure 'seconds_per_film'; measure again"):
        write_card(open_bundle(bundle), tmp_path)


def test_a_card_is_written_into_its_model(bundle: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    shutil.copytree(bundle, tmp_path / "model")
    for of in ("prompts", "reconstruction"):
        _measured(subject_of("random", bundle), of, tmp_path)
    path = write_card(dataclasses.replace(opened, folder=tmp_path / "model"), tmp_path)
    assert path == tmp_path / "model" / "README.md" and "## Measured" in path.read_text()
