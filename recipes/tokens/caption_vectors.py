"""Vectors of captions for a training: encoded before, or looked up in a cache on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm.batching import fit_text
from mmtok.contract import TextEncoder

# Texts, None where there is none -> vectors (b, slots, dim) float32, zero behind a text's end, and mask (b, slots).
CaptionLookup = Callable[[Sequence[str | None]], tuple[Tensor, Tensor]]


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
        """Vectors (b, slots, dim) float32 of b texts or None, zero behind a text's end, and the mask (b, slots)."""
        texts = torch.tensor([len(self.lengths) - 1 if c is None else self._number[c] for c in captions])
        places = torch.arange(self.slots)[None]
        mask = places < self.lengths[texts][:, None]
        source = (self.starts[texts][:, None] + places).clamp(max=len(self.vectors) - 1)
        return self.vectors[source].float() * mask[..., None], mask


def caption_lookup(name: Any, captions: list[str], slots: int, device: Any) -> tuple[Any, int, int]:
    """Vectors of all captions, from a cache of ``cinepoet embed`` or an encoder.

    Args:
        name: folder of the cache, or an encoder by itself or of a whole model.
        captions: all texts.
        slots: places for text.
        device: of the encoder.

    Returns:
        The lookup, the width of the vectors, and how many captions are cut.

    Raises:
        ValueError: if the cache lacks a caption.
    """
    import mmtok
    from mmtok.text.embedding_cache import EmbeddingCache

    if (Path(name) / "cache.json").is_file():
        cache = EmbeddingCache.open(name)
        cache.require(captions, slots=slots)
        return partial(cache, slots=slots), cache.identity.dim, 0
    text = mmtok.load(name, part="text", device=device)
    text.max_length = min(text.max_length, slots)
    cut = sum(bool(text.tokenize(caption).cut) for caption in captions)
    return CaptionVectors(captions, text, slots=slots), text.dim, cut
