"""Where checkpoints lie: one file, or a part a process (sharding.py)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from mmtok.files import writing


@dataclass(frozen=True)
class LoopState:
    """What a loop knows beside its parts.

    Attributes:
        step: the next one.
        elapsed_s: seconds that the loop ran, over all its sittings.
        rng: state of torch's own generator.
    """

    step: int = 0
    elapsed_s: float = 0.0
    rng: Tensor = field(default_factory=torch.get_rng_state)


class Store(Protocol):
    """Where checkpoints lie."""

    joint: bool
    """Whether all processes write their part; else only the first one writes."""

    def exists(self) -> bool:
        """Whether there is a complete checkpoint."""

    def save(self, state: LoopState, parts: dict[str, Any]) -> None:
        """Write a checkpoint; one that is there stays valid until the new one is complete.

        Args:
            state: of the loop.
            parts: name to object with ``state_dict``.
        """

    def load(self, parts: dict[str, Any]) -> LoopState:
        """Read the newest checkpoint: fill the parts, by name, in place, and return the loop's state."""


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

    def save(self, state: LoopState, parts: dict[str, Any]) -> None:
        """Write to a temporary name, then rename.

        Args:
            state: as in ``Store``.
            parts: as in ``Store``.
        """
        with writing(self.file) as scratch:
            torch.save({"loop": asdict(state), "parts": {k: p.state_dict() for k, p in parts.items()}}, scratch)

    def load(self, parts: dict[str, Any]) -> LoopState:
        """Read the newest checkpoint: fill the parts, by name, in place, and return the loop's state."""
        saved = torch.load(self.file, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved["parts"][name])
        return LoopState(**saved["loop"])
