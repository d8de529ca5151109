"""What super-resolution trains on: groups of clips of one grid, each as low- and high-resolution codes.

A token cache is one group in memory. Films and made-up scenes are tokenized while the training runs: the
high-resolution clip, and its bicubic half (VideoPoet, section 3.3). A clip is always encoded by itself, so its codes
depend on the clip only, not on who shares its batch, and may be kept or made again.

Shape letters: b clips, t h w tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from mmtok.media.errors import MediaError
from mmtok.media.resize import half_size
from recipes.corpora.film_clips import ClipReader, FilmClip, FilmClips, PixelSize
from recipes.corpora.shapes import ShapesCorpus, render_video
from recipes.tokens.cache import TokenSet
from superres.windows import Size, low_size


@dataclass(frozen=True)
class Pairs:
    """Some clips of one group.

    Attributes:
        low: (b, t, h / 2, w / 2) int64.
        high: (b, t, h, w) int64.
        captions: b texts, None where there is none.
    """

    low: Tensor
    high: Tensor
    captions: list[str | None]


class PairGroup(Protocol):
    """Clips of one grid.

    Attributes:
        name: for logs, such as "448x256".
        grid: (t, h, w) high-resolution tokens of each clip.
        weight: how often it is drawn, relative to other groups.
        num_train: rows that training draws from, numbered from 0.
        num_held_out: rows never trained on, numbered from ``num_train``.
    """

    name: str
    grid: Size
    weight: float
    num_train: int
    num_held_out: int

    def captions(self) -> list[str]:
        """All texts that may occur."""
        ...

    def read(self, rows: Sequence[int]) -> Pairs:
        """The clips of some rows."""
        ...

    def expect(self, rows: Sequence[int]) -> None:
        """Begin to read rows that will be asked for next."""
        ...


class CachedPairs:
    """Rows of a token cache; a ``PairGroup``.

    Args:
        tokens: the cache, with high-resolution codes.
        validation_rows: last rows, kept out of training.
        codebook_size: entries of the codebook that made the cache.

    Raises:
        ValueError: if no row is left for training, the cache has no high-resolution codes, their grid is not twice the
            low one, or codes lie outside the codebook.
    """

    def __init__(self, tokens: TokenSet, *, validation_rows: int, codebook_size: int):
        if tokens.high is None:
            raise ValueError("the token cache has no high-resolution codes; encode the corpus with upscale=true")
        grid = (tokens.high.shape[1], tokens.high.shape[2], tokens.high.shape[3])
        if tuple(tokens.low.shape[1:]) != low_size(grid):
            raise ValueError(f"low codes {tuple(tokens.low.shape[1:])} are not half as high and wide as {grid}")
        for name, codes in (("low", tokens.low), ("high", tokens.high)):
            least, most = (int(x) for x in codes.aminmax())
            if least < 0 or most >= codebook_size:
                raise ValueError(f"{name} codes lie in [{least}, {most}], but visual_codes is {codebook_size}")
        if validation_rows >= len(tokens):
            raise ValueError(
                f"validation_rows ({validation_rows}) must be less than the {len(tokens)} rows of the cache"
            )
        self.name, self.grid, self.weight = "cache", grid, 1.0
        self.num_train, self.num_held_out = len(tokens) - validation_rows, validation_rows
        self._low, self._high, self._texts = tokens.low, tokens.high, tokens.captions

    def captions(self) -> list[str]:
        """All texts of the cache."""
        return self._texts

    def read(self, rows: Sequence[int]) -> Pairs:
        """The clips of b row numbers."""
        places = torch.tensor(list(rows))
        return Pairs(self._low[places].long(), self._high[places].long(), [self._texts[row] for row in rows])

    def expect(self, rows: Sequence[int]) -> None:
        """Nothing: all rows are in memory."""


class TokenizedPairs:
    """Rows of pictures, tokenized when they are asked for; a ``PairGroup``.

    Args:
        pictures: gives (3, t, height, width) in [-1, 1] of a row; MediaError where there is nothing to see, and then
            the row after it stands in.
        texts: caption of a row, or None.
        every_text: all captions that may occur.
        size: height and width of the pictures, pixels.
        num_frames: of a clip.
        tokenizer: a ``VisualTokenizer`` with a (t, h, w) grid.
        num_train: rows for training.
        num_held_out: rows behind them that are kept out.
        weight: how often the group is drawn.
        name: for logs.
        kept_clips: codes of so many clips stay in memory, so that their pictures are read and encoded once.
        workers: threads that read what ``expect`` names.
    """

    def __init__(
        self,
        pictures: Callable[[int], Tensor],
        texts: Callable[[int], str | None],
        every_text: Sequence[str],
        *,
        size: PixelSize,
        num_frames: int,
        tokenizer: Any,
        num_train: int,
        num_held_out: int,
        weight: float,
        name: str,
        kept_clips: int,
        workers: int = 2,
    ):
        self.name, self.grid, self.weight = name, pair_grid(tokenizer, num_frames, size), weight
        self.num_train, self.num_held_out = num_train, num_held_out
        self._pictures, self._texts, self._every_text = pictures, texts, list(every_text)
        self._tokenizer, self._most = tokenizer, kept_clips
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._stand_in: dict[int, int] = {}
        self._coming: dict[int, Future[Tensor]] = {}
        self._pool = ThreadPoolExecutor(workers)

    def captions(self) -> list[str]:
        """All texts that may occur."""
        return self._every_text

    def expect(self, rows: Sequence[int]) -> None:
        """Begin to read the pictures of rows whose codes are not there."""
        for row in {self._stand_in.get(row, row) for row in rows} - self._kept.keys() - self._coming.keys():
            self._coming[row] = self._pool.submit(self._pictures, row)

    def read(self, rows: Sequence[int]) -> Pairs:
        """The clips of b row numbers."""
        found = [self._find(row) for row in rows]
        low, high = (torch.stack([codes[part] for _, codes in found]).long() for part in (0, 1))
        return Pairs(low, high, [self._texts(row) for row, _ in found])

    def _find(self, row: int) -> tuple[int, tuple[Tensor, Tensor]]:
        """Codes of a row, or of the first readable one after it within training or what is kept out."""
        first, count = (0, self.num_train) if row < self.num_train else (self.num_train, self.num_held_out)
        now = self._stand_in.get(row, row)
        for _ in range(count):
            try:
                codes = self._codes(now)
            except MediaError as fault:
                print(f"left out: {fault}")
                now = first + (now + 1 - first) % count
                continue
            if now != row:
                self._stand_in[row] = now
            return now, codes
        raise ValueError(f"no film of {self.name} can be read")

    def _codes(self, row: int) -> tuple[Tensor, Tensor]:
        if row in self._kept:
            return self._kept[row]
        coming = self._coming.pop(row, None)
        pictures = self._pictures(row) if coming is None else coming.result()
        high = pictures[None].to(next(self._tokenizer.parameters()).device)
        low = half_size(high)
        codes = tuple(self._tokenizer.encode(video)[0, 0].int().cpu() for video in (low, high))
        if len(self._kept) < self._most:
            self._kept[row] = (codes[0], codes[1])
        return codes[0], codes[1]


def pair_grid(tokenizer: Any, num_frames: int, size: PixelSize) -> Size:
    """The high-resolution grid of clips whose halves lie under it.

    Args:
        tokenizer: a ``VisualTokenizer``.
        num_frames: of a clip.
        size: height and width, pixels.

    Returns:
        (t, h, w) tokens.

    Raises:
        ValueError: if the tokenizer has no (t, h, w) grid or several codebooks, does not take this size or its half, or
            they do not lie on one another.
    """
    height, width = size
    if height % 2 or width % 2:
        raise ValueError(f"clips of {height}x{width} (height x width) have no half; use even sides")
    grid = tuple(tokenizer.grid(num_frames, height, width))
    if len(grid) != 3 or tokenizer.num_codebooks != 1:
        raise ValueError(
            f"super-resolution needs a tokenizer with one codebook and a (t, h, w) grid; {type(tokenizer).__name__} "
            f"has {tokenizer.num_codebooks} and a grid of {len(grid)} axes"
        )
    full: Size = (grid[0], grid[1], grid[2])
    below = tuple(tokenizer.grid(num_frames, height // 2, width // 2))
    if below != low_size(full):
        raise ValueError(f"the grid {below} of the half does not lie under the grid {full} of {height}x{width} pixels")
    return full


def film_groups(
    clips: dict[PixelSize, FilmClips],
    *,
    tokenizer: Any,
    num_frames: int,
    validation_rows: int,
    kept_clips: int,
    weight: float = 1.0,
) -> list[PairGroup]:
    """A group for each size, drawn as often as it has clips.

    Args:
        clips: of ``film_clips``.
        tokenizer: a ``VisualTokenizer``.
        num_frames: of a clip.
        validation_rows: most held-out clips of a group.
        kept_clips: clips of a group whose codes stay in memory.
        weight: of all groups together.

    Returns:
        The groups.
    """
    total = sum(len(found.train) for found in clips.values())
    group = partial(TokenizedPairs, num_frames=num_frames, tokenizer=tokenizer, kept_clips=kept_clips)
    groups: list[PairGroup] = []
    for (height, width), found in clips.items():
        held_out = _spread(found.held_out, validation_rows)
        rows = found.train + held_out
        groups.append(
            group(
                ClipReader(rows, size=(height, width), num_frames=num_frames, fps=tokenizer.fps),
                lambda row, rows=rows: rows[row].caption,  # type: ignore[misc]
                [clip.caption for clip in rows if clip.caption is not None],
                size=(height, width),
                num_train=len(found.train),
                num_held_out=len(held_out),
                weight=weight * len(found.train) / total,
                name=f"{height}x{width}",
            )
        )
    return groups


def _spread(clips: list[FilmClip], most: int) -> list[FilmClip]:
    """At most so many clips, evenly spread, so that many films are among them."""
    count = min(most, len(clips))
    return [clips[number * len(clips) // count] for number in range(count)]


def scene_groups(
    sizes: Sequence[PixelSize],
    *,
    tokenizer: Any,
    num_frames: int,
    seed: int,
    scenes: int,
    validation_rows: int,
    kept_clips: int,
    weight: float = 1.0,
) -> list[PairGroup]:
    """Groups of made-up scenes; those of a portrait are cut from the middle of a square.

    Args:
        sizes: heights and widths, pixels.
        tokenizer: a ``VisualTokenizer``.
        num_frames: of a clip.
        seed: of the corpus.
        scenes: how many of them.
        validation_rows: held-out scenes of a group, of combinations never trained on.
        kept_clips: clips of a group whose codes stay in memory.
        weight: of all groups together.

    Returns:
        A group for each size.
    """
    corpora = ShapesCorpus(seed, "train"), ShapesCorpus(seed, "heldout")

    def scene(row: int) -> Any:
        return corpora[0].scene(row) if row < scenes else corpora[1].scene(row - scenes)

    def pictures(row: int, height: int, width: int) -> Tensor:
        side = max(height, width)
        video = render_video(scene(row), size=side, num_frames=num_frames)
        top, left = (side - height) // 2, (side - width) // 2
        return video[..., top : top + height, left : left + width]

    group = partial(TokenizedPairs, num_frames=num_frames, tokenizer=tokenizer, kept_clips=kept_clips)
    texts = list(dict.fromkeys(scene(row).caption for row in range(scenes + validation_rows)))
    return [
        group(
            lambda row, h=height, w=width: pictures(row, h, w),  # type: ignore[misc]
            lambda row: scene(row).caption,
            texts,
            size=(height, width),
            num_train=scenes,
            num_held_out=validation_rows,
            weight=weight / len(sizes),
            name=f"scenes {height}x{width}",
        )
        for height, width in sizes
    ]
