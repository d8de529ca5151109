"""The baseline codec, on made-up tones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmtok.contract import AudioTokenizer
from mmtok.metrics.audio import LogMelDistance
from recipes.evaluate.mel_kmeans import MelKMeansCodec


def _codec(**sizes: int) -> MelKMeansCodec:
    return MelKMeansCodec(**{"codebook_size": 32, "phase_steps": 8, "inversion_steps": 20, **sizes})


def _tones(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(8000) / 16_000
    return [
        0.4 * torch.sin(2 * math.pi * (200 + 3000 * float(torch.rand(1, generator=generator))) * time)
        for _ in range(12)
    ]


def test_the_baseline_keeps_the_contract_and_is_repeatable() -> None:
    codec = _codec()
    assert isinstance(codec, AudioTokenizer) and codec.frame_rate == 50 and MelKMeansCodec().codebook_size == 1024
    assert codec.fit(_tones()) == 12 * 25
    sound = torch.stack([s[:7001] for s in _tones(1)[:2]])[:, None]
    codes = codec.encode(sound)
    assert codes.shape == (2, 4, 21) and codes.dtype == torch.int64 and codes.min() >= 0 and codes.max() < 32
    for wanted in (None, 7001, 1, 320 * 22 - 1):
        again = codec.decode(codes, num_samples=wanted)
        assert again.shape == (2, 1, wanted or 6720) and float(again.abs().max()) <= 1
        assert torch.equal(again, codec.decode(codes, num_samples=wanted))
    assert torch.equal(codec.encode(sound[:1]), codes[:1])
    short = codec.decode(codec.encode(sound[..., :320]), num_samples=639)
    assert short.shape == (2, 1, 639) and short.isfinite().all()
    other = _codec()
    state = torch.random.get_rng_state()
    other.fit(_tones())
    codec.decode(codes)
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's draws are disturbed
    assert torch.equal(other.encode(sound), codes)  # the same seed fits the same codes
    for wrong in (0, 320 * 22):
        with pytest.raises(ValueError, match=r"num_samples must lie in 1\.\.7039"):
            codec.decode(codes, num_samples=wrong)
    with pytest.raises(ValueError, match="shorter than one hop"):
        codec.encode(sound[..., :319])
    with pytest.raises(ValueError, match=r"audio must be a float tensor \(b, 1, n\)"):
        codec.encode(sound[:, 0])
    with pytest.raises(ValueError, match="25 frames are too few to fit 32 codes"):
        _codec().fit([*_tones()[:1], torch.zeros(100)])


def test_more_levels_are_nearer_and_codes_matter() -> None:
    codec = _codec(codebook_size=8)  # so coarse that every level is heard
    codec.fit(_tones())
    sounds = torch.stack(_tones(1))[:, None]
    distance = LogMelDistance(sample_rate=16_000)
    codes = codec.encode(sounds)
    figures = [float(distance(codec.decode(codes[:, :k]), sounds).mean()) for k in (1, 2, 4)]
    assert figures == sorted(figures, reverse=True) and figures[-1] < 0.97 * figures[0], figures
    frames = codec.frames(sounds)
    errors = [float((codec.quantizer.decode(codes[:, :k]) - frames).square().mean()) for k in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.9 * errors[0], errors
    shuffled = codes[torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    assert float(distance(codec.decode(shuffled), sounds).mean()) > 1.2 * figures[-1]


def test_mel_levels_are_inverted() -> None:
    """Magnitudes found for mel levels have these levels, and are not negative."""
    codec = _codec(inversion_steps=100)
    levels = codec.mel(torch.stack(_tones())[:, None])
    magnitudes = codec._magnitudes(levels)
    assert magnitudes.min() >= 0
    again = codec.mel.filters @ magnitudes * (2 / codec.mel.hann.sum())
    assert float((again - levels).norm() / levels.norm()) < 0.03


def test_frames_for_the_fit_are_bounded() -> None:
    codec = _codec()
    assert codec.fit((s for _ in range(8) for s in _tones()), most=500, iterations=1) == 500
