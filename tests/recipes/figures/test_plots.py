"""Plots: as many panels as there are figures, whatever they are figures of."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from recipes.figures.plots import Curve, plot_panels, plot_rates, plot_steps


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_panels_stand_in_rows_and_the_caller_finishes_each(tmp_path: Path) -> None:
    seen = []
    panels = {str(i): [Curve([0, 1, 2], [1, 2, 4], "rising"), Curve([], [3])] for i in range(4)}
    plot_panels(tmp_path / "new" / "p.png", panels, size=(2, 1), title="four", finish=seen.append, dpi=50)
    assert _size(tmp_path / "new" / "p.png") == (3 * 100, 2 * 50)
    assert [axis.get_title() for axis in seen] == ["0", "1", "2", "3"]
    assert len(seen[0].lines) == 2 and list(seen[0].lines[1].get_ydata()) == [3, 3]
    plot_panels(tmp_path / "none.png", {})
    assert not (tmp_path / "none.png").exists()


def test_rates_have_a_panel_for_each_figure(tmp_path: Path) -> None:
    levels = [{"levels": k, "kbps": k / 2, "si_sdr_db": 3.0 * k, "digit_accuracy": 0.5} for k in (1, 2)]
    plot_rates({"mine": {"levels": levels}, "other": {"levels": [levels[0] | {"fad": 2.0}]}}, tmp_path / "r.png")
    assert _size(tmp_path / "r.png") == (3 * 450, 306)


def test_steps_have_the_levels_of_other_methods(tmp_path: Path) -> None:
    methods = {
        name: {"psnr_db": 30.0 + i} for i, name in enumerate(("bicubic", "bicubic_of_tokens", "ceiling", "ours"))
    }
    steps = {count: {"psnr_db": 31.0, "seconds_per_clip": float(count)} for count in ("4", "12")}
    plot_steps({"shapes": {"methods": methods, "steps": steps}, "real": {"methods": methods}}, tmp_path / "s.png")
    assert _size(tmp_path / "s.png") == (2 * 324, 288)
