"""Progress bars with time left, on standard error: results stay alone on standard output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")


def progress_bar(*more: ProgressColumn, **options: Any) -> Progress:
    """The bar of everything that takes long: title, bar, how many of how many, elapsed, left.

    Args:
        more: columns behind the time left.
        options: of rich's ``Progress``; the console is standard error unless given.

    Returns:
        The bar, to be entered with ``with``.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    options.setdefault("console", Console(stderr=True))
    return Progress(*columns, TextColumn("left"), TimeRemainingColumn(), *more, **options)


def track(items: Iterable[T], *, title: str, total: int | None = None) -> Iterator[T]:
    """Iterate behind a progress bar.

    Args:
        items: what to iterate over.
        title: shown beside the bar.
        total: how many there are, where ``items`` cannot tell.

    Yields:
        The items.
    """
    with progress_bar() as bar:
        task = bar.add_task(title, total=len(items) if total is None and isinstance(items, Sized) else total)
        for item in items:
            yield item
            bar.advance(task)


class _Speed(ProgressColumn):
    """Things a second."""

    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Such as "12.3 clips/s"."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} {self.unit}/s")


@contextmanager
def counting(*, title: str, total: int, done: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A progress bar with speed, for work that advances by several things at a time.

    Args:
        title: shown beside the bar.
        total: things in all.
        done: things that were there before.
        unit: what they are, such as "clips".

    Yields:
        What is called with a number of things that are now done.
    """
    with progress_bar(_Speed(unit)) as bar:
        task = bar.add_task(title, total=total, completed=done)
        yield lambda number: bar.advance(task, number)


@contextmanager
def blocks_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for work that calls what it yields with (blocks done, blocks in all)."""
    with progress_bar() as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def sampling_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage that a pipeline reports as (stage, done, in all), on a terminal only."""
    console = Console(stderr=True)
    with progress_bar(console=console, transient=True, disable=not console.is_terminal, refresh_per_second=4) as bar:
        tasks: dict[str, Any] = {}

        def on_step(stage: str, done: int, total: int) -> None:
            if stage not in tasks or bar.tasks[tasks[stage]].finished:  # an extension starts a stage anew
                tasks[stage] = bar.add_task(stage.replace("_", " "))
            bar.update(tasks[stage], completed=done, total=total)

        yield on_step
