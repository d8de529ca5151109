"""Films and pictures with captions, wherever they lie: what there is of them, and a file to read each from.

A source is a folder of media (captions in a listing, or beside each film as ``NAME.txt``), a listing (CSV or JSONL), a
WebDataset (``.tar`` files, or a folder or pattern of them), or a data set of the ``datasets`` library (a folder of
``save_to_disk``, a Parquet file, a hub id).

A listing names media in the column ``path`` and texts in ``caption``; ``split`` (train or validation), ``licence``,
``collection`` and ``start_s`` are optional. Several rows of one path are several captions of it.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from mmtok.media.errors import MediaError
from recipes.corpora.folder import VIDEO_SUFFIXES

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
MEDIA_SUFFIXES = VIDEO_SUFFIXES | PICTURE_SUFFIXES
MEDIA_COLUMNS = ("path", "file_name", "video", "image", "film", "file", "mp4", "jpg", "png")
CAPTION_COLUMNS = ("caption", "text", "captions", "prompt")
SPLIT_NAMES = ("train", "validation")
_WHOLE_UP_TO = 64 << 20  # bytes; larger files are hashed by blocks spread over them
_BLOCKS, _BLOCK = 64, 1 << 20
_TAR_END = 1024  # bytes of zeros behind the last member of a whole tar file


@dataclass(frozen=True)
class Film:
    """One film or picture.

    Attributes:
        source: its path as the source names it; what users are told.
        where: how ``open_film`` reaches it, in plain values.
        captions: its texts, none for a film without.
        licence: as the listing says, or None.
        split: "train" or "validation" where the listing decides it, else None.
        collection: name of the data source, or None.
        start_s: where its only clip shall begin, or None.
    """

    source: str
    where: dict[str, Any]
    captions: tuple[str, ...] = ()
    licence: str | None = None
    split: str | None = None
    collection: str | None = None
    start_s: float | None = None

    @property
    def is_picture(self) -> bool:
        """Whether it is read as a picture, by its ending."""
        return str(self.where["suffix"]) in PICTURE_SUFFIXES


@dataclass
class FilmList:
    """What a source holds.

    Attributes:
        films: those that can be tried.
        notes: what a user should know.
        quarantined: "source" and "reason" of what cannot even be tried.
    """

    films: list[Film]
    notes: list[str] = field(default_factory=list)
    quarantined: list[dict[str, str]] = field(default_factory=list)


def list_films(
    source: str,
    *,
    captions: str | Path | None = None,
    uncaptioned: str = "refuse",
    media_column: str | None = None,
    caption_column: str | None = None,
) -> FilmList:
    """Look through a source; no film is opened.

    Args:
        source: as described above.
        captions: a listing with the texts of a folder's media.
        uncaptioned: what becomes of films without a text where others have one: "refuse", "keep" (they train tasks
            without text) or "skip".
        media_column: name of the column of media; None takes the first known one.
        caption_column: name of the column of texts; None takes the first known one.

    Returns:
        The films, in a fixed order.

    Raises:
        FileNotFoundError: if the source or the listing is absent.
        ValueError: if a listing is damaged, lacks a column or has holes, texts were promised and there are none, or
            nothing is found.
    """
    path, told_by = Path(source), str(captions or source)
    columns, is_folder = _Columns(media_column, caption_column), path.is_dir() and not _is_saved_data_set(path)
    if captions is not None and not is_folder:
        raise ValueError(f"captions from {captions} go with a folder of media; {source} has its own")
    if is_folder:
        tars = sorted(path.glob("*.tar"))
        if captions is None and not tars and (media_column or caption_column):
            raise ValueError(f"names of columns go with a listing; {source} is a folder, give one with --captions")
        found = _folder(path, captions, columns) if captions or not tars else _tars(tars, columns)
    elif path.suffix.lower() in (".csv", ".jsonl"):
        found = _listed(path, path.parent, columns)
    elif source.endswith(".tar"):
        files = [path] if path.is_file() else [Path(name) for name in sorted(glob.glob(source))]
        if not files:
            raise FileNotFoundError(f"{source}: no such file")
        found = _tars(files, columns)
    else:
        found = _data_set(source, columns)
    if not found.films and not found.quarantined:
        raise ValueError(f"{source} holds no films or pictures")
    return _decide_holes(found, uncaptioned, told_by, promised=bool(captions or caption_column))


def _decide_holes(found: FilmList, uncaptioned: str, told_by: str, *, promised: bool) -> FilmList:
    """Do with films without a text as ``uncaptioned`` says; ``promised`` when the user said where texts are."""
    holes = [film for film in found.films if not film.captions]
    if not holes:
        return found
    if len(holes) == len(found.films):
        if promised and uncaptioned != "keep":
            raise ValueError(
                f"{told_by}: no film has a caption there; write them, or keep the films: --uncaptioned keep"
            )
        found.notes.append("no film has a caption: the shards will serve tasks without text only")
        return found
    what = f"{told_by}: {len(holes)} of {len(found.films)} films have no caption, such as {holes[0].source}"
    if uncaptioned == "refuse":
        raise ValueError(f"{what}; write them, or keep or skip these films (--uncaptioned keep, or skip)")
    if uncaptioned == "skip":
        found.films = [film for film in found.films if film.captions]
    found.notes.append(f"{what}; they are {'left out' if uncaptioned == 'skip' else 'kept'}")
    return found


# Listings.


@dataclass(frozen=True)
class _Columns:
    media: str | None
    caption: str | None

    def find(self, names: Iterable[str], told_by: str) -> tuple[str, str | None]:
        """Names of the column of media, and of that of captions where there is one."""
        there = list(names)
        for wanted in (self.media, self.caption):
            if wanted is not None and wanted not in there:
                raise ValueError(f"{told_by} has no column {wanted!r}; it has: {', '.join(there)}")
        media = self.media or next((name for name in MEDIA_COLUMNS if name in there), None)
        if media is None:
            raise ValueError(
                f"{told_by} has no column of media ({', '.join(MEDIA_COLUMNS)}); it has: {', '.join(there)}; "
                "name it with --media-column"
            )
        return media, self.caption or next((name for name in CAPTION_COLUMNS if name in there), None)


def _rows(listing: Path) -> list[tuple[int, dict[str, Any]]]:
    """Rows of a CSV or JSONL file with their line numbers."""
    if not listing.is_file():
        raise FileNotFoundError(f"{listing}: no such file")
    rows: list[tuple[int, dict[str, Any]]] = []
    try:
        with listing.open(newline="", encoding="utf-8-sig") as file:
            if listing.suffix.lower() == ".csv":
                reader = csv.DictReader(file, strict=True)
                for row in reader:
                    if None in row or None in row.values():
                        raise ValueError(f"line {reader.line_num} has another number of columns than the first line")
                    rows.append((reader.line_num, dict(row)))
            else:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        values = json.loads(line)
                        if not isinstance(values, dict):
                            raise ValueError(f"line {number} is not a table of names and values")
                        rows.append((number, values))
    except json.JSONDecodeError as fault:
        raise ValueError(f"{listing}: line {number} is not JSON ({fault.msg})") from fault
    except (csv.Error, UnicodeDecodeError, ValueError) as fault:
        raise ValueError(f"{listing}: {fault}") from fault
    if not rows:
        raise ValueError(f"{listing} has no rows")
    return rows


def _texts(value: Any, place: str) -> tuple[str, ...]:
    """Captions of one cell: a text, a list of texts, or nothing."""
    texts = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{place}: a caption must be a text or a list of texts, got {value!r}")
    return tuple(text.strip() for text in texts if text.strip())


def _where(file: Path) -> dict[str, Any]:
    return {"file": str(file.absolute()), "suffix": file.suffix.lower()}


def _film(name: str, where: dict[str, Any], row: Mapping[str, Any], texts: tuple[str, ...], place: str) -> Film:
    split = row.get("split") or None
    if split is not None and split not in SPLIT_NAMES:
        raise ValueError(f"{place}: unknown split {split!r}; known: {', '.join(SPLIT_NAMES)}")
    start = row.get("start_s")
    try:
        start_s = None if start in (None, "") else float(start)  # type: ignore[arg-type]
        if start_s is not None and not 0 <= start_s < float("inf"):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"{place}: start_s must be seconds from 0 on, got {start!r}") from None
    return Film(
        source=name,
        where=where,
        captions=texts,
        licence=row.get("licence") or row.get("license") or None,
        split=split,
        collection=row.get("collection") or None,
        start_s=start_s,
    )


def _listed(listing: Path, root: Path, columns: _Columns, *, captioned: bool = False) -> FilmList:
    """Films that a listing names, relative to ``root``; rows of the same clip are joined."""
    rows = _rows(listing)
    media, caption = columns.find(rows[0][1], str(listing))
    if captioned and caption is None:
        raise ValueError(
            f"{listing} has no column of captions ({', '.join(CAPTION_COLUMNS)}); it has: {', '.join(rows[0][1])}; "
            "name it with --caption-column"
        )
    films: dict[tuple[str, float | None], Film] = {}
    found = FilmList([])
    for line, row in rows:
        place = f"{listing}, line {line}"
        name = row.get(media)
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{place}: the column {media!r} is empty")
        name = Path(name.strip()).as_posix()
        texts = _texts(row.get(caption) if caption else None, place)
        film = _film(name, _where(root / name), row, texts, place)
        before = films.get((name, film.start_s))
        if before is not None and (before.split, before.licence) != (film.split, film.licence):
            raise ValueError(f"{place}: {name} has another split or licence than in a row before")
        films[(name, film.start_s)] = film if before is None else replace(film, captions=before.captions + texts)
    for film in films.values():
        if (root / film.source).is_file():
            found.films.append(film)
        else:
            found.quarantined.append({"source": film.source, "reason": "no such file"})
    return found


def _folder(root: Path, captions: str | Path | None, columns: _Columns) -> FilmList:
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix.lower() in MEDIA_SUFFIXES)
    listed = FilmList([]) if captions is None else _listed(Path(captions), root, columns, captioned=True)
    by_name: dict[str, list[Film]] = {}
    for film in listed.films:
        by_name.setdefault(film.source, []).append(film)
    for file in files:
        name = file.relative_to(root).as_posix()
        if name in by_name:
            continue
        beside = file.with_suffix(".txt")
        texts: tuple[str, ...] = ()
        if captions is None and beside.is_file():
            texts = _texts(beside.read_text(encoding="utf-8", errors="replace"), str(beside))
        by_name[name] = [Film(name, _where(file), texts)]
    return FilmList([film for name in sorted(by_name) for film in by_name[name]], quarantined=listed.quarantined)


# WebDataset.


def _tars(files: list[Path], columns: _Columns) -> FilmList:
    found = FilmList([])
    for file in files:
        samples: dict[str, dict[str, tarfile.TarInfo]] = {}
        key, end = "", 0
        try:
            with tarfile.open(file, "r:") as tar:
                with contextlib.suppress(tarfile.TarError):  # a file that breaks off is seen by its length below
                    for member in tar:
                        end = member.offset_data + member.size
                        folder, _, base = member.name.rpartition("/")
                        stem, _, suffix = base.partition(".")
                        if member.isfile() and stem and suffix:
                            key = f"{folder}/{stem}" if folder else stem
                            samples.setdefault(key, {})[f".{suffix.lower()}"] = member
                if file.stat().st_size < end + _TAR_END:  # the last sample may lack a part
                    samples.pop(key, None)
                    found.quarantined.append({"source": f"{file.name}/{key}", "reason": "the tar file breaks off here"})
                for key, members in samples.items():
                    film = _sample(tar, file, key, members, columns)
                    if isinstance(film, Film):
                        found.films.append(film)
                    elif film:
                        found.quarantined.append({"source": f"{file.name}/{key}", "reason": film})
        except (tarfile.TarError, OSError) as fault:
            packed = " (a compressed one must be unpacked first)" if isinstance(fault, tarfile.ReadError) else ""
            found.quarantined.append({"source": file.name, "reason": f"cannot be read as a tar file{packed}: {fault}"})
    return found


def _sample(
    tar: tarfile.TarFile, file: Path, key: str, members: dict[str, tarfile.TarInfo], columns: _Columns
) -> Film | str:
    """The film of a sample; or what is wrong with it, which is nothing for a sample without media."""
    kinds = (VIDEO_SUFFIXES, PICTURE_SUFFIXES)
    suffix = next((name for kind in kinds for name in sorted(members) if name in kind), None)
    if suffix is None:
        return ""
    row: dict[str, Any] = {}
    try:
        if ".json" in members:
            row = json.loads(_member(tar, members[".json"]))
        caption = columns.caption or next((name for name in CAPTION_COLUMNS if row.get(name)), None)
        texts: tuple[str, ...] = _texts(row.get(caption) if caption else None, key)
        for name in (".txt", ".caption"):
            if not texts and name in members:
                texts = _texts(_member(tar, members[name]).decode("utf-8", errors="replace"), key)
        media = members[suffix]
        where = {"file": str(file.absolute()), "suffix": suffix, "offset": media.offset_data, "size": media.size}
        return _film(f"{file.name}/{key}{suffix}", where, row, texts, key)
    except (AttributeError, ValueError, OSError, tarfile.TarError) as fault:
        return f"its description cannot be read ({fault})"


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = tar.extractfile(member)
    return b"" if opened is None else opened.read()


# The datasets library.


def _is_saved_data_set(path: Path) -> bool:
    return (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file()


@lru_cache(maxsize=4)
def _table(source: str) -> Any:
    """A data set with its media as bytes or paths, never decoded."""
    import datasets
    from datasets import Dataset, DatasetDict, Image, Video, load_dataset, load_from_disk
    from datasets.exceptions import DatasetNotFoundError

    path = Path(source)
    if path.is_dir():
        table = load_from_disk(source)
    elif path.suffix == ".parquet" and path.is_file():
        table = Dataset.from_parquet(source)
    elif path.exists() or path.suffix:
        kinds = "a folder, .csv, .jsonl, .tar, .parquet or a data set's hub id"
        raise FileNotFoundError(f"{source}: {'unknown kind of source' if path.exists() else 'no such file'} ({kinds})")
    else:
        try:
            table = load_dataset(source, split="train")
        except (DatasetNotFoundError, ConnectionError, OSError, ValueError) as fault:
            raise FileNotFoundError(
                f"{source} is neither here nor a data set that can be loaded ({str(fault).splitlines()[0]})"
            ) from fault
    if isinstance(table, DatasetDict):
        if "train" not in table:
            raise ValueError(f"{source} has no split named train; it has: {', '.join(table)}")
        table = table["train"]
    assert isinstance(table, datasets.Dataset), "one split was taken"
    for name, feature in table.features.items():
        if isinstance(feature, (Image, Video)):
            table = table.cast_column(name, type(feature)(decode=False))
    return table


def _data_set(source: str, columns: _Columns) -> FilmList:
    table = _table(source)
    media, caption = columns.find(table.column_names, source)
    wanted = {caption, "split", "licence", "license", "collection", "start_s"}
    plain = table.select_columns([name for name in table.column_names if name in wanted])
    suffix = {"Video": ".mp4", "Image": ".png"}.get(type(table.features[media]).__name__)
    found = FilmList([])
    for number in range(len(table)):
        row = plain[number] if plain.column_names else {}
        place = f"{source}, row {number}"
        texts = _texts(row.get(caption) if caption else None, place)
        ending = suffix or _ending(table[number][media], media)
        where = {"data_set": source, "row": number, "column": media, "suffix": ending}
        found.films.append(_film(f"row{number:06d}{ending}", where, row, texts, place))
    return found


def _ending(value: Any, column: str) -> str:
    """Ending of a cell's media: by its path, else by the name of the column."""
    path = value if isinstance(value, str) else value.get("path") if isinstance(value, dict) else None
    if path and Path(path).suffix.lower() in MEDIA_SUFFIXES:
        return Path(path).suffix.lower()
    return ".png" if column in ("image", "jpg", "png") else ".mp4"


