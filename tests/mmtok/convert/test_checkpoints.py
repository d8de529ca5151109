"""Reading published files: the same tensors as torch reads, and nothing in the file is ever run."""

from __future__ import annotations

import collections
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmtok.convert.checkpoints import read_checkpoint


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 1)
        self.register_buffer("table", torch.arange(5, dtype=torch.int32))
        self.sizes = [1, 2, 3]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * self.sizes[0]


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Inner(), Inner()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks[0](x) + self.blocks[1](x)


@pytest.fixture
def model() -> Outer:
    torch.manual_seed(0)
    return Outer()


def assert_same(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    assert got.keys() == want.keys()
    assert all(got[k].dtype == want[k].dtype and torch.equal(got[k], want[k]) for k in want)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchscript_without_torchscript(model: Outer, tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "model.jit"
    torch.jit.script(model.to(dtype)).save(str(path))
    assert_same(read_checkpoint(path), dict(torch.jit.load(str(path)).state_dict()))


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s, "x": [1]}]
)
def test_torch_archives(model: Outer, tmp_path: Path, wrap) -> None:
    torch.save(wrap(collections.OrderedDict(model.state_dict())), tmp_path / "a.ckpt")
    assert_same(read_checkpoint(tmp_path / "a.ckpt"), dict(model.state_dict()))


def test_archives_from_before_torch_1_6(model: Outer, tmp_path: Path) -> None:
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert_same(read_checkpoint(tmp_path / "a.pth"), dict(model.state_dict()))
    torch.save({"w": Bomb()}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="cannot be read as weights") as fault:
        read_checkpoint(tmp_path / "b.pth")
    assert "\n" not in str(fault.value)


def test_views_of_one_storage_and_parameters(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    state = {
        "rows": base.view(3, 4)[1:],
        "turned": base.view(3, 4).T,
        "p": nn.Parameter(torch.ones(2)),
        "none": torch.empty(0),
    }
    torch.save(state, tmp_path / "a.pt")
    assert_same(read_checkpoint(tmp_path / "a.pt"), {k: v.detach() for k, v in state.items()})


def test_safetensors(model: Outer, tmp_path: Path) -> None:
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    assert_same(read_checkpoint(tmp_path / "a.safetensors"), dict(model.state_dict()))


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch was_run",))


def hostile(path: Path, top: object, **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("a/data.pkl", pickle.dumps(top, protocol=2))
        archive.writestr("a/version", "3")
    return path


def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"asks to run (posix|os|nt)\.system"):
        read_checkpoint(hostile(tmp_path / "a.ckpt", {"state_dict": Bomb()}))
    torch.save({"w": torch.ones(2), "config": Path("x")}, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match="asks to run pathlib"):
        read_checkpoint(tmp_path / "b.ckpt")
    assert not (tmp_path / "was_run").exists()


def test_zip_bombs_are_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * (64 << 20))
    with pytest.raises(ValueError, match="compressed"):
        read_checkpoint(path)


def test_a_tensor_may_not_reach_beyond_its_storage(model: Outer, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    name = next(n for n in parts if n.endswith("data.pkl"))
    parts[name] = parts[name].replace(b"K\x04\x85", b"K\x7f\x85")  # the size (4,) becomes (127,)
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        for n, data in parts.items():
            archive.writestr(n, data)
    with pytest.raises(ValueError, match=r"b\.pt cannot be read as weights"):
        read_checkpoint(tmp_path / "b.pt")


def test_damage_is_told_in_one_line(model: Outer, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    cases = {
        "short.pt": whole[: len(whole) // 2],
        "empty.pt": b"",
        "text.ckpt": b"hello, I am not weights",
        "old.pt": b"\x80\x02}",
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="cannot be read as weights") as fault:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(fault.value)
    with pytest.raises(ValueError, match="holds no tensors"):
        read_checkpoint(hostile(tmp_path / "none.pt", {"state_dict": {}}))
    with pytest.raises(ValueError, match="no torch data"):
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            archive.writestr("photo.png", b"x")
        read_checkpoint(tmp_path / "photos.zip")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_checkpoint(tmp_path / "absent.pt")


def test_tables_without_end_are_refused(tmp_path: Path) -> None:
    ring: dict[str, object] = {}
    ring["ring"] = ring
    bomb: dict[str, object] = {"t": 1}
    for _ in range(40):
        bomb = {"a": bomb, "b": bomb}
    for name, top in (("ring", ring), ("bomb", bomb)):
        path = hostile(tmp_path / name, top)
        with pytest.raises(ValueError, match="hold each other without end"):
            read_checkpoint(path)


def test_memory_that_a_pickle_cannot_fill_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memo.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}r\x00\x00\x00\x04.")  # LONG_BINPUT 2^26
    with pytest.raises(ValueError, match="reserves more memory than it can fill"):
        read_checkpoint(path)


def test_a_pickle_cannot_mark_what_it_names(tmp_path: Path) -> None:
    from mmtok.convert import checkpoints as container

    path = tmp_path / "marks.pt"
    program = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x05\x00\x00\x00abcdeK\x01sb."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        read_checkpoint(path)
    assert not hasattr(container._rebuild_tensor, "abcde")


def test_a_cut_archive_is_named(model: Outer, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cut short"):
        read_checkpoint(path)
