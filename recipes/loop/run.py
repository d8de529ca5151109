"""One training run: a folder with config, log, curves and a checkpoint that resumes where it stopped.

    learner = Learner(model, config.optim, steps=config.steps)
    run = Run(folder, "magvit2", config, ranks, parts={"model": model, **learner.parts})
    for step in run.steps():                    # from the checkpoint where there is one; saves behind the body
        loss = ...
        loss.backward()
        rates = learner.step(step)
        if run.logs(step):
            run.log(step, {"train/loss": loss.detach()} | rates)
    return run.finish(learner.average)

Data and noise of a step are drawn from ``step_generator(seed, step)``, so a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rich.progress import TextColumn
from torch import nn

from mmtok.contract import VisualTokenizer
from mmtok.files import write_atomically
from recipes.figures.plots import Curve, plot_panels
from recipes.figures.sheets import reconstruction_sheet
from recipes.loop.average import evaluating
from recipes.loop.checkpoint import FileStore, LoopState, Store
from recipes.loop.tracking import open_tracker
from recipes.runtime.config import to_dict
from recipes.runtime.distributed import ALONE, Ranks
from recipes.runtime.progress import progress_bar
from recipes.runtime.records import same_config

AGREE_EVERY = 10  # steps between two questions to the first process whether it is time to save


@dataclass(frozen=True)
class TrainConfig:
    """What every training is told.

    Attributes:
        seed: of weights, data and every draw.
        log_every: steps between log lines.
        save_every_s: seconds between checkpoints.
    """

    seed: int = 0
    log_every: int = 10
    save_every_s: float = 120.0

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run, a number of each program's own."""
        raise NotImplementedError


