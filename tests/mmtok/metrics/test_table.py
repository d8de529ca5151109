"""The table of metrics: every row makes a metric that says its protocol, and what cannot be made says why."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch

from mmtok.metrics import table
from mmtok.metrics.table import METRICS, Row, make_metrics, title_of


class Network:
    """Stands for every network: the mean colour of pictures, the mean of windows."""

    source, sample_rate, window, hop, dim = "means", 16_000, 400, 200, 1

    def features(self, media: torch.Tensor) -> torch.Tensor:
        return media.flatten(2).mean(2)

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        return windows.mean(1, keepdim=True)

    def __call__(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        return (images - others).square().flatten(1).mean(1)


GIVEN = dict.fromkeys(("squeezenet", "lpips", "i3d", "embedding"), Network())


@pytest.mark.parametrize("of", ["pictures", "sound"])
def test_every_row_makes_a_metric_that_measures_and_can_be_had_again(of: str) -> None:
    if of == "sound":
        pytest.importorskip("pystoi")
    made = make_metrics(of, sample_rate=16_000, **GIVEN)
    assert set(made.ready) == {name for name, row in METRICS.items() if row.of == of} and not made.left_out
    shape = (2, 3, 3, 16, 16) if of == "pictures" else (2, 1, 16_000)
    generator = torch.Generator().manual_seed(0)
    real = (0.3 * torch.randn(shape, generator=generator)).clamp(-1, 1)
    near, far = (real + size * torch.randn(shape, generator=generator) for size in (0.02, 0.4))
    for name, metric in made.ready.items():
        metric.update(real, near)
        other = metric.another()
        other.update(real, far)
        values = [metric.value(), other.value()]
        assert all(math.isfinite(v) for v in values), (name, values)
        if name != "sharpness":  # noise is sharp
            better = max if METRICS[name].better == "higher" else min
            assert better(values) == values[0], (name, values)
        assert metric.protocol and not metric.protocol.startswith("left out"), name
    shared = [n for n, m in made.ready.items() if hasattr(m, "real") and isinstance(m.real, list)]
    assert all(made.ready[n].another().real is made.ready[n].real for n in shared) and shared  # type: ignore[attr-defined]


def test_what_is_not_there_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_metrics("pictures", without=("ssim",), squeezenet=None)
    assert {"psnr_db", "sharpness"} <= set(made.ready) and "ssim" not in {*made.ready, *made.left_out}
    assert "--squeezenet" in made.left_out["frechet_squeezenet_frames"] and "--i3d" in made.left_out["rfvd"]
    found = importlib.util.find_spec
    monkeypatch.setattr(table.importlib.util, "find_spec", lambda name: None if name == "pystoi" else found(name))
    made = make_metrics("sound", sample_rate=16_000)
    assert "pip install" in made.left_out["stoi"] and "--yamnet" in made.left_out["fad"]


def test_a_metric_is_one_class_and_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "psnr_again", Row("pictures", "again", "dB", "higher", "mmtok.metrics.visual:Psnr"))
    made = make_metrics("pictures").ready["psnr_again"]
    made.update(torch.zeros(1, 3, 1, 4, 4), torch.full((1, 3, 1, 4, 4), 0.2))
    assert made.value() == pytest.approx(20, abs=1e-3)
    assert title_of("psnr_again") == "again, dB (more is better)" and title_of("digit_accuracy") == "digit accuracy"
    with pytest.raises(ValueError, match=r"got 'smell' and 'higher' for odour"):
        Row("smell", "odour", "", "higher", "x:Y")
