"""What ``cinepoet prepare`` will do, decided before it begins: which clips of which films go into which shard and
split.

The plan is a file, manifest.jsonl, with one line a film. Everything that follows depends on it alone, so that shards
can be made in any order, by any number of processes, again after a stop, and come out the same.

Windows of a film are drawn from (seed, content of the film), one in each of as many equal slots as clips are wanted,
and never overlap. The split of a film follows from its content (or its folder) and from nothing else, so that a film is
in the same split in every data set that it occurs in.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from mmtok.conditions.commit_masks import GEOMETRIES
from mmtok.files import write_atomically
from mmtok.media.container import probe
from mmtok.media.errors import MediaError
from mmtok.visual.holistic import is_holistic
from recipes.corpora.captioned import Film, content_hash, list_films, open_film
from recipes.corpora.named import SHAPES, find_source
from recipes.corpora.shapes import ShapesCorpus
from recipes.runtime.progress import track

MANIFEST_FILE = "manifest.jsonl"
ASPECTS = ("square", "portrait", "auto")
PORTRAIT = 28 / 16  # height over width of VideoPoet's portrait films
_TALL = 1.3  # height over width from which "auto" takes a film for a portrait one
STRUCTURE = "structure"
CONDITIONS = (STRUCTURE, *GEOMETRIES)
SPLIT_BY = ("source", "folder")


@dataclass(frozen=True)
class PrepareConfig:
    """What is prepared; all that the shards' content depends on beside the tokenizers.

    Attributes:
        source: as of ``list_films``, or the name of a corpus such as "shapes".
        captions: listing with the texts of a folder's media, or None.
        uncaptioned: "refuse", "keep" or "skip" films without a text where others have one.
        media_column: of a listing or data set, or None for the first known one.
        caption_column: the same.
        collection: name of the data source for films that have none of their own, or None.
        scenes: how many scenes of "shapes" train; as many more as ``validation`` says are of held-out combinations.
        num_frames: lengths of clips; pictures are one frame whatever stands here.
        aspects: of ``ASPECTS``; every window is taken in each of them, "auto" is portrait for tall films.
        size: width of the pictures, pixels.
        conditions: of ``CONDITIONS``.
        flow: method of ``OpenCVFlow`` for the structure.
        depth: "saturation", or a folder or hub id of Depth Anything, for the structure.
        clips_per_file: most windows of a film for each length, or None for all that fit one behind the other.
        split_by: what is kept together: "source" for the content of a film, "folder" for its folder.
        validation: share of films kept for validation.
        seed: of the windows and of "shapes".
        limit: most films, or None.
        skip_dull: leave out windows that are nearly black or do not move.
        shard: clips a shard, about; a film is never divided.
        batch_size: clips a call of the tokenizers.

    Raises:
        ValueError: for a value out of range or an unknown name.
    """

    source: str
    captions: str | None = None
    uncaptioned: str = "refuse"
    media_column: str | None = None
    caption_column: str | None = None
    collection: str | None = None
    scenes: int = 1000
    num_frames: tuple[int, ...] = (17,)
    aspects: tuple[str, ...] = ("square",)
    size: int = 128
    conditions: tuple[str, ...] = ()
    flow: str = "dis"
    depth: str = "depth-anything/Depth-Anything-V2-Small-hf"
    clips_per_file: int | None = 4
    split_by: str = "source"
    validation: float = 0.05
    seed: int = 0
    limit: int | None = None
    skip_dull: bool = False
    shard: int = 512
    batch_size: int = 16

    def __post_init__(self) -> None:
        for name, known in (("aspects", ASPECTS), ("conditions", CONDITIONS)):
            values = getattr(self, name)
            if unknown := [value for value in values if value not in known]:
                raise ValueError(f"unknown {name.rstrip('s')} {unknown[0]!r}; known: {', '.join(known)}")
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one twice: {', '.join(values)}")
        if not self.num_frames or min(self.num_frames) < 1 or len(set(self.num_frames)) < len(self.num_frames):
            raise ValueError(f"num_frames must be different positive lengths, got {self.num_frames}")
        if not self.aspects:
            raise ValueError(f"no aspect is given; known: {', '.join(ASPECTS)}")
        if self.split_by not in SPLIT_BY:
            raise ValueError(f"unknown split_by {self.split_by!r}; known: {', '.join(SPLIT_BY)}")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation must lie in [0, 1), got {self.validation}")
        if self.source == SHAPES and self.aspects != ("square",):
            raise ValueError(f"scenes of {SHAPES} are square, got aspects {', '.join(self.aspects)}")
        told = {name: getattr(self, name) for name in ("captions", "media_column", "caption_column", "skip_dull")}
        told |= {"split_by=folder": self.split_by == "folder"}
        if self.source == SHAPES and (idle := [name for name, value in told.items() if value]):
            raise ValueError(f"{', '.join(idle)}: of films only; scenes of {SHAPES} have their own captions and splits")


@dataclass(frozen=True)
class ClipPlan:
    """One clip.

    Attributes:
        start_s: where it begins, seconds.
        num_frames: its pictures.
        height: pixels.
        width: pixels.
        caption: number of its text among the film's, or None.
    """

    start_s: float
    num_frames: int
    height: int
    width: int
    caption: int | None


@dataclass(frozen=True)
class SourcePlan:
    """One film and its clips.

    Attributes:
        source: as in ``Film``.
        where: as in ``Film``, or the number and split of a scene.
        captions: its texts.
        source_hash: of its content.
        file_size: bytes of the file that it lies in, or None.
        split: "train" or "validation".
        licence: or None.
        collection: or None.
        shard: its number.
        clips: in the order of the rows.
    """

    source: str
    where: dict[str, Any]
    captions: tuple[str, ...]
    source_hash: str
    file_size: int | None
    split: str
    licence: str | None
    collection: str | None
    shard: int
    clips: tuple[ClipPlan, ...]

    def key(self, clip: ClipPlan) -> str:
        """A clip's own name in its data set, such as "a.mp4@1.250s+17x128x128"."""
        return f"{self.source}@{clip.start_s:.3f}s+{clip.num_frames}x{clip.height}x{clip.width}"


