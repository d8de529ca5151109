"""What video and sound share: opening a media file, its facts, decoding around damage, writing without leftovers.

Time zero of a file is its first picture, or its first sound sample where it holds no pictures; containers may start
their clocks anywhere (MPEG at half a second, cut films at minutes), so every time here is counted from that point.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from mmtok.files import scratch_beside, writing
from mmtok.media.errors import MediaError

_TEXT_FORMATS = {"tty", "bin", "xbin", "adf", "idf", "sbg"}  # FFmpeg "plays" text files as pictures of a terminal


@dataclass(frozen=True)
class MediaInfo:
    """Facts about a media file; ``None`` where the file has no such thing or does not say.

    Attributes:
        has_video: True when there is a stream of pictures (cover art of a song does not count).
        has_audio: True when there is a sound track, silent or not.
        fps: average pictures per second.
        num_frames: pictures as the file's header counts them; some headers count a few that are never shown.
        width: width as displayed, in pixels: rotation and non-square pixels applied.
        height: height as displayed, in pixels.
        rotation: clockwise turn from the stored to the displayed picture: 0, 90, 180 or 270 degrees.
        duration_s: length of the pictures, or of the sound where there are none, in seconds.
        sample_rate: of the first sound track, in Hz.
        channels: of the first sound track.
    """

    has_video: bool
    has_audio: bool
    fps: float | None = None
    num_frames: int | None = None
    width: int | None = None
    height: int | None = None
    rotation: int = 0
    duration_s: float | None = None
    sample_rate: int | None = None
    channels: int | None = None


@dataclass(frozen=True)
class Placement:
    """How a stored picture has to be turned to be shown: a transpose, then flips.

    Attributes:
        transpose: exchange rows and columns first.
        flip_x: then mirror left and right.
        flip_y: then mirror top and bottom.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def rotation(self) -> int:
        """Clockwise turn in degrees, left and right mirroring set aside."""
        if self.transpose:
            return 270 if self.flip_y else 90
        return 180 if self.flip_y else 0


def placement_of(picture: VideoFrame) -> Placement:
    """The display matrix of a decoded picture as a :class:`Placement`; turns are rounded to quarter turns.

    The matrix maps the stored point (x, y) to (a x + c y, b x + d y), y downwards, in 16.16 fixed point.

    Args:
        picture: a decoded picture.

    Returns:
        The transpose and flips that show it upright.
    """
    matrix: Any = picture.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        raw = memoryview(bytes(matrix)).cast("i")
        a, b, c, d = raw[0], raw[1], raw[3], raw[4]
        if abs(b) + abs(c) > abs(a) + abs(d):
            return Placement(transpose=True, flip_x=c < 0, flip_y=b < 0)
        return Placement(transpose=False, flip_x=a < 0, flip_y=d < 0)
    return Placement()


@contextmanager
def open_media(path: str | os.PathLike[str]) -> Iterator[InputContainer]:
    """Open a local media file for reading; every failure is a :class:`MediaError` that names the cause.

    Args:
        path: a file. Play lists and other formats that point elsewhere can only reach local files.

    Yields:
        The opened container, closed at the end of the ``with`` block.

    Raises:
        MediaError: if the file is missing, a folder, empty, unreadable, truncated or not media.
    """
    file = Path(path)
    try:
        mode = os.stat(file).st_mode
        with open(file, "rb") as handle:
            head = handle.read(12)
    except FileNotFoundError:
        raise MediaError(path, "no such file") from None
    except IsADirectoryError:
        raise MediaError(path, "is a folder, not a media file") from None
    except OSError as error:
        raise MediaError(path, f"cannot be read ({error.strerror or error})") from None
    if stat.S_ISREG(mode) and not head:
        raise MediaError(path, "is empty (0 bytes)")
    try:
        # "file:" keeps names with a colon from being taken for a protocol
        container = av.open(
            "file:" + os.path.abspath(file), options={"protocol_whitelist": "file"}, metadata_errors="ignore"
        )
    except (av.FFmpegError, ValueError) as error:
        if head[4:8] == b"ftyp":
            raise MediaError(path, "is truncated or damaged (an mp4 file without a readable index)") from None
        raise MediaError(path, f"is not a media file that can be read, or is damaged ({_reason(error)})") from None
    with container:
        if container.format.name in _TEXT_FORMATS:
            raise MediaError(path, "is not a media file (it looks like text)")
        yield container


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def picture_streams(container: InputContainer) -> list[VideoStream]:
    """Streams of moving pictures in file order: no cover art, nothing that this build cannot decode."""
    return [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]


