"""recipes/runtime/distributed.py: one process is all of them; two share batches, gradients and choices."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recipes.runtime.distributed import ALONE, Ranks, join, own_device

ROOT = Path(__file__).parents[3]
SCRIPT = """
import torch
from torch import nn
from recipes.runtime.distributed import join

ranks = join(torch.device("cpu"))
assert (ranks.world, ranks.is_main) == (2, ranks.rank == 0)
weight = nn.Parameter(torch.zeros(3))
frozen = nn.Parameter(torch.zeros(2))
weight.grad = torch.full((3,), float(ranks.rank))
ranks.average_gradients([weight, frozen])
assert weight.grad.tolist() == [0.5] * 3 and frozen.grad is None
assert float(ranks.mean(torch.tensor(float(ranks.rank)))) == 0.5
assert ranks.gather(torch.tensor([ranks.rank])).tolist() == [0, 1]
assert {k: float(v) for k, v in ranks.means({"a": 2.0 * ranks.rank, "b": torch.tensor(4.0)}).items()} == {"a": 1.0, "b": 4.0}
assert ranks.from_first({"rank": ranks.rank}) == {"rank": 0}
assert ranks.from_first(ranks.rank == 0) is True
assert list(ranks.share(6)) == [ranks.rank, ranks.rank + 2, ranks.rank + 4]
ranks.wait()
"""


def test_one_process_is_all_of_them() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    ALONE.average_gradients([weight])
    assert ALONE.is_main and list(ALONE.share(3)) == [0, 1, 2] and weight.grad.tolist() == [1.0, 1.0]
    values = {"loss": 1.5}
    assert ALONE.means(values) is values and ALONE.from_first("x") == "x" and ALONE.from_first(False) is False
    ALONE.wait()


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert list(Ranks(1, 3).share(6)) == [1, 4]
    with pytest.raises(ValueError, match="a batch of 5 cannot be shared by 3 processes; use a multiple"):
        Ranks(1, 3).share(5)


def test_without_torchrun_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert join(torch.device("cpu")) == ALONE and own_device("cuda") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert (own_device("cuda"), own_device("cpu"), own_device("cuda:1")) == ("cuda:3", "cpu", "cuda:1")


def test_two_processes_share_gradients_numbers_and_choices() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    words = [sys.executable, "-c", SCRIPT]
    pair = [subprocess.Popen(words, env=os.environ | where | {"RANK": str(r)}, cwd=ROOT) for r in range(2)]
    assert [process.wait(timeout=200) for process in pair] == [0, 0]
