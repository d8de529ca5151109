"""Train the prefix language model: AdamW or Muon, length groups, text dropout, block softmax.

    cinepoet train lm --data runs/shards --tokenizer tiny --out runs/lm
    torchrun --nproc-per-node 8 -m recipes.cli train lm --data runs/shards --tokenizer tiny --out runs/lm sharded=true

Each step draws one task (llm/batching.py), rows of one pool and which captions to drop from generators that depend on
the seed and the step only. The processes share the drawn rows, so the data does not depend on their number, and a
resumed run draws what it would have drawn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llm.batching import Batch, Group, draw_group, empty_places, group_shares, make_groups, padding_elsewhere
from llm.config import PRESETS, LMConfig, preset
from llm.flops import sequence_flops
from llm.init_from_codes import start_from_code_vectors
from llm.loss import LMLoss, prefix_lm_loss
from llm.model import PrefixLM
from llm.tasks import default_weights, find_task
from mmtok.audio.orders import ORDERS
from mmtok.vocabulary import Vocabulary
from recipes.loop.average import evaluating, weighted_means
from recipes.loop.learner import Care, Learner, Optim
from recipes.loop.run import Run, TrainConfig
from recipes.loop.sharding import ShardedStore, save_whole, shard_from_first
from recipes.runtime.config import given
from recipes.runtime.device import Compute, peak_flops
from recipes.runtime.distributed import ALONE, Ranks
from recipes.runtime.seeds import step_generator
from recipes.tokens.caption_vectors import CaptionLookup
from recipes.tokens.lm_batches import LMData, make_batch

OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True)
class LMTrainConfig(TrainConfig):
    """How the language model is trained.

    Attributes:
        size: a preset of llm/config.py; the token cache and the text encoder replace its grid, frames and text width.
        visual_codes: entries of the visual codebook that made the cache.
        audio_codes: entries of one audio level.
        visual_factors: 2 gives the halves of a visual code rows of their own, see llm/code_halves.py.
        recompute_every: layers that are computed again on the way back, 1 for each, 2 for every other one; None keeps
            what all computed.
        compiled: True compiles each layer with torch.compile.
        audio_order: in which audio codes stand in a sequence: "level", "time" or "delay", see mmtok/audio/orders.py.
        text_slots: places for text in a sequence.
        sizes: (h, w) tokens of each resolution that the model tells apart, the default one first; () follows the data.
        durations: slices of each duration that it tells apart, the default one first; () follows the data.
        sources: names of the data sources that it tells apart; () tells none.
        steps: optimizer steps.
        tokens_per_step: places in a batch, over which the batch size of each task follows.
        batch_multiple: batch sizes are multiples of this, so that as many processes, or a divisor, can share them.
        micro_tokens: most places that one process computes at once; its share of a batch is cut into such pieces and
            their gradients are added. None computes it at once.
        sharded: True spreads weights and optimizer state over the processes, see recipes/loop/sharding.py.
        optimizer: "adamw", or "muon" for the layers' matrices, see ``recipes.loop.learner.Learner``.
        optim: its numbers; matrices are decayed, norms, positions and tables are not.
        task_weights: task to share of steps.
        image_share: share of image steps in the first quarter and afterwards; None follows ``task_weights``.
        silent_share: part of the steps of tasks that write picture and sound which write the picture alone.
        given: numbers of given slices of tasks that continue a clip, None for all.
        source_dropout: share of sequences that do not name their data source.
        text_dropout: share of captions hidden, which trains the null branch of guidance.
        task_text_dropout: task to its own share. What a caption tells is not learned from sound or pictures, so tasks
            that are asked for without a text hide most of theirs; at 0.5 and more validation hides them all.
        task_slice_dropout: task to the share of its sequences that see the first slice of the clip they read alone, see
            ``llm.batching.drop_slices``.
        context_dropout: largest share of a sequence's own tokens hidden from it, see ``llm.batching.drop_context``.
        full_softmax: True trains over the whole vocabulary instead of the valid block.
        z_loss: weight of the squared log-partition.
        audio_lead_weight: weight of the first frames of every audio level, see llm/loss.py.
        audio_lead_frames: how many frames are first.
        first_slice_weight: weight of the first slice of visual tokens.
        validation_rows: last rows of a cache that are kept out of training, and most rows of each pool that are
            measured.
        validate_every: steps between validations.

    Raises:
        ValueError: for a number out of range or an unknown name; all of them in one message.
    """

    size: str = "tiny"
    visual_codes: int = 4096
    audio_codes: int = 1024
    visual_factors: int = 1
    recompute_every: int | None = None
    compiled: bool = False
    audio_order: str = "level"
    text_slots: int = 32
    sizes: tuple[tuple[int, int], ...] = ()
    durations: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()
    steps: int = 20
    tokens_per_step: int = 4096
    batch_multiple: int = 1
    micro_tokens: int | None = None
    sharded: bool = False
    optimizer: str = "adamw"
    optim: Optim = Optim(lr=1e-3, final_lr=0.02, warmup_steps=10, betas=(0.9, 0.98), weight_decay=0.05, grad_clip=1.0)
    task_weights: dict[str, float] = field(default_factory=default_weights)
    image_share: tuple[float, float] | None = None
    silent_share: float = 0.0
    given: tuple[int, ...] | None = None
    source_dropout: float = 0.1
    text_dropout: float = 0.1
    task_text_dropout: dict[str, float] = field(default_factory=dict)
    task_slice_dropout: dict[str, float] = field(default_factory=dict)
    context_dropout: float = 0.0
    full_softmax: bool = False
    z_loss: float = 0.0
    audio_lead_weight: float = 1.0
    audio_lead_frames: int = 4
    first_slice_weight: float = 1.0
    validation_rows: int = 8
    validate_every: int = 200

    def __post_init__(self) -> None:
        values = vars(self)
        counts = ["steps", "tokens_per_step", "batch_multiple", "validate_every", "log_every"]
        counts += given(self, "micro_tokens", "recompute_every")
        shares = {n: values[n] for n in ("silent_share", "source_dropout", "text_dropout", "context_dropout")}
        shares |= {f"image_share[{i}]": share for i, share in enumerate(self.image_share or ())}
        shares |= {f"task_text_dropout.{task}": share for task, share in self.task_text_dropout.items()}
        shares |= {f"task_slice_dropout.{task}": share for task, share in self.task_slice_dropout.items()}
        faults = [f"{name} must be at least 1, got {values[name]}" for name in counts if values[name] < 1]
        faults += [f"{name} must lie in [0, 1], got {share}" for name, share in shares.items() if not 0 <= share <= 1]
        least_0 = ("text_slots", "z_loss", "validation_rows")  # NaN fails too
        faults += [f"{name} must not be negative, got {values[name]}" for name in least_0 if not values[name] >= 0]
        if self.visual_factors != 1 and self.full_softmax:
            faults.append("full_softmax needs a row for every code, so it does not go with visual_factors=2")
        for name, known in (("size", tuple(PRESETS)), ("optimizer", OPTIMIZERS), ("audio_order", ORDERS)):
            if values[name] not in known:
                faults.append(f"unknown {name} {values[name]!r}; known: {', '.join(known)}")
        if faults:
            raise ValueError("; ".join(faults))
        for task in (*self.task_weights, *self.task_text_dropout):
            find_task(task)
        for task in self.task_slice_dropout:
            if find_task(task).visual_in != "whole" and not find_task(task).condition:
                raise ValueError(f"task_slice_dropout.{task}: the task reads no whole clip")


def draw_batch(
    group: Group,
    step: int,
    *,
    config: LMTrainConfig,
    data: LMData,
    captions: CaptionLookup,
    generator: torch.Generator,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> list[Batch]:
    """This process' share of a step's batch, in pieces of at most ``config.micro_tokens`` places.

    Args:
        group: what the step trains.
        step: its number.
        config: the run.
        data: where rows are read.
        captions: vectors of the texts.
        generator: of the step, the same on all processes.
        device: where the batches go.
        ranks: this process among those that share the batch.

    Returns:
        Batches that together are the share.

    Raises:
        ValueError: if the processes cannot share the batch evenly.
    """
    pool = data.train[group.pool]
    size = group.batch_size(config.tokens_per_step, config.batch_multiple)
    drawn = pool[torch.randint(len(pool), (size,), generator=generator)]
    hidden = torch.rand(size, generator=generator) < config.task_text_dropout.get(group.task, config.text_dropout)
    own = list(ranks.share(size))
    at_once = len(own) if config.micro_tokens is None else max(1, config.micro_tokens // group.layout.length)
    return [
        make_batch(
            group,
            drawn[numbers],
            data=data,
            captions=captions,
            hidden=hidden[numbers],
            context_dropout=config.context_dropout,
            slice_dropout=config.task_slice_dropout.get(group.task, 0.0),
            generators=[step_generator(config.seed, step, number) for number in numbers],
            device=device,
        )
        for numbers in (own[start : start + at_once] for start in range(0, len(own), at_once))
    ]


def lm_care(optimizer: str) -> Callable[[str, nn.Parameter], Care]:
    """Matrices are decayed, norms and tables are not; Muon takes the matrices of the layers where it is asked for."""

    def care(name: str, weight: nn.Parameter) -> Care:
        table = name.startswith(("positions.", "high_given_low.")) or "embed_tokens" in name
        inside = ".layers." in name and weight.ndim == 2
        return Care(decayed=weight.ndim >= 2 and not table, muon=inside and optimizer == "muon")

    return care


def lm_config(config: LMTrainConfig, data: LMData, text_dim: int) -> LMConfig:
    """The preset with the sizes of this data and this text encoder.

    Args:
        config: the run.
        data: what it trains on.
        text_dim: width of the text encoder.

    Returns:
        The model's config.
    """
    return preset(
        config.size,
        visual_codes=config.visual_codes,
        audio_levels=data.audio_levels,
        audio_codes=config.audio_codes if data.audio_levels else 0,
        text_dim=text_dim,
        text_slots=config.text_slots,
        max_grid=data.max_grid,
        max_audio_frames=data.max_audio_frames,
        audio_order=config.audio_order,
        visual_factors=config.visual_factors,
    )


def mixture(config: LMTrainConfig, data: LMData, vocabulary: Vocabulary) -> list[Group]:
    """What the steps of a run are drawn from.

    Args:
        config: the run.
        data: pools of clips.
        vocabulary: of the model.

    Returns:
        The groups.

    Raises:
        ValueError: if a task finds no clips, as in ``make_groups``.
    """
    return make_groups(
        config.task_weights,
        vocabulary,
        data.pools,
        text_slots=config.text_slots,
        given=config.given,
        silent_share=config.silent_share,
        source_dropout=config.source_dropout,
        audio_order=config.audio_order,
    )


def describe_mixture(config: LMTrainConfig, groups: list[Group]) -> str:
    """A table of the groups, and what other ways of batching would waste.

    Args:
        config: the run.
        groups: its mixture.

    Returns:
        Lines of text.
    """
    early, late = (group_shares(groups, progress=at, image_share=config.image_share) for at in (0.0, 1.0))
    lines = [
        f"{'task':<20}{'grid':>12}{'sound':>7}{'given':>7}{'places':>8}{'batch':>7}{'steps':>9}{'late':>9}  condition"
    ]
    for group, first, last in zip(groups, early.tolist(), late.tolist(), strict=True):
        grid = "x".join(map(str, group.clip.grid))
        given = "-" if group.given is None else group.given
        size = group.batch_size(config.tokens_per_step, config.batch_multiple)
        lines.append(
            f"{group.task:<20}{grid:>12}{group.clip.audio_frames:>7}{given:>7}{group.layout.length:>8}{size:>7}"
            f"{first:>9.2%}{last:>9.2%}  {group.condition or ''}".rstrip()
        )
    waste = padding_elsewhere(
        groups, late, tokens_per_step=config.tokens_per_step, generator=step_generator(config.seed, 0)
    )
    lines.append(
        f"padding of this mixture: none between sequences of one layout; {waste.packed:.1%} packed first fit, "
        f"{waste.naive:.1%} in mixed batches"
    )
    return "\n".join(lines) + "\n"


def _loss_values(prefix: str, task: str, loss: LMLoss) -> dict[str, float | Tensor]:
    values: dict[str, float | Tensor] = {
        f"{prefix}/loss": loss.total.detach(),
        f"{prefix}/loss_{task}": loss.total.detach(),
    }
    for kind in ("visual", "audio"):
        if kind in loss.nats:
            values[f"{prefix}/{kind}_loss"] = loss.nats[kind]
            values[f"{prefix}/{kind}_loss_{task}"] = loss.nats[kind]
        if kind in loss.accuracy:
            values[f"{prefix}/{kind}_accuracy"] = loss.accuracy[kind]
    return values


@torch.no_grad()
def _validate(
    model: PrefixLM,
    groups: list[Group],
    *,
    config: LMTrainConfig,
    data: LMData,
    captions: CaptionLookup,
    compute: Compute,
    ranks: Ranks = ALONE,
) -> dict[str, float | Tensor]:
    """Losses of held-out rows, each task alone, and their mean under the tasks' weights; all processes must call."""
    parts = []
    for group in groups:
        rows = data.held_out[group.pool][: config.validation_rows]
        for part in rows.split(group.batch_size(config.micro_tokens or config.tokens_per_step)) if len(rows) else ():
            hidden = torch.full((len(part),), config.task_text_dropout.get(group.task, 0.0) >= 0.5)
            batch = make_batch(group, part, data=data, captions=captions, hidden=hidden, device=compute.device)
            with compute.autocast():
                loss = prefix_lm_loss(model, batch, full_softmax=config.full_softmax)
            parts.append((group.weight * len(part) / len(rows), _loss_values("val", group.task, loss)))
    return ranks.means({name: float(value) for name, value in weighted_means(parts).items()})


