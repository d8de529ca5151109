"""Length groups: every step trains one task, so that nothing is padded (AGD, Akbari et al. 2023; VideoPoet 4.2).

The group of a step is drawn from weights with a generator that depends on the seed and the step only: every rank
draws the same group without talking to the others, and a resumed run draws what it would have drawn. Batches have the
same number of tokens, so a step holds more images than clips. Clips of several shapes, silent ones, pictures and clips
with conditions are pools; a task's group draws from one of them.

Shape letters: b batch, n sequence, d text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm.sequence import Layout
from llm.tasks import TASKS, Clip, Task, find_task, task_layout
from mmtok.vocabulary import Vocabulary


@dataclass(frozen=True)
class Batch:
    """Sequences of one layout.

    Attributes:
        layout: their places.
        ids: (b, n) int64.
        text: (b, text_slots, d) vectors, or None when the layout has no text span.
        text_mask: (b, text_slots) bool, True where a vector is; None without text.
        inputs: (b, n) int64 that the model reads in place of ``ids``, see ``drop_context``; None reads ``ids``.
    """

    layout: Layout
    ids: Tensor
    text: Tensor | None = None
    text_mask: Tensor | None = None
    inputs: Tensor | None = None


@dataclass(frozen=True)
class Pool:
    """Clips of one shape that tasks may draw from.

    Attributes:
        clip: shape of the clips.
        rows: how many there are.
        conditions: names of the conditions that all of them have.
        captioned: whether they have captions.
        source: index of their data source, or None to tell none.
        resolution: index of their resolution, or None for the square default.
        duration: index of their duration, or None for the default.
    """

    clip: Clip
    rows: int = 1
    conditions: tuple[str, ...] = ()
    captioned: bool = True
    source: int | None = None
    resolution: int | None = None
    duration: int | None = None


@dataclass(frozen=True)
class Group:
    """Sequences of one task and one length.

    Attributes:
        task: a key of ``TASKS``.
        given: slices given, for tasks that continue a clip.
        layout: places of all its sequences.
        weight: share of steps, before normalisation.
        clip: shape of its clips; without audio frames where the sound is left out.
        pool: number of the pool that they are drawn from.
        condition: name of the condition that they read, or None.
    """

    task: str
    given: int | None
    layout: Layout
    weight: float
    clip: Clip
    pool: int = 0
    condition: str | None = None

    @property
    def is_image(self) -> bool:
        """True when only one picture is written."""
        return TASKS[self.task].is_image

    def batch_size(self, tokens_per_step: int, multiple: int = 1) -> int:
        """Sequences that hold about ``tokens_per_step`` places.

        Args:
            tokens_per_step: places wanted.
            multiple: b is one of this number, so that as many processes can share it.

        Returns:
            b, at least ``multiple``.
        """
        return max(1, tokens_per_step // self.layout.length // multiple) * multiple


def _fits(name: str, pool: Pool) -> bool:
    """Whether a task can draw from a pool."""
    task = find_task(name)
    return (
        (pool.clip.grid[0] > 1 or task.is_image)
        and (pool.clip.audio_frames > 0 or not task.needs_audio)
        and (pool.captioned or "prompt" not in task.needs)
        and (not task.condition or bool(_conditions(task, pool)))
    )


def _conditions(task: Task, pool: Pool) -> list[str]:
    return [c for c in pool.conditions if c.startswith(task.condition)]


def _require_pools(name: str, pools: Sequence[Pool]) -> None:
    task = find_task(name)
    lacks = [
        (task.needs_audio and not any(p.clip.audio_frames for p in pools), "a clip with sound"),
        ("prompt" in task.needs and not any(p.captioned for p in pools), "a clip with a caption"),
        (
            task.condition and not any(_conditions(task, p) for p in pools),
            f"a clip with a condition named {'... or '.join(task.condition)}...",
        ),
    ]
    what = [text for lacking, text in lacks if lacking] or ["a clip of several slices"]
    raise ValueError(f"{name} needs {' and '.join(what)}; the data has none, so leave it out or give it the weight 0")


def _require_given(name: str, given: tuple[int, ...] | None, pools: Sequence[Pool]) -> None:
    """Raise for numbers of given slices that no clip has, which would otherwise never be drawn."""
    longest = max(pool.clip.grid[0] for pool in pools)
    wrong = [n for n in given or () if not 1 <= n < longest]
    if wrong or given == ():
        raise ValueError(
            f"{name}: given counts slices, from 1 to {longest - 1} in clips of {longest}, got "
            f"{', '.join(map(str, wrong)) or 'none'}; leave it out for all"
        )


def make_groups(
    weights: dict[str, float],
    vocabulary: Vocabulary,
    pools: Clip | Sequence[Pool],
    *,
    text_slots: int,
    given: tuple[int, ...] | None = None,
    silent_share: float = 0.0,
    source_dropout: float = 0.0,
    audio_order: str = "level",
) -> list[Group]:
    """The groups of a mixture; each task is one group per pool, condition and number of given slices.

    A task's weight is divided among the pools that it can draw from by their rows, and evenly among the rest.

    Args:
        weights: task to share of steps, not negative; tasks of weight 0 are left out.
        vocabulary: where ids come from.
        pools: what there is to draw from; a ``Clip`` is one pool of captioned clips of that shape.
        text_slots: places for text.
        given: numbers of given slices, None for all from 1 to t - 1.
        silent_share: part of the weight of tasks that write picture and sound which goes to writing the picture alone.
            Such sequences are a prefix of the whole ones but for <eos>, and much shorter.
        source_dropout: part of the weight of sequences that name their source which goes to not naming it.
        audio_order: in which audio codes stand, one of ``mmtok.audio.orders.ORDERS``.

    Returns:
        The groups, in the order of ``weights``.

    Raises:
        ValueError: for unknown tasks or orders, negative weights, a share outside [0, 1], a task that no pool can
            serve, given slices that no clip has, or when nothing is left.
    """
    for name, share in (("silent_share", silent_share), ("source_dropout", source_dropout)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} ({share}) must lie in [0, 1]")
    pools = (Pool(pools),) if isinstance(pools, Clip) else tuple(pools)
    groups = []
    for name, weight in weights.items():
        task = find_task(name)
        if weight < 0:
            raise ValueError(f"the weight of {name} must not be negative, got {weight}")
        if weight == 0:
            continue
        fitting = [number for number, pool in enumerate(pools) if _fits(name, pool)]
        if not fitting:
            _require_pools(name, pools)
        if task.continues:
            _require_given(name, given, [pools[number] for number in fitting])
        rows = sum(pools[number].rows for number in fitting)
        for number in fitting:
            pool = pools[number]
            slices = pool.clip.grid[0]
            past = tuple(n for n in given or range(1, slices) if n < slices)  # of a shorter clip those that it has
            choices = [
                (condition, choice)
                for condition in (_conditions(task, pool) if task.condition else (None,))
                for choice in (past if task.continues else (None,))
            ]
            can_be_silent = pool.clip.audio_frames > 0 and task.audio_out == "whole" and not task.needs_audio
            silent = silent_share if can_be_silent else 0.0
            untold = source_dropout if pool.source is not None else 0.0
            for part, shape, source in (
                ((1 - silent) * (1 - untold), pool.clip, pool.source),
                ((1 - silent) * untold, pool.clip, None),
                (silent * (1 - untold), Clip(pool.clip.grid), pool.source),
                (silent * untold, Clip(pool.clip.grid), None),
            ):
                for condition, choice in choices if part else ():
                    layout = task_layout(
                        name,
                        vocabulary,
                        shape,
                        text_slots=text_slots,
                        given=choice,
                        source=source,
                        resolution=pool.resolution,
                        duration=None if task.is_image else pool.duration,
                        audio_order=audio_order,
                    )
                    share = part * weight * pool.rows / rows / len(choices)
                    groups.append(Group(name, choice, layout, share, shape, number, condition))
    if not groups:
        raise ValueError("no task has a positive weight")
    return groups


def group_shares(groups: list[Group], *, progress: float, image_share: tuple[float, float] | None = None) -> Tensor:
    """Probabilities of the groups at a moment of training.

    Args:
        groups: the mixture.
        progress: part of the training that is done, in [0, 1].
        image_share: share of image steps in the first quarter of training and afterwards, (0.9, 0.1) in VideoPoet; None
            takes the groups' weights as they are.

    Returns:
        (groups,) float64, summing to 1.

    Raises:
        ValueError: if ``image_share`` is given and there are only images, or none.
    """
    weights = torch.tensor([g.weight for g in groups], dtype=torch.float64)
    if image_share is None:
        return weights / weights.sum()
    image = torch.tensor([g.is_image for g in groups])
    if bool(image.all()) or not bool(image.any()):
        raise ValueError("image_share needs at least one image task and one other task")
    share = image_share[0] if progress < 0.25 else image_share[1]
    images, others = weights * image, weights * ~image
    return share * images / images.sum() + (1 - share) * others / others.sum()


def draw_group(groups: list[Group], shares: Tensor, generator: torch.Generator) -> Group:
    """One group at random.

    Args:
        groups: the mixture.
        shares: probabilities from ``group_shares``.
        generator: of this step, the same on every rank.

    Returns:
        The group.
    """
    return groups[int(torch.multinomial(shares, 1, generator=generator))]


def empty_places(batch: Batch) -> tuple[int, int]:
    """Places of a batch that hold nothing.

    Args:
        batch: sequences.

    Returns:
        How many of its text slots are empty, and how many other places hold <pad>.
    """
    at = batch.layout.find("text")
    pads = batch.ids == batch.layout.vocabulary.pad_id
    if at is None or batch.text_mask is None:
        return 0, int(pads.sum())
    return int((~batch.text_mask).sum()), int(pads.sum() - pads[:, at.start : at.stop].sum())


@dataclass(frozen=True)
class Padding:
    """Shares of the computed places that other ways of batching would spend on nothing.

    Attributes:
        packed: sequences laid end to end, first fit, into rows as long as the longest one.
        naive: sequences as they come, batches as long as their longest one.
    """

    packed: float
    naive: float


def padding_elsewhere(
    groups: list[Group], shares: Tensor, *, tokens_per_step: int, generator: torch.Generator, sequences: int = 4096
) -> Padding:
    """Draw a stream of sequences as training does, and batch it as others do.

    Args:
        groups: the mixture.
        shares: probabilities of steps, from ``group_shares``.
        tokens_per_step: places of a batch.
        generator: draws the stream.
        sequences: how many are drawn.

    Returns:
        The shares.
    """
    sizes = torch.tensor([g.batch_size(tokens_per_step) for g in groups], dtype=torch.float64)
    drawn = torch.multinomial(shares * sizes, sequences, replacement=True, generator=generator).tolist()
    lengths = [groups[number].layout.length for number in drawn]
    held, longest = sum(lengths), max(lengths)
    rows = max(1, tokens_per_step // longest)
    naive = sum(len(part) * max(part) for part in (lengths[i : i + rows] for i in range(0, sequences, rows)))
    space: list[int] = []  # left in each row
    for length in lengths:
        fit = next((row for row, left in enumerate(space) if left >= length), None)
        if fit is None:
            space.append(longest - length)
        else:
            space[fit] -= length
    return Padding(packed=1 - held / (len(space) * longest), naive=1 - held / naive)


def drop_context(ids: Tensor, layout: Layout, *, share: float, generator: torch.Generator) -> Tensor:
    """Overwrite part of what was already written, in the inputs only (word dropout, Bowman et al. 2016).

    A model that sees every earlier token learns to continue long before it learns to choose: what the caption says is
    told again by the first few tokens, so that reading the caption pays a hundredth of a nat. Where tokens are missing
    the caption is the only source, and a model used to wrong tokens is less led astray by its own. Half of the
    sequences stay whole; the others lose a share of their output content drawn from [0, ``share``], replaced by ids
    drawn from the place's own block.

    Args:
        ids: (b, n) sequences.
        layout: their places.
        share: largest share that is overwritten, in [0, 1].
        generator: decides everything.

    Returns:
        (b, n) int64, equal to ``ids`` in the prefix and at markers.

    Raises:
        ValueError: if ``share`` lies outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"context dropout ({share}) must lie in [0, 1]")
    b, n = ids.shape
    first, stop = layout.blocks.unbind(1)
    content = (torch.arange(n) >= layout.prefix_length) & (stop - first > 1)
    rate = share * (2 * torch.rand(b, 1, generator=generator) - 1)  # negative for half of them
    dropped = (torch.rand(b, n, generator=generator) < rate) & content
    other = first + (torch.rand(b, n, generator=generator) * (stop - first)).long()
    return torch.where(dropped, other, ids)


