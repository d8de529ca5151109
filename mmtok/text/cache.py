"""T5 vectors on disk, so that a caption is encoded once and training needs no T5 in memory.

A folder of safetensors shards. A row is one caption: (len, dim) bfloat16 without padding, named by the SHA-256 of
everything that its values depend on. The header of a shard is its index, so a shard is complete or absent, several
programs may write into one folder, and vectors of several encoders may lie in it. A 32-token caption of T5 XL takes 128
KiB.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmtok.text.t5 import T5TextEncoder


@dataclass(frozen=True)
class EncoderIdentity:
    """What a vector depends on beside its caption.

    Attributes:
        fingerprint: hash of vocabulary and weights.
        dtype: type of the computation, such as "bfloat16".
        max_length: most positions.
        dim: width of one vector.
    """

    fingerprint: str
    dtype: str
    max_length: int
    dim: int

    def key(self, caption: str) -> str:
        """Name of a caption's row.

        Args:
            caption: runs of white space count as one space.

        Returns:
            64 hexadecimal digits.
        """
        parts = [self.fingerprint, self.dtype, self.max_length, self.dim, " ".join(caption.split())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _identity_of(encoder: T5TextEncoder) -> EncoderIdentity:
    dtype = str(encoder.dtype).removeprefix("torch.")
    return EncoderIdentity(encoder.fingerprint, dtype, encoder.max_length, encoder.dim)


class TextCache:
    """A text encoder that looks on disk first.

    Args:
        folder: of the shards; created when absent.
        encoder: computes what is missing; None reads only, and then the folder must hold vectors of one encoder.
        rows_per_shard: most captions in one shard.

    Attributes:
        dim: width of one vector.
        max_length: most positions returned.

    Raises:
        ValueError: if a shard is damaged, or there is no encoder and the folder does not hold vectors of exactly one.
    """

    def __init__(self, folder: str | Path, encoder: T5TextEncoder | None = None, *, rows_per_shard: int = 4096):
        if rows_per_shard < 1:
            raise ValueError(f"rows_per_shard ({rows_per_shard}) must be at least 1")
        self.folder, self._encoder, self._rows_per_shard = Path(folder), encoder, rows_per_shard
        self._shards: dict[str, Any] = {}  # key to the open shard that holds its row
        self.folder.mkdir(parents=True, exist_ok=True)
        found = {self._open(file) for file in sorted(self.folder.glob("*.safetensors"))}
        if encoder is not None:
            self.identity = _identity_of(encoder)
        elif len(found) == 1:
            self.identity = found.pop()
        else:
            raise ValueError(f"{folder} holds vectors of {len(found)} encoders; say which by passing the encoder")
        self.dim, self.max_length = self.identity.dim, self.identity.max_length

    def _open(self, file: Path) -> EncoderIdentity:
        """Take up the rows of a shard; no vector is read."""
        try:
            shard = safe_open(file, framework="pt")
            identity = EncoderIdentity(**json.loads(shard.metadata()["identity"]))
        except (SafetensorError, KeyError, TypeError, ValueError) as fault:
            raise ValueError(f"{file} is not a shard of text vectors ({fault}); delete it") from fault
        self._shards.update((key, shard) for key in shard.keys())  # noqa: SIM118 (not a mapping)
        return identity

    def __contains__(self, caption: str) -> bool:
        return self.identity.key(caption) in self._shards

    def add(self, captions: list[str], *, batch_size: int = 64) -> int:
        """Encode and store the captions that are not there yet, each once.

        Args:
            captions: any number, repeated ones too; many in one call make few shards.
            batch_size: captions encoded together.

        Returns:
            How many were encoded.

        Raises:
            RuntimeError: if some are missing and there is no encoder.
            ValueError: if one is empty.
        """
        keys = {self.identity.key(caption): caption for caption in captions}
        missing = sorted((c, k) for k, c in keys.items() if k not in self._shards)
        if not missing:
            return 0
        if self._encoder is None:
            raise RuntimeError(
                f"{len(missing)} captions are not in {self.folder}, such as {missing[0][0]!r}; "
                "open the cache with its encoder to add them"
            )
        missing.sort(key=lambda pair: len(pair[0]))  # alike lengths share a batch
        for start in range(0, len(missing), self._rows_per_shard):
            rows: dict[str, Tensor] = {}
            part = missing[start : start + self._rows_per_shard]
            for at in range(0, len(part), batch_size):
                batch = part[at : at + batch_size]
                embeddings, mask = self._encoder.encode([caption for caption, _ in batch])
                for (_, key), vectors, valid in zip(batch, embeddings.cpu(), mask.cpu(), strict=True):
                    rows[key] = vectors[valid].to(torch.bfloat16).contiguous()
            self._write(rows)
        return len(missing)

    def _write(self, rows: dict[str, Tensor]) -> None:
        """One shard, under a temporary name first; its name follows from its keys."""
        name = hashlib.sha256("".join(sorted(rows)).encode()).hexdigest()[:16]
        partial = self.folder / f"{name}.{os.getpid()}.partial"
        save_file(rows, partial, metadata={"identity": json.dumps(asdict(self.identity))})
        os.replace(partial, self.folder / f"{name}.safetensors")
        self._open(self.folder / f"{name}.safetensors")

    def encode(self, texts: list[str], *, pad_to: int | None = None) -> tuple[Tensor, Tensor]:
        """Vectors as ``T5TextEncoder.encode`` gives them, rounded to bfloat16; missing ones are added first.

        Args:
            texts: b captions.
            pad_to: number of positions to return, or None for those of the longest caption.

        Returns:
            (b, n, dim) float32 on the CPU, zero where there is no token, and the (b, n) bool mask.

        Raises:
            RuntimeError: if one is missing and there is no encoder.
            ValueError: if there is no caption, one is empty, or ``pad_to`` is shorter than the longest.
        """
        if not texts:
            raise ValueError("no captions to encode")
        self.add(texts)
        keys = [self.identity.key(text) for text in texts]
        rows = [self._shards[key].get_tensor(key).float() for key in keys]
        longest = max(len(row) for row in rows)
        length = longest if pad_to is None else pad_to
        if length < longest:
            raise ValueError(f"pad_to ({pad_to}) is shorter than the longest caption ({longest} tokens)")
        embeddings = torch.stack([nn.functional.pad(row, (0, 0, 0, length - len(row))) for row in rows])
        mask = torch.arange(length) < torch.tensor([len(row) for row in rows])[:, None]
        return embeddings, mask
