"""The token cache: codes and captions of a corpus in one folder, written once and read by every later stage.

    tokens.safetensors   low, high (optional), audio (optional), condition.NAME (optional), int32
    captions.json        a list of texts, one a row

Shape letters: N rows, t h w grid, k audio levels, T audio frames.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mmtok.files import write_atomically, write_tensors

TOKENS_FILE, CAPTIONS_FILE = "tokens.safetensors", "captions.json"
CONDITION = "condition."


@dataclass(frozen=True)
class TokenSet:
    """Tokenized clips.

    Attributes:
        low: (N, t, h, w) int32 visual codes that the language model speaks.
        captions: N texts.
        high: (N, t, 2h, 2w) int32 visual codes of the super-resolved clips, or None.
        audio: (N, k, T) int32 audio codes, or None for silent clips.
        conditions: name to (N, t, h, w) int32 visual codes of masked clips, or of flow and depth.
    """

    low: Tensor
    captions: list[str]
    high: Tensor | None = None
    audio: Tensor | None = None
    conditions: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {"low": (self.low, 4), "high": (self.high, 4), "audio": (self.audio, 3)}
        shapes |= {f"condition {name}": (codes, 4) for name, codes in self.conditions.items()}
        for name, (codes, ndim) in shapes.items():
            if codes is None:
                continue
            if codes.ndim != ndim or codes.is_floating_point():
                raise ValueError(f"{name} must be integers with {ndim} axes, got {codes.dtype} of {tuple(codes.shape)}")
            if len(codes) != len(self.captions):
                raise ValueError(f"{name} has {len(codes)} rows, there are {len(self.captions)} captions")

    def __len__(self) -> int:
        return len(self.captions)

    def rows(self, start: int, stop: int) -> TokenSet:
        """A slice of the rows, sharing memory.

        Args:
            start: first row.
            stop: one past the last row.

        Returns:
            The slice.
        """
        high = None if self.high is None else self.high[start:stop]
        audio = None if self.audio is None else self.audio[start:stop]
        conditions = {name: codes[start:stop] for name, codes in self.conditions.items()}
        return TokenSet(self.low[start:stop], self.captions[start:stop], high, audio, conditions)

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with any code or caption."""
        digest = hashlib.sha256(json.dumps(self.captions).encode())
        for name, codes in sorted(self._tensors().items()):
            digest.update(name.encode() + codes.numpy().tobytes())
        return digest.hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        named = {"low": self.low, "high": self.high, "audio": self.audio}
        named |= {CONDITION + name: codes for name, codes in self.conditions.items()}
        return {name: codes.to(torch.int32).contiguous() for name, codes in named.items() if codes is not None}

    def save(self, folder: str | Path) -> None:
        """Write the folder; each file under a temporary name first."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(self._tensors(), folder / TOKENS_FILE)
        write_atomically(folder / CAPTIONS_FILE, json.dumps(self.captions, ensure_ascii=False))

    @classmethod
    def load(cls, folder: str | Path) -> TokenSet:
        """Read a folder written by ``save``.

        Args:
            folder: the token cache.

        Returns:
            The rows.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if a file is damaged or the parts differ in length.
        """
        folder = Path(folder)
        for name in (TOKENS_FILE, CAPTIONS_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} has no {name}; make one with recipes/tokens/shapes.py")
        try:
            tensors = load_file(folder / TOKENS_FILE)
            captions = json.loads((folder / CAPTIONS_FILE).read_text())
        except (SafetensorError, json.JSONDecodeError) as fault:
            raise ValueError(f"the token cache {folder} is damaged: {fault}") from fault
        if "low" not in tensors:
            raise ValueError(f"{folder / TOKENS_FILE} has no visual codes named 'low'")
        conditions = {k.removeprefix(CONDITION): v for k, v in tensors.items() if k.startswith(CONDITION)}
        return cls(tensors["low"], captions, tensors.get("high"), tensors.get("audio"), conditions)
