"""The network that understands digits, on made-up ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recipes.corpora.spoken_digits import open_digits, split_digits
from recipes.evaluate.digit_classifier import FRAMES, RATE, DigitClassifier, _framed, train_classifier


def test_the_classifier_learns_and_is_repeatable(digits: Path, classifier: DigitClassifier) -> None:
    split = split_digits(open_digits(digits), held_out=["bob"], test_takes=2)
    heard = classifier.understand([r.read(RATE) for r in split.test], RATE)
    assert sum(h == r.digit for h, r in zip(heard, split.test, strict=True)) >= 0.9 * len(split.test)
    recordings = split.classifier[::9]
    one, two, other = (train_classifier(recordings, seed=seed, epochs=1, batch_size=4) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)
    with pytest.raises(ValueError, match="needs recordings and epochs, got 0"):
        train_classifier([])


def test_what_the_classifier_sees(classifier: DigitClassifier, spoken: Callable[[int, int, int], Tensor]) -> None:
    sound = spoken(3, 0, 0)
    picture = classifier.picture(sound, 8000)
    assert picture.shape == (40, len(sound) // 80 + 1) and picture.min() >= 0 and picture.max() < 1.05
    torch.testing.assert_close(classifier.picture(0.1 * sound, 8000), picture, atol=1e-4, rtol=0)  # loudness is free
    assert float(classifier.picture(torch.zeros(800), 8000).abs().max()) < 1e-5
    assert _framed(picture, 0.5).shape == (40, FRAMES) == _framed(torch.zeros(40, 250), 1.0).shape
    assert classifier.understand([sound, torch.zeros(50)], 8000)[0] == 3
