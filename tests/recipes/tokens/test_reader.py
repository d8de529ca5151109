"""recipes/tokens/reader.py: rows come back as written, in buckets of one shape."""

import dataclasses

import pytest
import torch

from mmtok.vocabulary import Vocabulary
from recipes.tokens.reader import TokenShards
from recipes.tokens.shards import shard_file


def test_rows_come_back_in_the_order_asked_for(open_shards, folder):
    shards = open_shards(folder)
    rows = shards.read([3, 0])
    assert rows.visual.dtype == torch.int64 and rows.visual.shape == (2, 1, 2, 1, 2)
    assert rows.visual[0].flatten().tolist() == [3, 4, 5, 6]
    assert rows.audio[1].tolist() == [[0, 1, 2], [3, 4, 5]]  # level by level
    assert rows.conditions["inpaint_central"][0].flatten().tolist() == [49, 48, 47, 46]
    assert rows.captions == ["another", "a film"] and rows.collections == ["toys", None]
    silent = shards.read(torch.tensor([1]))
    assert silent.audio is None and silent.conditions == {}
    assert shards.facts(2)["source"] == "2.mp4" and shards.facts(2)["start_s"] == 0.25


def test_shards_of_before_with_a_column_more_are_read(open_shards, tmp_path, folder):
    import pyarrow.parquet

    before = open_shards(folder).read([0, 3])
    for number in range(2):
        file = shard_file(folder, number)
        table = pyarrow.parquet.read_table(file)
        table = table.append_column("high", pyarrow.nulls(len(table), table.schema.field("visual").type))
        pyarrow.parquet.write_table(table, file)
    again = TokenShards.open(folder, cache_dir=tmp_path / "other").read([0, 3])
    assert torch.equal(again.visual, before.visual) and torch.equal(again.audio, before.audio)


def test_every_row_is_in_one_bucket_of_its_shape(open_shards, folder):
    shards = open_shards(folder)
    small, large = shards.buckets
    assert (small.grid, small.audio_frames, small.conditions, small.rows.tolist()) == ((1, 1, 2), 0, frozenset(), [1])
    assert (large.grid, large.audio_frames, large.rows.tolist()) == ((2, 1, 2), 3, [0, 2, 3])
    assert large.conditions == {"inpaint_central"}
    assert large.captioned.tolist() == [True, False, True] and small.captioned.tolist() == [True]


def test_splits_keep_row_numbers(make_row, open_shards, write, folder):
    shards = open_shards(folder)
    validation = shards.split("validation")
    assert len(shards) == 4 and len(validation) == 1 and len(shards.split("train")) == 3
    assert [b.rows.tolist() for b in validation.buckets] == [[2]] and validation.buckets[0].captioned.tolist() == [
        False
    ]
    assert shards.captions() == ["a film", "another"] and validation.captions() == []
    assert shards.collections() == ["toys"]
    nothing = open_shards(write(folder.parent / "none", [make_row(n) for n in range(4)])).split("validation")
    assert len(nothing) == 0 and nothing.buckets == [] and nothing.captions() == []
    assert len({s.fingerprint for s in (shards, validation, shards.split("train"))}) == 3
    with pytest.raises(ValueError, match="unknown split 'test'; known: train, validation"):
        shards.split("test")


def test_fingerprint_follows_the_rows(make_row, open_shards, write, tmp_path, folder):
    same = write(tmp_path / "same")
    other = write(tmp_path / "other", [make_row(i, caption="x" if i == 3 else "y") for i in range(4)])
    assert open_shards(same).fingerprint == open_shards(folder).fingerprint
    assert open_shards(other).fingerprint != open_shards(folder).fingerprint


def test_folders_join_also_when_one_lacks_a_condition_or_sound(INFO, make_row, open_shards, write, tmp_path, folder):
    quiet = dataclasses.replace(INFO, audio=None, vocabulary=Vocabulary(50), conditions={})
    rows = [make_row(n, audio_frames=0) for n in range(4, 8)]
    shards = open_shards(write(tmp_path / "b", rows, quiet), folder)
    assert len(shards) == 8 and shards.info.vocabulary == INFO.vocabulary
    assert shards.read([4]).audio.shape == (1, 2, 3) and shards.read([0]).conditions == {}
    assert shards.read([4]).conditions["inpaint_central"].shape == (1, 1, 2, 1, 2)
    assert sorted(r for b in shards.buckets for r in b.rows.tolist()) == list(range(8))


def test_rows_that_do_not_go_together_are_refused(open_shards, folder):
    shards = open_shards(folder)
    with pytest.raises(ValueError, match="rows of one batch must be of one bucket"):
        shards.read([0, 1])
    with pytest.raises(ValueError, match="1 of these 1 rows have no condition inpaint_central"):
        shards.read([1], conditions=["inpaint_central"])
    with pytest.raises(ValueError, match="no condition 'structure' in these shards; they have: inpaint_central"):
        shards.read([0], conditions=["structure"])
    with pytest.raises(ValueError, match="no rows to read"):
        shards.read([])
