"""A film of any length and form through super-resolution, window by window.

A film is doubled in passes, one stage each; codes go from pass to pass, pictures are decoded at the end. It goes in
windows of a clip, each of which keeps the codes of its beginning, which are those of the end before.

Shape letters: b films, t h w time/height/width.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llm.sampling import Generators, each_row, film_generators
from mmtok.find import require_known
from mmtok.media.resize import cover, resized
from mmtok.visual.grid import pad_frames, repeat_last_frame
from mmtok.visual.holistic import is_holistic
from mmtok.visual.tiling import TiledTokenizer
from superres.passes import Pass, Stage, plan_clip, plan_film
from superres.tiles import sample_grid

TILE_FROM_PX = 512  # larger pictures go through the tokenizer in tiles of 256
OWN = "own"  # the form of a film that keeps its own

Text = tuple[Tensor, Tensor]
"""Vectors (b or 1, slots, d) and mask (b or 1, slots)."""
OnStep = Callable[[str, int, int], None]
"""Called with ("super-resolution", steps done, steps in all)."""


def blocks_of(video: Tensor, length: int) -> Iterator[Tensor]:
    """A film (b, 3, t, h, w) as it would arrive, at most ``length`` pictures at a time."""
    for start in itertools.count(0, length):
        if start >= video.shape[2]:
            return
        yield video[:, :, start : start + length]


def _untimed(_: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


class FilmUpscaler:
    """Stages of super-resolution with the tokenizer that they speak, ready for films.

    Args:
        stages: name to stage, the first one first.
        tokenizer: whose codes they speak.
        base: shorter side that the first stage starts from, pixels.
        size: shorter side that films get where nothing else is asked for, pixels.
        num_frames: pictures a clip.
        embed: gives vectors and mask of texts, and appends what a user should know.
        forms: name to height over width, of the forms that films can be cropped to.
        device: where the models are.
        autocast: makes the precision of the transformers.
        timed: measures what happens in it under a name.
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        tokenizer: Any,
        *,
        base: int,
        size: int,
        num_frames: int,
        embed: Callable[[list[str], list[str]], Text | None],
        forms: Mapping[str, float] | None = None,
        device: torch.device | str = "cpu",
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        timed: Callable[[str], contextlib.AbstractContextManager[Any]] = _untimed,
    ):
        self.stages, self.tokenizer, self.forms = dict(stages), tokenizer, dict(forms or {})
        self.base, self.size, self.num_frames = base, size, num_frames
        self.device, self._embed, self._autocast, self._timed = device, embed, autocast, timed

    def __repr__(self) -> str:
        return f"FilmUpscaler({self.base} -> {self.size} pixels by {', '.join(self.stages)})"

    # Plans.

    def plan_film(
        self, size: tuple[int, int], *, to: int | None = None, aspect: str = OWN, changes: dict[str, Any] | None = None
    ) -> tuple[Pass, ...]:
        """How a film comes to a size: as few doublings as possible, so that as much of it as possible is kept.

        Args:
            size: (h, w) pixels of the film.
            to: shorter side wanted, one of ``superres.passes.reachable_sizes``; None is ``size`` of the upscaler.
            aspect: "own" keeps the film's form, to the nearest whole token; or one of ``forms``, which crops it.
            changes: fields of ``Decoding`` that differ from the stages' own.

        Returns:
            The passes; the first one's ``low`` is the size that the film is brought to.

        Raises:
            ValueError: for a size that cannot be reached, an unknown form, or as ``superres.passes.plan_passes``.
        """
        require_known(aspect, (OWN, *self.forms), "aspect")
        return plan_film(
            self.stages,
            self.tokenizer,
            size,
            base=self.base,
            to=self.size if to is None else to,
            ratio=self.forms.get(aspect),
            changes=changes,
        )

    def plan_clip(self, size: tuple[int, int]) -> tuple[Pass, ...]:
        """The doublings of a clip of (h, w) pixels that a language model made; ValueError for sizes out of reach."""
        return plan_clip(self.stages, self.tokenizer, size, base=self.base, to=self.size)

    @property
    def window(self) -> int:
        """Pictures that go through super-resolution at once: a clip, or less where a stage's grid ends before."""
        stride = self.tokenizer.stride[0]
        grids = (stage.config.grid[0] for stage in self.stages.values())
        slices = min(1 + -(-(self.num_frames - 1) // stride), *grids)
        return 1 + int(stride) * (slices - 1)

    @property
    def overlap(self) -> int:
        """Pictures that a window shares with the one before: whole slices, about half of it."""
        stride = int(self.tokenizer.stride[0])
        return 1 + stride * ((self.window - 1) // stride // 2)

    def joints(self, num_frames: int) -> list[int]:
        """Numbers, from 0, of the pictures of a film that are the first of a new window."""
        return list(range(self.window, num_frames, self.window - self.overlap))

    def num_windows(self, num_frames: int) -> int:
        """How often super-resolution runs for a film of that many pictures."""
        return 1 + len(self.joints(num_frames))

    def compile(self, passes: tuple[Pass, ...]) -> None:
        """Compile the layers of the stages that some doublings need; it pays for films of minutes."""
        for part in dict.fromkeys(step.part for step in passes):
            self.stages[part].load().compile_layers()

    # Codes.

    def _in_tiles(self, height: int, width: int) -> Any:
        """The tokenizer, in tiles where pictures are large."""
        if max(height, width) <= TILE_FROM_PX:
            return self.tokenizer
        return TiledTokenizer(self.tokenizer)

    def encode(self, video: Tensor) -> Tensor:
        """Codes (b, 1, t', h', w') of pictures in [-1, 1]; a length that does not fit is filled with the last one."""
        video = video.to(self.device)
        if is_holistic(self.tokenizer):
            return self.tokenizer.encode(video)  # type: ignore[no-any-return]
        tokenizer = self._in_tiles(video.shape[-2], video.shape[-1])
        return tokenizer.encode(pad_frames(video, tokenizer.stride[0]))  # type: ignore[no-any-return]

    def decode(self, codes: Tensor, *, num_frames: int | None = None) -> Tensor:
        """Pictures of codes.

        Args:
            codes: (b, 1, t', h', w') of ``encode`` or ``double``.
            num_frames: pictures at most; None is those of a clip.

        Returns:
            (b, 3, t, h, w).
        """
        _, sh, sw = self.tokenizer.stride
        tokenizer = self._in_tiles(codes.shape[-2] * sh, codes.shape[-1] * sw)
        return tokenizer.decode(codes)[:, :, : num_frames or self.num_frames]  # type: ignore[no-any-return]

    def double(
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
            low: (b, 1, t, h, w) codes.
            text: vectors and mask, or None.
            generator: source of randomness.
            on_step: see ``OnStep``.
            passes: the doublings.
            before: (b, 3, t', H, W) sharp pictures that the clip begins with, whole slices of them, or None.

        Returns:
            (b, 1, t, h', w') codes.
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
                    pinned = self.encode(resized(before, step.high))[:, 0]
            model = self.stages[step.part].load()
            with self._timed("super-resolution"), self._autocast():
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

    # Pictures.

    def read_prompt(self, prompt: str | None, notes: list[str]) -> Text | None:
        """Vectors of one prompt; super-resolution also does without.

        Args:
            prompt: a text; None or an empty one is no text.
            notes: receives what a user should know.

        Returns:
            Vectors and mask, or None.
        """
        if prompt is not None and not prompt.strip():
            notes.append("the prompt is empty: super-resolution goes without text")
        return self._embed([prompt], notes) if prompt is not None and prompt.strip() else None

    def upscale_clip(
        self,
        frames: Tensor,
        text: Text | None,
        generator: Generators,
        on_step: OnStep | None = None,
        *,
        codes: Tensor | None = None,
        before: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Sharp pictures of a clip that a language model made.

        Args:
            frames: (b, 3, t, h, w) in [-1, 1].
            text: vectors and mask, or None.
            generator: source of randomness.
            on_step: see ``OnStep``.
            codes: (b, 1, t', h', w') of the tokenizer that show these pictures; None encodes them again.
            before: (b, 3, n, H, W) sharp pictures of the first ``n`` frames, whole slices of them, or None.

        Returns:
            (b, 3, t - n, H, W) in [-1, 1], and their codes; None for those of a clip that went in windows.
        """
        given = 0 if before is None else before.shape[2]
        passes = self.plan_clip((frames.shape[-2], frames.shape[-1]))
        if frames.shape[2] > self.window or (codes is None and before is not None):
            blocks = blocks_of(frames, self.window)
            pieces = self.upscale_stream(blocks, text, generator, on_step, passes=passes, before=before)
            return torch.cat([piece.to(frames) for piece in pieces], 2), None
        if codes is None:
            with self._timed("re-encode picture"):
                codes = self.encode(frames)
        sharp = self.double(codes, text, generator, on_step, passes=passes, before=before)
        with self._timed("decode sharp picture"):
            return self.decode(sharp, num_frames=frames.shape[2])[:, :, given:], sharp

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
        """Any film, window by window; each after the first starts with the last second before it.

        Args:
            video: (3, t, h, w) or (b, 3, t, h, w) in [-1, 1].
            prompt: what is seen; None or an empty text is no text.
            to: as of ``plan_film``.
            aspect: as of ``plan_film``.
            generator: CPU generator, of which every film takes its own.
            notes: receives what a user should know, such as a prompt that was cut.

        Returns:
            (b, 3, t, h', w') in [-1, 1].

        Raises:
            ValueError: as of ``plan_film``.
        """
        passes = self.plan_film((video.shape[-2], video.shape[-1]), to=to, aspect=aspect)
        small = cover(video if video.ndim == 5 else video[None], passes[0].low)
        generators = film_generators(generator, len(small), 1)
        text = self.read_prompt(prompt, [] if notes is None else notes)
        return torch.cat(list(self.upscale_stream(blocks_of(small, self.window), text, generators, passes=passes)), 2)

    @torch.inference_mode()
    def upscale_stream(
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
            on_step: see ``OnStep``; it counts anew in every window.
            passes: the doublings.
            before: (b, 3, t', h', w') sharp pictures of the first ``t'`` frames, which are not yielded, or None.

        Yields:
            (b, 3, n, h', w') in [-1, 1], float32 on the CPU; together as many pictures as came in, less ``before``.
        """
        window, share = self.window, self.overlap
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
            kept = 0 if given == 0 else self.tokenizer.valid_num_frames(min(given, window))
            frames = waiting[:, :, :window]
            with self._timed("encode picture"):
                low = self.encode(repeat_last_frame(frames, window))
            pinned = None if before is None else before[:, :, :kept]
            codes = self.double(low, text, generator, on_step, passes=passes, before=pinned)
            with self._timed("decode sharp picture"):
                sharp = self.decode(codes, num_frames=frames.shape[2])
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
