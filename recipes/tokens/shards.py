"""Token shards: tokenized films with captions in a folder of Parquet files, and how they are read, joined and checked.

    dataset.json           version, tokenizers with a hash of the weights that codes depend on, vocabulary, origin
    shards/00000.parquet   rows, written and read through the ``datasets`` library
    shards/00000.json      written last, so that a shard is complete or absent: rows, hash of the file, what failed
    quarantine.jsonl       files that could not be used, with the reason, when all shards are there

Columns: ``key`` (unique, stable), ``source`` (path of the media), ``source_hash`` (of its content), ``collection``
(name of the data source, for the <source> token), ``licence``, ``split``, ``start_s``, ``caption`` and ``caption_key``
(null without text), ``grid`` (t, h, w), ``visual`` (raster order), ``audio`` (level by level, null for silent clips)
with ``audio_frames``, ``high`` (codes at twice the height and width, or null) and one ``condition_NAME`` for each
condition, on the clip's own grid or null. Reading maps the rows into memory; nothing is loaded before it is asked for.

Shape letters: b batch, t h w grid of visual tokens, k audio levels, n rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtok.files import write_atomically
from mmtok.text.embedding_cache import caption_hash
from mmtok.vocabulary import Vocabulary

FORMAT = "cinepoet-token-shards-1"
DATASET_FILE, SHARD_FOLDER, QUARANTINE_FILE = "dataset.json", "shards", "quarantine.jsonl"
SPLITS = ("train", "validation")
CONDITION_PREFIX = "condition_"
_TEXT_COLUMNS = ("key", "source", "source_hash", "collection", "licence", "split", "caption", "caption_key")
_RECORD = ("rows", *SPLITS, "sounding", "captioned", "sha256", "quarantined")
_OPTIONAL = ("collection", "licence", "caption", "caption_key", "audio", "high")


@dataclass(frozen=True)
class Bucket:
    """Rows of one shape, which can stand in one batch.

    Attributes:
        grid: (t, h, w) visual tokens.
        audio_frames: frames of an audio level, 0 for silent clips.
        conditions: names of the conditions that every row has.
        high: whether every row has codes at twice the size.
        rows: (n,) int64 row numbers for ``TokenShards.read``.
        captioned: (n,) bool, which of them have a caption.
    """

    grid: tuple[int, int, int]
    audio_frames: int
    conditions: frozenset[str]
    high: bool
    rows: Tensor
    captioned: Tensor

    @property
    def has_caption(self) -> bool | None:
        """True when all rows have a caption, False when none has, None when some have."""
        return None if self.captioned.any() and not self.captioned.all() else bool(self.captioned.all())


@dataclass(frozen=True)
class ShardRows:
    """Codes of some rows.

    Attributes:
        visual: (b, 1, t, h, w) int64.
        audio: (b, k, audio_frames) int64, or None for silent clips.
        conditions: name to (b, 1, t, h, w) int64.
        captions: b texts, None where there is none.
        collections: b names of data sources, None where there is none.
        high: (b, 1, t, 2h, 2w) int64, or None when not asked for.
    """

    visual: Tensor
    audio: Tensor | None
    conditions: dict[str, Tensor]
    captions: list[str | None]
    collections: list[str | None]
    high: Tensor | None = None


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
        """Write dataset.json.

        Args:
            folder: of the shards; created when absent.
        """
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
                "model's); prepare the data again with --model"
            )

    def require_vocabulary(self, vocabulary: Vocabulary, *, where: str | Path = "these shards") -> None:
        """Raise unless a language model of this vocabulary can speak the codes.

        Args:
            vocabulary: the model's.
            where: what to call the shards.

        Raises:
            ValueError: with the sizes of both.
        """
        mine = self.vocabulary
        same = mine == vocabulary if self.audio else mine.visual_codes == vocabulary.visual_codes
        if not same:
            raise ValueError(
                f"{where} were made for another vocabulary ({_sizes(mine)}) than the model's ({_sizes(vocabulary)})"
            )


def _sizes(vocabulary: Vocabulary) -> str:
    return f"{vocabulary.visual_codes} visual codes, {vocabulary.audio_levels} x {vocabulary.audio_codes} of sound"


def tokenizer_facts(tokenizer: Any) -> dict[str, Any]:
    """What tells whether two tokenizers give the same codes.

    The decoder's weights are left out of the hash, because a decoder that learns on behind fixed codes changes none.

    Args:
        tokenizer: a ``VisualTokenizer`` or ``AudioTokenizer`` that is an ``nn.Module``.

    Returns:
        Plain values for dataset.json.
    """
    inner = getattr(tokenizer, "tokenizer", tokenizer)  # of TokensAsGrid
    names = ("codebook_size", "num_codebooks", "stride", "fps", "sample_rate", "hop_length")
    facts = {name: getattr(tokenizer, name) for name in names if hasattr(tokenizer, name)}
    if "stride" in facts:
        facts["stride"] = list(facts["stride"])
    digest = hashlib.sha256()
    for name, tensor in sorted(inner.state_dict().items()):
        if not name.startswith("decoder."):
            raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + raw.tobytes())
    return {"family": getattr(inner, "family", type(inner).__name__), **facts, "weights": digest.hexdigest()[:16]}


# Writing.


def shard_features(conditions: Iterable[str]) -> Any:
    """Columns of a shard.

    Args:
        conditions: names.

    Returns:
        ``datasets.Features``.
    """
    from datasets import Features, List, Value

    codes = List(Value("int32"))
    columns: dict[str, Any] = {name: Value("string") for name in _TEXT_COLUMNS}
    columns |= {"start_s": Value("float64"), "grid": List(Value("int32"), length=3), "visual": codes}
    columns |= {"audio_frames": Value("int32"), "audio": codes, "high": codes}
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
    with _quiet():
        Dataset.from_dict({name: [row.get(name) for row in rows] for name in features}, features).to_parquet(partial)
    record = {
        "rows": len(rows),
        **{split: sum(row["split"] == split for row in rows) for split in SPLITS},
        "sounding": sum(row["audio_frames"] > 0 for row in rows),
        "captioned": sum(row.get("caption") is not None for row in rows),
        "sha256": _file_hash(partial),
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


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of ``datasets``: a shard is too small for them."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


# Reading.


class TokenShards:
    """Rows of one folder, or of several made with the same tokenizers; opened with ``open``.

    Args:
        table: the rows of all folders, a ``datasets.Dataset``.
        info: of the first folder, with the conditions of all.
        identity: what the rows depend on.
        part: name of the split that is seen, or None for all rows.
    """

    def __init__(self, table: Any, info: ShardInfo, identity: str, part: str | None = None):
        self.info, self._table, self._identity, self._part = info, table, identity, part

    @classmethod
    def open(cls, folder: str | Path, *more_folders: str | Path, cache_dir: str | Path | None = None) -> TokenShards:
        """Open folders that ``cinepoet prepare`` wrote.

        The first time, the rows are unpacked into a file that can be mapped into memory, as ``datasets`` does.

        Args:
            folder: the first.
            more_folders: others, whose rows follow.
            cache_dir: where the unpacked rows lie; None is the cache of ``datasets`` (HF_DATASETS_CACHE).

        Returns:
            The rows.

        Raises:
            FileNotFoundError: if a folder holds no token shards.
            ValueError: if one is unfinished, damaged or empty, two were made with different tokenizers, or a film
                trains in one and validates in another.
        """
        from datasets import concatenate_datasets
        from datasets.exceptions import DatasetGenerationError

        folders = [Path(name) for name in (folder, *more_folders)]
        infos = [ShardInfo.read(name) for name in folders]
        for name, info in zip(folders[1:], infos[1:], strict=True):
            for before, known in zip(folders, infos, strict=True):
                if faults := known.differences(info):
                    raise ValueError(f"{before} and {name} do not go together: they differ in {'; '.join(faults)}")
        tables, hashes = [], []
        for name, info in zip(folders, infos, strict=True):
            records = _finished(name, info)
            files = [str(shard_file(name, number)) for number, record in enumerate(records) if record["rows"]]
            hashes += [record["sha256"] for record in records]
            try:
                with _quiet():
                    tables.append(_unpack(files, info, cache_dir))
            except (DatasetGenerationError, OSError, TypeError, ValueError) as fault:
                raise ValueError(
                    f"{name} has a shard that cannot be read ({_first_line(fault)}); cinepoet prepare --check {name}"
                ) from fault
        first = infos[0]
        loudest = next((info for info in infos if info.audio), first)
        conditions = {name: how for info in infos for name, how in info.conditions.items()}
        joined = dataclasses.replace(first, audio=loudest.audio, vocabulary=loudest.vocabulary, conditions=conditions)
        table = concatenate_datasets(tables) if len(tables) > 1 else tables[0]
        if len(tables) > 1:
            _refuse_leaks(folders, tables)
        what = [FORMAT, joined.visual, joined.audio, joined.vocabulary.to_json(), conditions, hashes]
        identity = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        return cls(table.with_format("arrow"), joined, identity)

    def split(self, name: str) -> TokenShards:
        """The rows of one split; their numbers stay the same.

        Args:
            name: one of ``SPLITS``.

        Returns:
            A view of the same rows.

        Raises:
            ValueError: for an unknown name.
        """
        if name not in SPLITS:
            raise ValueError(f"unknown split {name!r}; known: {', '.join(SPLITS)}")
        return TokenShards(self._table, self.info, self._identity, name)

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with any code, caption or order of rows, for caches and resumed runs."""
        return hashlib.sha256(f"{self._identity} {self._part}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def _rows(self) -> np.ndarray:
        """Row numbers of this split."""
        if self._part is None:
            return np.arange(len(self._table))
        import pyarrow.compute

        return np.flatnonzero(pyarrow.compute.equal(self._column("split"), self._part).to_numpy())

    def _column(self, name: str) -> Any:
        """A whole column, mapped; slices of it cost nothing."""
        return self._table.data.column(name)

    def _has(self, name: str) -> np.ndarray:
        """(n,) bool: where a column is not null."""
        return self._column(name).is_valid().to_numpy()[self._rows]

    @cached_property
    def buckets(self) -> list[Bucket]:
        """Rows grouped by shape and by what they have, in a fixed order; every row is in exactly one."""
        if not len(self._rows):
            return []
        names = sorted(self.info.conditions)
        grids = np.concatenate([part.flatten().to_numpy() for part in self._column("grid").chunks] or [np.zeros(0)])
        grids = grids.reshape(-1, 3)[self._rows]
        frames = self._column("audio_frames").to_numpy()[self._rows]
        flags = [self._has(name) for name in ("high", *(CONDITION_PREFIX + n for n in names))]
        keys = np.column_stack([grids, frames, *flags]).astype(np.int64)
        captioned = self._has("caption")
        kinds, member = np.unique(keys, axis=0, return_inverse=True)
        order = np.argsort(member.ravel(), kind="stable")
        pieces = np.split(order, np.cumsum(np.bincount(member.ravel(), minlength=len(kinds)))[:-1])
        return [
            Bucket(
                grid=(int(kind[0]), int(kind[1]), int(kind[2])),
                audio_frames=int(kind[3]),
                conditions=frozenset(n for n, there in zip(names, kind[5:], strict=True) if there),
                high=bool(kind[4]),
                rows=torch.from_numpy(self._rows[piece]),
                captioned=torch.from_numpy(captioned[piece]),
            )
            for kind, piece in zip(kinds, pieces, strict=True)
        ]

    def read(
        self, rows: Tensor | Sequence[int], *, conditions: Iterable[str] | None = None, high: bool = False
    ) -> ShardRows:
        """Read rows of one bucket.

        Args:
            rows: (b,) row numbers, at least one.
            conditions: names of those to read; None reads all that these rows have.
            high: whether to read the codes at twice the size.

        Returns:
            The codes, in the order of ``rows``.

        Raises:
            IndexError: for a row that is not there.
            ValueError: if there is no row, the rows are of several buckets, or they lack something asked for.
        """
        numbers = rows.tolist() if isinstance(rows, Tensor) else list(rows)
        if not numbers:
            raise ValueError("no rows to read")
        known = sorted(self.info.conditions)
        wanted = known if conditions is None else list(conditions)
        if unknown := sorted(set(wanted) - set(known)):
            raise ValueError(f"no condition {unknown[0]!r} in these shards; they have: {', '.join(known) or 'none'}")
        columns = ["grid", "visual", "audio", "audio_frames", "caption", "collection", *(["high"] if high else [])]
        columns += [CONDITION_PREFIX + name for name in wanted]
        table = self._table.select_columns(columns)[numbers]
        grids = {tuple(grid) for grid in table.column("grid").to_pylist()}
        frames = set(table.column("audio_frames").to_pylist())
        if len(grids) > 1 or len(frames) > 1:
            raise ValueError(f"rows of one batch must be of one bucket, got grids {grids} with audio frames {frames}")
        (t, h, w), heard = grids.pop(), frames.pop()

        def codes(column: str, *shape: int, name: str = "") -> Tensor:
            values = table.column(column).combine_chunks()
            if values.null_count:
                raise ValueError(f"{values.null_count} of these {len(values)} rows have no {name or column}")
            return torch.from_numpy(values.flatten().to_numpy().astype(np.int64)).reshape(len(values), *shape)

        if conditions is None:
            wanted = [n for n in known if table.column(CONDITION_PREFIX + n).null_count < len(numbers)]
        return ShardRows(
            visual=codes("visual", 1, t, h, w),
            audio=codes("audio", self.info.vocabulary.audio_levels, heard) if heard else None,
            conditions={n: codes(CONDITION_PREFIX + n, 1, t, h, w, name=f"condition {n}") for n in wanted},
            captions=table.column("caption").to_pylist(),
            collections=table.column("collection").to_pylist(),
            high=codes("high", 1, t, 2 * h, 2 * w, name="codes at twice the size") if high else None,
        )

    def captions(self) -> list[str]:
        """Distinct captions of this split, sorted, for a cache of text vectors."""
        return sorted(self._distinct("caption"))

    def collections_of(self, rows: Tensor) -> list[str | None]:
        """Name of the data source of each row.

        Args:
            rows: (n,) row numbers.

        Returns:
            n names, None where there is none.
        """
        return list(self._column("collection").take(rows.numpy()).to_pylist())

    def collections(self) -> list[str]:
        """Distinct names of data sources of this split, sorted."""
        return sorted(self._distinct("collection"))

    def _distinct(self, name: str) -> list[str]:
        column = self._column(name)
        values = column if self._part is None else column.take(self._rows)
        return [text for text in values.unique().to_pylist() if text is not None]

    def facts(self, row: int) -> dict[str, Any]:
        """Where a row comes from: key, source, its hash, licence, split, start_s, caption, collection.

        Args:
            row: its number.

        Returns:
            Name to value.
        """
        names = [*_TEXT_COLUMNS, "start_s"]
        return dict(self._table.select_columns(names)[[row]].to_pylist()[0])


def _unpack(files: list[str], info: ShardInfo, cache_dir: str | Path | None) -> Any:
    from datasets import Dataset

    if not files:
        raise ValueError("no shard has a row")
    cache = None if cache_dir is None else str(cache_dir)
    return Dataset.from_parquet(files, features=shard_features(info.conditions), cache_dir=cache)  # type: ignore[arg-type]


def _refuse_leaks(folders: Sequence[Path], tables: Sequence[Any]) -> None:
    """A film of the same content must be in one split over all folders."""
    seen: dict[str, tuple[str, Path]] = {}
    for folder, table in zip(folders, tables, strict=True):
        pairs = table.data.table.select(["source_hash", "split"]).group_by(["source_hash", "split"]).aggregate([])
        for content, split in zip(*(column.to_pylist() for column in pairs.columns), strict=True):
            known, where = seen.setdefault(content, (split, folder))
            if known != split:
                raise ValueError(
                    f"a film is in {known} of {where} and in {split} of {folder} (its source_hash is {content}); "
                    "prepare them with the same --split-by and --validation"
                )


def _finished(folder: Path, info: ShardInfo) -> list[dict[str, Any]]:
    records = read_records(folder, info.shards)
    done = [record for record in records if record is not None]
    if len(done) < info.shards:
        raise ValueError(
            f"{folder} is not finished ({len(done)} of {info.shards} shards); run the same cinepoet prepare again"
        )
    return done


def _first_line(fault: BaseException) -> str:
    cause = fault.__cause__ or fault
    return str(cause).strip().split("\n")[0] or type(cause).__name__


# Checking.


def validate(folder: str | Path) -> list[str]:
    """Look at every row of a folder.

    Args:
        folder: of token shards.

    Returns:
        Complaints, each with the shard, the row, its key and the reason; empty when all is well.

    Raises:
        FileNotFoundError: if the folder holds no token shards.
        ValueError: if its dataset.json or a record cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    folder = Path(folder)
    info = ShardInfo.read(folder)
    wanted = set(shard_features(info.conditions))
    complaints: list[str] = []
    keys: dict[str, str] = {}  # key to place
    splits: dict[str, tuple[str, str]] = {}  # content of a source to its split and the place that said so
    for number, record in enumerate(read_records(folder, info.shards)):
        file = shard_file(folder, number)
        if record is None or not file.is_file():
            complaints.append(f"shard {number}: {'the file' if record else 'it'} is missing; prepare again")
            continue
        try:
            table = pyarrow.parquet.read_table(file)
        except (pyarrow.ArrowException, OSError) as fault:
            complaints.append(f"shard {number}: {file.name} cannot be read ({_first_line(fault)})")
            continue
        if missing := sorted(wanted - set(table.column_names)):
            complaints.append(f"shard {number}: no column {', '.join(missing)}")
            continue
        found: list[str] = []
        for row, values in enumerate(table.to_pylist()):
            place = f"shard {number}, row {row}, key {values['key']!r}"
            found += [f"{place}: {reason}" for reason in _row_faults(values, info)]
            before = keys.setdefault(str(values["key"]), place)
            if before != place:
                found.append(f"{place}: the key is also that of {before}")
            split, said = splits.setdefault(str(values["source_hash"]), (values["split"], place))
            if split != values["split"]:
                found.append(
                    f"{place}: source {values['source']!r} is in {values['split']}, and its content in {split} ({said})"
                )
        if not found and _file_hash(file) != record["sha256"]:
            found.append(f"shard {number}: {file.name} was changed since it was written")
        if len(table) != record["rows"]:
            found.append(f"shard {number}: {len(table)} rows, its record says {record['rows']}")
        complaints += found
    return complaints


def _row_faults(row: dict[str, Any], info: ShardInfo) -> list[str]:
    """What is wrong with one row."""
    nullable = {*_OPTIONAL, *(CONDITION_PREFIX + name for name in info.conditions)}
    if empty := sorted(name for name, value in row.items() if value is None and name not in nullable):
        return [f"{', '.join(empty)} is empty"]
    grid = row["grid"]
    if min(grid) < 1:
        return [f"the grid {tuple(grid)} must be positive"]
    tokens = grid[0] * grid[1] * grid[2]
    vocabulary = info.vocabulary
    sounding = vocabulary.audio_levels * row["audio_frames"]
    codes = [("visual", tokens, vocabulary.visual_codes), ("high", 4 * tokens, vocabulary.visual_codes)]
    codes += [(CONDITION_PREFIX + name, tokens, vocabulary.visual_codes) for name in sorted(info.conditions)]
    codes.append(("audio", sounding, vocabulary.audio_codes))
    faults = []
    for name, length, size in codes:
        values = row[name]
        if values is None:
            continue
        if len(values) != length:
            faults.append(f"{name} has {len(values)} codes, expected {length}")
        elif any(value is None for value in values):
            faults.append(f"{name} has an empty code")
        elif values and not 0 <= min(values) <= max(values) < size:
            faults.append(f"{name} codes must lie in [0, {size}), got [{min(values)}, {max(values)}]")
    if (row["audio"] is None) != (row["audio_frames"] == 0):
        faults.append(
            f"audio_frames is {row['audio_frames']}, and audio is {'null' if row['audio'] is None else 'set'}"
        )
    if row["split"] not in SPLITS:
        faults.append(f"unknown split {row['split']!r}")
    if row["caption"] is not None and not row["caption"].strip():
        faults.append("the caption is empty; a clip without text has null")
    if row["caption_key"] != (None if row["caption"] is None else caption_hash(row["caption"])):
        faults.append("caption_key is not that of the caption")
    return faults
