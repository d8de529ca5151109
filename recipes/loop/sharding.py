"""A model whose weights are spread over processes (torch's FSDP2), and checkpoints for any number of processes.

Every process keeps a slice of each weight, of its gradient and of its optimizer's state; a layer's weights are gathered
while it computes. The numbers are those of one process with the whole batch, up to the order of sums.

Checkpoints are torch's distributed ones: every process writes its slices, and a run goes on with another number of
processes, or with one. They hold pickled metadata, so they are for one's own runs; what is given away is ``model/``.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard

from llm.model import PrefixLM
from recipes.loop.checkpoint import LoopState
from recipes.runtime.distributed import Ranks


def shard(model: PrefixLM) -> PrefixLM:
    """Spread a model's weights over all processes, layer by layer, in place; it must be the same on all."""
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    return model


def shard_from_first(whole: PrefixLM | None, ranks: Ranks, device: torch.device) -> PrefixLM:
    """Spread a model that the first process holds; the others never have all of its weights.

    Args:
        whole: on the CPU; None on all processes but the first.
        ranks: this process among at least two.
        device: where this process' slices go.

    Returns:
        A new model.
    """
    config = ranks.from_first(None if whole is None else whole.config)
    assert config is not None, "the first process holds the model"
    with torch.device("meta"):
        model = PrefixLM(config)
    shard(model).to_empty(device=device)
    if config.tie_embeddings:
        setattr(model.lm_head, "weight", model.model.embed_tokens.weight)  # noqa: B010 - a property in int8
    set_model_state_dict(
        model,
        {} if whole is None else whole.state_dict(),
        options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True),
    )
    return model


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights in one piece."""
    return dict(get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)))  # type: ignore[arg-type]


def save_whole(model: PrefixLM, folder: Path, ranks: Ranks) -> None:
    """Write a model that may be spread, as ``PrefixLM.save_pretrained`` does.

    Args:
        model: all processes must call.
        folder: created by the first process.
        ranks: this process among them.
    """
    state = whole_state(model)
    if ranks.is_main:
        with torch.device("meta"):
            plain = PrefixLM(model.config)
        plain.load_state_dict(state, assign=True, strict=not model.config.tie_embeddings)
        if model.config.tie_embeddings:
            setattr(plain.lm_head, "weight", plain.model.embed_tokens.weight)  # noqa: B010 - a property in int8
        plain.eval().save_pretrained(folder)
    ranks.wait()


class ShardedStore:
    """Folders ``checkpoint/STEP`` written by all processes together; a ``recipes.loop.checkpoint.Store``.

    The parts are "model", any number of optimizers of it, and "average", a second model.

    Args:
        folder: of all checkpoints; the newest complete one is kept.
        ranks: this process among those that save.
    """

    joint = True

    def __init__(self, folder: Path, ranks: Ranks):
        self.folder, self.ranks = folder, ranks

    def _newest(self) -> Path | None:
        done = [p for p in self.folder.glob("*") if p.name.isdigit() and (p / ".metadata").is_file()]
        return max(done, key=lambda p: int(p.name), default=None)

    def exists(self) -> bool:
        """Whether there is a complete checkpoint."""
        return self._newest() is not None

    def save(self, state: LoopState, parts: dict[str, Any]) -> None:
        """Write into a temporary folder, rename it, and delete older ones.

        Args:
            state: as in ``recipes.loop.checkpoint.Store``.
            parts: as in ``recipes.loop.checkpoint.Store``.
        """
        done, partial = self.folder / str(state.step), self.folder / f"{state.step}.partial"
        if self.ranks.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            self.folder.mkdir(parents=True, exist_ok=True)
        self.ranks.wait()
        with _quiet():
            dcp.save(_states(parts) | {"loop": asdict(state)}, checkpoint_id=partial, no_dist=self.ranks.world == 1)
        self.ranks.wait()
        if self.ranks.is_main:
            shutil.rmtree(done, ignore_errors=True)
            os.replace(partial, done)
            for old in self.folder.iterdir():
                if old != done:
                    shutil.rmtree(old, ignore_errors=True)
        self.ranks.wait()

    def load(self, parts: dict[str, Any]) -> LoopState:
        """Read the newest checkpoint, whatever number of processes wrote it."""
        newest = self._newest()
        assert newest is not None, "load is called where a checkpoint exists"
        states = _states(parts)
        states["loop"] = asdict(LoopState())
        with _quiet():
            dcp.load(states, checkpoint_id=newest, no_dist=self.ranks.world == 1)
        model = parts["model"]
        for name, part in parts.items():
            if isinstance(part, torch.optim.Optimizer):
                set_optimizer_state_dict(model, part, states[name])
            else:
                set_model_state_dict(part, states[name])
        return LoopState(**states["loop"])


def _states(parts: dict[str, Any]) -> dict[str, Any]:
    """State of each part, by the names of its weights instead of their order, so that it can be cut anew."""
    model = parts["model"]
    return {
        name: get_optimizer_state_dict(model, part)
        if isinstance(part, torch.optim.Optimizer)
        else get_model_state_dict(part)
        for name, part in parts.items()
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings that a single process saves alone and that its own helpers are deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
