"""Cases measured one after another, each in a fresh process, so that no case warms or fills memory for the next."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from mmtok.files import write_atomically
from recipes.figures.tables import table
from recipes.runtime.progress import track

T = TypeVar("T")


def median_seconds(work: Callable[[], Any], *, runs: int, device: torch.device, warm_up: bool = True) -> float:
    """Median wall time after one run that does not count.

    Args:
        work: what is timed.
        runs: counted runs.
        device: waited for at the end of each run.
        warm_up: False counts the first run too.

    Returns:
        Seconds.
    """
    times = []
    for run in range(runs + warm_up):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if run >= warm_up:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def bandwidth_gb_s(device: torch.device) -> float:
    """Bytes a second that a sum over a large tensor reads.

    Args:
        device: of the tensor.

    Returns:
        10^9 bytes a second, the best of five.
    """
    data = torch.ones(2**28, device=device)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        float(data.sum())
        times.append(time.perf_counter() - started)
    return data.numel() * 4 / 1e9 / min(times)


def in_fresh_process(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run ``python -m module arguments`` and read the JSON object in its last line.

    Args:
        module: to run.
        arguments: of it.

    Returns:
        What it measured.

    Raises:
        RuntimeError: with the end of its errors, if it fails.
    """
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed: {done.stderr.strip()[-500:]}")
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def machine(device: torch.device) -> str:
    """What a figure was measured on.

    Args:
        device: that did the work.

    Returns:
        One line.
    """
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    chip = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
        chip = names[0] if names else chip
    return f"{chip}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def one_by_one(
    cases: Iterable[T], measure: Callable[[T], dict[str, Any]], *, title: str
) -> tuple[list[dict[str, Any]], str]:
    """Measure cases behind a progress bar.

    Args:
        cases: of one kind.
        measure: gives a row whose "machine" says what it was measured on.
        title: shown beside the bar.

    Returns:
        Rows without their "machine", and the machine.
    """
    rows = [measure(case) for case in track(list(cases), title=title)]
    machines = [row.pop("machine") for row in rows]
    return rows, machines[-1]


def tell(told: str, rows: Sequence[dict[str, Any]], out: Path | None, *, key: str = "machine") -> None:
    """Print a benchmark's table, and keep its rows where that is wanted.

    Args:
        told: the line above the table.
        rows: of the table.
        out: JSON file, or None.
        key: what the line is called in it.
    """
    print(f"{told}\n\n{table(rows)}")
    if out is not None:
        write_atomically(out, json.dumps({key: told, "rows": list(rows)}, indent=1) + "\n")