# Reading.


@contextlib.contextmanager
def open_film(film_where: dict[str, Any], name: str) -> Iterator[Path]:
    """A file to read a film from.

    Args:
        film_where: ``Film.where``.
        name: ``Film.source``, for errors.

    Yields:
        The film's own file, or a copy of it that goes away with the block.

    Raises:
        MediaError: if it cannot be reached.
    """
    if "file" in film_where and "offset" not in film_where:
        yield Path(film_where["file"])
        return
    try:
        with _bytes_of(film_where) as (stream, size):
            content = stream.read(size)
    except (OSError, KeyError, TypeError, IndexError) as fault:
        raise MediaError(name, f"cannot be read ({fault})") from fault
    with tempfile.NamedTemporaryFile(suffix=film_where["suffix"]) as copy:
        copy.write(content)
        copy.flush()
        yield Path(copy.name)


def content_hash(where: dict[str, Any], name: str) -> str:
    """A name for what a film's file holds; copies have the same.

    Args:
        where: ``Film.where``.
        name: ``Film.source``, for errors.

    Returns:
        32 hexadecimal digits; of files over 64 MiB, the size and 64 blocks of 1 MiB spread over them.

    Raises:
        MediaError: if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with _bytes_of(where) as (stream, size):
            start = stream.tell()
            digest.update(str(size).encode())
            if size <= _WHOLE_UP_TO:
                digest.update(stream.read(size))
            else:
                for block in range(_BLOCKS):
                    stream.seek(start + (size - _BLOCK) * block // (_BLOCKS - 1))
                    digest.update(stream.read(_BLOCK))
    except (OSError, KeyError, TypeError, IndexError) as fault:
        raise MediaError(name, f"cannot be read ({getattr(fault, 'strerror', None) or fault})") from fault
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def _bytes_of(where: dict[str, Any]) -> Iterator[tuple[BinaryIO, int]]:
    """A film's bytes as a stream at their beginning, and how many there are."""
    if "data_set" in where:
        value = _table(where["data_set"])[where["row"]][where["column"]]
        if isinstance(value, dict) and value.get("bytes") is not None:
            value = value["bytes"]
        elif isinstance(value, dict):
            value = value["path"]
        if isinstance(value, bytes):
            yield io.BytesIO(value), len(value)
            return
        path, offset, size = Path(value), 0, None
    else:
        path, offset, size = Path(where["file"]), where.get("offset", 0), where.get("size")
    with path.open("rb") as file:
        file.seek(offset)
        yield file, path.stat().st_size if size is None else size
