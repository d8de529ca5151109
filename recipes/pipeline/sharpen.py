"""Super-resolution of a bundle: of codes, of a clip, and of a film of any length and size.

A film is doubled in passes, one stage of the bundle each; codes go from pass to pass, pictures are decoded at the end.
It goes in windows of a clip, each of which keeps the codes of its beginning, which are those of the end before.

Shape letters: b films, t h w time/height/width.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from llm.sampling import Generators, each_row, film_generators
from mmtok.media.resize import resized
from mmtok.pretrained import params_from_config, read_config
from mmtok.visual.grid import pad_frames, repeat_last_frame
from mmtok.visual.holistic import is_holistic
from mmtok.visual.tiling import TiledTokenizer
from recipes.bundle.config import ASPECTS, SHARPENERS
from recipes.bundle.parts import Parts, Text
from recipes.pipeline.request import OnStep
from superres.config import SuperResConfig
from superres.model import FAMILY
from superres.sample import Decoding
from superres.tiles import TileCut, cut_grid, sample_grid

MOST_DOUBLINGS = 4  # of the language model's size: 64 to 1024, 128 to 2048
TILE_FROM_PX = 512  # larger pictures go through the tokenizer in tiles of 256
OWN = "own"  # the form of a film that keeps its own


@dataclass(frozen=True)
class Pass:
    """One doubling of height and width.

    Attributes:
        part: the stage that does it, of ``recipes.bundle.config.SHARPENERS``.
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
        passes: of ``Sharpener.plan_film``.

    Returns:
        Such as "64x64 -> 128x128 (superres, 24 steps) -> 256x256 (superres in 9 tiles, 24 steps)".
    """
    words = ["{1}x{0}".format(*passes[0].low)]
    for step in passes:
        tiles = f" in {step.tiles} tiles" if step.tiles > 1 else ""
        words.append(f"{step.high[1]}x{step.high[0]} ({step.part}{tiles}, {step.decoding.num_steps} steps)")
    return " -> ".join(words)


def blocks_of(video: Tensor, length: int) -> Iterator[Tensor]:
    """A film as it would arrive.

    Args:
        video: (b, 3, t, h, w).
        length: pictures a block.

    Yields:
        (b, 3, n, h, w), n at most ``length``.
    """
    for start in itertools.count(0, length):
        if start >= video.shape[2]:
            return
        yield video[:, :, start : start + length]


class Sharpener(Parts):
    """Parts that also sharpen."""

    # What is there, and what it can do.

    @cached_property
    def sharpeners(self) -> dict[str, SuperResConfig]:
        """The stages of super-resolution and their sizes, the first one first; no weights are loaded.

        Raises:
            ValueError: if there is none, or the stages do not speak the same tokens.
        """
        parts = [part for part in SHARPENERS if self.bundle.has(part)]
        if "superres" not in parts:
            raise ValueError(f"the model {self.bundle.folder} has no super-resolution part; ask for no upscaling")
        found = {
            part: params_from_config(SuperResConfig, read_config(self.bundle.part(part), FAMILY)["params"])
            for part in parts
        }
        size = self.sharp_visual.codebook_size
        for part, config in found.items():
            if config.codebook_size != size:
                raise ValueError(
                    f"{part} of {self.bundle.folder} speaks {config.codebook_size} codes and the tokenizer under it "
                    f"{size}; every stage must be trained on that tokenizer"
                )
        return found

    def reachable_sizes(self) -> list[int]:
        """Shorter sides that films can be given.

        Returns:
            The language model's size doubled up to ``MOST_DOUBLINGS`` times, in pixels.
        """
        return [self.config.size * 2**k for k in range(1, MOST_DOUBLINGS + 1)]

    def plan_passes(
        self, low: tuple[int, int], doublings: int, *, shorter: int, changes: dict[str, Any] | None = None
    ) -> tuple[Pass, ...]:
        """The doublings of pictures of a size, each by the stage trained nearest to it.

        Args:
            low: (h, w) pixels to start from.
            doublings: how many.
            shorter: pixels that ``low``'s shorter side stands for: ``config.size`` times a power of two.
            changes: fields of ``Decoding`` that differ from the bundle's.

        Returns:
            The passes.

        Raises:
            ValueError: if super-resolution is absent, its tokenizer does not take the size, or a setting is wrong.
        """
        stages = list(self.sharpeners)
        doubled = (shorter // self.config.size).bit_length() - 1  # how often ``low`` was doubled already
        passes = []
        for number in range(doublings):
            part = stages[min(doubled + number, len(stages) - 1)]
            high = (2 * low[0], 2 * low[1])
            self.sharp_visual.grid(1, *low)
            grid = self.sharp_visual.grid(1, *high)
            decoding = dataclasses.replace(self.config.decoding(part), **(changes or {}))
            passes.append(Pass(part, low, high, cut_grid(self.sharpeners[part], (grid[1], grid[2])), decoding))
            low = high
        return tuple(passes)

    def plan_film(
        self, size: tuple[int, int], *, to: int | None = None, aspect: str = OWN, changes: dict[str, Any] | None = None
    ) -> tuple[Pass, ...]:
        """How a film comes to a size: as few doublings as possible, so that as much of it as possible is kept.

        Args:
            size: (h, w) pixels of the film.
            to: shorter side wanted, one of ``reachable_sizes``; None is ``config.upscaled_size``.
            aspect: "own" keeps the film's form, to the nearest whole token; or one of ``ASPECTS``, which crops it.
            changes: fields of ``Decoding`` that differ from the bundle's.

        Returns:
            The passes; the first one's ``low`` is the size that the film is brought to.

        Raises:
            ValueError: for a size that cannot be reached, an unknown form, or as ``plan_passes``.
        """
        base, wanted = self.config.size, self.config.upscaled_size if to is None else to
        _ = self.sharpeners  # a bundle without super-resolution says so first
        if wanted not in self.reachable_sizes():
            sizes = ", ".join(map(str, self.reachable_sizes()))
            raise ValueError(f"{wanted} pixels cannot be reached: this model doubles {base} to one of {sizes}")
        if aspect != OWN and aspect not in ASPECTS:
            raise ValueError(f"unknown aspect {aspect!r}; known: {', '.join((OWN, *ASPECTS))}")
        most = (wanted // base).bit_length() - 1
        doublings = next((k for k in range(1, most) if wanted >> k <= min(size)), most)
        shorter = wanted >> doublings
        if aspect != OWN:
            low = (round(shorter * ASPECTS[aspect][1]), shorter)
        else:
            unit = self.sharp_visual.stride[1 if size[0] > size[1] else 2]
            longer = max(shorter, round(max(size) * shorter / min(size) / unit) * unit)
            low = (longer, shorter) if size[0] > size[1] else (shorter, longer)
        return self.plan_passes(low, doublings, shorter=shorter, changes=changes)

    def _passes_of_clip(self, low: tuple[int, int]) -> tuple[Pass, ...]:
        """From a size that the language model speaks to the bundle's own upscaled one."""
        doublings = (self.config.upscaled_size // self.config.size).bit_length() - 1
        if self.config.size << doublings != self.config.upscaled_size or doublings < 1:
            raise ValueError(
                f"upscaled_size ({self.config.upscaled_size}) must be {self.config.size} doubled once or several times"
            )
        return self.plan_passes(low, doublings, shorter=self.config.size)

    def require_sharp(self, size: tuple[int, int]) -> None:
        """Raise where super-resolution does not take pictures of a form; its weights are not loaded for that.

        Args:
            size: (h, w) pixels of the language model.

        Raises:
            ValueError: if there is none, or its tokenizer or ``upscaled_size`` does not fit.
        """
        self._passes_of_clip(size)

    @property
    def _window(self) -> int:
        """Pictures that go through super-resolution at once: a clip, or less where a stage's grid ends before."""
        stride = self.sharp_visual.stride[0]
        slices = min(1 + -(-(self.config.num_frames - 1) // stride), *(c.grid[0] for c in self.sharpeners.values()))
        return 1 + int(stride) * (slices - 1)

    def compile_sharpeners(self, passes: tuple[Pass, ...]) -> None:
        """Compile the layers of the stages that some doublings need; it pays for films of minutes.

        Args:
            passes: the doublings.
        """
        for part in dict.fromkeys(step.part for step in passes):
            getattr(self, part).compile_layers()

    # Codes.

    def _in_tiles(self, height: int, width: int) -> Any:
        """Super-resolution's tokenizer, in tiles where pictures are large."""
        if max(height, width) <= TILE_FROM_PX:
            return self.sharp_visual
        return TiledTokenizer(self.sharp_visual)

    def encode_sharp(self, video: Tensor) -> Tensor:
        """Codes of super-resolution's tokenizer; a length that it does not take is filled with the last picture.

        Args:
            video: (b, 3, t, h, w) in [-1, 1], small or large.

        Returns:
            (b, 1, t', h', w') codes.
        """
        video = video.to(self.compute.device)
        if is_holistic(self.sharp_visual):
            return self.sharp_visual.encode(video)  # type: ignore[no-any-return]
        tokenizer = self._in_tiles(video.shape[-2], video.shape[-1])
        return tokenizer.encode(pad_frames(video, tokenizer.stride[0]))  # type: ignore[no-any-return]

    def decode_sharp(self, codes: Tensor, *, num_frames: int | None = None) -> Tensor:
        """Pictures of ``encode_sharp``'s codes, or of super-resolution's.

        Args:
            codes: (b, 1, t', h', w').
            num_frames: pictures at most; None is those of a clip.

        Returns:
            (b, 3, t, h, w).
        """
        _, sh, sw = self.sharp_visual.stride
        tokenizer = self._in_tiles(codes.shape[-2] * sh, codes.shape[-1] * sw)
        return tokenizer.decode(codes)[:, :, : num_frames or self.config.num_frames]  # type: ignore[no-any-return]

    def upsample(
        self,
        low: Tensor,
        text: Text | None,
        generator: Generators,
        on_step: OnStep | None = None,
        *,
        passes: tuple[Pass, ...],
        before: Tensor | None = None,
    ) -> Tensor:
        """Codes of larger pictures; from pass to pass they stay codes.

        Args:
            low: (b, 1, t, h, w) codes of ``sharp_visual``.
            text: vectors and mask, or None.
            generator: source of randomness.
            on_step: as in the pipeline's call.
            passes: the doublings.
            before: (b, 3, t', H, W) sharp pictures that the clip begins with, whole slices of them, or None.

        Returns:
            (b, 1, t, h', w') codes of ``sharp_visual``.
        """
        total, done = sum(step.num_steps for step in passes), 0
        vectors, mask = (each_row(x, len(low)) for x in text) if text is not None else (None, None)
        report = partial(on_step, "super-resolution") if on_step is not None else None
        if report is not None:
            report(0, total)
        for step in passes:
            pinned = None
            if before is not None:
                with self._timed("encode picture"):
                    pinned = self.encode_sharp(resized(before, step.high))[:, 0]
            model = getattr(self, step.part)
            with self._timed("super-resolution"), self.compute.autocast():
                low = sample_grid(
                    model,
                    low[:, 0],
                    vectors,
                    mask,
                    decoding=step.decoding,
                    pinned=pinned,
                    generator=generator,
                    on_step=None if report is None else partial(_later, report, done, total),
                )[:, None]
            done += step.num_steps
        return low

    @torch.inference_mode()
    def sharpen(
        self,
        low: Tensor,
        *,
        prompts: list[str] | None,
        generator: torch.Generator | None = None,
        notes: list[str] | None = None,
    ) -> Tensor:
        """Super-resolution of codes.

        Args:
            low: (b, 1, t, h, w) codes of the language model's resolution.
            prompts: b texts, or None.
            generator: CPU generator, of which every film takes its own.
            notes: receives what a user should know, such as a prompt that was cut.

        Returns:
            (b, 1, t, h', w') codes of ``sharp_visual``, for ``decode_sharp``.
        """
        low = low.to(self.compute.device)
        if self.sharp_visual is not self.visual:  # the pictures again, in tokens that super-resolution knows
            low = self.encode_sharp(self.visual.decode(low))
        _, sh, sw = self.sharp_visual.stride
        passes = self._passes_of_clip((low.shape[-2] * sh, low.shape[-1] * sw))
        text = self.embed(prompts, [] if notes is None else notes)
        return self.upsample(low, text, film_generators(generator, len(low), 1), passes=passes)

    # Pictures.

    @torch.inference_mode()
    def upscale(
        self,
        video: Tensor,
        *,
        prompt: str | None = None,
        to: int | None = None,
        aspect: str = OWN,
        generator: torch.Generator | None = None,
        notes: list[str] | None = None,
    ) -> Tensor:
        """Sharpen any video, window by window; each after the first starts with the last second before it.

        Args:
            video: (3, t, h, w) or (b, 3, t, h, w) in [-1, 1].
            prompt: what is seen; None or an empty text is no text.
            to: shorter side of the result, one of ``reachable_sizes``; None is ``config.upscaled_size``.
            aspect: as of ``plan_film``.
            generator: CPU generator, of which every film takes its own.
            notes: receives what a user should know, such as a prompt that was cut.

        Returns:
            (b, 3, t, h', w') in [-1, 1].

        Raises:
            ValueError: as of ``plan_film``.
        """
        self.seconds = {}
        passes = self.plan_film((video.shape[-2], video.shape[-1]), to=to, aspect=aspect)
        small = self.fit(video, passes[0].low)
        generators = film_generators(generator, len(small), 1)
        text = self.read_prompt(prompt, [] if notes is None else notes)
        return torch.cat(list(self.sharpen_stream(blocks_of(small, self._window), text, generators, passes=passes)), 2)

    def read_prompt(self, prompt: str | None, notes: list[str]) -> Text | None:
        """Vectors of one prompt for super-resolution, which does without.

        Args:
            prompt: a text; None or an empty one is no text.
            notes: receives what a user should know.

        Returns:
            Vectors and mask, or None.
        """
        if prompt is not None and not prompt.strip():
            notes.append("the prompt is empty: super-resolution goes without text")
        return self.embed([prompt], notes) if prompt is not None and prompt.strip() else None

    def sharpen_clip(
        self,
        codes: dict[str, Tensor],
        frames: Tensor,
        text: Text | None,
        generator: Generators,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Sharp pictures of a clip that the language model made.

        Args:
            codes: "low" (b, 1, t, h, w); receives "high" (b, 1, t, h', w'), but for a clip longer than
                super-resolution's, which goes in windows.
            frames: (b, 3, t, h, w) the pictures of the codes.
            text: vectors and mask, or None.
            generator: source of randomness.
            on_step: as in the pipeline's call.

        Returns:
            (b, 3, t, h', w') in [-1, 1].
        """
        if frames.shape[2] > self._window:
            return self.sharpen_frames(frames, text, generator, on_step)
        low = codes["low"]
        if self.sharp_visual is not self.visual:
            with self._timed("re-encode picture"):
                low = self.encode_sharp(frames)
        passes = self._passes_of_clip((frames.shape[-2], frames.shape[-1]))
        codes["high"] = self.upsample(low, text, generator, on_step, passes=passes)
        with self._timed("decode sharp picture"):
            return self.decode_sharp(codes["high"], num_frames=frames.shape[2])

    def sharpen_next(
        self,
        low: Tensor,
        frames: Tensor,
        before: Tensor,
        text: Text | None,
        generator: Generators,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Sharp pictures of a clip that goes on from others.

        Args:
            low: (b, 1, t, h, w) codes of the language model.
            frames: (b, 3, t, h, w) the pictures of the codes.
            before: (b, 3, t', h', w') sharp pictures of the first ``t'`` frames, whole slices of them.
            text: vectors and mask, or None.
            generator: source of randomness.
            on_step: as in the pipeline's call.

        Returns:
            (b, 3, t - t', h', w') in [-1, 1].
        """
        if self.sharp_visual is not self.visual or frames.shape[2] > self._window:
            return self.sharpen_frames(frames, text, generator, on_step, before=before)
        passes = self._passes_of_clip((frames.shape[-2], frames.shape[-1]))
        sharp = self.upsample(low, text, generator, on_step, passes=passes, before=before)
        with self._timed("decode sharp picture"):
            return self.decode_sharp(sharp, num_frames=frames.shape[2])[:, :, before.shape[2] :]

    def sharpen_frames(
        self,
        frames: Tensor,
        text: Text | None,
        generator: Generators,
        on_step: OnStep | None = None,
        *,
        before: Tensor | None = None,
    ) -> Tensor:
        """Sharp pictures of any number, window by window.

        Args:
            frames: (b, 3, t, h, w) in [-1, 1], of the language model's size.
            text: vectors and mask, or None.
            generator: source of randomness.
            on_step: as in the pipeline's call.
            before: (b, 3, t', h', w') sharp pictures of the first ``t'`` frames, or None.

        Returns:
            (b, 3, t - t', h', w') in [-1, 1].
        """
        passes = self._passes_of_clip((frames.shape[-2], frames.shape[-1]))
        blocks = blocks_of(frames, self._window)
        pieces = self.sharpen_stream(blocks, text, generator, on_step, passes=passes, before=before)
        return torch.cat([piece.to(frames) for piece in pieces], 2)

    def overlap(self) -> int:
        """Pictures that a window shares with the one before: whole slices, about half of it."""
        stride, window = int(self.sharp_visual.stride[0]), self._window
        return 1 + stride * ((window - 1) // stride // 2)

    def num_windows(self, num_frames: int) -> int:
        """Windows of a film.

        Args:
            num_frames: pictures, at least one.

        Returns:
            How often super-resolution runs.
        """
        return 1 + len(self.joints(num_frames))

    def joints(self, num_frames: int) -> list[int]:
        """Pictures of a film that are the first of a new window.

        Args:
            num_frames: pictures of the film.

        Returns:
            Their numbers, from 0.
        """
        return list(range(self._window, num_frames, self._window - self.overlap()))

    @torch.inference_mode()
    def sharpen_stream(
        self,
        blocks: Iterable[Tensor],
        text: Text | None,
        generator: Generators,
        on_step: OnStep | None = None,
        *,
        passes: tuple[Pass, ...],
        before: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Sharp pictures of a film that arrives in blocks, in memory for a window and a block.

        Each window after the first begins with the end of the one before, whose codes are pinned in every pass. These
        pictures come out of the decoder again a little differently, so what both windows show fades from the first to
        the second (``before`` has been shown, and is left as it is).

        Args:
            blocks: (b, 3, n, h, w) in [-1, 1] of the size that ``passes`` start from, any number of pictures each.
            text: vectors and mask, or None.
            generator: source of randomness.
            on_step: as in the pipeline's call; it counts anew in every window.
            passes: the doublings.
            before: (b, 3, t', h', w') sharp pictures of the first ``t'`` frames, which are not yielded, or None.

        Yields:
            (b, 3, n, h', w') in [-1, 1], float32 on the CPU; together as many pictures as came in, less ``before``.
        """
        window, share = self._window, self.overlap()
        source, waiting = iter(blocks), None
        held: Tensor | None = None  # made, but the next window shows them too
        while True:
            have = 0 if waiting is None else waiting.shape[2]
            while have < window and (block := next(source, None)) is not None:
                waiting = block if waiting is None else torch.cat([waiting, block.to(waiting)], 2)
                have = waiting.shape[2]
            given = 0 if before is None else before.shape[2]
            if waiting is None or have <= given:
                break
            kept = 0 if given == 0 else self.sharp_visual.valid_num_frames(min(given, window))
            frames = waiting[:, :, :window]
            with self._timed("encode picture"):
                low = self.encode_sharp(repeat_last_frame(frames, window))
            pinned = None if before is None else before[:, :, :kept]
            codes = self.upsample(low, text, generator, on_step, passes=passes, before=pinned)
            with self._timed("decode sharp picture"):
                sharp = self.decode_sharp(codes, num_frames=frames.shape[2])
            shared = 0 if held is None else held.shape[2]
            new = sharp[:, :, given - shared :].float().cpu()
            if held is not None:
                new = torch.cat([_fade(held, new[:, :, :shared]), new[:, :, shared:]], 2)
            if have < window:
                yield new
                return
            before, waiting = sharp[:, :, -share:].clone(), waiting[:, :, window - share :].clone()
            ready = max(new.shape[2] - share, 0)
            held = new[:, :, ready:].clone()
            if ready:
                yield new[:, :, :ready]
        if held is not None:
            yield held


def _fade(first: Tensor, second: Tensor) -> Tensor:
    """From one film to another that shows the same; (b, 3, t, h, w) both."""
    t = first.shape[2]
    return torch.lerp(first, second, torch.linspace(0, 1, t + 2)[1:-1, None, None])


def _later(report: Any, before: int, total: int, done: int, _: int) -> None:
    """Steps of one pass as steps of all."""
    report(before + done, total)
