"""Networks of metrics, from a user's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmtok.features.squeezenet import SqueezeNet
from mmtok.features.vgg import VGG16, WIDTHS
from recipes.evaluate.backbones import load_backbones


def test_networks_are_named_as_the_rows_that_need_them(tmp_path: Path) -> None:
    assert load_backbones() == {}
    torch.manual_seed(0)
    np.savez(tmp_path / "squeeze.npz", **{k: v.numpy() for k, v in SqueezeNet().state_dict().items()})
    torch.save(VGG16().state_dict(), tmp_path / "vgg.pth")
    torch.save({f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1) for i, w in enumerate(WIDTHS)}, tmp_path / "lin.pth")
    networks = load_backbones(squeezenet=tmp_path / "squeeze.npz", vgg=tmp_path / "vgg.pth", lpips=tmp_path / "lin.pth")
    assert set(networks) == {"squeezenet", "lpips"}
    assert "VGG16 vgg.pth, sha256" in networks["lpips"].source and "linear lin.pth" in networks["lpips"].source


def test_networks_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs both files"):
        load_backbones(vgg=tmp_path / "v")
    with pytest.raises(FileNotFoundError, match="I3D file"):
        load_backbones(i3d=tmp_path / "i3d.pt")
    (tmp_path / "i3d.pt").write_bytes(b"no")
    with pytest.raises(ValueError, match="is no TorchScript"):
        load_backbones(i3d=tmp_path / "i3d.pt")
