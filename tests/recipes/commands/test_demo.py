"""cinepoet demo: three films from nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Cinepoet = Callable[..., tuple[int, str, str]]


def test_demo(cinepoet: Cinepoet, bundle: Path, tmp_path: Path) -> None:
    code, shown, err = cinepoet("demo", "--model", bundle, "--out", tmp_path / "films")
    assert code == 0, err
    names = sorted(p.name for p in (tmp_path / "films").iterdir())
    assert [n for n in names if n.endswith(".mp4")] == ["blue-square.mp4", "green-triangle.mp4", "red-circle.mp4"]
    assert len(names) == 6 and str(tmp_path / "films") in shown and "cinepoet generate" in shown
