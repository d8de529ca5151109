"""What the language model trains on, whichever way it is stored: pools of clips of one shape, read by row numbers.

A token cache (recipes/tokens/cache.py) is one pool in memory; token shards (recipes/tokens/shards.py) are one for each
shape, set of conditions and data source, with and without captions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llm.batching import Pool, fit_text
from llm.tasks import Clip
from mmtok.contract import TextEncoder
from recipes.tokens.cache import TokenSet
from recipes.tokens.shards import TokenShards


@dataclass(frozen=True)
class Clips:
    """Codes of some clips of one pool.

    Attributes:
        visual: (b, 1, t, h, w) int64.
        audio: (b, k, frames) int64, or None for silent clips.
        condition: (b, 1, t, h, w) int64, or None when none was asked for.
        captions: b texts, None where there is none.
    """

    visual: Tensor
    audio: Tensor | None
    condition: Tensor | None
    captions: list[str | None]


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
        read: (row numbers of one pool, name of a condition or None) -> clips.
    """

    pools: tuple[Pool, ...]
    train: tuple[Tensor, ...]
    held_out: tuple[Tensor, ...]
    captions: list[str]
    audio_levels: int
    fingerprint: str
    read: Callable[[Tensor, str | None], Clips]

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

    def read(rows: Tensor, condition: str | None) -> Clips:
        return Clips(
            visual=tokens.low[rows].long().unsqueeze(1),
            audio=None if tokens.audio is None else tokens.audio[rows].long(),
            condition=None if condition is None else tokens.conditions[condition][rows].long().unsqueeze(1),
            captions=[tokens.captions[int(row)] for row in rows],
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

    def read(rows: Tensor, condition: str | None) -> Clips:
        got = shards.read(rows, conditions=() if condition is None else (condition,))
        return Clips(got.visual, got.audio, None if condition is None else got.conditions[condition], got.captions)

    return LMData(
        pools=tuple(replace(pool, rows=len(rows)) for pool, rows, _ in joined),
        train=tuple(rows for _, rows, _ in joined),
        held_out=tuple(rows for _, _, rows in joined),
        captions=shards.captions(),
        audio_levels=shards.info.vocabulary.audio_levels if any(p.clip.audio_frames for p, _, _ in joined) else 0,
        fingerprint=shards.fingerprint,
        read=read,
    )


CaptionLookup = Callable[[Sequence[str | None]], tuple[Tensor, Tensor]]
"""Texts, None where there is none -> vectors (b, slots, dim) float32, zero behind a text's end, and mask (b, slots)."""


class CaptionVectors:
    """Embeddings of distinct texts, computed once and kept unpadded in bfloat16; a ``CaptionLookup``.

    Args:
        captions: all texts, repetitions allowed.
        encoder: the frozen text encoder.
        slots: places for text in a sequence.
        batch_size: texts a call of the encoder.
    """

    def __init__(self, captions: Sequence[str], encoder: TextEncoder, *, slots: int, batch_size: int = 128):
        self.slots, self.dim = slots, encoder.dim
        self._number: dict[str, int] = {}
        for text in captions:
            self._number.setdefault(text, len(self._number))
        texts, lengths, vectors = list(self._number), [torch.zeros(0, dtype=torch.int64)], []
        with torch.inference_mode():
            for start in range(0, len(texts), batch_size):
                embedded, mask = encoder.encode(texts[start : start + batch_size])
                fit_text(embedded, mask, slots)  # raises for a caption that does not fit
                lengths.append(mask.sum(1).cpu())
                vectors.append(embedded[mask].to("cpu", torch.bfloat16))
        vectors.append(torch.zeros(1, self.dim, dtype=torch.bfloat16))  # what masked places read
        self.lengths = torch.cat([*lengths, torch.zeros(1, dtype=torch.int64)]).clone()  # the last for "no text"
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.vectors = torch.cat(vectors).clone()

    def __call__(self, captions: Sequence[str | None]) -> tuple[Tensor, Tensor]:
        """Vectors of some texts.

        Args:
            captions: b texts, None where there is none.

        Returns:
            (b, slots, dim) float32, zero behind a text's end, and the mask (b, slots).
        """
        texts = torch.tensor([len(self.lengths) - 1 if c is None else self._number[c] for c in captions])
        places = torch.arange(self.slots)[None]
        mask = places < self.lengths[texts][:, None]
        source = (self.starts[texts][:, None] + places).clamp(max=len(self.vectors) - 1)
        return self.vectors[source].float() * mask[..., None], mask
