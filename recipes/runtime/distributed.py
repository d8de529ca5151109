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
        """Which of ``count`` examples this process takes.

        Args:
            count: examples of a batch.

        Returns:
            Their numbers.

        Raises:
            ValueError: if they cannot be shared evenly, which would weigh them unequally.
        """
        if count % self.world:
            raise ValueError(f"a batch of {count} cannot be shared by {self.world} processes; use a multiple")
        return range(self.rank, count, self.world)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over all processes.

        Args:
            parameters: those that were trained; parameters without a gradient are left out on all processes alike.
        """
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
        """Mean of a tensor over all processes.

        Args:
            value: of one shape on all of them.

        Returns:
            The mean, detached.
        """
        value = value.detach().clone()
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world
        return value

    def gather(self, value: Tensor) -> Tensor:
        """The same tensor of all processes, one behind the other.

        Args:
            value: of one shape on all of them.

        Returns:
            Joined along the first axis.
        """
        if self.world == 1:
            return value
        parts = [torch.empty_like(value) for _ in range(self.world)]
        dist.all_gather(parts, value.contiguous())
        return torch.cat(parts)

    def means(self, values: dict[str, Tensor | float]) -> dict[str, Tensor | float]:
        """Logged numbers averaged over all processes.

        Args:
            values: the same names on all of them.

        Returns:
            Name to mean.
        """
        if self.world == 1:
            return values
        device = next((v.device for v in values.values() if isinstance(v, Tensor)), torch.device("cpu"))
        stacked = torch.stack([torch.as_tensor(v, dtype=torch.float32, device=device) for v in values.values()])
        return dict(zip(values, self.mean(stacked).unbind(), strict=True))

    def from_first(self, value: T) -> T:
        """The first process' value, on all of them.

        Args:
            value: any picklable object; what the other processes give is ignored.

        Returns:
            The first one's.
        """
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def agree(self, choice: bool) -> bool:
        """The first process' choice, on all of them.

        Args:
            choice: this process'.

        Returns:
            The first one's.
        """
        if self.world == 1:
            return choice
        chosen = [choice]
        dist.broadcast_object_list(chosen)
        return chosen[0]

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.world > 1:
            dist.barrier()


ALONE = Ranks()


def own_device(device: str) -> str:
    """The device of this process: ``cuda`` becomes this process' GPU.

    Args:
        device: as asked for.

    Returns:
        The same, or "cuda:LOCAL_RANK" under torchrun.
    """
    local = os.environ.get("LOCAL_RANK")
    shared = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return f"cuda:{local}" if local is not None and shared else device


def join(device: torch.device) -> Ranks:
    """Find the other processes that torchrun started.

    Args:
        device: CUDA uses NCCL, anything else Gloo.

    Returns:
        This process' place; a single one without torchrun.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return ALONE
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(dist.get_rank(), dist.get_world_size())
