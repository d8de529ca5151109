"""Start the embedding table from what the codes mean.

A tokenizer knows which of its codes are alike: lookup-free codes share bits, residual codes are vectors. Rows of the
unified table that begin as random projections of those vectors let the model treat like codes alike from the first
step, and leave it free to move away. A choice of ours for small models; large ones learn the same from data.

Shape letters: v codes, m width of a code's vector, d width of the model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llm.code_halves import VisualFactors
from llm.model import PrefixLM
from mmtok.vocabulary import Block


def projected_rows(vectors: Tensor, dim: int, *, std: float, noise: float, generator: torch.Generator) -> Tensor:
    """Random projections of standardised vectors."""
    if not 0 <= noise <= 1:
        raise ValueError(f"noise ({noise}) must lie in [0, 1]")
    centred = vectors.float() - vectors.float().mean(0)
    scaled = centred / centred.square().mean().sqrt().clamp(min=1e-8)
    projection = torch.randn(vectors.shape[1], dim, generator=generator) / vectors.shape[1] ** 0.5
    own = torch.randn(len(vectors), dim, generator=generator)
    return std * ((1 - noise) ** 0.5 * (scaled @ projection) + noise**0.5 * own)


def _halves(factors: VisualFactors, vectors: Tensor) -> tuple[Block, Tensor]:
    """Rows of the low halves, then of the high ones, and for each the mean vector of the codes that have it."""
    pairs = vectors.float().view(factors.size, factors.size, -1)  # (high, low, m)
    return Block(factors.low.start, factors.high.stop), torch.cat((pairs.mean(0), pairs.mean(1)))


@torch.no_grad()
def start_from_code_vectors(
    model: PrefixLM,
    visual: Tensor | None,
    audio: list[Tensor] | None,
    *,
    noise: float = 0.2,
    generator: torch.Generator | None = None,
) -> None:
    """Overwrite the visual and audio rows of the embedding table, and of the head where it is separate.

    Where visual codes are halved, a half starts from the mean of the codes that have it.

    Args:
        model: a fresh language model.
        visual: (v, m) vectors of the visual codes, or None to leave their rows.
        audio: one (v, m) tensor a residual level, or None to leave their rows.
        noise: as in ``projected_rows``.
        generator: source of randomness; None seeds one with 0.

    Raises:
        ValueError: if the number of codes or levels is not the vocabulary's.
    """
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    vocabulary, table = model.vocabulary, model.model.embed_tokens.weight
    blocks = [] if visual is None else [(vocabulary.visual, visual)]
    if audio is not None:
        if len(audio) != vocabulary.audio_levels:
            raise ValueError(f"audio has {len(audio)} levels of vectors, the vocabulary {vocabulary.audio_levels}")
        blocks += [(vocabulary.audio_level(level), vectors) for level, vectors in enumerate(audio)]
    for block, vectors in blocks:
        if len(vectors) != block.stop - block.start:
            raise ValueError(f"{len(vectors)} vectors for a block of {block.stop - block.start} codes")
    factors = model.factors
    if factors is not None:
        blocks = [
            _halves(factors, vectors) if factors.is_visual(block) else (factors.block(block), vectors)
            for block, vectors in blocks
        ]
    for block, vectors in blocks:
        std = float(table[block.start : block.stop].std())
        rows = projected_rows(vectors, table.shape[1], std=std, noise=noise, generator=generator).to(table)
        table[block.start : block.stop] = rows
        if model.lm_head.weight is not table:
            model.lm_head.weight[block.start : block.stop] = rows
