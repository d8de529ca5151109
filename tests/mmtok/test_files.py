"""Files are whole or not there, whoever writes beside."""

import json
import os
import stat

import pytest
import torch
from safetensors.torch import load_file

from mmtok.files import scratch_beside, write_atomically, write_json, write_tensors, writing


def test_what_is_written_comes_back_and_nothing_lies_beside(tmp_path):
    write_atomically(tmp_path / "new" / "a.txt", "ä\n")
    write_atomically(tmp_path / "new" / "a.txt", b"\x00b")  # replaced
    write_json(tmp_path / "new" / "b.json", {"a": [1, None]})
    write_tensors({"w": torch.eye(2)}, tmp_path / "new" / "c.safetensors", {"of": "test"})
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\x00b"
    assert json.loads((tmp_path / "new" / "b.json").read_text()) == {"a": [1, None]}
    assert torch.equal(load_file(tmp_path / "new" / "c.safetensors")["w"], torch.eye(2))
    assert sorted(f.name for f in (tmp_path / "new").iterdir()) == ["a.txt", "b.json", "c.safetensors"]


def test_a_failure_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    write_atomically(file, "old")
    with pytest.raises(RuntimeError, match="half"), writing(file) as scratch:
        scratch.write_text("new")
        raise RuntimeError("half way")
    assert file.read_text() == "old" and [f.name for f in tmp_path.iterdir()] == ["a.txt"]


def test_two_writers_never_share_a_name_and_long_names_stay_legal(tmp_path):
    target = tmp_path / f"{'n' * 250}.txt"
    names = {scratch_beside(target) for _ in range(100)}
    assert len(names) == 100 and all(name.parent == tmp_path and name.suffix == ".txt" for name in names)
    write_atomically(target, "x")
    assert target.read_text() == "x"


def test_files_are_readable_as_others_are_and_links_keep_pointing(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_atomically(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new"
    write_tensors({"w": torch.zeros(1)}, tmp_path / "w.safetensors")  # private as safetensors makes it
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "w.safetensors").stat().st_mode) == 0o666 & ~mask
