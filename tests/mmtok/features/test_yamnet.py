"""YAMNet against its publishers' facts, and its parts against slow forms."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmtok.features.yamnet import CLASSES, YAMNet, _SameConv2d
from mmtok.media.audio import read_audio
from mmtok.metrics.fad import SoundEmbedding, sound_windows

HEARD = {
    "baby_cry": "Baby cry, infant cry",
    "chainsaw": "Chainsaw",
    "clock_tick": "Tick-tock",
    "dog_bark": "Dog",
    "fire_crackling": "Crackle",
    "helicopter": "Helicopter",
    "person_sneeze": "Sneeze",
    "rain": "Rain",
    "rooster": "Chicken, rooster",
    "sea_waves": "Waves, surf",
}


def test_it_hears_what_environmental_sounds_are(shared: Path) -> None:
    """One clip of each class of ESC-10, the answer picked among the ten; all 100 clips give 95 right (in 16 s)."""
    folder = shared / "models" / "yamnet"
    model = YAMNet.from_npz(folder / "yamnet_int8.npz")
    assert sum(p.numel() for p in model.parameters()) == 3_729_481
    with (folder / "yamnet_class_map.csv").open() as file:
        names = [row["display_name"] for row in csv.DictReader(file)]
    assert len(names) == CLASSES
    among = torch.tensor([names.index(name) for name in HEARD.values()])
    right = 0
    for place, kind in enumerate(HEARD):
        clip = read_audio(sorted((shared / "data" / "audio" / "esc10" / kind).iterdir())[0], num_samples=48_000)
        windows = torch.cat(list(sound_windows([clip.samples[0]], window=model.window, hop=model.hop)))
        scores = model(windows)
        assert scores.shape == (5, CLASSES) and scores.min() >= 0 and scores.max() <= 1
        right += int(scores.mean(0)[among].argmax()) == place
    assert right >= 9, right


def _random_arrays(seed: int) -> dict[str, np.ndarray]:
    """The published layout with small numbers."""
    random = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in YAMNet().state_dict().items():
        if name.endswith(".weight"):
            layer = name.removesuffix(".weight")
            arrays[f"{layer}.weight_int8"] = random.integers(-127, 128, tuple(tensor.shape)).astype(np.int8)
            fan_in = tensor[0].numel()
            arrays[f"{layer}.weight_scale"] = (random.random(len(tensor)) * 0.04 / fan_in**0.5).astype(np.float32)
        elif name == "mel_matrix":
            arrays[name] = random.random(tuple(tensor.shape)).astype(np.float32)
        elif name.endswith(".bias"):
            arrays[name] = (random.random(tuple(tensor.shape)) * 0.1).astype(np.float32)
        else:
            arrays[name] = tensor.numpy()
    return arrays


def test_int8_weights_are_scaled_by_output(tmp_path: Path) -> None:
    arrays = _random_arrays(0)
    np.savez(tmp_path / "y.npz", **arrays)
    model = YAMNet.from_npz(tmp_path / "y.npz")
    layer = model.get_submodule("layer5")
    weight = arrays["layer5.weight_int8"][7].astype(np.float32) * arrays["layer5.weight_scale"][7]
    torch.testing.assert_close(layer.weight[7], torch.from_numpy(weight))
    assert model.source.startswith("YAMNet, sha256 ") and isinstance(model, SoundEmbedding)
    assert not any(p.requires_grad for p in model.parameters())


def test_the_front_end_against_numpy() -> None:
    model = YAMNet()
    model.mel_matrix.copy_(torch.rand(64, 257, generator=torch.Generator().manual_seed(0)))
    window = torch.rand(1, 15_600, generator=torch.Generator().manual_seed(1)) * 2 - 1
    picture = model.log_mel(window)
    assert picture.shape == (1, 96, 64)
    t, m = 95, 13  # the last frame ends with the last sample
    frame = window[0, t * 160 : t * 160 + 400].double().numpy() * model.hann_window.double().numpy()
    magnitudes = np.abs([sum(frame * np.exp(-2j * np.pi * f * np.arange(400) / 512)) for f in range(257)])
    expected = np.log(magnitudes @ model.mel_matrix[m].double().numpy() + 0.001)
    assert float(picture[0, t, m]) == pytest.approx(expected, rel=1e-5)
    for wrong in (window[:, :-1], window[0], (window * 9).long()):
        with pytest.raises(ValueError, match=r"YAMNet takes float windows \(b, 15600\)"):
            model.log_mel(wrong)


def test_embedding_and_scores_of_random_weights(tmp_path: Path) -> None:
    np.savez(tmp_path / "y.npz", **_random_arrays(1))
    model = YAMNet.from_npz(tmp_path / "y.npz")
    windows = torch.rand(3, 15_600, generator=torch.Generator().manual_seed(0)) * 2 - 1
    vectors = model.embed(windows)
    assert vectors.shape == (3, model.dim) and vectors.min() >= 0 and vectors.max() <= 6
    assert not torch.equal(vectors[0], vectors[1])
    torch.testing.assert_close(model.embed(windows[1:2]), vectors[1:2])
    torch.testing.assert_close(model(windows), torch.sigmoid(vectors @ model.fc.weight.T + model.fc.bias))


@pytest.mark.parametrize(("size", "stride", "out"), [(6, 2, 3), (7, 2, 4), (5, 1, 5)])
def test_padding_as_tensorflows_same(size: int, stride: int, out: int) -> None:
    """An even size with stride 2 gets its only padding at the end: output 0 looks at inputs 0, 1, 2."""
    layer = _SameConv2d(1, 1, 3, stride=stride)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    ramp = torch.arange(1.0, size + 1).expand(1, 1, size, size)
    got = layer(ramp)
    assert got.shape == (1, 1, out, out)
    missing = (out - 1) * stride + 3 - size
    line = F.pad(torch.arange(1.0, size + 1), (missing // 2, missing - missing // 2)).unfold(0, 3, stride).sum(-1)
    middle = 1  # a row where all three taps are inside
    torch.testing.assert_close(got[0, 0, middle], 3 * line)
    if size == 6:
        assert line[0] == 1 + 2 + 3 and line[-1] == 5 + 6


def test_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"YAMNet weights .* do not exist"):
        YAMNet.from_npz(tmp_path / "no.npz")
    np.savez(tmp_path / "code.npz", a=np.array([Path("x")], dtype=object))
    with pytest.raises(ValueError, match=r"not an \.npz of plain arrays"):
        YAMNet.from_npz(tmp_path / "code.npz")
    arrays = _random_arrays(2)
    np.savez(tmp_path / "bare.npz", **{k: v for k, v in arrays.items() if k != "layer9.weight_scale"})
    with pytest.raises(ValueError, match=r"layer9.weight_int8 needs layer9.weight_scale"):
        YAMNet.from_npz(tmp_path / "bare.npz")
    np.savez(tmp_path / "part.npz", **{k: v for k, v in arrays.items() if not k.startswith("fc")})
    with pytest.raises(ValueError, match=r"weights do not fit: missing \['fc.bias', 'fc.weight'\]"):
        YAMNet.from_npz(tmp_path / "part.npz")
