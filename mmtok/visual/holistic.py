"""Tokenizers without a grid, as programs that think in grids use them: n tokens are n slices of one token each."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmtok.contract import decode_clip, needs_size


class TokensAsGrid(nn.Module):
    """A holistic tokenizer (LARP) for clips of one size, with codes (b, k, n, 1, 1).

    A slice of this grid is a token about the whole clip, so nothing can be cut out of it: tasks that give or ask for
    some of the slices do not exist (``llm.tasks.Task.cuts``).

    Args:
        tokenizer: a ``VisualTokenizer`` with ``needs_size``.
        size: (t, h, w) of its clips.
    """

    is_causal = False

    def __init__(self, tokenizer: Any, size: tuple[int, int, int]):
        super().__init__()
        self.tokenizer, self.size = tokenizer, size
        self.codebook_size, self.num_codebooks = tokenizer.codebook_size, tokenizer.num_codebooks
        self.stride, self.fps = tokenizer.stride, tokenizer.fps

    def grid(self, num_frames: int, height: int, width: int) -> tuple[int, ...]:
        """Tokens of a clip.

        Args:
            num_frames: as in ``VisualTokenizer``.
            height: pixels.
            width: pixels.

        Returns:
            (n, 1, 1)
        """
        return (*self.tokenizer.grid(num_frames, height, width), 1, 1)

    def valid_num_frames(self, num_frames: int) -> int:
        """Largest clip length that fits, at most ``num_frames``."""
        length: int = self.tokenizer.valid_num_frames(num_frames)
        return length

    def encode(self, video: Tensor) -> Tensor:
        """Codes of a clip.

        Args:
            video: (b, 3, t, h, w) in [-1, 1].

        Returns:
            (b, k, n, 1, 1) int64.

        Raises:
            ValueError: for another size.
        """
        if tuple(video.shape[2:]) != self.size:
            raise ValueError(f"clips here are of {self.size} (t, h, w), got {tuple(video.shape[2:])}")
        codes: Tensor = self.tokenizer.encode(video)
        return codes[..., None, None]

    def decode(self, codes: Tensor) -> Tensor:
        """Clip from codes: (b, k, n, 1, 1) to (b, 3, t, h, w) in [-1, 1], of the size given at the start."""
        return decode_clip(self.tokenizer, codes.flatten(2), self.size)

    def code_vectors(self) -> Tensor:
        """What the codes mean, to start a language model from: (codebook_size, c)."""
        vectors: Tensor = self.tokenizer.code_vectors()
        return vectors


def as_grid(tokenizer: Any, size: tuple[int, int, int]) -> Any:
    """The tokenizer itself where it has a grid, else ``TokensAsGrid``.

    Args:
        tokenizer: a ``VisualTokenizer``.
        size: (t, h, w) of the clips.

    Returns:
        A tokenizer whose codes have three axes.
    """
    return TokensAsGrid(tokenizer, size) if needs_size(tokenizer) else tokenizer


def is_holistic(tokenizer: Any) -> bool:
    """Whether every token is about the whole clip: True for ``TokensAsGrid``."""
    return isinstance(tokenizer, TokensAsGrid)