def _learn(
    model: PrefixLM, batches: list[Batch], task: str, *, config: LMTrainConfig, compute: Compute
) -> dict[str, float | Tensor]:
    """Gradients of the mean loss of all pieces; returns what is logged."""
    count, parts = sum(len(batch.ids) for batch in batches), []
    for batch in batches:
        with compute.autocast():
            loss = prefix_lm_loss(
                model,
                batch,
                full_softmax=config.full_softmax,
                z_loss=config.z_loss,
                audio_lead_weight=config.audio_lead_weight,
                audio_lead_frames=config.audio_lead_frames,
                first_slice_weight=config.first_slice_weight,
            )
        weight = len(batch.ids) / count
        (loss.total * weight).backward()
        parts.append((weight, _loss_values("train", task, loss)))
    return weighted_means(parts)


def train_lm(
    config: LMTrainConfig,
    folder: Path,
    *,
    data: LMData,
    captions: CaptionLookup,
    text_dim: int,
    compute: Compute,
    code_vectors: tuple[Tensor | None, list[Tensor] | None] = (None, None),
    start: Callable[[], PrefixLM] | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """Train, and write the model to ``folder/model``.

    Args:
        config: the run.
        folder: receives log, curves, checkpoints and the model; a stopped run continues, with any number of processes.
        data: pools of clips.
        captions: vectors of their texts.
        text_dim: width of the text encoder.
        compute: device and precision.
        code_vectors: visual (v, m) and audio (one (v, m) a level) vectors that the embedding rows start from; None
            starts from noise.
        start: loads a trained model that goes on, as in task adaptation, on the processes that need it whole; None
            starts anew.
        ranks: this process among those that train together; the first one writes.

    Returns:
        ``folder / "model"``.

    Raises:
        ValueError: if a task finds no clips, ``start`` has other sizes than this run, or the processes cannot share a
            batch.
    """
    # what learns, and from what
    sharded = config.sharded and ranks.world > 1
    wanted = lm_config(config, data, text_dim)
    whole = None
    if ranks.is_main or not sharded:
        if start is not None:
            whole = start()
            _require_room(whole.config, wanted)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                whole = PrefixLM(wanted)
                start_from_code_vectors(whole, *code_vectors, generator=torch.Generator().manual_seed(config.seed))
    groups = mixture(config, data, wanted.vocabulary)
    for group in groups:
        size = group.batch_size(config.tokens_per_step, config.batch_multiple)
        if size % ranks.world:
            raise ValueError(
                f"a batch of {size} {group.task} sequences cannot be shared by {ranks.world} processes; "
                f"set batch_multiple={ranks.world}"
            )
    average = None
    if sharded:
        model = shard_from_first(whole, ranks, compute.device)
        average = shard_from_first(whole, ranks, compute.device) if config.optim.ema else None
        del whole
    else:
        assert whole is not None, "every process has made it"
        model = whole.to(compute.device)
    model.train().requires_grad_(True)
    care = lm_care(config.optimizer)
    learner = Learner(model, config.optim, steps=config.steps, care=care, fused=True, average=average)
    model.checkpoint_layers(config.recompute_every)
    if config.compiled:
        model.compile_layers()
    flops = {id(g): sequence_flops(model.config, g.layout, full_softmax=config.full_softmax) for g in groups}
    peak = peak_flops(compute)

    # run
    store = ShardedStore(folder / "checkpoint", ranks)
    run = Run(folder, "language model", config, ranks, parts={"model": model, **learner.parts}, store=store)

    # loop
    shared: Any = {"config": config, "data": data, "captions": captions, "ranks": ranks}
    spent = _Spent()
    for step in run.steps():
        generator = step_generator(config.seed, step)
        shares = group_shares(groups, progress=step / config.steps, image_share=config.image_share)
        group = draw_group(groups, shares, generator)
        batches = draw_batch(group, step, **shared, generator=generator, device=compute.device)
        values = _learn(model, batches, group.task, config=config, compute=compute)
        if not sharded:  # weights that are spread reduce their gradients on the way back
            ranks.average_gradients(model.parameters())
        rates = learner.step(step)

        spent.count(batches, flops[id(group)])
        if run.logs(step):
            run.log(step, ranks.means(values) | rates | spent.told(peak, ranks))
            spent = _Spent()
        if run.validates(step, config.validate_every):
            with evaluating(learner.average) as model_now:
                measured = _validate(model_now, groups, **shared, compute=compute)
            if measured:
                run.log(step, measured)
            spent = _Spent()

    # finish
    finished = run.finish()
    save_whole(learner.average, finished, ranks)
    return finished


class _Spent:
    """What this process computed since the last line of the log."""

    def __init__(self) -> None:
        self.start, self.places, self.flops, self.empty_text, self.padding = time.monotonic(), 0, 0.0, 0, 0

    def count(self, batches: list[Batch], flops: float) -> None:
        """Add a step's share; ``flops`` is that of one sequence."""
        for batch in batches:
            empty_text, padding = empty_places(batch)
            self.places += batch.ids.numel()
            self.flops += flops * len(batch.ids)
            self.empty_text += empty_text
            self.padding += padding

    def told(self, peak: float, ranks: Ranks) -> dict[str, float | Tensor]:
        """Throughput of all processes, the share of the peak, and the shares of places that held nothing."""
        seconds = time.monotonic() - self.start
        return {
            "perf/tokens_per_s": self.places * ranks.world / seconds,
            "perf/mfu": self.flops / seconds / peak,
            "perf/padding": self.padding / self.places,
            "perf/empty_text": self.empty_text / self.places,
        }


def _require_room(there: LMConfig, wanted: LMConfig) -> None:
    """Raise unless a trained model can speak what a run wants of it."""
    faults = [
        f"{name} {getattr(there, name)} (wanted {getattr(wanted, name)})"
        for name in (
            *("visual_codes", "visual_factors", "audio_levels", "audio_codes"),
            *("text_dim", "text_slots", "audio_order"),
        )
        if getattr(there, name) != getattr(wanted, name)
    ]
    if any(a < b for a, b in zip(there.max_grid, wanted.max_grid, strict=True)):
        faults.append(f"max_grid {there.max_grid} (wanted {wanted.max_grid})")
    if there.max_audio_frames < wanted.max_audio_frames:
        faults.append(f"max_audio_frames {there.max_audio_frames} (wanted {wanted.max_audio_frames})")
    if faults:
        raise ValueError(f"the model to start from does not fit this run: {'; '.join(faults)}")
