"""recipes/loop/average.py: averaged weights, and looking at a model without training it."""

import pytest
import torch
from torch import nn

from recipes.loop.average import evaluating, follow_weights


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


def test_a_codebook_is_copied_and_not_averaged():
    model, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model.running_mean.fill_(3.0)
    follow_weights(average, model, decay=0.9, step=1000)
    assert average.running_mean.tolist() == [3.0, 3.0]


def test_a_model_is_looked_at_without_gradients_and_goes_on_training():
    model = nn.Linear(1, 1)
    with pytest.raises(RuntimeError), evaluating(model) as looked:
        assert looked is model and not model.training and not model(torch.ones(1)).requires_grad
        raise RuntimeError
    assert model.training and torch.is_grad_enabled()
    with evaluating(model.eval()):
        pass
    assert not model.training
