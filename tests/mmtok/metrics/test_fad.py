"""Fréchet audio distance with an embedding small enough to compute by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmtok.features.yamnet import YAMNet
from mmtok.media.audio import read_audio
from mmtok.metrics.fad import Fad, SoundEmbedding, embed_sound, sound_windows
from mmtok.metrics.frechet import frechet_distance


class MeanAndPower:
    """Two numbers a window."""

    sample_rate, window, hop, dim, source = 8000, 10, 4, 2, "mean and power"

    def __init__(self) -> None:
        self.largest = 0

    def embed(self, windows: Tensor) -> Tensor:
        self.largest = max(self.largest, len(windows))
        return torch.stack([windows.mean(1), windows.square().mean(1)], 1)


@pytest.mark.parametrize("hop", [4, 10, 13])
@pytest.mark.parametrize("cuts", [(100,), (1, 0, 4, 60, 35), (7,) * 14 + (2,), (33, 33, 34)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_windows_do_not_depend_on_how_the_sound_arrives(cuts: tuple[int, ...], hop: int, batch_size: int) -> None:
    sound = torch.arange(100.0)
    batches = list(sound_windows(sound.split(cuts), window=10, hop=hop, batch_size=batch_size))
    assert all(len(batch) <= batch_size for batch in batches)
    assert torch.equal(torch.cat(batches), sound.unfold(0, 10, hop))


def test_short_sounds_are_filled_and_nothing_gives_nothing() -> None:
    assert torch.cat(list(sound_windows([torch.ones(2), torch.ones(1)], window=5, hop=2))).tolist() == [[1, 1, 1, 0, 0]]
    assert list(sound_windows([], window=5, hop=2)) == []
    assert list(sound_windows([torch.zeros(0)], window=5, hop=2)) == []
    with pytest.raises(ValueError, match="must be positive"):
        list(sound_windows([], window=5, hop=0))
    with pytest.raises(ValueError, match=r"chunks must be \(n,\)"):
        list(sound_windows([torch.zeros(1, 5)], window=5, hop=2))


def test_an_endless_sound_takes_no_more_memory() -> None:
    held, count = [], 0
    for windows in sound_windows((torch.zeros(1000) for _ in range(300)), window=64, hop=16, batch_size=8):
        held.append(windows.untyped_storage().nbytes())
        count += len(windows)
    assert count == (300_000 - 64) // 16 + 1
    assert max(held) <= 4 * (1000 + 2 * (64 + 7 * 16)), max(held)


def _distance(network: SoundEmbedding, sounds: list[Tensor], others: list[Tensor], sample_rate: int) -> Fad:
    metric = Fad(network, sample_rate)
    for sound, other in zip(sounds, others, strict=True):
        metric.update(sound.view(1, 1, -1), other.view(1, 1, -1))
    return metric


def test_distance_is_that_of_all_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    sounds = [torch.rand(n, generator=generator) for n in (30, 9, 200)]
    others = [0.5 * s for s in sounds]
    network = MeanAndPower()
    vectors = [torch.cat([embed_sound(network, s, sample_rate=8000) for s in group]) for group in (sounds, others)]
    assert len(vectors[0]) == 6 + 1 + 48
    got = _distance(network, sounds, others, 8000).value()
    assert got == pytest.approx(frechet_distance(*vectors), rel=1e-6) and got > 0.05
    assert _distance(network, sounds, sounds, 8000).value() == pytest.approx(0, abs=1e-9)
    assert isinstance(network, SoundEmbedding)
    one = _distance(network, sounds[1:2], others[1:2], 8000)
    assert np.isnan(one.value()) and one.protocol == "left out: needs at least two vectors"


def test_sounds_at_another_rate_are_resampled_and_batches_are_bounded() -> None:
    network = MeanAndPower()
    tone = torch.sin(torch.arange(16_000) * 0.01)
    assert len(embed_sound(network, tone, sample_rate=16_000, batch_size=8)) == (8000 - 10) // 4 + 1
    assert network.largest == 8
    with pytest.raises(ValueError, match="at least one sample"):
        embed_sound(network, tone[:0], sample_rate=8000)


def test_the_protocol_says_what_the_figure_depends_on() -> None:
    metric = _distance(MeanAndPower(), [torch.rand(226)], [torch.rand(14)], 8000)
    for part in ("55 + 2 vectors of width 2", "mean and power", "0.00125 s each 0.0005 s at 8000 Hz"):
        assert part in metric.protocol, metric.protocol
    assert "bias" not in metric.protocol
    network = MeanAndPower()
    network.dim = 3
    network.embed = lambda windows: torch.rand(len(windows), 3)  # type: ignore[method-assign]
    assert "bias it upwards" in _distance(network, [torch.rand(226)], [torch.rand(14)], 8000).protocol


def test_yamnet_tells_noise_from_rain(shared: Path) -> None:
    """With real weights: rain against other rain is nearer than rain against dogs."""
    network = YAMNet.from_npz(shared / "models" / "yamnet" / "yamnet_int8.npz")
    esc = shared / "data" / "audio" / "esc10"

    def sounds(kind: str, first: int) -> list[Tensor]:
        files = sorted((esc / kind).iterdir())[first : first + 3]
        return [read_audio(file, num_samples=40_000).samples[0] for file in files]

    rain = sounds("rain", 0)
    near, far = (
        _distance(network, rain, other, 16_000).value() for other in (sounds("rain", 3), sounds("dog_bark", 0))
    )
    assert np.isfinite(near) and near < 0.6 * far, (near, far)
