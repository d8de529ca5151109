"""T5 vectors of a caption set on disk, so that a caption is encoded once and training needs no T5 in memory.

    cache.json               whose vectors these are
    vectors-*.safetensors    keys (n, 16), starts (n + 1,), vectors (places, dim) bfloat16 without padding
    index.safetensors        keys of all shards, sorted, with shard, start and length

A key is the beginning of the SHA-256 of a caption; one folder holds the vectors of one encoder. A shard is complete or
absent: a run that was killed goes on with what is missing, and several programs may add to one folder. The index only
saves time: where it does not name exactly the shards that are there, it is made from them. Files are mapped into
memory, so a reader of millions of captions holds nothing but what it reads. A 32-token caption of T5 XL takes 128 KiB.

Shape letters: b batch, n text positions, dim width of one vector.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmtok.files import put_file
from mmtok.text.t5 import T5TextEncoder, TokenizedText

_FORMAT = "cinepoet-text-1"
_CARD, _INDEX, _SHARDS = "cache.json", "index.safetensors", "vectors-*.safetensors"
_KEY_BYTES = 16


@dataclass(frozen=True)
class EncoderIdentity:
    """What a vector depends on beside its caption, and where the encoder came from.

    Attributes:
        fingerprint: hash of vocabulary and weights.
        dtype: type of the computation, such as "bfloat16".
        max_length: most positions.
        dim: width of one vector.
        name: hub id, or name of the folder.
        revision: commit of the hub repository, None where there is none.
    """

    fingerprint: str
    dtype: str
    max_length: int
    dim: int
    name: str = ""
    revision: str | None = None

    @classmethod
    def of(cls, encoder: T5TextEncoder) -> EncoderIdentity:
        """That of an encoder in use; reads all of its weights once."""
        dtype = str(encoder.dtype).removeprefix("torch.")
        return cls(encoder.fingerprint, dtype, encoder.max_length, encoder.dim, encoder.name, encoder.revision)

    def gives_the_vectors_of(self, other: EncoderIdentity) -> bool:
        """Whether two encoders give every caption the same vectors, whatever they are called."""
        mine, theirs = ((i.fingerprint, i.dtype, i.max_length, i.dim) for i in (self, other))
        return mine == theirs

    def __str__(self) -> str:
        at = f" at {self.revision[:12]}" if self.revision else ""
        kind = f"{self.dtype}, {self.max_length} positions of {self.dim}"
        return f"{self.name or 'an encoder'}{at} ({kind}, weights {self.fingerprint[:12]})"


def _digest(caption: str) -> bytes:
    return hashlib.sha256(" ".join(caption.split()).encode()).digest()[:_KEY_BYTES]


def caption_hash(caption: str) -> str:
    """The name of a caption in every cache, as the ``caption_key`` of token shards.

    Args:
        caption: runs of white space count as one space.

    Returns:
        32 hexadecimal digits.
    """
    return _digest(caption).hex()


def _as_keys(data: Tensor) -> np.ndarray:
    """(n, 16) bytes as n sortable names, sharing memory."""
    return data.numpy().view(f"S{_KEY_BYTES}").reshape(-1)


def _key_array(digests: Sequence[bytes]) -> np.ndarray:
    kind = f"S{_KEY_BYTES}"
    return np.frombuffer(b"".join(digests), dtype=kind) if digests else np.empty(0, dtype=kind)


@dataclass(frozen=True)
class _Index:
    """Where each caption's vectors lie.

    Attributes:
        files: names of the shards.
        keys: (n,) sorted.
        shard: (n,) number in ``files``.
        start: (n,) first row in the shard's vectors.
        length: (n,) rows.
    """

    files: list[str]
    keys: np.ndarray
    shard: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def find(self, keys: np.ndarray) -> np.ndarray:
        """(m,) place of each key, -1 where it is absent."""
        if not len(self.keys) or not len(keys):
            return np.full(len(keys), -1)
        places = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return np.where(self.keys[places] == keys, places, -1)

    @classmethod
    def of_folder(cls, folder: Path, identity: EncoderIdentity) -> _Index:
        """The stored index where it names the shards that are there, else one made from them."""
        files = sorted(f.name for f in folder.glob(_SHARDS))
        stored = folder / _INDEX
        if stored.is_file():
            tensors, metadata = _read(stored, ("keys", "shard", "start", "length"))
            if json.loads(metadata.get("files", "[]")) == files:
                numbers = [tensors[name].numpy() for name in ("shard", "start", "length")]
                return cls(files, _as_keys(tensors["keys"]), *numbers)
        parts = [cls._of_shard(folder / name, number, identity) for number, name in enumerate(files)]
        if not parts:
            return cls([], *(np.empty(0, dtype=kind) for kind in (f"S{_KEY_BYTES}", "i4", "i8", "i4")))
        keys, shard, start, length = (np.concatenate(column) for column in zip(*parts, strict=True))
        keys, first = np.unique(keys, return_index=True)  # two programs may have added the same caption
        return cls(files, keys, shard[first], start[first], length[first])

    @staticmethod
    def _of_shard(file: Path, number: int, identity: EncoderIdentity) -> tuple[np.ndarray, ...]:
        tensors, metadata = _read(file, ("keys", "starts"))
        if metadata.get("fingerprint") != identity.fingerprint:
            raise ValueError(f"{file} holds vectors of another encoder than {file.parent / _CARD} names; delete it")
        starts = tensors["starts"].numpy()
        shard = np.full(len(starts) - 1, number, dtype=np.int32)
        return _as_keys(tensors["keys"]), shard, starts[:-1], np.diff(starts).astype(np.int32)

    def save(self, folder: Path) -> None:
        """Write index.safetensors."""
        columns = {"keys": self.keys.view(np.uint8).reshape(-1, _KEY_BYTES), "shard": self.shard}
        columns |= {"start": self.start, "length": self.length}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in columns.items()}
        _write(tensors, folder / _INDEX, {"files": json.dumps(self.files)})


def _read(file: Path, names: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Some tensors of a file, mapped into memory, and the texts of its header."""
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}
    except SafetensorError as fault:
        raise ValueError(f"{file} is no file of text vectors, or damaged ({fault}); delete it") from fault