@dataclass
class CorpusPlan:
    """All films, and what a user should know.

    Attributes:
        films: in the order of the rows.
        quarantined: "source" and "reason" of those left out.
        notes: lines.
    """

    films: list[SourcePlan]
    quarantined: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return 1 + max((film.shard for film in self.films), default=-1)

    def write(self, folder: Path) -> str:
        """Write manifest.jsonl into the data set's folder; its hash."""
        lines = [json.dumps(asdict(film), ensure_ascii=False) for film in self.films]
        lines += [json.dumps({"quarantined": entry}, ensure_ascii=False) for entry in self.quarantined]
        text = "".join(line + "\n" for line in lines)
        write_atomically(folder / MANIFEST_FILE, text)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def read(cls, folder: Path, digest: str) -> CorpusPlan:
        """Read manifest.jsonl.

        Args:
            folder: of the data set.
            digest: its hash when it was written.

        Returns:
            The plan, without notes.

        Raises:
            ValueError: if the file is gone or was changed.
        """
        file = folder / MANIFEST_FILE
        text = file.read_text() if file.is_file() else ""
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise ValueError(f"{file} was changed since the work began; delete {folder} and prepare again")
        plan = cls([])
        for line in text.splitlines():
            values = json.loads(line)
            if "quarantined" in values:
                plan.quarantined.append(values["quarantined"])
            else:
                clips = tuple(ClipPlan(**clip) for clip in values.pop("clips"))
                plan.films.append(SourcePlan(**values | {"captions": tuple(values["captions"]), "clips": clips}))
        return plan


def frame_size(aspect: str, width: int, stride: tuple[int, int, int]) -> tuple[int, int]:
    """(height, width) of an aspect's pictures; a portrait's height is the multiple of the stride nearest to 28/16."""
    return (round(width * PORTRAIT / stride[1]) * stride[1] if aspect == "portrait" else width), width


def make_plan(config: PrepareConfig, visual: Any, *, workers: int = 2) -> CorpusPlan:
    """Look at every film and decide.

    Args:
        config: what is wanted.
        visual: a ``VisualTokenizer``, for its clock and its sizes.
        workers: threads that look at films.

    Returns:
        The plan.

    Raises:
        FileNotFoundError: if the source is absent.
        ValueError: if the source is damaged, the same content is in both splits, or no clip is left.
    """
    plan = _plan_scenes(config, visual) if config.source == SHAPES else _plan_files(config, visual, workers)
    if not plan.films:
        first = plan.quarantined[0]
        raise ValueError(
            f"no clip can be made of {config.source}: all {len(plan.quarantined)} films were refused, the first, "
            f"{first['source']}: {first['reason']}"
        )
    _refuse_leaks(plan.films)
    plan.films = _number_shards(plan.films, config.shard)
    return plan