class Run:
    """A run folder and its visible loop.

    Args:
        folder: where config.json, log.jsonl, curves.png and checkpoint.pt live; created.
        title: shown beside the progress bar.
        config: saved as config.json; a run whose saved config differs refuses to resume.
        ranks: this process among others; the first one writes, and all save together where the store is joint.
        parts: name to object with ``state_dict`` and ``load_state_dict``, all that a resumed run needs.
        store: where checkpoints lie; None is checkpoint.pt in the folder.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        config: TrainConfig,
        ranks: Ranks = ALONE,
        *,
        parts: dict[str, Any],
        store: Store | None = None,
    ):
        self.folder, self.title, self.config, self.ranks, self.parts = Path(folder), title, config, ranks, parts
        self.state = LoopState()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._numbers = json.dumps(to_dict(config), indent=1, sort_keys=True)
        self._store: Store = store if store is not None else FileStore(self.folder / "checkpoint.pt")
        self._log = self.folder / "log.jsonl"
        self._started = self._last_save = self._last_look = time.monotonic()
        self._shown = ""
        self._tracker: Any = None

    def steps(self) -> Iterator[int]:
        """Step numbers behind a progress bar, from where the checkpoint stopped; due checkpoints follow a step's body.

        Yields:
            Up to the last step of the run.

        Raises:
            ValueError: if the folder holds a run of another config.
        """
        self._resume()
        self._started = self._last_save = self._last_look = time.monotonic()
        if self.ranks.is_main:
            self._tracker = open_tracker(self.title, self.folder, self._numbers)
        with progress_bar(TextColumn("{task.fields[shown]}"), console=None, disable=not self.ranks.is_main) as bar:
            task = bar.add_task(self.title, total=self.config.steps, completed=self.state.step, shown="")
            for step in range(self.state.step, self.config.steps):
                yield step
                self.maybe_save(step)
                bar.update(task, completed=step + 1, shown=self._shown)

    def _resume(self) -> None:
        """Fill the parts and the loop's state from the checkpoint when there is one."""
        config_file = self.folder / "config.json"
        if not self._store.exists():
            if self.ranks.is_main:
                write_atomically(config_file, self._numbers)
                self._log.unlink(missing_ok=True)
            return
        same_config(self.folder, self.config)
        self.state = self._store.load(self.parts)
        torch.set_rng_state(self.state.rng)
        if self.ranks.is_main:
            lines = self._log.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)["step"] < self.state.step]
            write_atomically(self._log, "".join(line + "\n" for line in kept))

    def _last(self, step: int) -> bool:
        return step + 1 == self.config.steps

    def logs(self, step: int) -> bool:
        """Whether a line of the log is due: every ``log_every`` steps, and at the end."""
        return step % self.config.log_every == 0 or self._last(step)

    def validates(self, step: int, every: int) -> bool:
        """Whether a validation is due, behind each ``every`` steps and at the end.

        Args:
            step: the step just done.
            every: steps between validations.

        Returns:
            The same for all processes.
        """
        return (step + 1) % every == 0 or self._last(step)

    def looks(self, every_s: float) -> bool:
        """Whether the last sheet of pictures is ``every_s`` seconds ago; the first process alone draws."""
        if not self.ranks.is_main or time.monotonic() - self._last_look < every_s:
            return False
        self._last_look = time.monotonic()
        return True

    def show(self, model: nn.Module, clips: Sequence[torch.Tensor], every_s: float = 0.0) -> None:
        """Draw reconstructions.png, where the last one is old.

        Args:
            model: a visual tokenizer.
            clips: shown, (b, 3, t, h, w) each.
            every_s: seconds between two.
        """
        if self.looks(every_s):
            device = next(model.parameters()).device
            with evaluating(model):
                reconstruction_sheet(
                    cast(VisualTokenizer, model),
                    [clip.to(device) for clip in clips],
                    self.folder / "reconstructions.png",
                )

    def log(self, step: int, values: dict[str, float | torch.Tensor]) -> None:
        """Append one line to log.jsonl and show the losses beside the bar.

        Args:
            step: the step the values belong to.
            values: grouped names such as ``train/loss``.

        Raises:
            FloatingPointError: if a value named ``*loss*`` is not finite.
        """
        plain = {k: float(v) for k, v in values.items()}
        for name, value in plain.items():
            if "loss" in name and value != value:
                raise FloatingPointError(f"{name} is not a number at step {step} of {self.title}")
        if not self.ranks.is_main:
            return
        plain["perf/seconds"] = round(self.state.elapsed_s + time.monotonic() - self._started, 2)
        with self._log.open("a") as file:
            file.write(json.dumps({"step": step, **plain}) + "\n")
        if self._tracker is not None:
            self._tracker.log(plain, step=step)
        self._shown = "  ".join(f"{k.split('/')[-1]} {v:.3g}" for k, v in list(plain.items())[:3])

    def save(self, next_step: int) -> None:
        """Write the checkpoint, from which a resumed run starts with ``next_step``, and the curves, atomically."""
        if not (self.ranks.is_main or self._store.joint):
            return
        elapsed = self.state.elapsed_s + time.monotonic() - self._started
        self._store.save(LoopState(next_step, elapsed, torch.get_rng_state()), self.parts)
        if self.ranks.is_main:
            self.plot()
        self._last_save = time.monotonic()

    def maybe_save(self, step: int) -> None:
        """``save`` when the last one is ``save_every_s`` ago."""
        due = time.monotonic() - self._last_save >= self.config.save_every_s
        if self._store.joint and self.ranks.world > 1:  # one that saved alone would wait for ever, and asking costs
            due = step % AGREE_EVERY == 0 and self.ranks.from_first(due)
        if due:
            self.save(step + 1)

    def finish(self, model: Any = None) -> Path:
        """Final checkpoint and curves, and what was learned.

        Args:
            model: saved by the first process; None where a program writes it in its own way.

        Returns:
            ``folder / "model"``.
        """
        self.save(self.config.steps)
        if self._tracker is not None:
            self._tracker.finish()
        if model is not None and self.ranks.is_main:
            model.eval()
            model.save_pretrained(self.folder / "model")
        return self.folder / "model"

    def read_log(self) -> list[dict[str, float]]:
        """All logged lines, oldest first."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def plot(self) -> None:
        """Draw curves.png: one panel for every logged name but the clock."""
        rows, panels = self.read_log(), {}
        for name in sorted({k for row in rows for k in row} - {"step", "perf/seconds"}):
            told = [row for row in rows if name in row]
            panels[name] = [Curve([row["step"] for row in told], [row[name] for row in told], style={"linewidth": 1})]
        plot_panels(self.folder / "curves.png", panels, size=(5, 3), title=self.title, dpi=80)