def _write(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """A file under a name of this process first, as other programs may write beside it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save_file(tensors, partial, metadata=metadata)
    put_file(partial, path)


def _sweep(folder: Path) -> None:
    """Delete what killed writers left; nobody takes an hour to write one file."""
    for partial in folder.glob("*.partial"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > 3600:
                partial.unlink()


def _read_card(folder: Path) -> EncoderIdentity | None:
    """Whose vectors a folder holds, None for a new one."""
    file = folder / _CARD
    if not file.is_file():
        return None
    try:
        card = json.loads(file.read_text())
        if card["format"] != _FORMAT:
            raise ValueError(f"format {card['format']!r}, this version reads {_FORMAT!r}")
        return EncoderIdentity(**card["encoder"])
    except (ValueError, KeyError, TypeError) as fault:
        raise ValueError(f"{file} is damaged or of another version: {fault}") from fault


def _require_same(folder: Path, found: EncoderIdentity, wanted: EncoderIdentity) -> None:
    if not found.gives_the_vectors_of(wanted):
        raise ValueError(f"{folder} holds vectors of {found}, not of {wanted}; use another folder")


class EmbeddingCache:
    """Vectors of captions that ``embed_captions`` stored; keeps the contract of a text encoder. Made by ``open``.

    Args:
        folder: of the cache.
        identity: whose vectors they are.
        index: where they lie.

    Attributes:
        folder: as given.
        identity: as given.
        dim: width of one vector.
        max_length: most positions of a caption.
    """

    def __init__(self, folder: Path, identity: EncoderIdentity, index: _Index):
        self.folder, self.identity = folder, identity
        self.dim, self.max_length = identity.dim, identity.max_length
        self._index = index
        self._vectors: dict[int, Tensor] = {}  # number of a shard to its vectors, mapped

    @classmethod
    def open(cls, folder: str | Path, *, encoder: T5TextEncoder | None = None) -> EmbeddingCache:
        """Open a cache for reading.

        Args:
            folder: that ``embed_captions`` wrote.
            encoder: that the vectors have to be of; None takes whose they are.

        Returns:
            The cache.

        Raises:
            FileNotFoundError: if there is no cache.
            ValueError: if a file is damaged, or the vectors are another encoder's.
        """
        folder = Path(folder)
        identity = _read_card(folder)
        if identity is None:
            raise FileNotFoundError(f"{folder} has no {_CARD}; make one with cinepoet embed")
        if encoder is not None:
            _require_same(folder, identity, EncoderIdentity.of(encoder))
        return cls(folder, identity, _Index.of_folder(folder, identity))

    def __reduce__(self) -> tuple[Any, ...]:  # a worker process opens the files itself
        return EmbeddingCache.open, (self.folder,)

    def __len__(self) -> int:
        return len(self._index.keys)

    def __contains__(self, caption: str) -> bool:
        return bool(self._index.find(_key_array([_digest(caption)]))[0] >= 0)

    def __call__(self, captions: Sequence[str | None], *, slots: int | None = None) -> tuple[Tensor, Tensor]:
        """Vectors of captions at the places that a sequence reserves for text.

        Args:
            captions: b texts, None where there is none.
            slots: places; None means ``max_length``.

        Returns:
            (b, slots, dim) float32 on the CPU, zero where there is no token, and the (b, slots) bool mask.

        Raises:
            ValueError: if one is not in the cache, naming the first, or one is longer than ``slots``.
        """
        return self._gather(self._places(captions), self.max_length if slots is None else slots)

    def require(self, captions: Sequence[str | None], *, slots: int | None = None) -> None:
        """Raise unless every caption is here and fits, before a long run finds out.

        Args:
            captions: all texts of a run.
            slots: places that its sequences reserve; None means ``max_length``.

        Raises:
            ValueError: as of a call.
        """
        self._lengths(self._places(captions), self.max_length if slots is None else slots)

    def by_hash(self, hashes: Sequence[str | None], *, slots: int | None = None) -> tuple[Tensor, Tensor]:
        """As a call, for data that keep ``caption_hash`` instead of the text.

        Args:
            hashes: b names of 32 hexadecimal digits, None where there is no text.
            slots: places; None means ``max_length``.

        Returns:
            As of a call.

        Raises:
            ValueError: if one is no such name or not in the cache, or its text is longer than ``slots``.
        """
        try:
            digests = [None if name is None else bytes.fromhex(name) for name in hashes]
        except ValueError as fault:
            raise ValueError(f"hashes of captions are {2 * _KEY_BYTES} hexadecimal digits: {fault}") from fault
        if any(digest is not None and len(digest) != _KEY_BYTES for digest in digests):
            raise ValueError(f"hashes of captions are {2 * _KEY_BYTES} hexadecimal digits, and one has another length")
        return self._gather(self._places(hashes, digests), self.max_length if slots is None else slots)

    def encode(self, texts: list[str], *, pad_to: int | None = None) -> tuple[Tensor, Tensor]:
        """As ``T5TextEncoder.encode``, from disk; the vectors are rounded to bfloat16.

        Args:
            texts: b captions.
            pad_to: number of positions to return, or None for those of the longest caption.

        Returns:
            (b, n, dim) float32 on the CPU, zero where there is no token, and the (b, n) bool mask.

        Raises:
            ValueError: if there is no text, one is not in the cache, or ``pad_to`` is shorter than the longest.
        """
        if not texts:
            raise ValueError("no captions to encode")
        places = self._places(texts)
        return self._gather(places, int(self._index.length[places].max()) if pad_to is None else pad_to)

    def _places(self, names: Sequence[str | None], digests: list[bytes | None] | None = None) -> np.ndarray:
        """(b,) place in the index, -1 for no text."""
        if digests is None:
            digests = [None if name is None else _digest(name) for name in names]
        given = np.array([digest is not None for digest in digests], dtype=bool)
        places = np.full(len(names), -1)
        places[given] = self._index.find(_key_array([digest for digest in digests if digest is not None]))
        missing = given & (places < 0)
        if missing.any():
            raise ValueError(
                f"{missing.sum()} of {len(names)} captions are not in {self.folder}, the first is "
                f"{names[int(np.argmax(missing))]!r}; add them with cinepoet embed"
            )
        return places

    def _lengths(self, places: np.ndarray, slots: int) -> Tensor:
        """(b,) vectors of each, none more than there are slots."""
        lengths = np.zeros(len(places), dtype=np.int64)
        lengths[places >= 0] = self._index.length[places[places >= 0]]
        if lengths.max(initial=0) > slots:
            raise ValueError(f"a caption has {lengths.max()} vectors, and there are {slots} slots for text")
        return torch.from_numpy(lengths)

    def _gather(self, places: np.ndarray, slots: int) -> tuple[Tensor, Tensor]:
        lengths = self._lengths(places, slots)
        out = torch.zeros(len(places), slots, self.dim)
        for row, (place, length) in enumerate(zip(places.tolist(), lengths.tolist(), strict=True)):
            if place >= 0:
                start = int(self._index.start[place])
                out[row, :length] = self._shard(int(self._index.shard[place]))[start : start + length]
        return out, torch.arange(slots) < lengths[:, None]

    def _shard(self, number: int) -> Tensor:
        if number not in self._vectors:
            self._vectors[number] = _read(self.folder / self._index.files[number], ("vectors",))[0]["vectors"]
        return self._vectors[number]


@dataclass(frozen=True)
class EmbedReport:
    """What ``embed_captions`` did.

    Attributes:
        captions: that were given.
        distinct: of them.
        encoded: in this call; the others were there.
        cut: distinct ones that are longer than the encoder reads.
        unknown: distinct ones with words that the vocabulary cannot write in pieces.
    """

    captions: int
    distinct: int
    encoded: int
    cut: int
    unknown: int


def embed_captions(
    captions: Sequence[str],
    encoder: T5TextEncoder,
    folder: str | Path,
    *,
    batch_size: int = 32,
    rows_per_shard: int = 2048,
    seconds_per_shard: float = 300.0,
    on_reading: Callable[[str, TokenizedText], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EmbedReport:
    """Store the vectors of every caption that a folder lacks, each once; negative prompts are captions too.

    All captions are read by the tokenizer before the first is encoded, so that a bad one is told at once.

    Args:
        captions: any number, repeated ones too.
        encoder: whose vectors are stored.
        folder: of the cache; created when absent.
        batch_size: captions encoded together.
        rows_per_shard: most captions in one shard.
        seconds_per_shard: a shard is closed after this time, which is the most that a killed run loses.
        on_reading: called with each distinct caption that is cut or has unknown words, and how it was read.
        on_progress: called with (done, in all) after each batch.

    Returns:
        Counts.

    Raises:
        ValueError: if there is no caption, a number is out of range, a caption cannot be read (naming its row, from
            1), the folder holds vectors of another encoder, or vectors are not finite.
    """
    if min(batch_size, rows_per_shard) < 1:
        raise ValueError(f"batch_size ({batch_size}) and rows_per_shard ({rows_per_shard}) must be at least 1")
    if not len(captions):
        raise ValueError("there are no captions to embed")
    folder = Path(folder)
    stored = _read_card(folder)
    distinct, first = np.unique(_key_array([_digest(caption) for caption in captions]), return_index=True)
    cut = unknown = 0
    for row in np.sort(first):
        read = _read_caption(encoder, captions[row], int(row) + 1)
        cut, unknown = cut + bool(read.cut), unknown + bool(read.unknown)
        if on_reading is not None and (read.cut or read.unknown):
            on_reading(captions[row], read)

    identity = EncoderIdentity.of(encoder)
    if stored is not None:
        _require_same(folder, stored, identity)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _write_card(folder, identity)
    _sweep(folder)
    missing = np.sort(first[_Index.of_folder(folder, identity).find(distinct) < 0])
    shard = _OpenShard(folder, identity)
    done = 0
    for start in range(0, len(missing), rows_per_shard):
        part = [captions[row] for row in missing[start : start + rows_per_shard]]
        part.sort(key=len)  # alike lengths share a batch
        for at in range(0, len(part), batch_size):
            batch = part[at : at + batch_size]
            shard.add(batch, *encoder.encode(batch))
            done += len(batch)
            if on_progress is not None:
                on_progress(done, len(missing))
            if shard.age_s() > seconds_per_shard:
                shard.close()
        shard.close()
    _Index.of_folder(folder, identity).save(folder)
    return EmbedReport(len(captions), len(distinct), len(missing), cut, unknown)


def _read_caption(encoder: T5TextEncoder, caption: str, row: int) -> TokenizedText:
    try:
        return encoder.tokenize(caption)
    except ValueError as fault:
        raise ValueError(f"caption {row} cannot be embedded: {fault}") from fault


def _write_card(folder: Path, identity: EncoderIdentity) -> None:
    partial = folder / f"{_CARD}.{os.getpid()}.partial"
    partial.write_text(json.dumps({"format": _FORMAT, "encoder": asdict(identity)}, indent=1) + "\n")
    os.replace(partial, folder / _CARD)


class _OpenShard:
    """Vectors that wait to be written.

    Args:
        folder: of the cache.
        identity: whose vectors they are.
    """

    def __init__(self, folder: Path, identity: EncoderIdentity):
        self.folder, self.identity = folder, identity
        self.rows: list[tuple[bytes, Tensor]] = []
        self.started = time.monotonic()

    def age_s(self) -> float:
        """Seconds since the last one was closed."""
        return time.monotonic() - self.started

    def add(self, captions: list[str], embeddings: Tensor, mask: Tensor) -> None:
        """Take up a batch's vectors, without padding and in bfloat16."""
        for caption, vectors, valid in zip(captions, embeddings.cpu(), mask.cpu(), strict=True):
            if not bool(torch.isfinite(vectors).all()):
                raise ValueError(f"the text encoder gives vectors that are not finite for {caption!r}")
            self.rows.append((_digest(caption), vectors[valid].to(torch.bfloat16)))

    def close(self) -> None:
        """Write a shard; its name follows from its keys."""
        self.started = time.monotonic()
        if not self.rows:
            return
        rows = sorted(self.rows, key=lambda row: row[0])
        keys = b"".join(key for key, _ in rows)
        starts = [0, *itertools.accumulate(len(vectors) for _, vectors in rows)]
        tensors = {
            "keys": torch.frombuffer(bytearray(keys), dtype=torch.uint8).view(-1, _KEY_BYTES),
            "starts": torch.tensor(starts),
            "vectors": torch.cat([vectors for _, vectors in rows]),
        }
        name = f"vectors-{hashlib.sha256(keys).hexdigest()[:16]}.safetensors"
        _write(tensors, self.folder / name, {"fingerprint": self.identity.fingerprint})
        self.rows = []