def _plan_scenes(config: PrepareConfig, visual: Any) -> CorpusPlan:
    """Scenes that train are of the corpus' training combinations, those that validate of the held-out ones."""
    height, width = frame_size("square", config.size, visual.stride)
    films = []
    kept_out = round(config.validation * config.scenes)
    for split, corpus_split, count in (("train", "train", config.scenes), ("validation", "heldout", kept_out)):
        corpus = ShapesCorpus(config.seed, corpus_split)
        for index in range(count if config.limit is None else min(count, config.limit)):
            scene = corpus.scene(index)
            films.append(
                SourcePlan(
                    source=f"{SHAPES}/{config.seed}/{corpus_split}/{index}",
                    where={"scene": index, "seed": config.seed, "split": corpus_split},
                    captions=(scene.caption,),
                    source_hash=hashlib.sha256(repr(scene).encode()).hexdigest()[:32],
                    file_size=None,
                    split=split,
                    licence="Apache-2.0",
                    collection=config.collection or SHAPES,
                    shard=0,
                    clips=tuple(ClipPlan(0.0, length, height, width, 0) for length in config.num_frames),
                )
            )
    return CorpusPlan(films)


def _plan_files(config: PrepareConfig, visual: Any, workers: int) -> CorpusPlan:
    source, corpus = find_source(config.source)
    options = ("captions", "uncaptioned", "media_column", "caption_column")
    found = list_films(source, **{name: getattr(config, name) for name in options})
    films = found.films if config.limit is None else found.films[: config.limit]
    plan = CorpusPlan([], list(found.quarantined), found.notes)

    def look(film: Film) -> tuple[str, tuple[ClipPlan, ...]] | MediaError:
        try:
            digest = content_hash(film.where, film.source)
            return digest, _clips_of(film, digest, config, visual)
        except MediaError as fault:
            return fault

    looked: list[tuple[Film, str, tuple[ClipPlan, ...]]] = []
    with ThreadPoolExecutor(workers) as pool:
        answers = pool.map(look, films)
        for film, answer in zip(films, track(answers, title="looking at films", total=len(films)), strict=True):
            if isinstance(answer, MediaError):
                plan.quarantined.append({"source": film.source, "reason": answer.problem})
            else:
                looked.append((film, *answer))
    splits = _splits([(film, digest) for film, digest, _ in looked], config, plan.notes)
    for (film, digest, clips), split in zip(looked, splits, strict=True):
        plan.films.append(
            SourcePlan(
                **{name: getattr(film, name) for name in ("source", "where", "captions", "licence")},
                source_hash=digest,
                file_size=os.path.getsize(film.where["file"]) if "file" in film.where else None,
                split=split,
                collection=film.collection or config.collection or corpus,
                shard=0,
                clips=clips,
            )
        )
    if copies := len(looked) - len({digest for _, digest, _ in looked}):
        plan.notes.append(f"{copies} films are copies of another one (or further clips of it)")
    return plan


def _clips_of(film: Film, digest: str, config: PrepareConfig, visual: Any) -> tuple[ClipPlan, ...]:
    fps = visual.fps
    if film.is_picture and is_holistic(visual):
        raise MediaError(film.source, f"is a picture, and the tokenizer takes clips of {visual.size[0]} pictures only")
    with open_film(film.where, film.source) as path:
        try:
            tall, pictures = _shape_of_picture(path, film) if film.is_picture else _shape_of_film(path, fps)
        except MediaError as fault:
            raise MediaError(film.source, fault.problem) from fault
    kinds = [("portrait" if tall else "square") if name == "auto" else name for name in config.aspects]
    sizes = [frame_size(kind, config.size, visual.stride) for kind in dict.fromkeys(kinds)]
    lengths = (1,) if film.is_picture else config.num_frames
    clips: list[ClipPlan] = []
    for length in lengths:
        for start in _starts(film, digest, length, pictures, config, fps):
            caption = len(clips) % len(film.captions) if film.captions else None
            clips += [ClipPlan(start, length, *size, caption) for size in sizes]
    if not clips:
        where = "" if film.start_s is None else f" from {film.start_s:g} s on"
        raise MediaError(film.source, f"is too short{where}: {pictures} of {min(lengths)} pictures at {fps:g} a second")
    return tuple(clips)


