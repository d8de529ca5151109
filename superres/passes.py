"""How pictures come to a size: doublings, each by the stage of super-resolution that was trained nearest to it.

Pure plans of sizes and stages: no weights are loaded here. Sizes are (h, w) pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from superres.config import SuperResConfig
from superres.model import SuperResTransformer
from superres.sample import Decoding
from superres.tiles import TileCut, cut_grid

MOST_DOUBLINGS = 4  # of the language model's size: 64 to 1024, 128 to 2048


@dataclass(frozen=True)
class Stage:
    """A transformer of super-resolution, as plans and films take it.

    Attributes:
        config: its sizes.
        decoding: steps, guidance and temperatures.
        load: gives the transformer in eval mode, the same one each time.
    """

    config: SuperResConfig
    decoding: Decoding
    load: Callable[[], SuperResTransformer]


@dataclass(frozen=True)
class Pass:
    """One doubling of height and width.

    Attributes:
        part: name of the stage that does it.
        low: (h, w) pixels that go in.
        high: (h, w) pixels that come out.
        cuts: of the height and the width of the grid into tiles of the stage's own size.
        decoding: steps, guidance and temperatures.
    """

    part: str
    low: tuple[int, int]
    high: tuple[int, int]
    cuts: tuple[TileCut, TileCut]
    decoding: Decoding

    @property
    def tiles(self) -> int:
        """How many there are."""
        return len(self.cuts[0].starts) * len(self.cuts[1].starts)

    @property
    def num_steps(self) -> int:
        """Decoding steps of a clip, those of all tiles."""
        return self.tiles * self.decoding.num_steps


def describe_passes(passes: tuple[Pass, ...]) -> str:
    """The way of a film in words.

    Args:
        passes: of ``plan_film``.

    Returns:
        Such as "64x64 -> 128x128 (superres, 24 steps) -> 256x256 (superres in 9 tiles, 24 steps)".
    """
    words = ["{1}x{0}".format(*passes[0].low)]
    for step in passes:
        tiles = f" in {step.tiles} tiles" if step.tiles > 1 else ""
        words.append(f"{step.high[1]}x{step.high[0]} ({step.part}{tiles}, {step.decoding.num_steps} steps)")
    return " -> ".join(words)


def reachable_sizes(base: int) -> list[int]:
    """Shorter sides that films can be given: ``base`` doubled up to ``MOST_DOUBLINGS`` times."""
    return [base * 2**k for k in range(1, MOST_DOUBLINGS + 1)]


def plan_passes(
    stages: Mapping[str, Stage],
    tokenizer: Any,
    low: tuple[int, int],
    doublings: int,
    *,
    done: int = 0,
    changes: dict[str, Any] | None = None,
) -> tuple[Pass, ...]:
    """The doublings of pictures of a size; the last stage goes on where there are more doublings than stages.

    Args:
        stages: name to stage, the first one first.
        tokenizer: whose codes they speak.
        low: (h, w) pixels to start from.
        doublings: how many.
        done: how often ``low`` was doubled already; the stages for that are passed over.
        changes: fields of ``Decoding`` that differ from the stages' own.

    Returns:
        The passes.

    Raises:
        ValueError: if the tokenizer does not take the size, or a setting is wrong.
    """
    names, passes = list(stages), []
    for number in range(done, done + doublings):
        part = names[min(number, len(names) - 1)]
        high = (2 * low[0], 2 * low[1])
        tokenizer.grid(1, *low)  # raises for a size that it does not take
        _, height, width = tokenizer.grid(1, *high)
        decoding = dataclasses.replace(stages[part].decoding, **(changes or {}))
        passes.append(Pass(part, low, high, cut_grid(stages[part].config, (height, width)), decoding))
        low = high
    return tuple(passes)


def plan_film(
    stages: Mapping[str, Stage],
    tokenizer: Any,
    size: tuple[int, int],
    *,
    base: int,
    to: int,
    ratio: float | None = None,
    changes: dict[str, Any] | None = None,
) -> tuple[Pass, ...]:
    """How a film comes to a size: as few doublings as possible, so that as much of it as possible is kept.

    Args:
        stages: as of ``plan_passes``.
        tokenizer: as of ``plan_passes``.
        size: (h, w) pixels of the film.
        base: shorter side that the first stage starts from.
        to: shorter side wanted, one of ``reachable_sizes``.
        ratio: height over width that the film is cropped to; None keeps the film's own, to the nearest whole token.
        changes: as of ``plan_passes``.

    Returns:
        The passes; the first one's ``low`` is the size that the film is brought to.

    Raises:
        ValueError: for a size that cannot be reached, or as ``plan_passes``.
    """
    if to not in reachable_sizes(base):
        sizes = ", ".join(map(str, reachable_sizes(base)))
        raise ValueError(f"{to} pixels cannot be reached: this model doubles {base} to one of {sizes}")
    most = _times_doubled(base, to)
    doublings = next((k for k in range(1, most) if to >> k <= min(size)), most)
    shorter = to >> doublings
    if ratio is not None:
        low = (round(shorter * ratio), shorter)
    else:
        unit = tokenizer.stride[1 if size[0] > size[1] else 2]
        longer = max(shorter, round(max(size) * shorter / min(size) / unit) * unit)
        low = (longer, shorter) if size[0] > size[1] else (shorter, longer)
    return plan_passes(stages, tokenizer, low, doublings, done=_times_doubled(base, shorter), changes=changes)


def plan_clip(
    stages: Mapping[str, Stage], tokenizer: Any, low: tuple[int, int], *, base: int, to: int
) -> tuple[Pass, ...]:
    """The doublings of a clip that a language model made.

    Args:
        stages: as of ``plan_passes``.
        tokenizer: as of ``plan_passes``.
        low: (h, w) pixels that the language model speaks.
        base: their width.
        to: width wanted.

    Returns:
        The passes.

    Raises:
        ValueError: if ``to`` is not ``base`` doubled, or as ``plan_passes``.
    """
    doublings = _times_doubled(base, to)
    if doublings < 1 or base << doublings != to:
        raise ValueError(f"upscaled_size ({to}) must be {base} doubled once or several times")
    return plan_passes(stages, tokenizer, low, doublings)


def _times_doubled(base: int, side: int) -> int:
    return (side // base).bit_length() - 1
