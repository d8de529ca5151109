"""The prior's study runs through, resumes, and measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtok.features.squeezenet import SqueezeNet
from recipes.studies.larp_prior import FEATURE_FRAMES, FIGURES, features, main

WORDS = ["seeds=[0, 1]", "scenes=24", "samples=6", "batch_size=4", "larp.steps=2", "larp.batch_size=2"]
WORDS += ["ar.steps=2", "ar.batch_size=4", "ar.validation_rows=8", "ar.dim=32", "ar.num_heads=2", "ar.hidden_dim=32"]


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("network") / "squeeze.npz"
    np.savez(file, **{k: v.numpy() for k, v in SqueezeNet().state_dict().items()})
    return file


def test_both_variants_are_measured_and_nothing_is_repeated(squeezenet: Path, tmp_path: Path) -> None:
    words = [*WORDS, "--squeezenet", str(squeezenet), "--out", str(tmp_path), "--device", "cpu"]
    assert main([*words, "--variant", "none"]) == 0
    assert main(words) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    for variant in ("prior", "none"):
        assert result[variant]["seeds"] == 2
        for name in FIGURES:
            assert len(result[variant][name]["each"]) == 2 and np.isfinite(result[variant][name]["mean"])
        has_prior = (tmp_path / f"{variant}_0" / "larp" / "model" / "config.json").read_text()
        assert (json.loads(has_prior)["params"]["prior"] is not None) == (variant == "prior")
    assert (tmp_path / "study.png").stat().st_size > 5000
    before = (tmp_path / "prior_0" / "result.json").stat().st_mtime_ns
    assert main(words) == 0 and (tmp_path / "prior_0" / "result.json").stat().st_mtime_ns == before


def test_features_see_frames_and_motion_apart() -> None:
    torch.manual_seed(0)
    network = SqueezeNet()
    for weight in network.parameters():
        if weight.ndim > 1:
            torch.nn.init.kaiming_normal_(weight)
    still = torch.rand(2, 3, 1, 32, 32).expand(-1, -1, 16, -1, -1) * 2 - 1
    found = features(network, still)
    assert found["frames"].shape[0] == found["differences"].shape[0] == 2 * FEATURE_FRAMES
    assert float(found["differences"].std(0).max()) < 1e-3 < float(found["frames"].std(0).max())


def test_mistakes_are_one_line(squeezenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stepz=1", "--squeezenet", str(squeezenet), "--out", str(tmp_path)]) == 2
    assert main(["--squeezenet", str(tmp_path / "no.npz"), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("error: ") == 2
