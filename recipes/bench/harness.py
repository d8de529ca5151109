"""What all benchmarks share: kinds and cases, times, peaks, the table and its file.

A kind is a function of the options that gives rows and what they were measured on. ``one_by_one`` runs each case of it
in a process of its own, so that none warms or fills memory for the next, with all options as they are but for those
that are changed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmtok.files import write_atomically
from recipes.figures.tables import table
from recipes.runtime import memory
from recipes.runtime.progress import track

Rows = list[dict[str, Any]]
Measured = tuple[Rows, str]  # rows of the table, and what they were measured on


class Bench:
    """A benchmark on the command line; its ``main`` adds options, parses and runs.

    Args:
        name: of the module in recipes/bench.
        description: above the options, for one kind its first line alone.
        run: kind to what measures it; None stands for the only kind there is.
        case: kind to what measures one case of it.
    """

    def __init__(
        self,
        name: str,
        description: str | None,
        run: Mapping[Any, Callable[[Namespace], Measured]],
        case: Mapping[Any, Callable[[Namespace], dict[str, Any]]],
    ):
        self.run_of, self.case_of = run, case
        kinds, module = [kind for kind in run if kind], f"recipes.bench.{name}"
        self.parser = argparse.ArgumentParser(
            prog=f"python -m {module}",
            description=description if kinds else str(description).splitlines()[0],
            formatter_class=argparse.RawDescriptionHelpFormatter if kinds else argparse.HelpFormatter,
        )
        self.add = self.parser.add_argument
        self.parser.set_defaults(module=module, kind=None)
        if kinds:
            self.add("kind", choices=kinds)
        for hidden in ("--case", "--keep", "--reference", "--given"):  # of a case in its own process
            self.add(hidden, help=argparse.SUPPRESS)

    def parse(
        self, words: Sequence[str] | None, *, runs: int = 3, modes: Mapping[str, Sequence[str]] | None = None
    ) -> Namespace:
        """Add what every benchmark takes, and read the words.

        Args:
            words: of the command line; None takes the process' own.
            runs: that are usual.
            modes: of each kind, where ``--modes`` takes no others.

        Returns:
            The options.
        """
        self.add("--runs", type=int, default=runs, help=f"timed runs ({runs})")
        self.add("--device", default="cpu")
        self.add("--out", type=Path, metavar="F.json", help="also write the rows there")
        args = self.parser.parse_args(words)
        if modes is not None and (unknown := sorted(set(args.modes or ()) - set(modes[args.kind]))):
            self.parser.error(f"unknown modes {', '.join(unknown)}; known: {', '.join(modes[args.kind])}")
        return args

    def run(self, args: Namespace, *, told: str = "{where}", key: str = "machine") -> int:
        """Run a kind and print its table, or one case and print it as JSON.

        Args:
            args: of ``parse``.
            told: the line above the table; "{where}" stands for what the kind says.
            key: what that line is called in the file.

        Returns:
            The exit code: 2 where the machine cannot do it.
        """
        if args.given is not None:
            vars(args).update(json.loads(args.given))
        if args.case is not None:
            print(json.dumps(self.case_of[args.kind](args) | {"machine": machine(torch.device(args.device))}))
            return 0
        try:
            rows, where = self.run_of[args.kind](args)
        except ValueError as fault:
            print(fault, file=sys.stderr)
            return 2
        line = told.format(where=where)
        print(f"{line}\n\n{table(rows)}")
        if args.out is not None:
            write_atomically(args.out, json.dumps({key: line, "rows": rows}, indent=1) + "\n")
        return 0


def _alone(args: Namespace, changes: dict[str, Any]) -> dict[str, Any]:
    """Measure one case in a fresh process, with all of the options but for those that differ, ``case`` among them."""
    values = vars(args) | {"given": None, "out": None} | changes
    given = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    return in_fresh_process(args.module, [*([args.kind] if args.kind else []), "--given", json.dumps(given)])


def one_by_one(args: Namespace, cases: Iterable[dict[str, Any]], *, title: str) -> Measured:
    """Measure cases behind a progress bar, each in a fresh process.

    Args:
        args: of the kind; all of them are handed on.
        cases: options that differ, ``case`` among them.
        title: shown beside the bar.

    Returns:
        Rows, and the machine.
    """
    rows = [_alone(args, changes) for changes in track(list(cases), title=title)]
    machines = [row.pop("machine") for row in rows]
    return rows, machines[-1]


def compared(args: Namespace, modes: Sequence[str], *, title: str) -> tuple[Rows, list[Any], str]:
    """Measure modes of one thing, each of which may keep tensors to be compared.

    Args:
        args: of the kind; a case finds in ``keep`` where its tensors go and in ``reference`` the first mode's.
        modes: the cases.
        title: shown beside the bar.

    Returns:
        Rows, what each mode kept (None where it kept nothing), and the machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {mode: Path(folder) / f"{number}.pt" for number, mode in enumerate(modes)}
        first = files[modes[0]]
        cases = [{"case": m, "keep": f, "reference": None if f is first else first} for m, f in files.items()]
        rows, where = one_by_one(args, cases, title=title)
        kept = [torch.load(file, weights_only=True) if file.exists() else None for file in files.values()]
    return rows, kept, where


def forget_peak(device: torch.device) -> None:
    """Begin a measurement of memory, of the process and on CUDA of the device."""
    memory.forget_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float:
    """Most memory since ``forget_peak`` in 10^9 bytes: of the process, on CUDA of the device."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else memory.peak_gb()


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
    """10^9 bytes a second that a sum over a large tensor reads, the best of five."""
    data = torch.ones(2**28, device=device)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        float(data.sum())
        times.append(time.perf_counter() - started)
    return data.numel() * 4 / 1e9 / min(times)


def in_fresh_process(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run ``python -m module arguments`` and read the JSON object in its last line; RuntimeError where it fails."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed: {done.stderr.strip()[-500:]}")
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def machine(device: torch.device) -> str:
    """What a figure was measured on, in one line."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    chip = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
        chip = names[0] if names else chip
    return f"{chip}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
