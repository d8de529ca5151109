"""recipes/tokens/shards.py: folders that do not fit, are unfinished or damaged are refused."""

import dataclasses

import pytest

from recipes.tokens.check import validate
from recipes.tokens.reader import TokenShards
from recipes.tokens.shards import shard_file


def test_other_tokenizers_and_vocabularies_are_refused(INFO, open_shards, write, tmp_path, folder):
    other = dataclasses.replace(INFO, visual=INFO.visual | {"weights": "cc"})
    with pytest.raises(ValueError, match=r"a and .*b do not go together: they differ in visual weights \(aa and cc\)"):
        open_shards(folder, write(tmp_path / "b", info=other))
    masked = dataclasses.replace(INFO, conditions={"inpaint_central": {"exact": True}})
    with pytest.raises(ValueError, match="condition inpaint_central"):
        open_shards(folder, write(tmp_path / "c", info=masked))


def test_unfinished_absent_and_damaged_folders(open_shards, write, tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r"holds no token shards .* cinepoet prepare"):
        TokenShards.open(tmp_path)
    shard_file(folder, 1).with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"is not finished \(1 of 2 shards\); run the same cinepoet prepare again"):
        open_shards(folder)
    write(folder)
    shard_file(folder, 1).write_bytes(b"PAR1 no more")
    with pytest.raises(ValueError, match=r"has a shard that cannot be read .* --check"):
        open_shards(folder)
    assert any(c.startswith("shard 1: 00001.parquet cannot be read") for c in validate(folder))
    (folder / "dataset.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="damaged or made by another version"):
        TokenShards.open(folder)
