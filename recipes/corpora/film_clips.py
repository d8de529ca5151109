"""Clips of films at the sizes of a training, read when they are drawn: windows over a film, other views of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mmtok.media.errors import MediaError
from mmtok.media.video import probe, read_video
from recipes.corpora.captioned import list_films
from recipes.corpora.folder import MediaFolder
from recipes.runtime.progress import track

PixelSize = tuple[int, int]  # height, width
MOST_ZOOM = 2.0  # of a view; parts of a large film at its own resolution are too smooth to teach details


@dataclass(frozen=True)
class View:
    """The part of its pictures that a clip shows.

    Attributes:
        zoom: sides of the centre crop over those of the part, at least 1.
        down: place of the part from the top (0) to the bottom (1).
        right: place of the part from the left (0) to the right (1).
        mirrored: left and right are exchanged.
    """

    zoom: float = 1.0
    down: float = 0.0
    right: float = 0.0
    mirrored: bool = False


@dataclass(frozen=True)
class FilmClip:
    """A clip of a film.

    Attributes:
        path: of the film.
        start_s: its beginning, seconds.
        caption: a text, or None.
        view: what of the pictures is shown.
    """

    path: Path
    start_s: float
    caption: str | None
    view: View = View()


@dataclass(frozen=True)
class FilmClips:
    """What a folder gives for one size.

    Attributes:
        train: clips that training may see.
        held_out: clips of films that are kept out.
    """

    train: list[FilmClip]
    held_out: list[FilmClip]


def film_clips(
    media: MediaFolder,
    *,
    sizes: Sequence[PixelSize],
    num_frames: int,
    fps: float,
    clips_per_film: int,
    views: int = 1,
    seed: int = 0,
    captions: str | Path | None = None,
    tell: Callable[[str], None] = print,
    progress: bool = False,
) -> dict[PixelSize, FilmClips]:
    """Clips of every film that is large and long enough, each under the size whose form is nearest to its own.

    Args:
        media: the folder; its films for measuring are held out.
        sizes: heights and widths wanted, pixels. A film is never enlarged: that would teach to blur.
        num_frames: of a clip.
        fps: pictures per second.
        clips_per_film: most clips of one film, spread over it without overlap.
        views: how often each clip is shown to the training: once as it is, else at another time of its film, a part
            of it (never enlarged), and, without a caption, mirrored or not.
        seed: of these draws.
        captions: a listing with the films' texts; None takes NAME.txt beside a film where it is there.
        tell: receives a line for each film that is left out.
        progress: whether a bar shows how many films have been looked at.

    Returns:
        Size to clips, for every size that has one to train on.

    Raises:
        ValueError: if no film can be trained on.
    """
    films = media.train_video + media.measure_video
    if not films:
        raise ValueError(f"{media.root} holds no films")
    listed = list_films(str(media.root), captions=captions, uncaptioned="keep")
    texts = {Path(film.where["file"]): film.captions for film in listed.films if "file" in film.where}
    found = {size: FilmClips([], []) for size in sizes}
    refused: list[str] = []
    for number, path in enumerate(track(films, title="looking at films") if progress else films):
        try:
            cut = _cut(path, sizes, num_frames, fps, clips_per_film)
        except MediaError as fault:
            refused.append(str(fault))
            tell(f"left out: {fault}")
            continue
        own = texts.get(path.absolute(), ())
        clips = [FilmClip(path, s, own[i % len(own)] if own else None) for i, s in enumerate(cut.starts_s)]
        if number >= len(media.train_video):
            found[cut.size].held_out.extend(clips)
            continue
        draws = random.Random(f"{seed} {path.relative_to(media.root)}")
        found[cut.size].train.extend(clips)
        found[cut.size].train.extend(_other_view(clip, cut, draws) for clip in clips * (views - 1))
    if not any(clips.train for clips in found.values()):
        why = f"; {len(refused)} were left out, such as {refused[0]}" if refused else ""
        raise ValueError(f"no film of {media.root} can be trained on{why}")
    return {size: clips for size, clips in found.items() if clips.train}


@dataclass(frozen=True)
class _Cut:
    """How a film is used: the size of its clips, where they begin, the last possible beginning, the largest zoom."""

    size: PixelSize
    starts_s: list[float]
    last_s: float
    zoom: float


def _cut(path: Path, sizes: Sequence[PixelSize], num_frames: int, fps: float, most: int) -> _Cut:
    info = probe(path)
    if not info.has_video or info.width is None or info.height is None:
        raise MediaError(path, "has no pictures")
    fitting = [size for size in sizes if info.height >= size[0] and info.width >= size[1]]
    if not fitting:
        wanted = " and ".join(f"{h}x{w}" for h, w in sizes)
        raise MediaError(path, f"is {info.height}x{info.width}, smaller than {wanted} (height x width)")
    form = info.height / info.width
    size = min(fitting, key=lambda size: (round(abs(math.log(size[0] / size[1] / form)), 6), -size[0] * size[1]))
    pictures = math.ceil((info.duration_s or 0.0) * fps - 1e-6)
    if pictures < num_frames:
        raise MediaError(path, f"is too short: {pictures} of {num_frames} pictures at {fps:g} a second")
    count = min(most, pictures // num_frames)
    last = (pictures - num_frames) / fps
    zoom = min(info.height / size[0], info.width / size[1], MOST_ZOOM)
    return _Cut(size, [last * number / max(1, count - 1) for number in range(count)], last, zoom)


def _other_view(clip: FilmClip, cut: _Cut, draws: random.Random) -> FilmClip:
    """A part of the same film at another time."""
    view = View(
        zoom=draws.uniform(1.0, cut.zoom),
        down=draws.random(),
        right=draws.random(),
        mirrored=draws.random() < 0.5 and clip.caption is None,  # a caption may tell left from right
    )
    return FilmClip(clip.path, draws.uniform(0.0, cut.last_s), clip.caption, view)


class ClipReader:
    """Pictures of a row of film clips.

    Args:
        rows: the clips.
        size: (h, w) pixels.
        num_frames: pictures of a clip.
        fps: pictures per second.
    """

    def __init__(self, rows: list[FilmClip], *, size: PixelSize, num_frames: int, fps: float):
        self.rows, self.size, self.num_frames, self.fps = rows, size, num_frames, fps

    def __call__(self, row: int) -> Tensor:
        clip = self.rows[row]
        (height, width), view = self.size, clip.view
        whole = (round(height * view.zoom), round(width * view.zoom))
        film = read_video(clip.path, fps=self.fps, num_frames=self.num_frames, size=whole, start_s=clip.start_s)
        if film.held_frames > 1:  # one may be the header's rounding
            raise MediaError(clip.path, f"ends before the clip at {clip.start_s:.2f} s does")
        top, left = round((whole[0] - height) * view.down), round((whole[1] - width) * view.right)
        part = film.frames[..., top : top + height, left : left + width]
        return part.flip(-1) if view.mirrored else part
