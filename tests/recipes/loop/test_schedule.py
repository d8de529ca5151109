"""recipes/loop/schedule.py: the course of the learning rate and of averaged weights."""

import itertools

import pytest
import torch
from torch import nn

from recipes.loop.average import follow_weights
from recipes.loop.schedule import warmup_cosine


def test_rises_then_falls_to_the_floor():
    shares = [warmup_cosine(step, steps=101, warmup=10, floor=0.1) for step in range(102)]
    assert shares[0] == 0.1 and shares[9] == shares[10] == 1
    assert all(a < b for a, b in itertools.pairwise(shares[:10])) and all(
        a >= b for a, b in itertools.pairwise(shares[10:])
    )
    assert shares[101] == pytest.approx(0.1)


def test_young_averages_follow_faster():
    model, average = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        for net, value in ((model, 1.0), (average, 0.0)):
            for parameter in net.parameters():
                parameter.fill_(value)
    follow_weights(average, model, decay=0.9, step=0)
    torch.testing.assert_close(average.weight, torch.full((2, 2), 0.9))
    follow_weights(average, model, decay=0.9, step=1000)
    torch.testing.assert_close(average.weight, torch.full((2, 2), 0.91))
