"""SqueezeNet 1.1 gives what its publishers say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmtok.features.squeezenet import SqueezeNet
from mmtok.media.video import read_video


def test_squeezenet_sees_what_its_publishers_say(shared: Path) -> None:
    model = SqueezeNet.from_npz(shared / "models" / "squeezenet_v1_0" / "squeezenet_v1_0.npz")
    assert sum(p.numel() for p in model.parameters()) == 1_248_424
    names = (shared / "models" / "squeezenet_v1_0" / "synset_words.txt").read_text().splitlines()
    seen = {}
    for clip in ("bear_walking", "weightlifting", "puppy_bed"):
        frames = read_video(shared / "data" / "clips" / f"{clip}.mp4", size=227).frames
        scores = model(frames[:, frames.shape[1] // 2][None]).softmax(-1)[0]
        seen[clip] = (names[int(scores.argmax())], float(scores.max()))
    assert "brown bear" in seen["bear_walking"][0] and "barbell" in seen["weightlifting"][0]
    assert "beagle" in seen["puppy_bed"][0]
    assert seen["bear_walking"][1] > 0.5


def test_squeezenet_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="do not exist"):
        SqueezeNet.from_npz(tmp_path / "no.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="weights do not fit"):
        SqueezeNet.from_npz(tmp_path / "other.npz")
    np.savez(tmp_path / "code.npz", a=np.array([Path("x")], dtype=object))
    with pytest.raises(ValueError, match=r"not an \.npz of plain arrays"):
        SqueezeNet.from_npz(tmp_path / "code.npz")
    model = SqueezeNet()
    images = torch.rand(2, 3, 64, 48) * 2 - 1
    assert model.features(images).shape == (2, 512) and model(images).shape == (2, 1000)
    white = model.prepare(torch.ones(1, 3, 227, 227))
    assert white[0, :, 0, 0].tolist() == [255 - 104, 255 - 117, 255 - 123]  # blue first