def sound_streams(container: InputContainer) -> list[AudioStream]:
    """Sound tracks in file order, as far as this build can decode them."""
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def decode(container: InputContainer, stream: VideoStream | AudioStream) -> Iterator[VideoFrame | AudioFrame]:
    """Decode a stream as far as it goes: damaged packets are skipped, a file that breaks off simply ends.

    Args:
        container: opened file, positioned where decoding shall start.
        stream: one of its streams.

    Yields:
        Decoded frames in order of presentation.
    """
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError):  # the file ends in the middle of something
            packet = None
        if packet is None:
            with suppress(av.FFmpegError, OSError):  # what was still waiting in the decoder, if anything
                yield from stream.decode(None)
            return
        try:
            frames = stream.decode(packet)
        except (av.FFmpegError, OSError):
            continue
        yield from frames  # type: ignore[misc]


def time_of(frame: VideoFrame | AudioFrame, stream: VideoStream | AudioStream) -> Fraction | None:
    """Presentation time on the container's clock, in seconds, exactly; None where the file gives none.

    Args:
        frame: a decoded picture or piece of sound.
        stream: the stream that it came from.

    Returns:
        Seconds on the file's clock.
    """
    base = frame.time_base or stream.time_base
    return None if frame.pts is None or base is None else frame.pts * base


def first_picture(container: InputContainer) -> tuple[VideoStream, VideoFrame, Iterator[VideoFrame]] | None:
    """Decode the first picture of the first stream that has one.

    Args:
        container: freshly opened file.

    Returns:
        The stream, its first picture, and the iterator over the pictures that follow; None if nothing decodes.
    """
    for index, stream in enumerate(picture_streams(container)):
        if index:
            container.seek(0)
        run: Iterator[VideoFrame] = decode(container, stream)  # type: ignore[assignment]
        picture = next(run, None)
        if picture is not None:
            return stream, picture, run
    return None


def jump(
    container: InputContainer, stream: VideoStream | AudioStream, to: Fraction, *, latest: Fraction
) -> Iterator[VideoFrame | AudioFrame] | None:
    """Frames from a key frame at or before a time on.

    Args:
        container: opened file.
        stream: one of its streams, which decoded before.
        to: seconds on the file's clock.
        latest: where the first frame may stand at most.

    Returns:
        The frames, or None when the file cannot be entered there.
    """
    assert stream.time_base is not None, "a stream that decoded has a clock"
    try:
        container.seek(int(to / stream.time_base), stream=stream)
    except (av.FFmpegError, OSError):
        return None
    run = decode(container, stream)
    landed = next(run, None)
    time = time_of(landed, stream) if landed is not None else None
    if landed is None or time is None or time > latest:
        return None
    return chain([landed], run)


def facts_of(container: InputContainer, stream: VideoStream | None, picture: VideoFrame | None) -> MediaInfo:
    """Collect the facts of an opened file.

    Args:
        container: opened file.
        stream: its stream of pictures in use, or None.
        picture: first decoded picture of ``stream``, or None where there is none.

    Returns:
        The facts; sizes and rotation come from ``picture``.
    """
    sounds = sound_streams(container)
    sound = sounds[0] if sounds else None
    heard = MediaInfo(
        has_video=bool(picture_streams(container)),
        has_audio=sound is not None,
        duration_s=_duration_s(container, sound),
        sample_rate=sound.codec_context.sample_rate if sound is not None else None,
        channels=sound.codec_context.channels if sound is not None else None,
    )
    if stream is None or picture is None:
        return heard
    placement = placement_of(picture)
    width, height = round(picture.width * pixel_aspect(stream)), picture.height
    if placement.transpose:
        width, height = height, width
    fps = stream.average_rate or stream.guessed_rate
    return replace(
        heard,
        fps=float(fps) if fps else None,
        num_frames=stream.frames or None,
        width=width,
        height=height,
        rotation=placement.rotation,
        duration_s=_duration_s(container, stream),
    )


