"""``cinepoet upscale``: any film through the super-resolution transformer, window by window."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from recipes.terminal.options import add_model, add_seed, number
from recipes.terminal.report import check_outputs, describe_film, note, pipeline_of, profile_table

SUMMARY = "sharpen a film with the super-resolution model"
EXAMPLES = """\
  cinepoet upscale film.mp4 --out sharp.mp4
  cinepoet upscale film.mp4 --to 256 --sheet sharp.png --profile --out sharp.mp4
  cinepoet upscale clip.mp4 --prompt "a red circle moves left" --guidance stage1 --steps 12 --out sharp.mp4
  cinepoet upscale lecture.mp4 --compile --out sharp.mp4     # minutes of film
  cinepoet upscale phone.mov --aspect portrait --seconds 10 --fps 8 --out sharp.mp4
"""
_SOUND_HZ = 48000  # of a sound track that does not say
_SHOWN = 4  # pictures on the sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("video", metavar="VIDEO", help="a film of any size, length and rate, or a picture")
    parser.add_argument("--out", required=True, type=Path, metavar="F", help=".mp4, .mov, or .gif without sound")
    parser.add_argument(
        "--to",
        type=number(int, 1),
        metavar="PX",
        help="shorter side of the result: the model's size doubled 1 to 4 times",
    )
    parser.add_argument(
        "--aspect", default="own", metavar="A", help="own (the film's), or square or portrait, cropped (default: own)"
    )
    parser.add_argument("--fps", type=number(float, 0.1), metavar="R", help="pictures per second (default: the film's)")
    parser.add_argument("--seconds", type=number(float, 0.1), metavar="S", help="longest piece (default: all of it)")
    parser.add_argument("--no-sound", action="store_true", help="leave the film's sound out")
    parser.add_argument("--prompt", metavar="TEXT", help="what is seen")
    decoding = parser.add_argument_group("decoding (default: what the model says)")
    decoding.add_argument("--steps", type=number(int, 1), metavar="N", help="steps of each window (24 is published)")
    decoding.add_argument(
        "--guidance",
        metavar="NAME",
        help="both scales by name: none (1, 1) or the published stage1 (4, 1), stage2 (8, 2)",
    )
    decoding.add_argument("--text-scale", type=number(float), metavar="X", help="strength of the prompt, 1 is neutral")
    decoding.add_argument("--low-scale", type=number(float), metavar="X", help="strength of the film, 1 is neutral")
    decoding.add_argument("--temperature", type=number(float, 0), metavar="X", help="of the codes; 0: the likeliest")
    decoding.add_argument("--schedule", metavar="NAME", help="codes shown by each step: cosine, linear, square, root")
    parser.add_argument("--compile", action="store_true", help="compile the layers first, for long films")
    parser.add_argument("--sheet", type=Path, metavar="F.png", help="also a sheet: bicubic beside ours, with crops")
    parser.add_argument("--profile", action="store_true", help="print a table of times and the peak memory")
    add_seed(parser)
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    """Upscale one film; its own sound goes with it."""
    started = time.monotonic()
    if args.text_scale is not None and not (args.prompt or "").strip():
        raise ValueError("--text-scale is the strength of --prompt; give that too")
    import torch

    from llm.sampling import film_generators
    from mmtok.media.video import FILM_SUFFIXES, FilmWriter, probe, stream_video
    from recipes.runtime.memory import give_back_freed_memory
    from recipes.runtime.progress import counting
    from superres.passes import describe_passes

    spent = {"imports": time.monotonic() - started}
    sheet: dict[str, tuple[Path, tuple[str, ...]]] = {} if args.sheet is None else {"--sheet": (args.sheet, (".png",))}
    check_outputs({"--out": (args.out, FILM_SUFFIXES)} | sheet, [args.video])
    pipe = pipeline_of(args)
    if not pipe.config.upscaled_size:
        raise ValueError(f"the model {args.model} has no super-resolution")
    info = probe(args.video)
    if info.height is None or info.width is None:
        raise ValueError(f"{args.video} has sound but no pictures")
    with_sound = info.has_audio and not args.no_sound
    if with_sound and args.out.suffix.lower() == ".gif":
        raise ValueError("a .gif holds no sound; add --no-sound or choose .mp4")

    # What will be done, all of it refused or told before the first window.
    upscaler = pipe.upscaler
    own = {name: getattr(args, name) for name in ("text_scale", "low_scale", "temperature", "schedule")}
    changes = _changes(args.guidance, num_steps=args.steps, **own)
    passes = upscaler.plan_film((info.height, info.width), to=args.to, aspect=args.aspect, changes=changes)
    if shrunk := _shrunk((info.height, info.width), passes):
        note(f"{args.video}: {shrunk}")
    fps = args.fps or info.fps or pipe.config.fps
    most = None if args.seconds is None else max(1, round(args.seconds * fps))
    if most is not None and info.duration_s and info.duration_s > args.seconds + 0.05:
        note(f"{args.video}: {info.duration_s:.1f} s long, the first {args.seconds:g} s are taken (--seconds)")
    sound = _sound_beside(args.video, info, args.seconds) if with_sound else None
    notes: list[str] = []
    text = upscaler.read_prompt(args.prompt, notes)
    for line in notes:
        note(line)
    if args.compile:
        upscaler.compile(passes)

    # The film, a block at a time.
    count = max(1, round((info.duration_s or 0) * fps))
    count = count if most is None else min(count, most)
    generators = film_generators(torch.Generator().manual_seed(args.seed), 1, 1)
    shown = _Shown(count)
    frames = _timed(stream_video(args.video, fps=fps, num_frames=most, size=passes[0].low), spent, "read")
    give_back_freed_memory()
    steps = upscaler.num_windows(count) * sum(step.num_steps for step in passes)
    with (
        counting(title="steps", total=steps, done=0, unit="steps") as advance,
        FilmWriter(args.out, fps=fps, sample_rate=info.sample_rate or _SOUND_HZ) as film,
    ):
        blocks = (shown.keep(block, "before")[None] for block in frames)
        for piece in upscaler.upscale_stream(
            blocks, text, generators, lambda _, done, of: advance(int(done > 0)), passes=passes
        ):
            begun = time.monotonic()
            made = film.num_frames + piece.shape[2]
            film.add(shown.keep(piece[0], "after"), None if sound is None else sound(made / fps))
            spent["write"] = spent.get("write", 0.0) + time.monotonic() - begun

    # What was made.
    print(describe_film(args.out, (film.num_frames, *passes[-1].high), fps, with_sound))
    windows = upscaler.num_windows(film.num_frames)
    print(f"{describe_passes(passes)}, {windows} window{'s' if windows > 1 else ''}")
    if args.sheet is not None:
        from recipes.figures.comparison import write_comparison

        write_comparison(args.sheet, shown.columns(passes[-1].high))
        print(f"{args.sheet}: bicubic beside super-resolution")
    if args.profile:
        spent |= {_STAGES.get(stage, stage): seconds for stage, seconds in pipe.seconds.items()}
        print(profile_table(spent, time.monotonic() - args.started))
    return 0


_STAGES = {"encode picture": "encode", "super-resolution": "transformer", "decode sharp picture": "decode"}


def _changes(guidance: str | None, **own: Any) -> dict[str, Any]:
    """What differs from the model's own settings; a scale of its own beats the one that the guidance names."""
    from superres.sample import GUIDANCE

    if guidance is not None and guidance not in GUIDANCE:
        raise ValueError(f"unknown guidance {guidance!r}; known: {', '.join(GUIDANCE)}")
    scales = {} if guidance is None else dict(zip(("text_scale", "low_scale"), GUIDANCE[guidance], strict=True))
    return scales | {name: value for name, value in own.items() if value is not None}


