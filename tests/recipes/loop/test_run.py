"""recipes/loop/run.py: it resumes where it stopped, refuses other numbers, and says when what is due."""

import json
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn

from recipes.loop.checkpoint import LoopState
from recipes.loop.learner import Learner, Optim
from recipes.loop.run import Run
from recipes.runtime.distributed import ALONE, Ranks


@dataclass(frozen=True)
class Numbers:
    steps: int = 5
    log_every: int = 2
    save_every_s: float = 3600.0
    optim: Optim = field(default_factory=Optim)


@pytest.fixture(autouse=True)
def no_curves(request, monkeypatch):
    if "curves" not in request.node.name:
        monkeypatch.setattr(Run, "plot", lambda self: None)


def train(folder, config=None, *, ranks=ALONE, stop=None):
    """A program of one weight, whose data are torch's own random numbers; returns the weights after each step."""
    config, seen = config or Numbers(), []
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    learner = Learner(model, config.optim, steps=config.steps)
    run = Run(folder, "numbers", config, ranks, parts={"model": model, **learner.parts})
    for step in run.steps():
        loss = model(torch.rand(3, 1)).square().mean()
        loss.backward()
        rates = learner.step(step)
        seen.append(model.weight.item())
        if run.logs(step):
            run.log(step, {"train/loss": loss.detach(), **rates})
        if step == stop:
            raise KeyboardInterrupt
    run.finish()
    return seen


def test_resuming_equals_not_stopping(tmp_path):
    whole = train(tmp_path / "whole")
    eager = Numbers(save_every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "halves", eager, stop=3)  # killed in the step after the last checkpoint
    torch.rand(7)  # the world moves on
    assert train(tmp_path / "halves", eager) == whole[3:]
    rows = [json.loads(line) for line in (tmp_path / "halves" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert train(tmp_path / "halves", eager) == [], "nothing is left"


def test_other_numbers_are_refused_and_nothing_is_overwritten(tmp_path):
    train(tmp_path)
    told = (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match="holds a run with another config; use a new folder or delete it"):
        train(tmp_path, Numbers(steps=6))
    assert (tmp_path / "config.json").read_text() == told
    (tmp_path / "config.json").write_text(json.dumps({"steps": 5, "learning_rate": 0.1, "warmup": 3}))
    with pytest.raises(ValueError, match=r"learning_rate is now optim.lr; warmup is now optim.warmup_steps"):
        train(tmp_path)


def test_what_is_due(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr("recipes.loop.run.time.monotonic", lambda: now)
    run = Run(tmp_path, "numbers", Numbers(), parts={})
    assert [step for step in range(5) if run.logs(step)] == [0, 2, 4]
    assert [step for step in range(5) if Run(tmp_path, "", Numbers(steps=4), parts={}).logs(step)] == [0, 2, 3, 4]
    assert [step for step in range(5) if run.validates(step, 2)] == [1, 3, 4]
    assert not run.looks(5.0)
    now = 106.0
    assert run.looks(5.0) and not run.looks(5.0)
    now = 112.0
    assert not Run(tmp_path, "", Numbers(), Ranks(1, 2), parts={}).looks(0.0), "the first process alone draws"


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    run = Run(tmp_path, "numbers", Numbers(), parts={})
    with pytest.raises(FloatingPointError, match="train/loss is not a number at step 3 of numbers"):
        run.log(3, {"train/loss": float("nan")})


def test_curves_are_drawn_and_the_model_is_saved_by_the_first_process(tmp_path):
    class Model:
        def eval(self):
            self.mode = "eval"

        def save_pretrained(self, folder):
            folder.mkdir()
            (folder / "mode").write_text(self.mode)

    run = Run(tmp_path, "numbers", Numbers(), parts={})
    for step in run.steps():
        run.log(step, {"train/loss": 1.0 / (step + 1)})
    assert run.finish(Model()) == tmp_path / "model" and (tmp_path / "model" / "mode").read_text() == "eval"
    assert (tmp_path / "curves.png").stat().st_size > 5000
    other = Run(tmp_path / "other", "numbers", Numbers(), Ranks(1, 2), parts={})
    assert not (other.finish(Model())).exists() and not (tmp_path / "other" / "log.jsonl").exists()


def test_time_is_counted_over_all_sittings(tmp_path):
    train(tmp_path, replace(Numbers(), log_every=1))
    run = Run(tmp_path, "numbers", replace(Numbers(), log_every=1), parts={})
    run.state = LoopState(5, 100.0)
    run.log(5, {"train/loss": 0.0})
    assert run.read_log()[-1]["perf/seconds"] >= 100.0
