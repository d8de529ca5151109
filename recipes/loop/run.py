"""One training run: a folder with config, log, curves and a checkpoint that resumes where it stopped.

    run = Run(folder, title="magvit2", total_steps=1000, config=config)
    step = run.resume({"model": model, "optimizer": optimizer})
    for step in run.steps(step):
        ...one visible optimizer step...
        run.log(step, {"train/loss": loss})
        run.maybe_save(step, {"model": model, "optimizer": optimizer})
    run.finish({"model": model, "optimizer": optimizer})

Data and noise of a step are drawn from ``step_generator(seed, step)``, so a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmtok.files import write_atomically, writing
from recipes.loop.checkpoint import FileStore, Store
from recipes.loop.tracking import open_tracker
from recipes.runtime.config import to_dict
from recipes.runtime.distributed import ALONE, Ranks

AGREE_EVERY = 10  # steps between two questions to the first process whether it is time to save


class Run:
    """A run folder and its visible loop.

    Args:
        folder: where config.json, log.jsonl, curves.png and checkpoint.pt live; created.
        title: shown beside the progress bar.
        total_steps: optimizer steps of the whole run.
        config: a dataclass, saved as config.json; a run whose saved config differs refuses to resume.
        save_every_s: seconds between checkpoints.
        writes: False for a process that only takes part: it reads the checkpoint and leaves all files alone.
        store: where checkpoints lie; None is checkpoint.pt in the folder.
        ranks: this process among others; they save together where the store is joint.
    """

    def __init__(
        self,
        folder: Path,
        *,
        title: str,
        total_steps: int,
        config: Any,
        save_every_s: float = 120.0,
        writes: bool = True,
        store: Store | None = None,
        ranks: Ranks = ALONE,
    ):
        self.folder, self.title, self.total_steps = Path(folder), title, total_steps
        self.save_every_s, self.writes, self.ranks = save_every_s, writes, ranks
        self.folder.mkdir(parents=True, exist_ok=True)
        self._config = json.dumps(to_dict(config), indent=1, sort_keys=True)
        self._store: Store = store if store is not None else FileStore(self.folder / "checkpoint.pt")
        self._log = self.folder / "log.jsonl"
        self._last_save = time.monotonic()
        self._started = time.monotonic()
        self.elapsed_s = 0.0
        self._shown = ""
        self._tracker: Any = None

    def resume(self, parts: dict[str, Any]) -> int:
        """Load the checkpoint into ``parts`` when there is one.

        Args:
            parts: name to object with ``load_state_dict``; the same names as given to ``maybe_save``.

        Returns:
            The step to continue from, 0 for a new run.

        Raises:
            ValueError: if the folder holds a run of another config.
        """
        config_file = self.folder / "config.json"
        if not self._store.exists():
            if self.writes:
                write_atomically(config_file, self._config)
                self._log.unlink(missing_ok=True)
            return 0
        if config_file.read_text() != self._config:
            raise ValueError(f"{self.folder} holds a run with another config; use a new folder or delete it")
        state = self._store.load(parts)
        torch.set_rng_state(state["rng"])
        self.elapsed_s = state["elapsed_s"]
        if not self.writes:
            return int(state["step"])
        kept = [line for line in self._log.read_text().splitlines() if json.loads(line)["step"] < state["step"]]
        write_atomically(self._log, "".join(line + "\n" for line in kept))
        return state["step"]

    def steps(self, start: int) -> Iterator[int]:
        """Step numbers from ``start`` behind a progress bar with time left.

        Args:
            start: the first step, as returned by ``resume``.

        Yields:
            start, start + 1, ... total_steps - 1.
        """
        self._started = self._last_save = time.monotonic()
        if not self.writes:
            yield from range(start, self.total_steps)
            return
        self._tracker = open_tracker(self.title, self.folder, self._config)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[shown]}")) as bar:
            task = bar.add_task(self.title, total=self.total_steps, completed=start, shown="")
            for step in range(start, self.total_steps):
                yield step
                bar.update(task, completed=step + 1, shown=self._shown)

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
        if not self.writes:
            return
        plain["perf/seconds"] = round(self.elapsed_s + time.monotonic() - self._started, 2)
        with self._log.open("a") as file:
            file.write(json.dumps({"step": step, **plain}) + "\n")
        if self._tracker is not None:
            self._tracker.log(plain, step=step)
        self._shown = "  ".join(f"{k.split('/')[-1]} {v:.3g}" for k, v in list(plain.items())[:3])

    def save(self, next_step: int, parts: dict[str, Any]) -> None:
        """Write the checkpoint and the curves, atomically.

        Args:
            next_step: the step a resumed run starts with.
            parts: name to object with ``state_dict``.
        """
        if not (self.writes or self._store.joint):
            return
        elapsed = self.elapsed_s + time.monotonic() - self._started
        self._store.save({"step": next_step, "rng": torch.get_rng_state(), "elapsed_s": elapsed}, parts)
        if self.writes:
            self.plot()
        self._last_save = time.monotonic()

    def maybe_save(self, step: int, parts: dict[str, Any]) -> None:
        """``save`` when the last one is ``save_every_s`` ago.

        Args:
            step: the step just finished.
            parts: as in ``save``.
        """
        due = time.monotonic() - self._last_save >= self.save_every_s
        if self._store.joint and self.ranks.world > 1:  # all must agree, and asking costs a little
            due = step % AGREE_EVERY == 0 and self.ranks.agree(due)
        if due:
            self.save(step + 1, parts)

    def finish(self, parts: dict[str, Any]) -> None:
        """Final checkpoint and curves.

        Args:
            parts: as in ``save``.
        """
        self.save(self.total_steps, parts)
        if self._tracker is not None:
            self._tracker.finish()

    def read_log(self) -> list[dict[str, float]]:
        """All logged lines, oldest first.

        Returns:
            One table of numbers a line.
        """
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def plot(self) -> None:
        """Draw curves.png: one panel for every logged name but the clock."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        rows = self.read_log()
        names = sorted({k for row in rows for k in row} - {"step", "perf/seconds"})
        if not names:
            return
        columns = min(3, len(names))
        lines = -(-len(names) // columns)
        figure, axes = plt.subplots(lines, columns, figsize=(5 * columns, 3 * lines), squeeze=False)
        for axis, name in zip(axes.flat, names, strict=False):
            points = [(row["step"], row[name]) for row in rows if name in row]
            axis.plot([p[0] for p in points], [p[1] for p in points], linewidth=1)
            axis.set_title(name, fontsize=9)
            axis.grid(alpha=0.3)
        for axis in list(axes.flat)[len(names) :]:
            axis.axis("off")
        figure.suptitle(self.title)
        figure.tight_layout()
        with writing(self.folder / "curves.png") as scratch:
            figure.savefig(scratch, dpi=80)
        plt.close(figure)
