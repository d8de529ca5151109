"""recipes/loop/sharding.py in one process: checkpoints in folders; several processes are in tests of what they train."""

import pytest
import torch
from torch import nn

from recipes.loop.checkpoint import LoopState
from recipes.loop.learner import Learner, Optim
from recipes.loop.sharding import ShardedStore, whole_state
from recipes.runtime.distributed import ALONE


@pytest.fixture
def learner():
    torch.manual_seed(0)
    return Learner(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), Optim(ema=0.5, warmup_steps=0), steps=9)


def steps(learner, numbers):
    for step in numbers:
        learner.model(torch.full((4, 2), 1.0 + step)).square().sum().backward()
        learner.step(step)
    return [p.detach().clone() for p in (*learner.model.parameters(), *learner.average.parameters())]


def test_weights_optimizers_and_average_come_back(learner, tmp_path):
    store, parts = ShardedStore(tmp_path / "checkpoint", ALONE), {"model": learner.model, **learner.parts}
    assert not store.exists()
    steps(learner, range(3))
    state = LoopState(3, 2.5)
    store.save(state, parts)
    wanted = steps(learner, range(3, 6))
    torch.rand(5)
    again = store.load(parts)
    assert (again.step, again.elapsed_s) == (3, 2.5) and torch.equal(again.rng, state.rng)
    assert all(torch.equal(a, b) for a, b in zip(steps(learner, range(3, 6)), wanted, strict=True))


def test_the_newest_whole_checkpoint_is_the_one_that_stays(learner, tmp_path):
    store, parts = ShardedStore(tmp_path, ALONE), {"model": learner.model}
    (tmp_path / "9").mkdir()  # as a kill leaves it: no metadata
    store.save(LoopState(1), parts)
    assert store.load(parts).step == 1
    store.save(LoopState(2), parts)
    assert [f.name for f in tmp_path.iterdir()] == ["2"]


def test_weights_in_one_piece(learner):
    state = whole_state(learner.model)
    assert all(torch.equal(state[name], weight) for name, weight in learner.model.state_dict().items())
