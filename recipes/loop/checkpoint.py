"""Where checkpoints lie: one file, or a part a process (sharding.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from mmtok.files import writing


class Store(Protocol):
    """Where checkpoints lie."""

    joint: bool
    """Whether all processes write their part; else only the first one writes."""

    def exists(self) -> bool:
        """Whether there is a complete checkpoint."""

    def save(self, state: dict[str, Any], parts: dict[str, Any]) -> None:
        """Write a checkpoint; one that is there stays valid until the new one is complete.

        Args:
            state: plain values and tensors of the run itself, with its next "step".
            parts: name to object with ``state_dict``.
        """

    def load(self, parts: dict[str, Any]) -> dict[str, Any]:
        """Read the newest checkpoint.

        Args:
            parts: name to object with ``load_state_dict``, filled in place.

        Returns:
            The run's own values.
        """


class FileStore:
    """One file, written by one process; a ``Store``.

    Args:
        file: replaced at every save.
    """

    joint = False

    def __init__(self, file: Path):
        self.file = file

    def exists(self) -> bool:
        """Whether there is a checkpoint."""
        return self.file.exists()

    def save(self, state: dict[str, Any], parts: dict[str, Any]) -> None:
        """Write to a temporary name, then rename.

        Args:
            state: as in ``Store``.
            parts: as in ``Store``.
        """
        with writing(self.file) as scratch:
            torch.save({**state, "parts": {k: p.state_dict() for k, p in parts.items()}}, scratch)

    def load(self, parts: dict[str, Any]) -> dict[str, Any]:
        """Read the file.

        Args:
            parts: as in ``Store``.

        Returns:
            The run's own values.
        """
        state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        return state
