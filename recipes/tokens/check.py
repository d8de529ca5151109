"""Whether shards are whole and hold what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtok.files import file_hash
from mmtok.text.embedding_cache import caption_hash
from recipes.tokens.shards import (
    CONDITION_PREFIX,
    OPTIONAL,
    SPLITS,
    ShardInfo,
    _first_line,
    read_records,
    shard_features,
    shard_file,
)


def validate(folder: str | Path) -> list[str]:
    """Complaints about every row of a folder: the shard, the row, its key and the reason; none when all is well."""
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
        if not found and file_hash(file) != record["sha256"]:
            found.append(f"shard {number}: {file.name} was changed since it was written")
        if len(table) != record["rows"]:
            found.append(f"shard {number}: {len(table)} rows, its record says {record['rows']}")
        complaints += found
    return complaints


def _row_faults(row: dict[str, Any], info: ShardInfo) -> list[str]:
    """What is wrong with one row."""
    nullable = {*OPTIONAL, *(CONDITION_PREFIX + name for name in info.conditions)}
    if empty := sorted(name for name, value in row.items() if value is None and name not in nullable):
        return [f"{', '.join(empty)} is empty"]
    grid = row["grid"]
    if min(grid) < 1:
        return [f"the grid {tuple(grid)} must be positive"]
    tokens = grid[0] * grid[1] * grid[2]
    vocabulary = info.vocabulary
    sounding = vocabulary.audio_levels * row["audio_frames"]
    codes = [("visual", tokens, vocabulary.visual_codes)]
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
