"""Films in and out: any film to (3, t, h, w) in [-1, 1] at a wanted picture rate, and H.264 + AAC back.

Everything goes by timestamps. Reading: picture ``i`` is the source picture on show at ``start_s + i / fps``, so
variable rates, late starts and holes need no special case. Writing: picture ``i`` is stamped exactly ``i / fps`` and
the sound is cut or padded to exactly ``t / fps`` seconds. Shape letters: t h w time/height/width, n samples.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import soxr
import torch
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mmtok.find import require_known
from mmtok.media.audio import as_sound
from mmtok.media.container import (
    MediaInfo,
    Placement,
    facts_of,
    first_picture,
    jump,
    open_media,
    picture_streams,
    pixel_aspect,
    placement_of,
    probe,
    replacing,
    require_suffix,
    time_of,
)
from mmtok.media.errors import MediaError
from mmtok.media.image import FITS, fit_picture, over_white, resolve_size, to_bytes, to_signed

__all__ = ["FILM_SUFFIXES", "FilmWriter", "MediaInfo", "VideoClip", "probe", "read_video", "stream_video", "write_film"]

FILM_SUFFIXES = (".mp4", ".mov", ".gif")
_SEEK_FROM_S = 1  # an earlier start is reached sooner by decoding than by a jump
_NO_SEEK = {"gif", "apng", "webp_pipe"}  # their pictures build on all earlier ones
# What AAC stores as it is. It also knows 8, 11 and 12 kHz, but has few bits there: a tone of height 0.5 came back
# wrong by up to 0.07 from 8 kHz, by less than 0.05 from 48 kHz.
_AAC_RATES = (16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_SCALER = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True)
class VideoClip:
    """A piece of a film.

    Attributes:
        frames: (3, t, h, w) float32 in [-1, 1].
        fps: pictures per second of ``frames``.
        info: facts of the file it came from.
        held_frames: how many pictures at the end repeat the last one because the film ends before.
    """

    frames: Tensor
    fps: float
    info: MediaInfo
    held_frames: int = 0


def read_video(
    path: str | os.PathLike[str],
    *,
    fps: float | Fraction = 8.0,
    num_frames: int | None = 17,
    size: int | tuple[int, int] | None = None,
    start_s: float = 0.0,
    fit: str = "crop",
) -> VideoClip:
    """Read a piece of a film at a wanted rate and size, upright and in square pixels.

    Picture ``i`` of the result is the source picture on show at ``start_s + i / fps``, counted from the first
    picture; within half a tick of the file's clock a picture counts as on show, since its time is rounded to ticks.
    The first stream of moving pictures is taken (not the largest). A film that ends early holds its last picture; one
    that breaks off or is damaged gives what decodes. Decoding stops with the last picture needed, and only pictures
    that are returned are kept. High-dynamic-range films are not tone-mapped.

    Args:
        path: film, animation (GIF, WebP) or picture (a film of one frame).
        fps: pictures per second wanted.
        num_frames: number of pictures wanted; None reads to the end.
        size: side of a square, (height, width), or None for the displayed size.
        start_s: where to begin, in seconds after the first picture.
        fit: ``crop`` (resize, centre crop), ``pad`` (resize, black borders) or ``stretch``.

    Returns:
        The clip.

    Raises:
        MediaError: if the file cannot be opened, has no pictures, none decodes, or it ends before ``start_s``.
        ValueError: if an argument is out of range.
    """
    if fps <= 0 or start_s < 0 or (num_frames is not None and num_frames < 1):
        raise ValueError(
            f"fps and num_frames must be positive and start_s >= 0, got fps={fps}, num_frames={num_frames}, "
            f"start_s={start_s}"
        )
    require_known(fit, FITS, "fit")
    wanted_size = resolve_size(size)
    rate = Fraction(fps).limit_denominator(100_000)

    for may_seek in (True, False):
        with open_media(path) as container:
            stream, first, following = _first_picture(path, container)
            info = facts_of(container, stream, first)
            zero = time_of(first, stream) or Fraction(0)
            start = zero + Fraction(start_s)
            run: Iterator[VideoFrame] | None = chain([first], following)
            if may_seek and start_s > _SEEK_FROM_S and container.format.name not in _NO_SEEK:
                run = jump(container, stream, start, latest=start)  # type: ignore[assignment]
            if run is None:  # the jump landed too late or failed: decode from the beginning
                continue
            shots, held_frames, end = _pick(
                run, stream, start=start, rate=rate, count=num_frames, size=wanted_size, fit=fit
            )
        break

    if end is not None and end <= start:
        raise MediaError(path, f"ends at {float(end - zero):.2f} s, before the requested start of {start_s:g} s")
    frames = to_signed(torch.stack(shots, dim=1))  # (3, t, h, w)
    return VideoClip(frames=frames, fps=float(rate), info=info, held_frames=held_frames)


def stream_video(
    path: str | os.PathLike[str],
    *,
    fps: float | Fraction = 8.0,
    block: int = 16,
    num_frames: int | None = None,
    size: int | tuple[int, int] | None = None,
    fit: str = "crop",
) -> Iterator[Tensor]:
    """Read a film from its beginning block by block, the pictures of ``read_video``; memory is that of a block.

    Args:
        path: as of ``read_video``.
        fps: pictures per second wanted.
        block: pictures a block.
        num_frames: pictures at most; a film that ends before is not held. None reads to the end.
        size: as of ``read_video``.
        fit: as of ``read_video``.

    Yields:
        (3, n, h, w) float32 in [-1, 1], n = ``block`` but for the last one.

    Raises:
        MediaError: if the file cannot be opened, has no pictures, or none decodes.
        ValueError: if an argument is out of range.
    """
    if fps <= 0 or block < 1 or (num_frames is not None and num_frames < 1):
        raise ValueError(f"fps, block and num_frames must be positive, got {fps}, {block}, {num_frames}")
    require_known(fit, FITS, "fit")
    wanted_size, rate = resolve_size(size), Fraction(fps).limit_denominator(100_000)
    with open_media(path) as container:
        stream, first, following = _first_picture(path, container)
        start = time_of(first, stream) or Fraction(0)
        shots = _shots(chain([first], following), stream, start=start, rate=rate, size=wanted_size, fit=fit)
        waiting: list[Tensor] = []
        for number, (shot, end) in enumerate(islice(shots, num_frames)):
            if end is not None and number:  # a film of one short picture has that one
                break
            waiting.append(shot)
            if len(waiting) == block:
                yield to_signed(torch.stack(waiting, dim=1))
                waiting = []
        if waiting:
            yield to_signed(torch.stack(waiting, dim=1))


def _first_picture(
    path: str | os.PathLike[str], container: InputContainer
) -> tuple[VideoStream, VideoFrame, Iterator[VideoFrame]]:
    """``first_picture``, or a MediaError that says why there is none."""
    found = first_picture(container)
    if found is not None:
        return found
    if picture_streams(container):
        raise MediaError(path, "has a stream of pictures, but none of them can be decoded (damaged or truncated)")
    raise MediaError(path, "has sound but no pictures" if container.streams.audio else "has no pictures")


def _pick(
    run: Iterator[VideoFrame],
    stream: VideoStream,
    *,
    start: Fraction,
    rate: Fraction,
    count: int | None,
    size: tuple[int, int] | None,
    fit: str,
) -> tuple[list[Tensor], int, Fraction | None]:
    """Pictures (3, h, w) uint8 on show at ``start + i / rate``; how many are held; the film's end where that was met.

    Without ``count``, as many as there are before the end; at least one picture in any case.
    """
    shots: list[Tensor] = []
    held_frames, end = 0, None
    for shot, end in islice(_shots(run, stream, start=start, rate=rate, size=size, fit=fit), count):
        if end is not None and count is None and shots:
            break
        held_frames += end is not None
        shots.append(shot)
    return shots, held_frames, end


def _shots(
    run: Iterator[VideoFrame],
    stream: VideoStream,
    *,
    start: Fraction,
    rate: Fraction,
    size: tuple[int, int] | None,
    fit: str,
) -> Iterator[tuple[Tensor, Fraction | None]]:
    """Pictures (3, h, w) uint8 on show at ``start + i / rate``, without end: behind the film's, its last one.

    With each stands None, or behind the end of the film the time of that end.
    """
    assert stream.time_base is not None, "a stream that decoded has a clock"
    half_tick = stream.time_base / 2
    usual = 1 / (stream.average_rate or stream.guessed_rate or Fraction(25))  # of a picture without a duration
    aspect = float(pixel_aspect(stream))
    placement, aspect_shown = Placement(), aspect
    current: VideoFrame | None = None
    shown_from, count = start, 0

    def shot_of(picture: VideoFrame) -> Tensor:
        nonlocal size
        shot = fit_picture(_upright(picture, placement), size, fit=fit, pixel_aspect=aspect_shown)
        size = (shot.shape[1], shot.shape[2])  # a film that changes its size keeps the first one
        return shot

    def until(time: Fraction) -> Iterator[Tensor]:
        """The current picture at the wanted times before ``time``."""
        nonlocal count
        assert current is not None, "a picture is on show"
        shot: Tensor | None = None
        while start + count / rate < time:
            shot = shot_of(current) if shot is None else shot
            count += 1
            yield shot

    for picture in run:
        time = time_of(picture, stream)
        if time is None:
            time = shown_from + usual if current is not None else start
        if current is None:
            placement = placement_of(picture)
            aspect_shown = 1 / aspect if placement.transpose else aspect
        else:
            for shot in until(time - half_tick):
                yield shot, None
        current, shown_from = picture, time
    assert current is not None, "there was at least one picture"
    lasts = current.duration * (current.time_base or stream.time_base) if current.duration else usual
    end = shown_from + lasts
    for shot in until(end - half_tick):
        yield shot, None
    last = shot_of(current)
    while True:
        yield last, end


def _upright(picture: VideoFrame, placement: Placement) -> Tensor:
    """A decoded picture of any pixel format as (3, h, w) uint8, turned the way it is shown."""
    if any(component.is_alpha for component in picture.format.components):
        pixels = over_white(picture.reformat(format="rgba", interpolation=_SCALER, threads=1).to_ndarray())
    else:
        pixels = picture.reformat(format="rgb24", interpolation=_SCALER, threads=1).to_ndarray()
    if placement.transpose:
        pixels = pixels.transpose(1, 0, 2)
    if placement.flip_x:
        pixels = pixels[:, ::-1]
    if placement.flip_y:
        pixels = pixels[::-1]
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def write_film(
    path: str | os.PathLike[str],
    frames: Tensor,
    *,
    fps: float | Fraction = 8.0,
    audio: Tensor | None = None,
    sample_rate: int = 16000,
    crf: int = 16,
) -> None:
    """Write a film with exact clocks, in full or not at all.

    ``.mp4`` and ``.mov`` become H.264 (yuv420p, BT.709) with AAC, playable everywhere and ready to stream. H.264 in
    this form needs even sides: an odd side grows by one, repeating the last row or column. The sound is cut or padded
    with silence to exactly ``round(t / fps * sample_rate)`` samples. ``.gif`` is an animation without sound, its
    pictures at the nearest hundredths of a second without drift.

    Args:
        path: file to write, ending in ``.mp4``, ``.mov`` or ``.gif``.
        frames: (3, t, h, w) float in [-1, 1]; values outside are clipped.
        fps: pictures per second.
        audio: (n,), (1, n) or (2, n) float in [-1, 1], or None for a silent film without a sound track.
        sample_rate: samples per second of ``audio``; below 16 kHz, or one that AAC does not know, is stored at 48 kHz.
        crf: H.264 quality, 0 (lossless) to 51; about 16 looks like the original.

    Raises:
        MediaError: if the file cannot be written or its ending is unknown.
        ValueError: if a tensor has another shape or a value that is not finite, or a number is out of range.
    """
    with FilmWriter(path, fps=fps, sample_rate=sample_rate, crf=crf) as film:
        film.add(frames, audio)


class FilmWriter:
    """Write a film block by block, in full or not at all; ``write_film`` with memory for one block.

        with FilmWriter("film.mp4", fps=8) as film:
            for frames, sound in blocks:
                film.add(frames, sound)

    Pictures and sound stand as near to each other in the file as blocks bring them. When the ``with`` block raises, or
    nothing was added, no file is left. A ``.gif`` needs all pictures at once, so they are kept, a byte a value.

    Args:
        path: as of ``write_film``.
        fps: pictures per second.
        sample_rate: as of ``write_film``.
        crf: as of ``write_film``.

    Raises:
        MediaError: if the ending is unknown.
        ValueError: if a number is out of range.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, fps: float | Fraction = 8.0, sample_rate: int = 16000, crf: int = 16
    ):
        self.path, self._suffix = path, require_suffix(path, FILM_SUFFIXES)
        if fps <= 0 or sample_rate < 1 or not 0 <= crf <= 51:
            raise ValueError(
                f"fps and sample_rate must be positive and crf 0 to 51, got fps={fps}, sample_rate={sample_rate}, "
                f"crf={crf}"
            )
        self.num_frames = 0  # written so far
        self._rate, self._crf, self._given_rate = Fraction(fps).limit_denominator(100_000), crf, sample_rate
        self._sample_rate = sample_rate if sample_rate in _AAC_RATES else 48000
        self._pictures: list[Tensor] = []  # of a .gif
        self._sound: Tensor | None = None  # (c, n) not yet encoded
        self._written = 0  # samples encoded
        self._resampler: soxr.ResampleStream | None = None
        self._track: AudioStream | None = None
        self._open = ExitStack()

    def __enter__(self) -> FilmWriter:
        """Take the place of the file."""
        self._scratch = self._open.enter_context(replacing(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file, or leave none."""
        try:
            if kind is None:
                self._finish()
        except BaseException:
            self._open.__exit__(*sys.exc_info())
            raise
        self._open.__exit__(kind, fault, trace)

    def add(self, frames: Tensor, audio: Tensor | None = None) -> None:
        """Append pictures and the sound beside them.

        The sound of all blocks together is cut or padded with silence to the pictures' length at the end, and may run
        ahead or behind before.

        Args:
            frames: (3, t, h, w) float in [-1, 1], of the first block's size; values outside are clipped.
            audio: (n,), (1, n) or (2, n) float in [-1, 1]; None in every block for a silent film.

        Raises:
            MediaError: if the file cannot be written, or sound is given to a .gif.
            ValueError: if a tensor has another shape or a value that is not finite.
        """
        if frames.ndim != 4 or frames.shape[0] != 3 or 0 in frames.shape:
            raise ValueError(f"frames must be (3, t, h, w), got {tuple(frames.shape)}")
        pictures = to_bytes(frames).permute(1, 2, 3, 0).contiguous()  # (t, h, w, 3)
        sound = as_sound(audio) if audio is not None else None
        if self._suffix == ".gif":
            if sound is not None:
                raise MediaError(self.path, "a .gif holds no sound; choose .mp4, or write it without the sound")
            self._pictures.append(pictures)
            self.num_frames += len(pictures)
            return
        if not self.num_frames:
            self._begin(pictures, sound)
        elif (sound is None) != (self._track is None) or tuple(pictures.shape[1:3]) != self._size:
            raise ValueError("every block of a film has sound, or none has, and pictures of one size")
        if sound is not None:
            self._append(self._resample(sound))
        self._encode(pictures)

    def _begin(self, pictures: Tensor, sound: Tensor | None) -> None:
        options = {"movflags": "+faststart"}  # the index in front: a browser plays before it has everything
        form = self._suffix.removeprefix(".")
        self._container = self._open.enter_context(av.open(f"file:{self._scratch}", "w", format=form, options=options))
        _, height, width, _ = pictures.shape
        self._size = (height, width)
        video = self._container.add_stream(
            "libx264", rate=self._rate, options={"crf": str(self._crf), "preset": "medium"}
        )
        video.width, video.height = width + width % 2, height + height % 2
        video.pix_fmt = "yuv420p"
        context = video.codec_context
        context.time_base = 1 / self._rate
        context.colorspace, context.color_primaries, context.color_trc = 1, 1, 1  # BT.709, as converted to below
        context.color_range = ColorRange.MPEG
        self._video: VideoStream = video
        if sound is not None:
            layout = "mono" if sound.shape[0] == 1 else "stereo"
            self._track = self._container.add_stream("aac", rate=self._sample_rate, layout=layout)
            # close to the most AAC can spend (6144 bits a channel and frame): short films, little noise
            self._track.codec_context.bit_rate = min(128_000, 5 * self._sample_rate) * sound.shape[0]
            self._sound = sound[:, :0]

    def _resample(self, sound: Tensor, *, last: bool = False) -> Tensor:
        """The sound at a rate that AAC knows; a band-limited filter holds some of it back until the end."""
        if self._sample_rate == self._given_rate:
            return sound
        if self._resampler is None:
            self._resampler = soxr.ResampleStream(
                self._given_rate, self._sample_rate, sound.shape[0], dtype="float32", quality="HQ"
            )
        block = self._resampler.resample_chunk(np.ascontiguousarray(sound.numpy().T), last=last)
        return torch.from_numpy(block.reshape(-1, sound.shape[0]).T.copy())

    def _append(self, sound: Tensor) -> None:
        assert self._sound is not None, "the first block said whether there is sound"
        self._sound = torch.cat([self._sound, sound], 1)

    def _encode(self, pictures: Tensor) -> None:
        """One second of pictures, then the sound under them, so that players find both at the same place."""
        height, width = self._size
        for pixels in pictures.numpy():
            padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            picture = VideoFrame.from_ndarray(padded, format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=_SCALER,
                threads=1,
            )
            picture.pts, picture.time_base, picture.duration = self.num_frames, 1 / self._rate, 1
            _mux(self._container, self._video, self._video.encode(picture))
            self.num_frames += 1
            if self.num_frames % max(1, round(self._rate)) == 0:
                self._encode_sound(int(self.num_frames / self._rate * self._sample_rate) // 1024 * 1024)

    def _encode_sound(self, until: int) -> None:
        """Encode samples up to ``until``, as far as they are there, in whole AAC frames of 1024 but for the last."""
        if self._track is None or self._sound is None:
            return
        there = min(until, self._written + self._sound.shape[1])
        count = there - self._written if there == until else (there - self._written) // 1024 * 1024
        for at in range(0, count, 1024):
            piece = self._sound[:, at : min(at + 1024, count)].contiguous().numpy()
            frame = AudioFrame.from_ndarray(piece, format="fltp", layout="mono" if len(piece) == 1 else "stereo")
            frame.sample_rate, frame.pts = self._sample_rate, self._written + at
            frame.time_base = Fraction(1, self._sample_rate)
            self._container.mux(self._track.encode(frame))
        self._sound = self._sound[:, max(count, 0) :].clone()
        self._written += max(count, 0)

    def _finish(self) -> None:
        if not self.num_frames:
            raise ValueError(f"{self.path}: no pictures were added to the film")
        if self._suffix == ".gif":
            _write_gif(self._scratch, torch.cat(self._pictures), self._rate)
            return
        if self._track is not None and self._sound is not None:
            if self._resampler is not None:
                self._append(self._resample(self._sound[:, :0], last=True))
            wanted = round(self.num_frames / self._rate * self._sample_rate)
            missing = wanted - self._written - self._sound.shape[1]
            self._sound = F.pad(self._sound, (0, missing))  # a negative number crops
            self._encode_sound(wanted)
        _mux(self._container, self._video, self._video.encode(None))
        if self._track is not None:
            self._container.mux(self._track.encode(None))


def _mux(container: OutputContainer, video: VideoStream, packets: list[av.Packet]) -> None:
    for packet in packets:
        packet.duration = packet.duration or 1  # without it the last picture would last no time
        container.mux(packet)


def _write_gif(path: Path, pictures: Tensor, rate: Fraction) -> None:
    """Write pictures (t, h, w, 3) uint8 as an endless animation, one palette a picture."""
    ends = [round((index + 1) * 100 / rate) for index in range(len(pictures))]  # hundredths of a second
    lasts_ms = [10 * max(1, end - begin) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    images = [Image.fromarray(picture.numpy()) for picture in pictures]
    images[0].save(path, format="GIF", save_all=True, append_images=images[1:], duration=lasts_ms, loop=0)
