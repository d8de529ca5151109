"""Who was measured, on what, by which metrics: the loop that evaluators share, and results that name their model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmtok.metrics.table import Metrics, make_metrics
from recipes.evaluate.contract import Material, Result, Subject, evaluate, subject_named, subject_of, weights_of


def darker(clip: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return clip, {"most": 0.9 * clip, "half": 0.5 * clip, "black": 0 * clip}


def subject(again=darker, **changes: str) -> Subject:
    return dataclasses.replace(Subject("model", "runs/model", "abc", "0.1.0", again=again), **changes)


CLIPS = [torch.rand(2, 3, 2, 16, 16, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in range(2)]


def test_every_version_is_compared_by_every_metric() -> None:
    made = make_metrics("pictures")
    result = evaluate("darker", subject(), Material("four clips", iter(CLIPS)), made, only={"black": ("psnr_db",)})
    assert list(result.figures) == ["most", "half", "black"]
    whole = torch.cat(CLIPS)
    for version, share in (("most", 0.1), ("half", 0.5), ("black", 1.0)):
        error = (share * whole).square().flatten(1).mean(1)
        wanted = float((10 * torch.log10(4 / error)).mean())
        assert result.figures[version]["psnr_db"] == pytest.approx(wanted, abs=1e-4)
    assert set(result.figures["black"]) == {"psnr_db"} and result.figures["half"]["sharpness"] == 0.25
    assert set(result.protocol) == set(made.ready) | set(made.left_out) and "--i3d" in result.protocol["rfvd"]
    assert result.material == "four clips" and result.subject.again is None


def test_equal_pictures_are_null_and_what_cannot_be_told_is_absent() -> None:
    material = Material("one clip", [torch.zeros(1, 3, 1, 8, 8)])
    result = evaluate("same", subject(lambda x: (x, {"same": x})), material, make_metrics("pictures"))
    assert result.figures["same"] == {"psnr_db": None}  # no edges, and too small for ssim
    json.loads(json.dumps(result.record(), allow_nan=False))
    with pytest.raises(ValueError, match="nothing to measure: no clips"):
        evaluate("same", subject(), Material("no clips"), Metrics({}, {}))


def test_a_result_is_read_back(tmp_path: Path) -> None:
    result = Result("prompts", subject(None), "two captions", {"way": "sampled"}, {"generated": {"colour": 50.0}})
    assert result.save(tmp_path / "out") == tmp_path / "out" / "prompts.json"
    assert Result.load(tmp_path / "out" / "prompts.json") == result
    assert result.save(tmp_path, "other").name == "other.json"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, r"does not exist; make it with cinepoet evaluate tasks --model M --out "),
        ("{", "is damaged"),
        ('{"protocol": "2 scenes", "tasks": {}}', "does not say which model it measured; measure again"),
        ('{"subject": {"name": "x"}}', "holds no whole result"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "tasks.json").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        Result.load(tmp_path / "tasks.json")


def test_weights_have_a_name(tmp_path: Path) -> None:
    for part in ("lm", "visual"):
        (tmp_path / part).mkdir()
        save_file({"w": torch.ones(2)}, tmp_path / part / "model.safetensors")
    whole = weights_of(tmp_path)
    (tmp_path / "README.md").write_text("a card is no weight")
    assert weights_of(tmp_path) == whole != weights_of(tmp_path / "lm") and len(whole) == 64
    save_file({"w": torch.tensor([1.0, 1.5])}, tmp_path / "lm" / "model.safetensors")
    assert weights_of(tmp_path) != whole
    (tmp_path / "cinepoet.json").write_text('{"config": {"temperature": 1.0}, "card": {"seed": 1}}')
    whole = weights_of(tmp_path)
    (tmp_path / "cinepoet.json").write_text('{"config": {"temperature": 1.0}, "card": {"seed": 2}}')
    assert weights_of(tmp_path) == whole, "the record of a training changes no figure"
    (tmp_path / "cinepoet.json").write_text('{"config": {"temperature": 5.0}, "card": {"seed": 2}}')
    assert weights_of(tmp_path) != whole, "a model that samples otherwise is another"
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no model that could be measured"):
        weights_of(tmp_path / "empty")
    module = torch.nn.Linear(2, 2)
    before = weights_of(module)
    assert before == weights_of(module)
    torch.nn.init.zeros_(module.weight)
    assert weights_of(module) != before


def test_a_result_is_refused_as_that_of_another_model(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    told = subject_of("mine", tmp_path)
    result = Result("prompts", told, "", {}, {})
    assert result.require_model(tmp_path, Path("prompts.json")) is result and told.folder == str(tmp_path)
    save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"prompts.json measured mine \(weights \w{12}\), not .*measure it with"):
        result.require_model(tmp_path, Path("prompts.json"))


def test_figures_of_fewer_bits_are_no_figures_of_the_model(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    assert subject_named(str(tmp_path), lm_weights="float32").options == ""
    told = subject_named(str(tmp_path), lm_weights="int8")
    path = Result("prompts", told, "", {}, {}).save(tmp_path)
    with pytest.raises(ValueError, match=r"measured the model with --lm-weights int8; a card states it as it is"):
        Result.load(path).require_model(tmp_path, path)