def drop_slices(ids: Tensor, layout: Layout, *, share: float, generator: torch.Generator) -> Tensor:
    """Leave the first slice of the given pictures of some sequences, moved; random codes take the place of the others.

    What moves in which way can tell a model what it is, where its training never showed all combinations: it then
    answers by exclusion instead of by looking. The first slice is one picture and shows no motion; later ones hold
    several. As a place tells where things will go, that picture is rolled by whole tokens, drawn evenly.

    Args:
        ids: (b, n) sequences.
        layout: their places, with pictures in the prefix.
        share: of the sequences, in [0, 1].
        generator: decides everything.

    Returns:
        (b, n) int64, equal to ``ids`` but in the pictures of the prefix.

    Raises:
        ValueError: if ``share`` lies outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"slice dropout ({share}) must lie in [0, 1]")
    b, out, codes = len(ids), ids.clone(), layout.vocabulary.visual
    chosen = torch.rand(b, 1, generator=generator) < share
    for stretch in layout.stretches:
        if stretch.kind != "visual" or stretch.start >= layout.prefix_length:
            continue
        _, h, w = stretch.shape
        at = slice(stretch.start, stretch.stop)
        hidden = torch.randint(codes.start, codes.stop, (b, stretch.length), generator=generator)
        down, right = (torch.randint(side, (b, 1), generator=generator) for side in (h, w))
        place = torch.arange(h * w)
        source = (place // w + down) % h * w + (place % w + right) % w  # (b, h * w)
        hidden[:, : h * w] = ids[:, at].gather(1, source)
        out[:, at] = torch.where(chosen, hidden, ids[:, at])
    return out


def fit_text(vectors: Tensor, mask: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Bring a text encoder's output to a layout's number of slots.

    Args:
        vectors: (b, m, d).
        mask: (b, m) bool, True where a vector is.
        slots: places wanted.

    Returns:
        Vectors (b, slots, d), zero where the mask is False, and the mask (b, slots).

    Raises:
        ValueError: if a text is longer than the slots.
    """
    longest = int(mask.sum(1).max()) if mask.numel() else 0
    if longest > slots:
        raise ValueError(f"a text has {longest} tokens, the model's sequences have {slots} text slots; shorten it")
    b, m, d = vectors.shape
    out, out_mask = vectors.new_zeros(b, slots, d), mask.new_zeros(b, slots)
    kept = min(m, slots)
    out[:, :kept] = vectors[:, :kept] * mask[:, :kept, None]
    out_mask[:, :kept] = mask[:, :kept]
    return out, out_mask
