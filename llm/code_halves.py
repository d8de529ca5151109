"""Visual codes in two halves: an embedding that is a sum of two rows and a head of two small softmaxes.

VideoPoet's super-resolution stage predicts the two halves of 2^18 codes; for a small language model the flat table of
262,144 rows is most of its weights and nearly all of its products. Here code ``c`` is ``(c % f, c // f)``, low half
first (spec: low 9 bits are factor 0). The high half is scored *given* the low one, so that the pair is a full joint
distribution and no two halves are drawn that do not belong together: the hidden vector is scaled and shifted by
learned vectors of the low half before it meets the rows of the high halves. Sampling, guidance and top-k see the joint
scores of all codes, which take one product of (f, d) by (d, f) a place.

Ids in sequences stay those of the vocabulary; only the table of vectors has other rows: special ids, low halves, high
halves, audio codes. Shape letters: b batch, d width, f codes of a half, v ids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.vocabulary import Block, Vocabulary


@dataclass(frozen=True)
class VisualFactors:
    """Where ids of a vocabulary stand in a table whose visual rows are halves.

    Attributes:
        vocabulary: of the sequences; its number of visual codes is a square number.
    """

    vocabulary: Vocabulary

    def __post_init__(self) -> None:
        if self.size**2 != self.vocabulary.visual_codes:
            raise ValueError(
                f"visual_factors=2 needs a square number of visual codes, got {self.vocabulary.visual_codes}"
            )

    @property
    def size(self) -> int:
        """Codes of a half, f."""
        return math.isqrt(self.vocabulary.visual_codes)

    @property
    def low(self) -> Block:
        """Rows of the low halves."""
        return Block(self.vocabulary.visual.start, self.vocabulary.visual.start + self.size)

    @property
    def high(self) -> Block:
        """Rows of the high halves."""
        return Block(self.low.stop, self.low.stop + self.size)

    @property
    def table_size(self) -> int:
        """Rows of the table, a multiple of 128."""
        used = self.high.stop + self.vocabulary.audio_levels * self.vocabulary.audio_codes
        return -(-used // 128) * 128

    def split(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Halves of visual ids.

        Args:
            ids: visual ids of any shape.

        Returns:
            Rows of the low and of the high halves, each like ``ids``.
        """
        codes = ids - self.vocabulary.visual.start
        return self.low.start + codes % self.size, self.high.start + codes // self.size

    def row(self, ids: Tensor) -> Tensor:
        """Rows of special ids and audio ids, of any shape; a visual id has no single row."""
        return torch.where(ids < self.vocabulary.visual.start, ids, ids - self._shift)

    def block(self, block: Block) -> Block:
        """Rows of a block of special or audio ids."""
        shift = 0 if block.stop <= self.vocabulary.visual.start else self._shift
        return Block(block.start - shift, block.stop - shift)

    def is_visual(self, block: Block) -> bool:
        """Whether a block holds visual ids."""
        return self.vocabulary.visual.start <= block.start < self.vocabulary.visual.stop

    def embed(self, ids: Tensor, table: Tensor) -> Tensor:
        """Vectors of ids: a row of the table, for visual ids the sum of two.

        Args:
            ids: of any shape.
            table: (table_size, d).

        Returns:
            (..., d).
        """
        visual = self.vocabulary.visual
        seen = (ids >= visual.start) & (ids < visual.stop)
        low, high = self.split(torch.where(seen, ids, visual.start))
        first = F.embedding(torch.where(seen, low, self.row(ids)), table)
        return first + F.embedding(high, table) * seen[..., None].to(table.dtype)

    @property
    def _shift(self) -> int:
        """Ids saved by the halves."""
        return self.vocabulary.visual_codes - 2 * self.size


class HighGivenLow(nn.Module):
    """Turns the hidden vector of a place into one that predicts the high half behind a given low half.

    Args:
        size: codes of a half.
        dim: width.
    """

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.scale = nn.Embedding(size, dim)
        self.shift = nn.Embedding(size, dim)

    def forward(self, hidden: Tensor, low: Tensor) -> Tensor:
        """Condition on one low half each.

        Args:
            hidden: (..., d).
            low: (...) low halves from 0.

        Returns:
            (..., d).
        """
        return hidden * (1 + self.scale(low)) + self.shift(low)

    def joint(self, hidden: Tensor, low_rows: Tensor, high_rows: Tensor) -> Tensor:
        """Logarithms of the probabilities of all codes.

        Args:
            hidden: (..., d).
            low_rows: (f, d) of the head.
            high_rows: (f, d) of the head.

        Returns:
            (..., f * f), in the order of the codes.
        """
        low = F.linear(hidden, low_rows).float().log_softmax(-1)
        given = hidden[..., None, :] * (1 + self.scale.weight) + self.shift.weight  # (..., f low, d)
        high = F.linear(given, high_rows).float().log_softmax(-1)  # (..., f low, f high)
        return (low[..., None] + high).transpose(-1, -2).flatten(-2)
