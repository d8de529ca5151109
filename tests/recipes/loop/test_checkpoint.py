"""recipes/loop/checkpoint.py: one file holds the loop's state and the parts."""

import pytest
import torch
from torch import nn

from recipes.loop.checkpoint import FileStore, LoopState


def test_what_is_saved_comes_back(tmp_path):
    store, model = FileStore(tmp_path / "c.pt"), nn.Linear(2, 2)
    assert not store.exists()
    torch.manual_seed(3)
    state = LoopState(7, 1.5)
    store.save(state, {"model": model})
    wanted = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.zero_()
    again = store.load({"model": model})
    assert (again.step, again.elapsed_s) == (7, 1.5) and torch.equal(again.rng, state.rng)
    assert torch.equal(model.weight, wanted)


def test_a_save_that_breaks_off_leaves_the_old_one(tmp_path):
    class Broken:
        def state_dict(self):
            raise RuntimeError("no memory")

    store = FileStore(tmp_path / "c.pt")
    store.save(LoopState(1), {})
    with pytest.raises(RuntimeError):
        store.save(LoopState(2), {"model": Broken()})
    assert store.load({}).step == 1 and [f.name for f in tmp_path.iterdir()] == ["c.pt"]
