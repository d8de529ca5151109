"""What a folder was made with, noted in it, so that nobody goes on with something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmtok.files import write_atomically
from recipes.runtime.config import old_words, to_dict
from recipes.runtime.distributed import Ranks


def same_study(folder: Path, numbers: dict[str, Any]) -> None:
    """Record a study's numbers in its folder, or hold them against those that are there.

    Args:
        folder: of the study.
        numbers: all of them, as plain values.

    Raises:
        ValueError: if the folder holds a study with others.
    """
    record = folder / "config.json"
    if record.exists() and (there := json.loads(record.read_text())) != numbers:
        raise ValueError(f"{folder} holds a study with {other_numbers(there)}; delete it or use another --out")
    write_atomically(record, json.dumps(numbers, indent=1) + "\n")


def other_numbers(there: dict[str, Any]) -> str:
    """What a record holds that is not what was wanted: "other numbers", or such that have other names now."""
    old = old_words(there)
    return f"numbers of other names ({'; '.join(old)})" if old else "other numbers"


def begun(folder: Path) -> bool:
    """Whether a folder holds a run that stopped, or finished: a checkpoint."""
    return (folder / "checkpoint.pt").exists() or (folder / "checkpoint").exists()


def same_config(folder: Path, config: Any) -> None:
    """Refuse to go on with a run of other numbers, before anything of it is overwritten.

    Args:
        folder: of the run; one that holds none is welcome.
        config: the dataclass that its config.json must hold.

    Raises:
        ValueError: if it holds another, or one in words that have changed since.
    """
    record = folder / "config.json"
    if not begun(folder) or not record.exists():
        return
    there = json.loads(record.read_text())
    if there == json.loads(json.dumps(to_dict(config))):
        return
    old = old_words(there)
    why = f"begun with other names ({'; '.join(old)})" if old else "with another config"
    raise ValueError(f"{folder} holds a run {why}; use a new folder or delete it")


def same_data(folder: Path, told: list[str], ranks: Ranks) -> None:
    """Note what a run draws from, and refuse to go on with a stopped one on other data: its curve would hide a step.

    Args:
        folder: of the run.
        told: lines that name the data.
        ranks: the first process writes data.txt.

    Raises:
        ValueError: if the folder holds a checkpoint of a run on other data.
    """
    identity, record = "\n".join(told) + "\n", folder / "data.txt"
    if begun(folder) and record.exists() and record.read_text() != identity:
        raise ValueError(f"{folder} was started with other data (see data.txt in it); delete it or use another --out")
    ranks.wait()
    if ranks.is_main:
        write_atomically(record, identity)
