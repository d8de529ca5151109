"""Token shards: tokenized films with captions in a folder of Parquet files, and how they are read, joined and checked.

    dataset.json           version, tokenizers with a hash of the weights that codes depend on, vocabulary, origin
    shards/00000.parquet   rows, written and read through the ``datasets`` library
    shards/00000.json      written last, so that a shard is complete or absent: rows, hash of the file, what failed
    quarantine.jsonl       files that could not be used, with the reason, when all shards are there

Columns: ``key`` (unique, stable), ``source`` (path of the media), ``source_hash`` (of its content), ``collection``
(name of the data source, for the <source> token), ``licence``, ``split``, ``start_s``, ``caption`` and ``caption_key``
(null without text), ``grid`` (t, h, w), ``visual`` (raster order), ``audio`` (level by level, null for silent clips)
with ``audio_frames``, and one ``condition_NAME`` for each condition, on the clip's own grid or null. Reading
maps the rows into memory; nothing is loaded before it is asked for.

Shape letters: b batch, t h w grid of visual tokens, k audio levels, n rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtok.files import file_hash, write_atomically
from mmtok.vocabulary import Vocabulary
from recipes.tokens.identity import tokenizer_facts

FORMAT = "cinepoet-token-shards-1"
DATASET_FILE, SHARD_FOLDER, QUARANTINE_FILE = "dataset.json", "shards", "quarantine.jsonl"
SPLITS = ("train", "validation")
CONDITION_PREFIX = "condition_"
_TEXT_COLUMNS = ("key", "source", "source_hash", "collection", "licence", "split", "caption", "caption_key")
_RECORD = ("rows", *SPLITS, "sounding", "captioned", "sha256", "quarantined")
OPTIONAL = ("collection", "licence", "caption", "caption_key", "audio")


@dataclass(frozen=True)
class Bucket:
    """Rows of one shape, which can stand in one batch.

    Attributes:
        grid: (t, h, w) visual tokens.
        audio_frames: frames of an audio level, 0 for silent clips.
        conditions: names of the conditions that every row has.
        rows: (n,) int64 row numbers for ``TokenShards.read``.
        captioned: (n,) bool, which of them have a caption.
    """

    grid: tuple[int, int, int]
    audio_frames: int
    conditions: frozenset[str]
    rows: Tensor
    captioned: Tensor


@dataclass(frozen=True)
class ShardRows:
    """Codes of some rows.

    Attributes:
        visual: (b, 1, t, h, w) int64.
        audio: (b, k, audio_frames) int64, or None for silent clips.
        conditions: name to (b, 1, t, h, w) int64.
        captions: b texts, None where there is none.
        collections: b names of data sources, None where there is none.
    """

    visual: Tensor
    audio: Tensor | None
    conditions: dict[str, Tensor]
    captions: list[str | None]
    collections: list[str | None]


@dataclass(frozen=True)
class ShardInfo:
    """What a folder's codes are made with and of.

    Attributes:
        visual: the visual tokenizer: family, codebook_size, stride, fps and ``weights``.
        audio: the audio tokenizer: family, codebook_size, num_codebooks, sample_rate, hop_length and ``weights``; None
            where no sound was kept.
        vocabulary: the unified vocabulary of the two.
        conditions: name to the settings that the condition was made with.
        made_from: the options of ``cinepoet prepare`` and a hash of its list of clips.
        shards: how many files there are when all is done.
        counts: rows, splits, sound, captions, films and what was quarantined, when all is done.
    """

    visual: dict[str, Any]
    audio: dict[str, Any] | None
    vocabulary: Vocabulary
    conditions: dict[str, Any] = field(default_factory=dict)
    made_from: dict[str, Any] = field(default_factory=dict)
    shards: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write dataset.json into the folder of the shards, created when absent."""
        values = dataclasses.asdict(self) | {"vocabulary": self.vocabulary.to_json()}
        write_atomically(folder / DATASET_FILE, json.dumps({"format": FORMAT, **values}, indent=1) + "\n")

    @classmethod
    def read(cls, folder: str | Path) -> ShardInfo:
        """Read dataset.json.

        Args:
            folder: of the shards.

        Returns:
            Its facts.

        Raises:
            FileNotFoundError: if the folder holds no token shards.
            ValueError: if the file is damaged, or of another version.
        """
        file = Path(folder) / DATASET_FILE
        if not file.is_file():
            raise FileNotFoundError(f"{folder} holds no token shards (no {DATASET_FILE}); make some: cinepoet prepare")
        try:
            values = json.loads(file.read_text())
            if values.pop("format", None) != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            values["vocabulary"] = Vocabulary.from_json(values["vocabulary"])
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as fault:
            raise ValueError(f"{file} is damaged or made by another version: {fault}") from fault

    def differences(self, other: ShardInfo) -> list[str]:
        """What keeps rows of two folders from one batch.

        Args:
            other: of the other folder.

        Returns:
            One phrase for each difference, such as "visual weights (a1 and b2)"; empty when they go together. A folder
            without sound goes with any.
        """
        found = [
            f"{kind} {name} ({mine.get(name)} and {theirs.get(name)})"
            for kind, mine, theirs in (("visual", self.visual, other.visual), ("audio", self.audio, other.audio))
            if mine is not None and theirs is not None
            for name in sorted({*mine, *theirs})
            if mine.get(name) != theirs.get(name)
        ]
        if self.audio and other.audio and self.vocabulary != other.vocabulary:
            found.append(f"vocabulary ({self.vocabulary.size} and {other.vocabulary.size} ids)")
        for name in sorted(set(self.conditions) & set(other.conditions)):
            mine, theirs = self.conditions[name], other.conditions[name]
            if mine != theirs:
                found.append(f"condition {name} ({mine} and {theirs})")
        return found

    def require(self, visual: Any, audio: Any = None, *, where: str | Path = "these shards") -> None:
        """Raise unless the codes are these tokenizers'.

        Args:
            visual: a ``VisualTokenizer``.
            audio: an ``AudioTokenizer``, or None for a use without sound.
            where: what to call the shards.

        Raises:
            ValueError: with every difference in one line.
        """
        sound = None if audio is None else tokenizer_facts(audio)
        faults = self.differences(ShardInfo(tokenizer_facts(visual), sound, Vocabulary.of(visual, audio)))
        if faults:
            raise ValueError(
                f"{where} were made with another tokenizer than the model's: {'; '.join(faults)} (the second is the "
                "model's); prepare the data again with --tokenizer"
            )