def _shrunk(size: tuple[int, int], passes: Any) -> str:
    """What a film loses before it is sharpened; "" where it is no larger than what goes in."""
    (high, wide), low = passes[-1].high, passes[0].low
    if min(size) <= min(low):
        return ""
    text = f"{size[1]}x{size[0]} is shrunk to {low[1]}x{low[0]} before it is sharpened"
    return text + ("; the result is no larger than the film (--to)" if min(size) >= min(high, wide) else "")


def _timed(items: Iterable[Any], spent: dict[str, float], stage: str) -> Iterator[Any]:
    """The items; the time that they take to come is added to a stage."""
    source = iter(items)
    while True:
        begun = time.monotonic()
        item = next(source, None)
        spent[stage] = spent.get(stage, 0.0) + time.monotonic() - begun
        if item is None:
            return
        yield item


def _sound_beside(path: str, info: Any, seconds: float | None) -> Callable[[float], Any]:
    """What gives the next samples (c, n) up to a time; it is read block by block. A fault shows now."""
    import torch

    from mmtok.media.audio import stream_audio

    rate, channels = info.sample_rate or _SOUND_HZ, 2 if (info.channels or 1) > 1 else 1
    blocks = stream_audio(path, sample_rate=rate, block_s=1.0, most_s=seconds, channels=channels)
    waiting = [block for block in (next(blocks, None),) if block is not None]
    given = 0

    def until(time_s: float) -> Any:
        nonlocal given
        taken = [torch.zeros(channels, 0), *waiting]
        waiting.clear()
        given += sum(block.shape[1] for block in taken)
        while given < time_s * rate and (block := next(blocks, None)) is not None:
            taken.append(block)
            given += block.shape[1]
        return torch.cat(taken, 1)

    return until


class _Shown:
    """A few pictures of a film before and after, for the sheet."""

    def __init__(self, count: int):
        from recipes.figures.comparison import spread

        self._wanted = set(spread(count, _SHOWN))
        self._kept: dict[str, dict[int, Any]] = {"before": {}, "after": {}}
        self._seen = {"before": 0, "after": 0}

    def keep(self, frames: Any, side: str) -> Any:
        """The frames (3, t, h, w) as they came."""
        for index in range(frames.shape[1]):
            if self._seen[side] + index in self._wanted:
                self._kept[side][self._seen[side] + index] = frames[:, index].clone()
        self._seen[side] += frames.shape[1]
        return frames

    def columns(self, size: tuple[int, int]) -> dict[str, Any]:
        """Columns of a ``comparison_sheet``."""
        import torch

        from mmtok.media.resize import resized

        before, after = self._kept["before"], self._kept["after"]
        small = torch.stack([before[index] for index in sorted(after)], 1)[None]
        return {
            "bicubic": resized(small, size)[0].transpose(0, 1),
            "super-resolution": torch.stack([after[index] for index in sorted(after)]),
        }