def pixel_aspect(stream: VideoStream) -> Fraction:
    """Width of one stored pixel over its height, 1 where the file does not say or means next to nothing.

    Args:
        stream: a stream of pictures.

    Returns:
        The proportion; within 2 % of a square it is 1, as such values come from rounding when somebody resized.
    """
    aspect = stream.sample_aspect_ratio
    if aspect is None or aspect <= 0 or abs(aspect - 1) < Fraction(2, 100):
        return Fraction(1)
    return aspect


def _duration_s(container: InputContainer, stream: VideoStream | AudioStream | None) -> float | None:
    if stream is not None and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def survey(path: str | os.PathLike[str]) -> tuple[MediaInfo, Fraction | None]:
    """Facts of a file and the time of its first picture on the container's clock (None without pictures).

    Args:
        path: a media file.

    Returns:
        The facts, and the time zero of its pictures in seconds.

    Raises:
        MediaError: if the file cannot be opened or holds neither pictures nor sound.
    """
    with open_media(path) as container:
        found = first_picture(container)
        info = facts_of(container, *found[:2]) if found else facts_of(container, None, None)
        if not info.has_video and not info.has_audio:
            raise MediaError(path, "holds neither pictures nor sound that can be decoded")
        return info, time_of(found[1], found[0]) if found else None


def probe(path: str | os.PathLike[str]) -> MediaInfo:
    """Facts of a media file, from its headers and its first picture.

    Args:
        path: a media file: film, animation, picture or sound.

    Returns:
        The facts.

    Raises:
        MediaError: if the file cannot be opened or holds neither pictures nor sound.
    """
    return survey(path)[0]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file in full or not at all: yields a temporary name in the same folder, renamed on success.

    Args:
        path: the file to make or replace.

    Yields:
        A path to write to; when the block raises, it is removed and ``path`` stays as it was.

    Raises:
        MediaError: if the place cannot be written to, the disk is full or the encoder fails.
    """
    _require_place(path)
    try:
        with writing(path) as scratch:
            yield scratch
    except (OSError, av.FFmpegError) as error:
        raise MediaError(path, f"cannot be written ({_reason(error)})") from error


def _require_place(path: str | os.PathLike[str]) -> None:
    """Raise a MediaError that says why no file can be written there."""
    target = Path(os.path.realpath(path))
    try:
        if not target.parent.is_dir():
            raise MediaError(path, f"cannot be written: {target.parent} is not an existing folder")
        if target.is_dir():
            raise MediaError(path, "cannot be written: it is a folder")
        if target.exists() and not target.is_file():
            raise MediaError(path, "cannot be written: it is not a regular file")
        scratch = scratch_beside(target)
        scratch.touch(exist_ok=False)
        scratch.unlink()
    except OSError as error:
        raise MediaError(path, f"cannot be written ({_reason(error)})") from error


def require_writable(path: str | os.PathLike[str], suffixes: Iterable[str]) -> None:
    """Find out before long work whether its result can be written; nothing is left behind.

    Args:
        path: the file that will be written.
        suffixes: endings that the writer knows, with the dot, lower case.

    Raises:
        MediaError: if the ending is unknown or the place cannot be written to.
    """
    require_suffix(path, suffixes)
    _require_place(path)


def require_suffix(path: str | os.PathLike[str], suffixes: Iterable[str]) -> str:
    """The ending of ``path`` in lower case.

    Args:
        path: a file name.
        suffixes: endings allowed, with the dot, lower case.

    Returns:
        The ending, with the dot.

    Raises:
        MediaError: if it is none of ``suffixes``.
    """
    known = list(suffixes)
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        raise MediaError(path, f"cannot be written: unknown ending {suffix!r}; known: {', '.join(known)}")
    return suffix
