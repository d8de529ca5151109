"""One progress bar with time left, for loops that are not training runs; on standard error, results stay alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


def track(items: Iterable[T], *, title: str, total: int | None = None) -> Iterator[T]:
    """Iterate behind a progress bar.

    Args:
        items: what to iterate over.
        title: shown beside the bar.
        total: how many there are, where ``items`` cannot tell.

    Yields:
        The items.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=len(items) if total is None and isinstance(items, Sized) else total)
        for item in items:
            yield item
            bar.advance(task)
