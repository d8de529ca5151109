"""Token shards as a training reads them: pools of clips of one shape, by row."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recipes.tokens.shards import (
    _TEXT_COLUMNS,
    CONDITION_PREFIX,
    FORMAT,
    SPLITS,
    Bucket,
    ShardInfo,
    ShardRows,
    _first_line,
    quiet_datasets,
    read_records,
    shard_features,
    shard_file,
)


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
                with quiet_datasets():
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
        flags = [self._has(name) for name in (CONDITION_PREFIX + n for n in names)]
        keys = np.column_stack([grids, frames, *flags]).astype(np.int64)
        captioned = self._has("caption")
        kinds, member = np.unique(keys, axis=0, return_inverse=True)
        order = np.argsort(member.ravel(), kind="stable")
        pieces = np.split(order, np.cumsum(np.bincount(member.ravel(), minlength=len(kinds)))[:-1])
        return [
            Bucket(
                grid=(int(kind[0]), int(kind[1]), int(kind[2])),
                audio_frames=int(kind[3]),
                conditions=frozenset(n for n, there in zip(names, kind[4:], strict=True) if there),
                rows=torch.from_numpy(self._rows[piece]),
                captioned=torch.from_numpy(captioned[piece]),
            )
            for kind, piece in zip(kinds, pieces, strict=True)
        ]

    def read(self, rows: Tensor | Sequence[int], *, conditions: Iterable[str] | None = None) -> ShardRows:
        """Read rows of one bucket.

        Args:
            rows: (b,) row numbers, at least one.
            conditions: names of those to read; None reads all that these rows have.

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
        columns = ["grid", "visual", "audio", "audio_frames", "caption", "collection"]
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
    features = shard_features(info.conditions)  # columns of before that nobody reads are passed over
    return Dataset.from_parquet(files, features=features, columns=list(features), cache_dir=cache)  # type: ignore[arg-type]


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
