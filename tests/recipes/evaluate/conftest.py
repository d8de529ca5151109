"""Made-up digits: a chord for each digit, a pitch for each speaker."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmtok.media.audio import write_wav
from recipes.corpora.spoken_digits import open_digits, split_digits
from recipes.evaluate.digit_classifier import DigitClassifier, train_classifier


def _spoken(digit: int, speaker: int, take: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * take + digit)
    length = 2000 + int(torch.randint(800, (1,), generator=generator))
    time = torch.arange(length) / 8000
    tones = [0.3 * torch.sin(2 * math.pi * f * time) for f in (300 + 280 * digit, 150 + 40 * speaker)]
    return sum(tones) + 0.005 * torch.randn(length, generator=generator)


@pytest.fixture(scope="session")
def spoken() -> Callable[[int, int, int], Tensor]:
    """(n,) sound at 8 kHz of a digit, a speaker and a take."""
    return _spoken


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    for digit in range(10):
        for speaker, name in enumerate(("ann", "bob", "cy")):
            for take in range(5):
                write_wav(folder / f"{digit}_{name}_{take}.wav", _spoken(digit, speaker, take), 8000)
    return folder


@pytest.fixture(scope="session")
def classifier(digits: Path) -> DigitClassifier:
    split = split_digits(open_digits(digits), held_out=["bob"], test_takes=2)
    return train_classifier(split.classifier, epochs=8, batch_size=10)
