"""What a training changes weights with: optimizers, the rate's course, the largest gradient, averaged weights.

A ``Learner`` is held by a program and not inherited. The program computes gradients itself; ``step`` does the rest.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from recipes.loop.average import follow_weights

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Optim:
    """How weights are learned; every training has these numbers under ``optim`` and these names.

    Attributes:
        lr: peak learning rate.
        final_lr: where the cosine ends, as a share of the peak.
        warmup_steps: of a linear warm-up.
        betas: of Adam.
        weight_decay: of the weights that a program decays, its matrices as a rule.
        grad_clip: largest gradient norm, None for no limit.
        ema: share of the averaged weights that a step keeps; the average is what is measured and saved. 0 is off.

    Raises:
        ValueError: for numbers out of range; all of them in one message.
    """

    lr: float = 1e-3
    final_lr: float = 0.02
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    grad_clip: float | None = 1.0
    ema: float = 0.0

    def __post_init__(self) -> None:
        faults = [
            f"optim.{name} must not be negative, got {getattr(self, name)}"
            for name in ("lr", "warmup_steps", "weight_decay")
            if not getattr(self, name) >= 0  # NaN fails too
        ]
        faults += [
            f"optim.{name} must lie in [0, 1], got {getattr(self, name)}"
            for name in ("final_lr", "ema")
            if not 0 <= getattr(self, name) <= 1
        ]
        if not all(0 <= beta < 1 for beta in self.betas):
            faults.append(f"optim.betas must lie in [0, 1), got {self.betas}")
        if self.grad_clip is not None and not self.grad_clip > 0:
            faults.append(f"optim.grad_clip must be positive, got {self.grad_clip}; null is no limit")
        if faults:
            raise ValueError("; ".join(faults))

    def share(self, step: int, steps: int) -> float:
        """Share of the peak learning rate: a linear warm-up to 1, then half a cosine down to ``final_lr``.

        Args:
            step: optimizer step, from 0.
            steps: of the whole run.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        return self.final_lr + (1 - self.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


class Care(NamedTuple):
    """How one weight is learned: is it decayed, does Muon take it, what share of the rate does it get?"""

    decayed: bool = True
    muon: bool = False
    scale: float = 1.0


def matrices_decay(name: str, weight: nn.Parameter) -> Care:
    """The usual rule: matrices and kernels are decayed, biases and norms are not.

    Args:
        name: of the weight.
        weight: the weight.

    Returns:
        How it is learned.
    """
    return Care(decayed=weight.ndim > 1)


class Learner(Generic[M]):
    """The optimizers of one model, and the average of its weights.

    Muon (Jordan et al. 2024) makes all directions of a matrix' step equally long, which serves what the loss rarely
    asks for. Its steps have the root mean square of AdamW's (arXiv 2502.16982), so that both follow one rate.

    Args:
        model: what learns, on its device; weights that need no gradient are left alone.
        optim: the numbers.
        steps: of the whole run.
        care: how each weight is learned, by its name.
        fused: AdamW in one kernel, which pays for models of many weights.
        average: what becomes the average; None copies the model where ``optim.ema`` asks for one.
    """

    def __init__(
        self,
        model: M,
        optim: Optim,
        *,
        steps: int,
        care: Callable[[str, nn.Parameter], Care] = matrices_decay,
        fused: bool = False,
        average: M | None = None,
    ):
        self.model, self.optim, self.steps = model, optim, steps
        groups: dict[Care, list[nn.Parameter]] = {}
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                groups.setdefault(care(name, weight), []).append(weight)
        made: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
        for kind, weights in groups.items():
            decay = optim.weight_decay if kind.decayed else 0.0
            made[kind.muon].append({"params": weights, "weight_decay": decay, "scale": kind.scale})
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        if made[False]:
            # not fused is None: False would forbid torch its loops over many weights at once as well
            kernel: dict[str, Any] = {"fused": fused or None}
            self.optimizers["optimizer"] = torch.optim.AdamW(made[False], lr=optim.lr, betas=optim.betas, **kernel)
        if made[True]:
            self.optimizers["muon"] = torch.optim.Muon(made[True], lr=optim.lr, adjust_lr_fn="match_rms_adamw")
        if average is None:
            average = copy.deepcopy(model).eval() if optim.ema else model
        self.average: M = average
        if average is not model:
            average.requires_grad_(False)

    @property
    def parts(self) -> dict[str, Any]:
        """What belongs into the checkpoint beside the model: optimizers, and the average where there is one."""
        return {**self.optimizers, **({} if self.average is self.model else {"average": self.average})}

    def step(self, step: int) -> dict[str, Tensor | float]:
        """Change the weights by their gradients and forget those; gives the rate and the norm before it was cut."""
        lr = self.optim.lr * self.optim.share(step, self.steps)
        most = float("inf") if self.optim.grad_clip is None else self.optim.grad_clip
        norm: Any = nn.utils.clip_grad_norm_(self.model.parameters(), most)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr * group["scale"]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average is not self.model:
            follow_weights(self.average, self.model, decay=self.optim.ema, step=step)
        # the norm of weights that are spread over processes is spread too
        return {"train/lr": lr, "train/grad_norm": norm.full_tensor() if hasattr(norm, "full_tensor") else norm}
