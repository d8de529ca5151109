"""recipes/loop/schedule.py: the course of the learning rate."""

import itertools

import pytest

from recipes.loop.schedule import warmup_cosine


def test_rises_then_falls_to_the_floor():
    shares = [warmup_cosine(step, steps=101, warmup=10, floor=0.1) for step in range(102)]
    assert shares[0] == 0.1 and shares[9] == shares[10] == 1
    assert all(a < b for a, b in itertools.pairwise(shares[:10])) and all(
        a >= b for a, b in itertools.pairwise(shares[10:])
    )
    assert shares[101] == pytest.approx(0.1)