def _shape_of_picture(path: Path, film: Film) -> tuple[bool, int]:
    """Whether it stands upright, by its header; and that it is one picture."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if picture.getexif().get(0x0112) in (5, 6, 7, 8):  # stored lying on its side
                width, height = height, width
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as fault:
        raise MediaError(film.source, f"is not a picture that can be read ({type(fault).__name__})") from None
    return height >= _TALL * width, 1


def _shape_of_film(path: Path, fps: float) -> tuple[bool, int | None]:
    """Whether it stands upright, and how many pictures it has at the tokenizer's rate, None where nobody knows."""
    info = probe(path)
    if not info.has_video or info.width is None or info.height is None:
        raise MediaError(path, "has sound but no pictures" if info.has_audio else "has no pictures that can be decoded")
    pictures = None if info.duration_s is None else -int(-(info.duration_s * fps - 1e-6) // 1)
    return info.height >= _TALL * info.width, pictures


def _starts(
    film: Film, digest: str, length: int, pictures: int | None, config: PrepareConfig, fps: float
) -> list[float]:
    """Where windows of ``length`` pictures begin, in seconds, always on a picture of the tokenizer's clock."""
    if film.start_s is not None:
        fits = pictures is None or film.start_s * fps + length <= pictures + 1e-6
        return [film.start_s] if fits else []
    if pictures is None:
        return [0.0]
    windows = pictures // length
    if config.clips_per_file is None or windows == 0:
        return [number * length / fps for number in range(windows)]
    windows = min(windows, config.clips_per_file)
    starts = []
    for number in range(windows):
        first = -(-number * pictures // windows)
        last = (number + 1) * pictures // windows - length
        draw = _number(f"{config.seed}/{digest}/{length}/{number}")
        starts.append((first + draw % (last - first + 1) if last > first else min(first, last)) / fps)
    return starts


def _number(text: str) -> int:
    """A number in [0, 2^64) that depends on a text only."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _splits(films: list[tuple[Film, str]], config: PrepareConfig, notes: list[str]) -> list[str]:
    """Split of each film: as its listing says, else by its group."""
    groups = [digest if config.split_by == "source" else Path(film.source).parent.as_posix() for film, digest in films]
    chance = {group: _number(f"split/{group}") / 2**64 for group in groups}
    validating = {group for group, value in chance.items() if value < config.validation}
    listed = [film.split for film, _ in films]
    if config.validation and not validating and "validation" not in listed and len(chance) > 1:
        validating = {min(chance, key=lambda group: chance[group])}
        notes.append(
            f"no film fell into validation by chance ({config.validation:g} of {len(chance)}), so one was taken"
        )
    return [
        said or ("validation" if group in validating else "train") for said, group in zip(listed, groups, strict=True)
    ]


def _refuse_leaks(films: Iterable[SourcePlan]) -> None:
    seen: dict[str, SourcePlan] = {}
    for film in films:
        before = seen.setdefault(film.source_hash, film)
        if before.split != film.split:
            raise ValueError(
                f"the same film is in both splits: {before.source} ({before.split}) and {film.source} ({film.split}) "
                "have the same content; put them into one split, or drop one"
            )


def _number_shards(films: list[SourcePlan], most: int) -> list[SourcePlan]:
    """Fill shards with whole films."""
    numbered, shard, clips = [], 0, 0
    for film in films:
        if clips and clips + len(film.clips) > most:
            shard, clips = shard + 1, 0
        clips += len(film.clips)
        numbered.append(replace(film, shard=shard))
    return numbered


def check_shapes(config: PrepareConfig, visual: Any, *, try_condition: Callable[[str, int, int, int], None]) -> None:
    """Find out before any work that the tokenizer takes every clip, and that every mask hides something.

    Args:
        config: what is wanted.
        visual: a ``VisualTokenizer``.
        try_condition: called with (name, frames, height, width); raises ValueError where the condition makes no sense.

    Raises:
        ValueError: with the length or size that does not fit.
    """
    aspects = ("square", "portrait") if "auto" in config.aspects else config.aspects
    for length in config.num_frames:
        for height, width in (frame_size(aspect, config.size, visual.stride) for aspect in aspects):
            if is_holistic(visual) and (length, height, width) != tuple(visual.size):
                raise ValueError(
                    f"the tokenizer takes clips of {visual.size} (frames, height, width), not {(length, height, width)}"
                )
            visual.grid(length, height, width)
            for name in config.conditions if length > 1 else ():
                try_condition(name, length, height, width)
