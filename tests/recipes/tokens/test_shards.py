"""recipes/tokens/shards.py: rows come back as written, folders that do not fit are refused, bad rows are named."""

import dataclasses
import json

import pytest
import torch

from mmtok.audio.soundstream import build_soundstream
from mmtok.text.embedding_cache import caption_hash
from mmtok.vocabulary import Vocabulary
from recipes.tokens.check import validate
from recipes.tokens.identity import tokenizer_facts
from recipes.tokens.reader import TokenShards
from recipes.tokens.shards import ShardInfo, shard_file, write_shard

INFO = ShardInfo(
    visual={"family": "toy", "codebook_size": 50, "stride": [4, 8, 8], "fps": 8.0, "weights": "aa"},
    audio={"family": "toy", "codebook_size": 10, "num_codebooks": 2, "weights": "bb"},
    vocabulary=Vocabulary(50, 2, 10),
    conditions={"inpaint_central": {}},
    shards=2,
)


def make_row(number, *, grid=(2, 1, 2), audio_frames=3, caption="a film", split="train", condition=True):
    """A row whose codes count up from its number."""
    tokens = grid[0] * grid[1] * grid[2]
    return {
        "key": f"clip{number}",
        "source": f"{number}.mp4",
        "source_hash": f"hash{number}",
        "collection": "toys" if number % 2 else None,
        "split": split,
        "start_s": number / 8,
        "caption": caption,
        "caption_key": None if caption is None else caption_hash(caption),
        "grid": list(grid),
        "visual": [(number + i) % 50 for i in range(tokens)],
        "audio_frames": audio_frames,
        "audio": [(number + i) % 10 for i in range(2 * audio_frames)] if audio_frames else None,
        "condition_inpaint_central": [49 - i for i in range(tokens)] if condition else None,
    }


def write(folder, rows=None, info=INFO):
    rows = rows or [
        make_row(0),
        make_row(1, grid=(1, 1, 2), audio_frames=0, condition=False),
        make_row(2, caption=None, split="validation"),
        make_row(3, caption="another"),
    ]
    info.write(folder)
    write_shard(folder, 0, rows[:2], conditions=info.conditions, quarantined=[{"source": "x", "reason": "y"}])
    write_shard(folder, 1, rows[2:], conditions=info.conditions)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "a")


def open_shards(*folders):
    return TokenShards.open(*folders, cache_dir=folders[0].parent / "cache")


def test_rows_come_back_in_the_order_asked_for(folder):
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


def test_shards_of_before_with_a_column_more_are_read(tmp_path, folder):
    import pyarrow.parquet

    before = open_shards(folder).read([0, 3])
    for number in range(2):
        file = shard_file(folder, number)
        table = pyarrow.parquet.read_table(file)
        table = table.append_column("high", pyarrow.nulls(len(table), table.schema.field("visual").type))
        pyarrow.parquet.write_table(table, file)
    again = TokenShards.open(folder, cache_dir=tmp_path / "other").read([0, 3])
    assert torch.equal(again.visual, before.visual) and torch.equal(again.audio, before.audio)


def test_every_row_is_in_one_bucket_of_its_shape(folder):
    shards = open_shards(folder)
    small, large = shards.buckets
    assert (small.grid, small.audio_frames, small.conditions, small.rows.tolist()) == ((1, 1, 2), 0, frozenset(), [1])
    assert (large.grid, large.audio_frames, large.rows.tolist()) == ((2, 1, 2), 3, [0, 2, 3])
    assert large.conditions == {"inpaint_central"}
    assert large.captioned.tolist() == [True, False, True] and small.captioned.tolist() == [True]


def test_splits_keep_row_numbers(folder):
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


def test_fingerprint_follows_the_rows(tmp_path, folder):
    same = write(tmp_path / "same")
    other = write(tmp_path / "other", [make_row(i, caption="x" if i == 3 else "y") for i in range(4)])
    assert open_shards(same).fingerprint == open_shards(folder).fingerprint
    assert open_shards(other).fingerprint != open_shards(folder).fingerprint


def test_folders_join_also_when_one_lacks_a_condition_or_sound(tmp_path, folder):
    quiet = dataclasses.replace(INFO, audio=None, vocabulary=Vocabulary(50), conditions={})
    rows = [make_row(n, audio_frames=0) for n in range(4, 8)]
    shards = open_shards(write(tmp_path / "b", rows, quiet), folder)
    assert len(shards) == 8 and shards.info.vocabulary == INFO.vocabulary
    assert shards.read([4]).audio.shape == (1, 2, 3) and shards.read([0]).conditions == {}
    assert shards.read([4]).conditions["inpaint_central"].shape == (1, 1, 2, 1, 2)
    assert sorted(r for b in shards.buckets for r in b.rows.tolist()) == list(range(8))


def test_other_tokenizers_and_vocabularies_are_refused(tmp_path, folder):
    other = dataclasses.replace(INFO, visual=INFO.visual | {"weights": "cc"})
    with pytest.raises(ValueError, match=r"a and .*b do not go together: they differ in visual weights \(aa and cc\)"):
        open_shards(folder, write(tmp_path / "b", info=other))
    masked = dataclasses.replace(INFO, conditions={"inpaint_central": {"exact": True}})
    with pytest.raises(ValueError, match="condition inpaint_central"):
        open_shards(folder, write(tmp_path / "c", info=masked))


def test_rows_that_do_not_go_together_are_refused(folder):
    shards = open_shards(folder)
    with pytest.raises(ValueError, match="rows of one batch must be of one bucket"):
        shards.read([0, 1])
    with pytest.raises(ValueError, match="1 of these 1 rows have no condition inpaint_central"):
        shards.read([1], conditions=["inpaint_central"])
    with pytest.raises(ValueError, match="no condition 'structure' in these shards; they have: inpaint_central"):
        shards.read([0], conditions=["structure"])
    with pytest.raises(ValueError, match="no rows to read"):
        shards.read([])


def test_unfinished_absent_and_damaged_folders(tmp_path, folder):
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
def test_the_validator_names_the_bad_row(tmp_path, reason):
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


def test_decoders_do_not_change_codes_and_encoders_do():
    audio = build_soundstream("smoke")
    before = tokenizer_facts(audio)
    with torch.no_grad():
        next(audio.decoder.parameters()).add_(1)
    assert tokenizer_facts(audio) == before and before["sample_rate"] == audio.sample_rate
    with torch.no_grad():
        next(audio.encoder.parameters()).add_(1)
    assert tokenizer_facts(audio)["weights"] != before["weights"]
