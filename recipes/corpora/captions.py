"""Captions out of whatever they are kept in: text, tables, token folders."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_KINDS = (".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet")


def read_captions(source: str | Path, *, column: str | None = None) -> list[str]:
    """All captions of a file or folder, in its order.

    Args:
        source: a .txt file with one a line (empty lines are skipped), a .csv, .tsv, .jsonl or .parquet table, a .json
            list of texts, a folder with captions.json or .parquet files, or "-" for the lines of standard input. Rows
            of .parquet that hold no text (null) are skipped: in token shards they are clips without a caption.
        column: of tables; None means "caption".

    Returns:
        The texts, repetitions included.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if it is damaged, of another kind, has no such column, no captions, or a row without a text.
    """
    if str(source) == "-":
        return _whole("standard input", enumerate(filter(str.strip, sys.stdin.read().splitlines()), start=1))
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir():
        return _of_folder(path, column)
    if path.suffix.lower() not in _KINDS:
        raise ValueError(f"{path} is of no kind that holds captions; known: {', '.join(_KINDS)}, folder")
    if column is not None and path.suffix.lower() in (".txt", ".json"):
        raise ValueError(f"--column is a choice for tables, and {path} is none")
    try:
        return _whole(str(path), _rows(path, column or "caption"))
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as fault:
        raise ValueError(f"{path} cannot be read: {fault}") from fault


def _of_folder(folder: Path, column: str | None) -> list[str]:
    if (folder / "captions.json").is_file():
        return read_captions(folder / "captions.json")
    tables = sorted(folder.rglob("*.parquet"))
    if not tables:
        raise ValueError(f"{folder} has neither captions.json nor .parquet files")
    rows = (row for table in tables for row in _rows(table, column or "caption"))
    return _whole(str(folder), rows)


def _rows(path: Path, column: str) -> Iterator[tuple[int, Any]]:
    """Line or row number and text."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        yield from _parquet(path, column)
        return
    with path.open(encoding="utf-8-sig", newline="") as lines:
        if kind == ".txt":
            yield from ((at, line.strip()) for at, line in enumerate(lines, start=1) if line.strip())
        elif kind == ".json":
            texts = json.load(lines)
            if not isinstance(texts, list):
                raise ValueError(f"{path} must hold a list of texts")
            yield from enumerate(texts, start=1)
        elif kind == ".jsonl":
            for at, line in enumerate(lines, start=1):
                if line.strip():
                    row = json.loads(line)
                    _require(column, row if isinstance(row, dict) else {}, f"{path} line {at}")
                    yield at, row[column]
        else:
            reader = csv.DictReader(lines, delimiter="\t" if kind == ".tsv" else ",")
            _require(column, reader.fieldnames or (), str(path))
            for row in reader:
                yield reader.line_num, row[column]


def _parquet(path: Path, column: str) -> Iterator[tuple[int, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as fault:
        raise ValueError(f"{path} cannot be read: {fault}") from fault
    with table:
        _require(column, table.schema_arrow.names, str(path))
        texts = (text for batch in table.iter_batches(columns=[column]) for text in batch.column(0).to_pylist())
        yield from ((at, text) for at, text in enumerate(texts, start=1) if text is not None)


def _require(column: str, known: Any, where: str) -> None:
    if column not in known:
        raise ValueError(f"{where} has no column {column!r}; there are: {', '.join(map(str, known)) or 'none'}")


def _whole(where: str, rows: Iterator[tuple[int, Any]]) -> list[str]:
    """The texts, none of them absent or empty."""
    texts: list[str] = []
    for at, text in rows:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where} has no caption in row {at}; fill it or take the row out")
        texts.append(text)
    if not texts:
        raise ValueError(f"{where} holds no captions")
    return texts