# Writing.


def shard_features(conditions: Iterable[str]) -> Any:
    """Columns of a shard with these conditions, ``datasets.Features``."""
    from datasets import Features, List, Value

    codes = List(Value("int32"))
    columns: dict[str, Any] = {name: Value("string") for name in _TEXT_COLUMNS}
    columns |= {"start_s": Value("float64"), "grid": List(Value("int32"), length=3), "visual": codes}
    columns |= {"audio_frames": Value("int32"), "audio": codes}
    return Features(columns | {CONDITION_PREFIX + name: codes for name in sorted(conditions)})


def shard_file(folder: Path, number: int) -> Path:
    """Where a shard lies.

    Args:
        folder: of the data set.
        number: from 0.

    Returns:
        The Parquet file; its record has the ending .json.
    """
    return folder / SHARD_FOLDER / f"{number:05d}.parquet"


def shard_is_done(folder: Path, number: int) -> bool:
    """Whether a shard is complete.

    Args:
        folder: of the data set.
        number: from 0.

    Returns:
        True when its record is there.
    """
    return shard_file(folder, number).with_suffix(".json").is_file()


def write_shard(
    folder: Path,
    number: int,
    rows: Sequence[dict[str, Any]],
    *,
    conditions: Iterable[str] = (),
    quarantined: Sequence[dict[str, Any]] = (),
) -> None:
    """Write a shard and then its record, each under a temporary name first.

    Args:
        folder: of the data set.
        number: of the shard.
        rows: plain values by column; columns that may be null can be left out.
        conditions: names of the conditions that the data set has columns for.
        quarantined: what could not be used: "source" and "reason".
    """
    from datasets import Dataset

    file = shard_file(folder, number)
    file.parent.mkdir(parents=True, exist_ok=True)
    features = shard_features(conditions)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    with quiet_datasets():
        Dataset.from_dict({name: [row.get(name) for row in rows] for name in features}, features).to_parquet(partial)
    record = {
        "rows": len(rows),
        **{split: sum(row["split"] == split for row in rows) for split in SPLITS},
        "sounding": sum(row["audio_frames"] > 0 for row in rows),
        "captioned": sum(row.get("caption") is not None for row in rows),
        "sha256": file_hash(partial),
        "quarantined": list(quarantined),
    }
    os.replace(partial, file)
    write_atomically(file.with_suffix(".json"), json.dumps(record, ensure_ascii=False) + "\n")


def read_records(folder: str | Path, shards: int) -> list[dict[str, Any] | None]:
    """Records of all shards.

    Args:
        folder: of the data set.
        shards: how many there shall be.

    Returns:
        Each shard's record: counts of rows, hash of the file and "quarantined"; None where it is not done.

    Raises:
        ValueError: if a record is damaged.
    """
    records: list[dict[str, Any] | None] = []
    for number in range(shards):
        file = shard_file(Path(folder), number).with_suffix(".json")
        try:
            record = json.loads(file.read_text()) if file.is_file() else None
            if record is not None and not set(_RECORD) <= set(record):
                raise ValueError("it lacks a value")
        except ValueError as fault:
            raise ValueError(f"{file} is damaged ({fault}); delete it and prepare again") from fault
        records.append(record)
    return records


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """Without the progress bars of ``datasets``: a shard is too small for them."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _first_line(fault: BaseException) -> str:
    cause = fault.__cause__ or fault
    return str(cause).strip().split("\n")[0] or type(cause).__name__
