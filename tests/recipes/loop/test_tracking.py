"""A chosen tracker gets the numbers of the log; without one nothing is imported."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import accelerate.tracking
import pytest

from recipes.loop import tracking
from recipes.loop.run import Run
from recipes.runtime.distributed import Ranks


@dataclass(frozen=True)
class Numbers:
    steps: int = 2
    log_every: int = 1
    save_every_s: float = 60.0
    lr: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    weights: dict[str, float] = field(default_factory=lambda: {"a": 0.5})


class Notes:
    """Stands where accelerate keeps its trackers; ``json`` is a package that is surely there."""

    requires_logging_directory = True
    made: ClassVar[list[Notes]] = []

    def __init__(self, run_name: str, logging_dir: str):
        self.told: list[Any] = [run_name, logging_dir]
        self.made.append(self)

    def start(self) -> None:
        assert not self.main_process_only  # type: ignore[attr-defined]

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.told.append(values)

    def log(self, values: dict[str, float], step: int) -> None:
        self.told.append((step, values["train/loss"]))

    def finish(self) -> None:
        self.told.append("end")


def train(folder: Path, *, writes: bool = True) -> None:
    run = Run(folder, "numbers", Numbers(), Ranks(0 if writes else 1, 2), parts={})
    for step in run.steps():
        run.log(step, {"train/loss": 1.0 / (step + 1)})
    run.finish()


@pytest.fixture(autouse=True)
def forget() -> Any:
    yield
    tracking.choose_tracker(None)


def test_a_tracker_gets_what_the_log_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "json", Notes)
    tracking.choose_tracker("json")
    train(tmp_path / "run")
    (notes,) = Notes.made
    numbers = {"steps": 2, "log_every": 1, "save_every_s": 60.0}
    config = {
        "title": "numbers",
        "folder": str(tmp_path / "run"),
        **numbers,
        "lr": 0.1,
        "sizes": "[1, 2]",
        "weights.a": 0.5,
    }
    assert notes.told == ["cinepoet", str(tmp_path / "run"), config, (0, 1.0), (1, 0.5), "end"]
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()] == [0, 1]
    train(tmp_path / "second", writes=False)
    assert len(Notes.made) == 1


def test_an_unknown_or_absent_tracker_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"unknown tracker 'paper'; known: .*tensorboard"):
        tracking.choose_tracker("paper")
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "no_such_package", Notes)
    with pytest.raises(ValueError, match="no_such_package is not installed: pip install no_such_package"):
        tracking.choose_tracker("no_such_package")
