"""mmtok/pretrained.py: what is written is what is read, and what does not fit is named."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from mmtok.pretrained import (
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
