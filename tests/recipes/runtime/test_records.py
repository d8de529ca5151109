"""recipes/runtime/records.py: a folder tells what it was made with, and refuses to go on with something else."""

from pathlib import Path

import pytest

from recipes.runtime.distributed import ALONE, Ranks
from recipes.runtime.records import same_data, same_study


def test_a_study_goes_on_with_its_own_numbers_only(tmp_path: Path) -> None:
    same_study(tmp_path, {"steps": 4, "seeds": [0, 1]})
    same_study(tmp_path, {"steps": 4, "seeds": [0, 1]})
    with pytest.raises(ValueError, match="holds a study with other numbers; delete it or use another --out"):
        same_study(tmp_path, {"steps": 5, "seeds": [0, 1]})


def test_a_run_that_was_started_keeps_its_data(tmp_path: Path) -> None:
    same_data(tmp_path, ["shards a"], ALONE)
    same_data(tmp_path, ["shards b"], ALONE)  # nothing was trained yet
    assert (tmp_path / "data.txt").read_text() == "shards b\n"
    (tmp_path / "checkpoint.pt").touch()
    same_data(tmp_path, ["shards b"], ALONE)
    with pytest.raises(ValueError, match="was started with other data"):
        same_data(tmp_path, ["shards c"], ALONE)
    assert (tmp_path / "data.txt").read_text() == "shards b\n"


def test_a_sharded_checkpoint_counts_too(tmp_path: Path) -> None:
    same_data(tmp_path, ["a"], ALONE)
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(ValueError, match="was started with other data"):
        same_data(tmp_path, ["b"], ALONE)


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "wait", lambda self: None)
    same_data(tmp_path, ["a"], Ranks(1, 2))
    assert not (tmp_path / "data.txt").exists()
