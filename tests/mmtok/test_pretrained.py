"""mmtok/pretrained.py: what is written is what is read, and what does not fit is named."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from mmtok.pretrained import (
    known_models,
    load_strictly,
    load_tensors,
    params_from_config,
    read_config,
    resolve_folder,
    save_module,
)


@dataclass(frozen=True)
class Params:
    width: int
    sizes: tuple[int, ...] = (1, 2)


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.LayerNorm(96), nn.Linear(96, 4))


def test_there_and_back(tmp_path):
    net = _net()
    save_module(net, tmp_path, family="toy", params=Params(3), note="n")
    config = read_config(tmp_path, "toy")
    assert params_from_config(Params, config["params"]) == Params(3, (1, 2)) and config["note"] == "n"
    other = nn.Sequential(nn.Linear(64, 96), nn.LayerNorm(96), nn.Linear(96, 4))
    load_strictly(other, load_tensors(tmp_path))
    for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not list(tmp_path.glob("*.partial"))


def test_one_byte_weights_are_close_and_small(tmp_path):
    net = _net()
    save_module(net, tmp_path / "bytes", family="toy", params=Params(3), dtype=torch.int8)
    save_module(net, tmp_path / "half", family="toy", params=Params(3), dtype=torch.float16)
    tensors = load_tensors(tmp_path / "bytes")
    assert set(tensors) == set(net.state_dict())
    weight = net[0].weight.detach()
    error = (tensors["0.weight"] - weight).abs().amax(1) / weight.abs().amax(1)
    assert 0 < float(error.max()) <= 0.5 / 127 + 1e-6
    torch.testing.assert_close(tensors["2.weight"], net[2].weight.detach(), atol=1e-4, rtol=1e-3)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("bytes", "half")]
    assert sizes[0] < 0.65 * sizes[1]


def test_misfits_are_listed_in_one_message():
    tensors = {"0.weight": torch.zeros(2, 2), "extra": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"missing \['0.bias'.*unused \['extra'\].*0.weight: \(2, 2\) in the file"):
        load_strictly(_net(), tensors)
    with pytest.raises(ValueError, match=r"unknown keys \['depth'\], missing keys \['width'\]"):
        params_from_config(Params, {"depth": 1})


def test_damaged_and_absent_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"family": "toy", "params": {}}')
    with pytest.raises(ValueError, match="describes a 'toy' model, expected 'magvit2'"):
        read_config(tmp_path, "magvit2")
    (tmp_path / "model.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(ValueError, match="is damaged"):
        load_tensors(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        resolve_folder(tmp_path / "absent")


def test_names_folders_and_the_hub(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options["revision"]))
        return str(tmp_path / "hub")

    monkeypatch.setattr("mmtok.pretrained.snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    for folder in ("hub/audio", "runs/visual", "tiny"):
        (tmp_path / folder).mkdir(parents=True)
    assert (resolve_folder("tiny") / "cinepoet.json").is_file()  # a known name goes before a folder
    assert resolve_folder("./tiny") == Path("tiny") and resolve_folder("runs/visual") == Path("runs/visual")
    assert resolve_folder("tiny/audio") == resolve_folder("tiny") / "audio" and asked == []
    assert resolve_folder("owner/model", revision="v2") == tmp_path / "hub"
    assert resolve_folder("owner/model/audio") == tmp_path / "hub" / "audio"
    assert asked == [("owner/model", "v2"), ("owner/model", None)]
    with pytest.raises(FileNotFoundError, match="has no text part"):
        resolve_folder("owner/model/text")
    with pytest.raises(FileNotFoundError, match="unknown model 'runs/lm/model': it is not a folder; known: tiny"):
        resolve_folder("runs/lm/model")
    with pytest.raises(ValueError, match="revision 'v2' is a choice for hub ids"):
        resolve_folder("tiny", revision="v2")
    (tmp_path / "weights.pt").touch()
    with pytest.raises(ValueError, match="is a file; cinepoet convert"):
        resolve_folder("weights.pt")


def test_packages_bring_models(tmp_path, monkeypatch):
    info = tmp_path / "films-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: films\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cinepoet.models]\nfilms = films_model.weights\nlost = films_lost\n")
    (tmp_path / "films_model" / "weights" / "lm").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    assert known_models() == ["films", "lost", "tiny"]
    assert resolve_folder("films/lm") == tmp_path / "films_model" / "weights" / "lm"
    with pytest.raises(FileNotFoundError, match="the model lost should lie in the package films_lost"):
        resolve_folder("lost")
