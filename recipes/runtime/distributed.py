"""Several processes that train one model, as torchrun starts them: each takes its share of every batch.

    torchrun --nproc-per-node 8 -m recipes.cli train tiny --stages visual,decoder --out runs/tiny

The clips of a step are drawn one by one from (seed, step, number), so the batch does not depend on the number of
processes, and the averaged gradients are those of one process with all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its number.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of ``count`` examples this process takes; ValueError where not all take as many, a mean of unequals."""
        if count % self.world:
            raise ValueError(f"a batch of {count} cannot be shared by {self.world} processes; use a multiple")
        return range(self.rank, count, self.world)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over all processes; those that are None must be None on all."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """Mean, detached, of a tensor of one shape on all processes."""
        value = value.detach().clone()
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world
        return value

    def gather(self, value: Tensor) -> Tensor:
        """The tensors of all processes, of one shape, joined along the first axis."""
        if self.world == 1:
            return value
        parts = [torch.empty_like(value) for _ in range(self.world)]
        dist.all_gather(parts, value.contiguous())
        return torch.cat(parts)

    def means(self, values: dict[str, Tensor | float]) -> dict[str, Tensor | float]:
        """Numbers of the same names on all processes, averaged over these."""
        if self.world == 1:
            return values
        device = next((v.device for v in values.values() if isinstance(v, Tensor)), torch.device("cpu"))
        stacked = torch.stack([torch.as_tensor(v, dtype=torch.float32, device=device) for v in values.values()])
        return dict(zip(values, self.mean(stacked).unbind(), strict=True))

    def from_first(self, value: T) -> T:
        """The first process' value, any picklable object, on all of them."""
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.world > 1:
            dist.barrier()


ALONE = Ranks()


def own_device(device: str) -> str:
    """The device of this process: ``cuda``, or ``auto`` where that is CUDA, becomes its own GPU under torchrun."""
    local = os.environ.get("LOCAL_RANK")
    shared = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return f"cuda:{local}" if local is not None and shared else device


def join(device: torch.device) -> Ranks:
    """This process' place among those that torchrun started; CUDA uses NCCL, anything else Gloo."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return ALONE
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(dist.get_rank(), dist.get_world_size())
