"""Fréchet audio distance (Kilgour et al. 2019, arXiv 1812.08466) with any embedding of short windows.

Two sets of sounds are cut into overlapping windows, an embedding makes a vector of each, and the distance is that of
the Gaussians fitted to the vectors. The figure depends on everything: embedding, windows, rate, numbers of vectors.
``Fad.protocol`` says it all in a line; figures of different protocols must not be compared. The paper's embedding is
VGGish (1 s windows each 0.5 s); ``mmtok.features.yamnet.YAMNet`` is one, and anything with the few attributes of
``SoundEmbedding`` is another.

Shape letters: b windows, n samples, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.media.audio import resample
from mmtok.metrics.frechet import Frechet


@runtime_checkable
class SoundEmbedding(Protocol):
    """What a network must offer.

    Attributes:
        sample_rate: Hz that it hears.
        window: samples that one vector is made of.
        hop: samples between the windows of a sound.
        dim: width of a vector.
        source: name and weights, for protocols.
    """

    sample_rate: int
    window: int
    hop: int
    dim: int
    source: str

    def embed(self, windows: Tensor) -> Tensor:
        """(b, window) in [-1, 1] to (b, dim)."""
        ...


def sound_windows(chunks: Iterable[Tensor], *, window: int, hop: int, batch_size: int = 32) -> Iterator[Tensor]:
    """Overlapping windows of a sound that arrives in chunks; no more than a batch of them is kept.

    Only whole windows are taken, but for a sound shorter than one, which is filled with silence.

    Args:
        chunks: (n,) each, of any lengths, that follow one another; ``[sound]`` for a sound in memory.
        window: samples of a window.
        hop: samples between the beginnings of windows.
        batch_size: windows yielded at once.

    Yields:
        (b, window), the same whatever the cuts between chunks.

    Raises:
        ValueError: if a number is not positive or a chunk has another shape.
    """
    if min(window, hop, batch_size) < 1:
        raise ValueError(f"window ({window}), hop ({hop}) and batch_size ({batch_size}) must be positive")
    kept = torch.zeros(0)
    skip = seen = given = 0  # samples still to drop in front of the next window, samples so far, windows so far
    most = window + (batch_size - 1) * hop  # samples of a full batch
    for chunk in chunks:
        if chunk.ndim != 1:
            raise ValueError(f"chunks must be (n,), got {tuple(chunk.shape)}")
        seen += len(chunk)
        for piece in chunk.split(most):  # a long chunk is not copied as a whole
            kept = torch.cat([kept.to(piece), piece])
            dropped = min(skip, len(kept))
            kept, skip = kept[dropped:], skip - dropped
            while len(kept) >= window:
                windows = kept[:most].unfold(0, window, hop)
                yield windows
                given += len(windows)
                used = len(windows) * hop
                kept, skip = kept[used:].clone(), max(0, used - len(kept))
    if seen and not given:
        yield F.pad(kept, (0, window - len(kept)))[None]


def embed_sound(embedding: SoundEmbedding, sound: Tensor, *, sample_rate: int, batch_size: int = 32) -> Tensor:
    """Vectors of all windows of a sound.

    Args:
        embedding: the network.
        sound: (n,) in [-1, 1].
        sample_rate: Hz of ``sound``; resampled where the network hears another.
        batch_size: windows at once.

    Returns:
        (b, d).

    Raises:
        ValueError: for another shape, or no samples.
    """
    if sound.ndim != 1 or not len(sound):
        raise ValueError(f"sound must be (n,) with at least one sample, got {tuple(sound.shape)}")
    heard = resample(sound[None], sample_rate, embedding.sample_rate)[0]
    batches = sound_windows([heard], window=embedding.window, hop=embedding.hop, batch_size=batch_size)
    return torch.cat([embedding.embed(windows).float() for windows in batches])


class Fad(Frechet):
    """Fréchet audio distance of sounds (b, 1, n).

    Args:
        embedding: the network.
        sample_rate: Hz of the sounds; resampled where the network hears another.
    """

    def __init__(self, embedding: SoundEmbedding, sample_rate: int):
        window, hop = embedding.window / embedding.sample_rate, embedding.hop / embedding.sample_rate
        super().__init__(
            f"{embedding.source}, windows of {window:g} s each {hop:g} s at {embedding.sample_rate} Hz, whole windows "
            "only, a shorter sound filled with silence"
        )
        self.embedding, self.sample_rate = embedding, sample_rate

    def _features(self, media: Tensor) -> Tensor:
        return torch.cat([embed_sound(self.embedding, x, sample_rate=self.sample_rate) for x in media[:, 0]])
