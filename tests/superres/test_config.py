"""superres/config.py: named sizes and refused ones."""

import dataclasses
import math

import pytest
import torch

from superres.config import PRESETS, factor_sizes_for, preset
from superres.model import SuperResTransformer


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("sr1-1b", 0.95e9, 1.05e9), ("sr2-500m", 0.48e9, 0.52e9), ("tiny", 1.5e6, 3.0e6)],
)
def test_named_sizes_have_the_stated_parameter_counts(name, low, high):
    with torch.device("meta"):
        model = SuperResTransformer(preset(name))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert low <= count <= high, f"{name} has {count:,} parameters"


def test_every_named_size_resolves():
    assert len(PRESETS) == 4
    for name in PRESETS:
        config = preset(name)
        assert config.codebook_size == math.prod(config.factor_sizes)
    assert preset("sr1-1b").low_grid == (5, 28, 16)
    assert preset("sr2-500m").windows == ((1, 112, 2), (1, 4, 64), (5, 8, 8))
    assert preset("tiny", grid=(5, 32, 32)).windows == ((1, 32, 8), (1, 8, 32), (5, 8, 8))


def test_factors_are_balanced():
    assert factor_sizes_for(2**18) == (512, 512)
    assert factor_sizes_for(2**12) == (64, 64)
    assert factor_sizes_for(2**13) == (128, 64)
    assert factor_sizes_for(64000) == (256, 250)
    with pytest.raises(ValueError, match=r"codebook_size \(13\) is not a product"):
        factor_sizes_for(13)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 100, "num_heads": 3}, r"dim \(100\) must be a multiple of num_heads \(3\)"),
        ({"num_blocks": 0}, "num_blocks must be positive, got 0"),
        ({"factor_sizes": (64, 1)}, r"factors of at least 2 values, got \(64, 1\)"),
        ({"grid": (5, 15, 16)}, r"height and width of \(5, 15, 16\) must be even"),
        ({"grid": (5, 24, 16)}, r"windows of \(1, 16, 8\) tokens do not tile the grid \(5, 24, 16\)"),
        ({"grid": (1, 16, 16)}, r"the window \(5, 8, 8\) is larger than the grid"),
        ({"windows": ((1, 16, 8), (1, 8, 16), (5, 1, 8))}, r"height and width of \(5, 1, 8\) must be even"),
        ({"windows": ((1, 16, 8), (1, 8, 16))}, "windows must be vertical, horizontal and temporal"),
    ],
)
def test_bad_sizes_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(preset("tiny"), **changes)


def test_unknown_size_raises_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown super-resolution size 'huge'; known: nano, tiny, sr1-1b, sr2-500m"):
        preset("huge")
