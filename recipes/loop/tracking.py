"""Curves in TensorBoard, Weights & Biases, Trackio and the like, through accelerate's trackers.

A run always writes log.jsonl and curves.png; a tracker gets the same numbers besides. The choice belongs to a command
and not to a config: a run that is resumed with another tracker is the same run.
"""

from __future__ import annotations

import importlib.util
import json
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_chosen: ContextVar[str | None] = ContextVar("tracker", default=None)


def choose_tracker(name: str | None) -> None:
    """What the runs that this process starts from now on report to.

    Args:
        name: of accelerate's trackers, such as "tensorboard", "wandb" or "trackio"; None for none.

    Raises:
        ValueError: if there is none of that name, or its package is not installed.
    """
    if name is not None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        known = sorted(str(kind) for kind in LOGGER_TYPE_TO_CLASS)
        if name not in known:
            raise ValueError(f"unknown tracker {name!r}; known: {', '.join(known)}")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"the tracker {name} is not installed: pip install {name}")
    _chosen.set(name)


def open_tracker(title: str, folder: Path, config: str) -> Any:
    """The chosen tracker, started.

    Args:
        title: what is trained.
        folder: of the run; its name is the run's, and files of trackers that write some lie in it.
        config: the run's numbers as JSON.

    Returns:
        An object with ``log(values, step=)`` and ``finish()``, or None.
    """
    name = _chosen.get()
    if name is None:
        return None
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # accelerate's own messages ask for it
    kind = LOGGER_TYPE_TO_CLASS[name]
    places = {"logging_dir": str(folder)} if kind.requires_logging_directory else {}
    tracker: Any = kind("cinepoet", **places)
    tracker.main_process_only = False  # only the process that writes opens one
    tracker.start()
    tracker.store_init_configuration({"title": title, "folder": str(folder), **_plain(json.loads(config))})
    return tracker


def _plain(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested numbers under dotted names; lists and nothing as text."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _plain(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat
