"""Films and pictures with captions to token shards: the work behind ``cinepoet prepare``.

    plan = what every shard will hold (recipes.tokens.plan), written first
    for each shard of this process: read clips ahead in threads, encode them in batches, write rows, then the record

A shard depends on the plan and the tokenizers alone. A stopped run goes on with the first missing shard; a finished one
does nothing. Files that cannot be used are listed with the reason while the rest goes on.

Shape letters: b batch, c channels, t h w time/height/width, n samples.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import av
import torch
from torch import Tensor

from mmtok.files import write_atomically
from mmtok.media.audio import read_audio
from mmtok.media.errors import MediaError
from mmtok.media.image import read_image, to_bytes, to_signed
from mmtok.media.resize import half_size
from mmtok.media.video import read_video
from mmtok.text.embedding_cache import caption_hash
from mmtok.vocabulary import Vocabulary
from recipes.corpora.captioned import PICTURE_SUFFIXES, open_film
from recipes.corpora.shapes import ShapesCorpus, render_audio, render_video
from recipes.runtime.progress import counting
from recipes.tokens.conditions import Tokenizing, condition_makers, condition_settings
from recipes.tokens.identity import tokenizer_facts
from recipes.tokens.plan import STRUCTURE, ClipPlan, CorpusPlan, PrepareConfig, SourcePlan, check_shapes, make_plan
from recipes.tokens.shards import (
    CONDITION_PREFIX,
    DATASET_FILE,
    QUARANTINE_FILE,
    SHARD_FOLDER,
    ShardInfo,
    read_records,
    shard_is_done,
    write_shard,
)

SILENT = 1e-4  # a sound whose peak is below is none
_DARK, _STILL = 0.02, 0.002  # mean brightness, and mean change from picture to picture, in [0, 1]
_CLIPS_A_JOB = 4
J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True)
class Summary:
    """What a run did and what lies in the folder now.

    Attributes:
        shards: how many there are in all.
        done: how many of them are complete.
        counts: "clips" (rows in the complete ones), of them "train", "validation", "sounding" (with sound) and
            "captioned", and of the plan "films" and what was "quarantined".
        quarantined: entries of what could not be used.
        encoded: clips of this run.
        seconds: of this run's shards.
        notes: what a user should know.
    """

    shards: int
    done: int
    counts: dict[str, int]
    quarantined: list[dict[str, str]]
    encoded: int
    seconds: float
    notes: list[str]


@dataclass
class _Read:
    """A clip as read: its place in the shard, pictures, sound, and what was wrong."""

    place: int
    film: SourcePlan
    clip: ClipPlan
    frames: Tensor | None = None  # (3, t, h, w), uint8 or float in [-1, 1]
    sound: Tensor | None = None  # (1, n)
    fault: str | None = None  # why there is nothing, or no sound


# The plan, made or taken up.


def begin(
    config: PrepareConfig, folder: Path, tokenizing: Tokenizing, *, workers: int = 2
) -> tuple[CorpusPlan, ShardInfo, dict[str, Callable[[Tensor], Tensor]]]:
    """Check everything that can be checked, then make the plan or read that of a stopped run.

    Args:
        config: what is wanted.
        folder: of the data set.
        tokenizing: what will encode.
        workers: threads that look at films.

    Returns:
        The plan, what dataset.json says, and the functions that make conditions.

    Raises:
        FileNotFoundError: if the source or a weight is absent.
        ImportError: if something that is asked for is not installed.
        ValueError: if the folder holds other data, or nothing can be made.
    """
    visual, audio = tokenizing.visual, tokenizing.audio
    makers = condition_makers(config, tokenizing)

    def try_condition(name: str, frames: int, height: int, width: int) -> None:
        if name != STRUCTURE:
            makers[name](torch.zeros(1, 3, frames, height, width))

    check_shapes(config, visual, try_condition=try_condition)
    info = ShardInfo(
        visual=tokenizer_facts(visual),
        audio=None if audio is None else tokenizer_facts(audio),
        vocabulary=Vocabulary.of(visual, audio),
        conditions=condition_settings(config),
        made_from={"options": json.loads(json.dumps(asdict(config)))},
    )
    if (folder / DATASET_FILE).exists():
        known = ShardInfo.read(folder)
        _same_work(folder, known, info)
        return CorpusPlan.read(folder, known.made_from["manifest"]), known, makers
    plan = make_plan(config, visual, workers=workers)
    info = replace(info, made_from={**info.made_from, "manifest": plan.write(folder)}, shards=plan.shards)
    info.write(folder)
    return plan, info, makers


def _same_work(folder: Path, known: ShardInfo, now: ShardInfo) -> None:
    before, after = known.made_from.get("options", {}), now.made_from["options"]
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    faults = [f"{name} ({before.get(name)} and now {after.get(name)})" for name in names]
    if (known.audio is None) != (now.audio is None):
        faults.append(f"sound ({'none' if known.audio is None else 'kept'} before)")
    faults += known.differences(now)
    if faults:
        raise ValueError(
            f"{folder} holds other token shards, made with another {'; '.join(faults)}; delete it or use another --out"
        )


# The work.


def prepare(
    config: PrepareConfig,
    folder: Path,
    tokenizing: Tokenizing,
    *,
    part: tuple[int, int] = (0, 1),
    workers: int = 2,
    plan_only: bool = False,
) -> Summary:
    """Make the shards of this process that are missing.

    Args:
        config: what is wanted.
        folder: of the data set; created when absent.
        tokenizing: what encodes; codes come from float32 so that they equal what users get.
        part: (number from 0, of how many): this process takes every so-many-th shard.
        workers: threads that read media.
        plan_only: stop when the plan is written.

    Returns:
        What was done.

    Raises:
        FileNotFoundError: as of ``begin``.
        ImportError: as of ``begin``.
        ValueError: as of ``begin``, or if every shard is done and there is not a single row.
    """
    plan, info, makers = begin(config, folder, tokenizing, workers=workers)
    mine = [number for number in range(info.shards) if number % part[1] == part[0]]
    films: dict[int, list[SourcePlan]] = {number: [] for number in mine}
    for film in plan.films:
        if film.shard in films:
            films[film.shard].append(film)
    sizes = {number: sum(len(film.clips) for film in films[number]) for number in mine}
    missing = [] if plan_only else [number for number in mine if not shard_is_done(folder, number)]
    started, encoded = time.monotonic(), 0
    if missing:
        there = sum(sizes.values()) - sum(sizes[number] for number in missing)
        title = f"clips {folder.name}" + (f" {part[0] + 1}/{part[1]}" if part[1] > 1 else "")
        with counting(title=title, total=sum(sizes.values()), done=there, unit="clips") as advance:
            for number in missing:
                rows, bad = _make_shard(config, films[number], tokenizing, makers, workers, advance)
                write_shard(folder, number, rows, conditions=config.conditions, quarantined=bad)
                encoded += len(rows)
    summary = _look_back(folder, plan, info, encoded, time.monotonic() - started)
    if summary.done == summary.shards:
        _finish(folder, info, summary)
        if not summary.counts["clips"]:
            first = summary.quarantined[0]
            raise ValueError(
                f"{folder}: not a single clip could be made of {config.source}; the first trouble, {first['source']}: "
                f"{first['reason']}"
            )
    return summary


def _look_back(folder: Path, plan: CorpusPlan, info: ShardInfo, encoded: int, seconds: float) -> Summary:
    records = [record for record in read_records(folder, info.shards) if record is not None]
    columns = {"clips": "rows"} | {name: name for name in ("train", "validation", "sounding", "captioned")}
    counts = {name: sum(record[column] for record in records) for name, column in columns.items()}
    bad = plan.quarantined + [entry for record in records for entry in record["quarantined"]]
    counts |= {"films": len(plan.films), "quarantined": len(bad)}
    return Summary(info.shards, len(records), counts, bad, encoded, seconds, plan.notes)


def _finish(folder: Path, info: ShardInfo, summary: Summary) -> None:
    """What is written when all shards are there; every process that comes here writes the same."""
    lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in summary.quarantined)
    write_atomically(folder / QUARANTINE_FILE, "".join(lines))
    replace(info, counts=summary.counts).write(folder)
    for left in (folder / SHARD_FOLDER).glob("*.partial"):  # of a process that was killed
        left.unlink(missing_ok=True)


def _make_shard(
    config: PrepareConfig,
    films: list[SourcePlan],
    tokenizing: Tokenizing,
    makers: dict[str, Callable[[Tensor], Tensor]],
    workers: int,
    advance: Callable[[int], None],
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Rows of one shard in the order of the plan, and what could not be used."""
    places = [(film, clip) for film in films for clip in film.clips]
    rows: list[dict[str, Any] | None] = [None] * len(places)
    bad: dict[int, dict[str, str]] = {}
    waiting: dict[tuple[int, int, int], list[_Read]] = {}

    def encode(batch: list[_Read]) -> None:
        for read, row in zip(batch, _encode(batch, config, tokenizing, makers), strict=True):
            rows[read.place] = row
        advance(len(batch))

    for reads in _ahead(partial(_read_clips, config=config, tokenizing=tokenizing), _jobs(films), workers):
        for read in reads:
            if read.fault is not None:
                bad[read.place] = {"source": read.film.source, "reason": read.fault, "key": read.film.key(read.clip)}
            if read.frames is None:
                advance(1)
                continue
            shape = (read.clip.num_frames, read.clip.height, read.clip.width)
            batch = waiting.setdefault(shape, [])
            batch.append(read)
            if len(batch) == config.batch_size:
                encode(waiting.pop(shape))
    for batch in waiting.values():
        encode(batch)
    return [row for row in rows if row is not None], [bad[place] for place in sorted(bad)]


def _jobs(films: list[SourcePlan]) -> Iterator[list[_Read]]:
    """A few clips of one film at a time."""
    place = 0
    for film in films:
        clips = [_Read(place + number, film, clip) for number, clip in enumerate(film.clips)]
        place += len(clips)
        for start in range(0, len(clips), _CLIPS_A_JOB):
            yield clips[start : start + _CLIPS_A_JOB]


def _ahead(function: Callable[[J], R], jobs: Iterable[J], workers: int) -> Iterator[R]:
    """Results in the order of the jobs, of which a bounded number is done ahead in threads."""
    pool = ThreadPoolExecutor(workers)
    running: deque[Future[R]] = deque()
    try:
        for job in jobs:
            running.append(pool.submit(function, job))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


# Reading.


def _read_clips(reads: list[_Read], *, config: PrepareConfig, tokenizing: Tokenizing) -> list[_Read]:
    """Fill in pictures and sound of a few clips of one film."""
    film = reads[0].film
    fps = tokenizing.visual.fps
    rate = None if tokenizing.audio is None else tokenizing.audio.sample_rate
    if "scene" in film.where:
        for read in reads:
            _render(read, fps, rate)
        return reads
    _still_there(film)
    try:
        with open_film(film.where, film.source) as path:
            for read in reads:
                try:
                    _read_clip(read, path, config, fps, rate)
                except (MediaError, ValueError, av.FFmpegError) as fault:
                    read.frames, read.fault = None, getattr(fault, "problem", None) or str(fault)
    except MediaError as fault:
        for read in reads:
            read.frames, read.fault = None, fault.problem
    return reads


def _still_there(film: SourcePlan) -> None:
    """Stop when a file went away or grew: storage that fails must not fill the quarantine with good films."""
    file = film.where.get("file")
    size = os.path.getsize(file) if file and os.path.isfile(file) else None
    if file and size != film.file_size:
        now = "is gone" if size is None else "was changed"
        raise ValueError(f"{file} {now} since the work was planned; bring it back and run the same command again")


def _render(read: _Read, fps: float, rate: int | None) -> None:
    where, length = read.film.where, read.clip.num_frames
    scene = ShapesCorpus(where["seed"], where["split"]).scene(where["scene"])
    read.frames = render_video(scene, size=2 * read.clip.width, num_frames=length)
    if rate is not None and length > 1:
        read.sound = render_audio(scene, num_samples=round(length / fps * rate), sample_rate=rate)


def _read_clip(read: _Read, path: Path, config: PrepareConfig, fps: float, rate: int | None) -> None:
    clip = read.clip
    size = (clip.height, clip.width)
    if read.film.where["suffix"] in PICTURE_SUFFIXES:
        read.frames = to_bytes(read_image(path, size))[:, None]
    else:
        film = read_video(path, fps=fps, num_frames=clip.num_frames, size=size, start_s=clip.start_s)
        if film.held_frames > 1:  # one may be the header's rounding
            have = clip.num_frames - film.held_frames
            raise MediaError(path, f"ends before the clip does: {have} of its {clip.num_frames} pictures are there")
        read.frames = to_bytes(film.frames)
        if rate is not None and film.info.has_audio and clip.num_frames > 1:
            read.sound, read.fault = _read_sound(path, clip, fps, rate)
    if config.skip_dull and (why := _dull(read.frames)):
        read.frames, read.fault = None, f"left out: {why}"


def _read_sound(path: Path, clip: ClipPlan, fps: float, rate: int) -> tuple[Tensor | None, str | None]:
    """The sound under a clip, None where it is silent; or why it cannot be read, which spoils no picture."""
    try:
        wanted = round(clip.num_frames / fps * rate)
        sound = read_audio(path, sample_rate=rate, num_samples=wanted, start_s=clip.start_s).samples
    except MediaError as fault:
        return None, f"kept without its sound, which {fault.problem}"
    return (sound if float(sound.abs().max()) > SILENT else None), None


def _dull(frames: Tensor) -> str:
    """Why nobody would miss a clip (3, t, h, w) uint8, or nothing."""
    pictures = frames.float() / 255
    if float(pictures.mean()) < _DARK:
        return "nearly black"
    if frames.shape[1] > 1 and float(pictures.diff(dim=1).abs().mean()) < _STILL:
        return "nothing moves"
    return ""


# Encoding.


@torch.inference_mode()
def _encode(
    batch: list[_Read], config: PrepareConfig, tokenizing: Tokenizing, makers: dict[str, Callable[[Tensor], Tensor]]
) -> list[dict[str, Any]]:
    """Rows of clips of one shape."""
    visual, audio, device = tokenizing.visual, tokenizing.audio, tokenizing.compute.device
    clips = torch.stack([read.frames for read in batch if read.frames is not None]).to(device)
    clips = to_signed(clips) if clips.dtype == torch.uint8 else clips
    video = half_size(clips) if clips.shape[-1] > batch[0].clip.width else clips  # scenes are drawn at twice the size
    columns = {"visual": visual.encode(video)}
    if video.shape[2] > 1:  # a mask or a flow of a single picture serves no task
        for name, make in makers.items():
            columns[CONDITION_PREFIX + name] = visual.encode(make(video))
    flat = {name: codes.flatten(1).int().cpu().tolist() for name, codes in columns.items()}
    grid = list(columns["visual"].shape[2:])

    sounding = [number for number, read in enumerate(batch) if read.sound is not None]
    sounds: dict[int, Tensor] = {}
    if sounding:
        stacked = torch.stack([batch[number].sound for number in sounding])  # type: ignore[misc]
        sounds = dict(zip(sounding, audio.encode(stacked.to(device)).int().cpu(), strict=True))

    rows = []
    for number, read in enumerate(batch):
        film, clip, heard = read.film, read.clip, sounds.get(number)
        caption = None if clip.caption is None else film.captions[clip.caption]
        rows.append(
            {
                "key": film.key(clip),
                **{name: getattr(film, name) for name in ("source", "source_hash", "collection", "licence", "split")},
                "start_s": clip.start_s,
                "caption": caption,
                "caption_key": None if caption is None else caption_hash(caption),
                "grid": grid,
                "audio_frames": 0 if heard is None else heard.shape[-1],
                "audio": None if heard is None else heard.flatten().tolist(),
                **{name: codes[number] for name, codes in flat.items()},
            }
        )
    return rows
