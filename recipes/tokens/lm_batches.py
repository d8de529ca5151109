"""What the language model trains on, whichever way it is stored: pools of clips of one shape, read by row numbers.

A token cache (recipes/tokens/cache.py) is one pool in memory; token shards (recipes/tokens/shards.py) are one for each
shape, set of conditions and data source, with and without captions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llm.batching import Batch, Group, Pool, drop_context, drop_slices
from llm.tasks import Clip, task_content
from recipes.tokens.cache import TokenSet
from recipes.tokens.caption_vectors import CaptionLookup
from recipes.tokens.reader import TokenShards
from recipes.tokens.shards import ShardRows


@dataclass(frozen=True)
class LMData:
    """Pools of clips.

    Attributes:
        pools: what a mixture may draw from.
        train: row numbers of each pool.
        held_out: row numbers of each pool that are never trained on, possibly none.
        captions: all distinct texts.
        audio_levels: levels of sound, 0 where no clip has any.
        fingerprint: changes with any code or caption.
        read: (row numbers of one pool, name of a condition or None) -> their codes.
    """

    pools: tuple[Pool, ...]
    train: tuple[Tensor, ...]
    held_out: tuple[Tensor, ...]
    captions: list[str]
    audio_levels: int
    fingerprint: str
    read: Callable[[Tensor, str | None], ShardRows]

    @property
    def max_grid(self) -> tuple[int, int, int]:
        """Longest, highest and widest grid of all clips."""
        grids = [pool.clip.grid for pool in self.pools]
        return max(g[0] for g in grids), max(g[1] for g in grids), max(g[2] for g in grids)

    @property
    def max_audio_frames(self) -> int:
        """Most frames of a level of sound."""
        return max(pool.clip.audio_frames for pool in self.pools)


def cached_data(tokens: TokenSet, *, validation_rows: int) -> LMData:
    """A token cache as one pool.

    Args:
        tokens: the cache.
        validation_rows: its last rows are held out.

    Returns:
        The data.

    Raises:
        ValueError: if no row is left for training.
    """
    num_train = len(tokens) - validation_rows
    if num_train < 1:
        raise ValueError(f"validation_rows ({validation_rows}) must be less than the {len(tokens)} rows of the cache")
    _, t, h, w = tokens.low.shape
    levels, frames = (tokens.audio.shape[1], tokens.audio.shape[2]) if tokens.audio is not None else (0, 0)

    def read(rows: Tensor, condition: str | None) -> ShardRows:
        wanted = () if condition is None else (condition,)
        return ShardRows(
            visual=tokens.low[rows].long().unsqueeze(1),
            audio=None if tokens.audio is None else tokens.audio[rows].long(),
            conditions={name: tokens.conditions[name][rows].long().unsqueeze(1) for name in wanted},
            captions=[tokens.captions[int(row)] for row in rows],
            collections=[None] * len(rows),
        )

    pool = Pool(Clip((t, h, w), frames), rows=num_train, conditions=tuple(sorted(tokens.conditions)))
    return LMData(
        pools=(pool,),
        train=(torch.arange(num_train),),
        held_out=(torch.arange(num_train, len(tokens)),),
        captions=tokens.captions,
        audio_levels=levels,
        fingerprint=tokens.fingerprint,
        read=read,
    )


def clip_kinds(
    shards: TokenShards, *, sizes: Sequence[tuple[int, int]] = (), durations: Sequence[int] = ()
) -> tuple[list[tuple[int, int]], list[int]]:
    """Sizes and durations that a model of these shards tells apart.

    Args:
        shards: all splits of them.
        sizes: (h, w) tokens of each resolution, the default one first; () takes the smallest area as default, then by
            area.
        durations: slices of each duration, the default one first; () takes the shortest film first.

    Returns:
        Both lists, in the order of their tokens; the first of each has none.
    """
    by_area = sorted({b.grid[1:] for b in shards.buckets}, key=lambda hw: (hw[0] * hw[1], hw))
    by_length = sorted({b.grid[0] for b in shards.buckets if b.grid[0] > 1})
    return list(sizes) or by_area, list(durations) or by_length


def shard_data(
    shards: TokenShards,
    *,
    sizes: Sequence[tuple[int, int]] = (),
    durations: Sequence[int] = (),
    sources: Sequence[str] = (),
) -> LMData:
    """Token shards as pools.

    Args:
        shards: all splits of them.
        sizes: as ``clip_kinds`` has them.
        durations: as ``clip_kinds`` has them.
        sources: names of the data sources that the model tells apart; () tells none.

    Returns:
        The data; pictures of one slice have no duration.

    Raises:
        ValueError: if there is nothing to train on, or a clip has a size or duration that is not listed.
    """
    train, held = shards.split("train"), shards.split("validation")
    known_sizes, known_durations = clip_kinds(shards, sizes=sizes, durations=durations)
    found: dict[Pool, tuple[list[Tensor], list[Tensor]]] = {}
    for number, part in enumerate((train, held)):
        for bucket in part.buckets:
            t, h, w = bucket.grid
            if (h, w) not in known_sizes:
                raise ValueError(f"the data has clips of {h} x {w} tokens, the model's sizes are {known_sizes}")
            if t > 1 and t not in known_durations:
                raise ValueError(f"the data has clips of {t} slices, the model's durations are {known_durations}")
            resolution, duration = known_sizes.index((h, w)), known_durations.index(t) if t > 1 else 0
            names = shards.collections_of(bucket.rows) if sources else [None] * len(bucket.rows)
            index = torch.tensor([sources.index(n) if n in sources else -1 for n in names], dtype=torch.int64)
            for captioned in (True, False):
                for source in index.unique().tolist():
                    rows = bucket.rows[(bucket.captioned == captioned) & (index == source)]
                    if not len(rows):
                        continue
                    pool = Pool(
                        Clip(bucket.grid, bucket.audio_frames),
                        conditions=tuple(sorted(bucket.conditions)),
                        captioned=captioned,
                        source=None if source < 0 else source,
                        resolution=resolution - 1 if resolution else None,
                        duration=duration - 1 if duration else None,
                    )
                    found.setdefault(pool, ([], []))[number].append(rows)
    joined = [(p, torch.cat(t), torch.cat([*v, torch.arange(0)])) for p, (t, v) in found.items() if t]
    if not joined:
        raise ValueError("the shards hold no row of the split train")

    def read(rows: Tensor, condition: str | None) -> ShardRows:
        return shards.read(rows, conditions=() if condition is None else (condition,))

    return LMData(
        pools=tuple(replace(pool, rows=len(rows)) for pool, rows, _ in joined),
        train=tuple(rows for _, rows, _ in joined),
        held_out=tuple(rows for _, _, rows in joined),
        captions=shards.captions(),
        audio_levels=shards.info.vocabulary.audio_levels if any(p.clip.audio_frames for p, _, _ in joined) else 0,
        fingerprint=shards.fingerprint,
        read=read,
    )


def make_batch(
    group: Group,
    rows: Tensor,
    *,
    data: LMData,
    captions: CaptionLookup,
    hidden: Tensor | None = None,
    context_dropout: float = 0.0,
    slice_dropout: float = 0.0,
    generators: Sequence[torch.Generator] = (),
    device: torch.device,
) -> Batch:
    """Sequences of one group.

    Args:
        group: the task and its pool.
        rows: (b,) row numbers of that pool.
        data: where they are read.
        captions: vectors of the texts.
        hidden: (b,) bool, whose caption is hidden; None hides none.
        context_dropout: largest share of a sequence's own tokens that is hidden from it.
        slice_dropout: share of the sequences that see the first slice alone of what they read.
        generators: one a sequence, which draw what is dropped.
        device: where the batch goes.

    Returns:
        The batch.
    """
    clips = data.read(rows, group.condition)
    condition = clips.conditions[group.condition] if group.condition is not None else None
    content = task_content(
        group.task, group.clip, visual=clips.visual, audio=clips.audio, condition=condition, given=group.given
    )
    ids, _ = group.layout.fill(content, len(rows))
    inputs = None
    if context_dropout or slice_dropout:
        dropped = []
        for row, generator in zip(ids[:, None], generators, strict=True):
            seen = drop_context(row, group.layout, share=context_dropout, generator=generator)
            if slice_dropout:
                seen = drop_slices(seen, group.layout, share=slice_dropout, generator=generator)
            dropped.append(seen)
        inputs = torch.cat(dropped).to(device)
    if not group.layout.text_slots:
        return Batch(group.layout, ids.to(device), inputs=inputs)
    text, mask = captions(clips.captions)
    if hidden is not None:
        mask = mask & ~hidden[:, None]
    return Batch(group.layout, ids.to(device), text.to(device), mask.to(device), inputs)
