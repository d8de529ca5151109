"""recipes/tokens/check.py: bad rows and files are named."""

import json

import pytest

from mmtok.text.embedding_cache import caption_hash
from recipes.tokens.check import validate
from recipes.tokens.shards import shard_file

BAD_ROWS = {
    r"visual codes must lie in \[0, 50\), got \[0, 50\]": {"visual": [0, 1, 2, 50]},
    "visual has 3 codes, expected 4": {"visual": [0, 1, 2]},
    "audio has 5 codes, expected 6": {"audio": [0] * 5},
    r"audio codes must lie in \[0, 10\), got \[-1, 9\]": {"audio": [-1, 9, 0, 0, 0, 0]},
    "audio_frames is 3, and audio is null": {"audio": None},
    "condition_inpaint_central has 1 codes": {"condition_inpaint_central": [1]},
    "caption_key is not that of the caption": {"caption": "changed"},
    "the caption is empty": {"caption": " ", "caption_key": caption_hash(" ")},
    "unknown split 'test'": {"split": "test"},
    "source_hash is empty": {"source_hash": None},
    "the key is also that of shard 0, row 1": {"key": "clip1"},
    "source '3.mp4' is in train, and its content in validation": {"source_hash": "hash2"},
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_the_validator_names_the_bad_row(make_row, write, tmp_path, reason):
    import re

    rows = [make_row(0), make_row(1), make_row(2, split="validation"), make_row(3) | BAD_ROWS[reason]]
    found = validate(write(tmp_path, rows))
    assert len(found) == 1 and re.search(rf"^shard 1, row 1, key '\w+': {reason}", found[0]), found


def test_the_validator_sees_files_that_changed_or_are_missing(folder):
    assert validate(folder) == []
    record = shard_file(folder, 0).with_suffix(".json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"sha256": "0"}))
    assert validate(folder) == ["shard 0: 00000.parquet was changed since it was written"]
    shard_file(folder, 1).unlink()
    assert validate(folder)[1] == "shard 1: the file is missing; prepare again"
