"""Large pictures piece by piece: any visual tokenizer over overlapping spatial tiles.

Memory then depends on the tile, not on the picture. It is an approximation: norms that take statistics over a frame see
the tile only, and receptive fields end at its borders. ``tiling_error`` measures by how much; a picture that fits into
one tile is exact.
Shape letters: b batch, t h w time/height/width.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmtok.contract import needs_size, require_video
from mmtok.visual.grid import pad_frames


@dataclass(frozen=True)
class _Axis:
    """How one side is cut.

    Attributes:
        starts: first position of each tile.
        length: of every tile.
        size: of the side.
    """

    starts: list[int]
    length: int
    size: int

    def weights(self, overlap: int) -> Tensor:
        """(tiles, size): share of each tile in every position; ramps over the overlap, 1 where a tile is alone."""
        x = torch.arange(self.size) + 0.5
        rows = []
        for start in self.starts:
            end = start + self.length
            left = x - start if start > 0 else torch.full_like(x, math.inf)
            right = end - x if end < self.size else torch.full_like(x, math.inf)
            rows.append(torch.minimum(left, right).clamp(0, max(overlap, 1)))
        shares = torch.stack(rows)
        return shares / shares.sum(0)

    def scaled(self, factor: int) -> _Axis:
        """The same cut where every position is ``factor`` positions."""
        return _Axis([factor * s for s in self.starts], factor * self.length, factor * self.size)


def _cut(size: int, tile: int, overlap: int) -> _Axis:
    """Evenly spread tiles; sizes in tokens."""
    if size <= tile:
        return _Axis([0], size, size)
    count = math.ceil((size - overlap) / (tile - overlap))
    return _Axis([round(i * (size - tile) / (count - 1)) for i in range(count)], tile, size)


class TiledTokenizer:
    """A ``VisualTokenizer`` that works on tiles of another one: same codes' meaning, same grid.

    Codes come from the tile whose border is farthest; decoded tiles are blended linearly where they overlap.

    Args:
        tokenizer: the tokenizer.
        tile: side of a tile, pixels, a multiple of both spatial strides.
        overlap: pixels that neighbouring tiles share at least, a multiple of both strides, at most half a tile.

    Raises:
        ValueError: if the tile or the overlap does not fit, or the tokenizer has no grid.
    """

    def __init__(self, tokenizer: Any, *, tile: int = 256, overlap: int = 64):
        if needs_size(tokenizer):
            raise ValueError("tiles cut a grid of tokens, and this tokenizer's tokens are about the whole clip")
        self.tokenizer, self.tile, self.overlap = tokenizer, tile, overlap
        self.codebook_size, self.num_codebooks = tokenizer.codebook_size, tokenizer.num_codebooks
        self.stride, self.fps, self.is_causal = tokenizer.stride, tokenizer.fps, tokenizer.is_causal
        step = math.lcm(*self.stride[1:])
        if tile < step or tile % step:
            raise ValueError(f"tile ({tile}) must be a positive multiple of {step} pixels")
        if overlap < 0 or overlap % step or 2 * overlap > tile:
            raise ValueError(f"overlap ({overlap}) must be a multiple of {step} pixels, at most half a tile ({tile})")

    def grid(self, num_frames: int, height: int, width: int) -> tuple[int, ...]:
        """Token grid of a clip.

        Args:
            num_frames: frames.
            height: pixels.
            width: pixels.

        Returns:
            (t, h, w) tokens.
        """
        grid: tuple[int, ...] = self.tokenizer.grid(num_frames, height, width)
        return grid

    def valid_num_frames(self, num_frames: int) -> int:
        """Largest clip length that fits, at most ``num_frames``."""
        fits: int = self.tokenizer.valid_num_frames(num_frames)
        return fits

    @torch.inference_mode()
    def encode(self, video: Tensor, *, pad: bool = False) -> Tensor:
        """Codes of a clip, tile by tile.

        Args:
            video: (b, 3, t, h, w) in [-1, 1].
            pad: repeat the last frame up to the next length that fits.

        Returns:
            (b, k, t', h', w') int64.

        Raises:
            ValueError: if the tensor is not such a clip or does not fit the grid.
        """
        require_video(video)
        st, sh, sw = self.stride
        if pad:
            video = pad_frames(video, st)
        grid = self.grid(*video.shape[2:])
        rows, columns = self._cuts(grid[1], grid[2])
        row_owner = rows.weights(self.overlap // sh).argmax(0)
        column_owner = columns.weights(self.overlap // sw).argmax(0)
        codes = torch.empty(video.shape[0], self.num_codebooks, *grid, dtype=torch.int64, device=video.device)
        for (i, top), (j, left) in itertools.product(enumerate(rows.starts), enumerate(columns.starts)):
            bottom, right = top + rows.length, left + columns.length
            piece = self.tokenizer.encode(video[..., top * sh : bottom * sh, left * sw : right * sw].contiguous())
            y, x = (row_owner == i).nonzero().flatten(), (column_owner == j).nonzero().flatten()
            y0, y1, x0, x1 = int(y[0]), int(y[-1]) + 1, int(x[0]), int(x[-1]) + 1
            codes[..., y0:y1, x0:x1] = piece[..., y0 - top : y1 - top, x0 - left : x1 - left]
        return codes

    @torch.inference_mode()
    def decode(self, codes: Tensor, *, clamp: bool = True) -> Tensor:
        """Clip from codes, tile by tile.

        Args:
            codes: (b, k, t, h, w) integers below ``codebook_size``.
            clamp: bring the result into [-1, 1].

        Returns:
            (b, 3, t', h * stride_h, w * stride_w) float32.

        Raises:
            ValueError: for a code out of range.
        """
        _, sh, sw = self.stride
        rows, columns = self._cuts(*codes.shape[-2:])
        high, wide = rows.scaled(sh), columns.scaled(sw)
        shares = (high.weights(self.overlap).to(codes.device), wide.weights(self.overlap).to(codes.device))
        video: Tensor | None = None
        for (i, top), (j, left) in itertools.product(enumerate(rows.starts), enumerate(columns.starts)):
            part = codes[..., top : top + rows.length, left : left + columns.length]
            piece = self.tokenizer.decode(part.contiguous(), clamp=False)
            if video is None:
                video = piece.new_zeros(*piece.shape[:3], high.size, wide.size)
            y = slice(high.starts[i], high.starts[i] + high.length)
            x = slice(wide.starts[j], wide.starts[j] + wide.length)
            video[..., y, x] += piece * shares[0][i, y, None] * shares[1][j, None, x]
        assert video is not None, "there is always a tile"
        return video.clamp(-1, 1) if clamp else video

    def _cuts(self, height: int, width: int) -> tuple[_Axis, _Axis]:
        """Cuts of a grid of tokens."""
        sh, sw = self.stride[1:]
        return (_cut(height, self.tile // sh, self.overlap // sh), _cut(width, self.tile // sw, self.overlap // sw))
