"""Sound in and out: any sound track to (c, n) floats in [-1, 1] at a wanted rate, and WAV back.

Reading goes through FFmpeg (PyAV) and follows the timestamps of the file, which is how the silence that AAC and MP3
encoders put in front is left out and how the sound of a film keeps its place under the pictures. Shape letters: c
channels, n samples.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import numpy as np
import soundfile
import soxr
import torch
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from torch import Tensor

from mmtok.media.container import (
    MediaInfo,
    decode,
    facts_of,
    jump,
    open_media,
    picture_streams,
    replacing,
    require_suffix,
    sound_streams,
    survey,
    time_of,
)
from mmtok.media.errors import MediaError

SOUND_SUFFIXES = (".wav",)
_SLACK_S = 0.04  # timestamps of web containers are rounded, and recorders jitter: below this, samples are continuous
_BROKEN_CLOCK_S = 600  # a longer hole is a broken timestamp rather than silence
_SEEK_FROM_S = 5  # an earlier start is reached sooner by decoding than by a jump
_SEEK_FROM_IN_FILMS_S = 60  # where stamps jitter by milliseconds, a jump changes the result by as much: seldom jump
_RUN_UP_S = Fraction(1)  # decoders that build on earlier frames are right again after this time
_LONGEST_HOLE = 1 << 20  # samples of silence at a time
_LONGEST_FRAME = 4096  # samples in a frame of any codec that mp4 carries
_MARGIN_S = 0.1  # read past a requested end, so that the resampler's window sees real samples
_LARGEST = 16.0  # a float file beyond this does not hold samples around [-1, 1]


@dataclass(frozen=True)
class AudioClip:
    """A piece of sound.

    Attributes:
        samples: (c, n) float32 in [-1, 1].
        sample_rate: samples per second.
        info: facts of the file it came from.
        padded_samples: how many samples at the end are silence because the file ends before.
    """

    samples: Tensor
    sample_rate: int
    info: MediaInfo
    padded_samples: int = 0


def read_audio(
    path: str | os.PathLike[str],
    *,
    sample_rate: int = 16000,
    num_samples: int | None = None,
    start_s: float = 0.0,
    channels: int = 1,
) -> AudioClip:
    """Read the first sound track of a file, resampled and mixed.

    Time zero is the first picture of a film and the first sample of a sound file. Where a film's sound begins later or
    has holes, silence stands in; sound before the first picture is left out. Peaks beyond [-1, 1], which lossy
    decoders produce, are clipped.

    Args:
        path: sound file or film: WAV, FLAC, MP3, OGG, MP4, WebM and whatever else FFmpeg reads.
        sample_rate: samples per second wanted.
        num_samples: exact number of samples wanted, cropped or padded with silence; None reads to the end.
        start_s: where to begin, in seconds.
        channels: 1 takes the mean of all channels, 2 keeps left and right (centre channels go to both).

    Returns:
        The sound, (channels, num_samples).

    Raises:
        MediaError: if the file cannot be opened, has no sound, none of it decodes, it holds NaN or infinite samples,
            or a sound file ends before ``start_s``.
        ValueError: if an argument is out of range.
    """
    if sample_rate < 1 or start_s < 0 or channels not in (1, 2) or (num_samples is not None and num_samples < 1):
        raise ValueError(
            "sample_rate and num_samples must be positive, start_s >= 0 and channels 1 or 2, got "
            f"sample_rate={sample_rate}, num_samples={num_samples}, start_s={start_s}, channels={channels}"
        )
    wanted_s = None if num_samples is None else num_samples / sample_rate + _MARGIN_S
    sound, rate, info = _decode_sound(path, start_s=start_s, wanted_s=wanted_s, channels=channels)
    if rate != sample_rate and sound.size:
        sound = soxr.resample(sound.T, rate, sample_rate, quality="HQ").reshape(-1, channels).T
    padded = 0
    if num_samples is not None:
        padded = max(0, num_samples - sound.shape[1])
        sound = np.pad(sound[:, :num_samples], ((0, 0), (0, padded)))
    samples = torch.from_numpy(np.ascontiguousarray(sound, dtype=np.float32)).clamp_(-1.0, 1.0)
    return AudioClip(samples=samples, sample_rate=sample_rate, info=info, padded_samples=padded)


def stream_audio(
    path: str | os.PathLike[str],
    *,
    sample_rate: int = 16000,
    block_s: float = 8.0,
    most_s: float | None = None,
    channels: int = 1,
) -> Iterator[Tensor]:
    """Read the first sound track of a file block by block, as ``read_audio`` reads the whole of it.

    Memory does not grow with the length, so this is for recordings of hours.

    Args:
        path: sound file or film.
        sample_rate: samples per second wanted.
        block_s: length of a block, in seconds.
        most_s: stop after so many seconds; None reads to the end.
        channels: as of ``read_audio``.

    Yields:
        (channels, n) float32 in [-1, 1], every block but the last ``block_s`` long.

    Raises:
        MediaError: as ``read_audio``.
        ValueError: if an argument is out of range.
    """
    if sample_rate < 1 or block_s <= 0 or (most_s is not None and most_s <= 0):
        raise ValueError(f"sample_rate, block_s and most_s must be positive, got {sample_rate}, {block_s}, {most_s}")
    if channels not in (1, 2):
        raise ValueError(f"channels must be 1 or 2, got {channels}")
    block = max(1, round(block_s * sample_rate))
    left = None if most_s is None else max(1, round(most_s * sample_rate))
    waiting: list[np.ndarray] = []
    held = 0
    for piece in _resampled(_sound_pieces(path, most_s=most_s, channels=channels), sample_rate):
        waiting.append(piece)
        held += len(piece)
        while held >= block and (left is None or left > block):
            joined = np.concatenate(waiting)
            yield _as_block(joined[:block])
            waiting, held = [joined[block:]], held - block
            left = None if left is None else left - block
        if left is not None and held >= left:
            break
    joined = np.concatenate([np.zeros((0, channels), dtype=np.float32), *waiting])[:left]
    if len(joined):
        yield _as_block(joined)


def _as_block(samples: np.ndarray) -> Tensor:
    return torch.from_numpy(samples.T.copy()).clamp_(-1.0, 1.0)


def _sound_pieces(
    path: str | os.PathLike[str], *, most_s: float | None, channels: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Samples (n, channels) at the file's own rate, and that rate; what only fills up a last AAC frame is cut."""
    with open_media(path) as container:
        track = _sound_track(path, container)
        wanted_s = None if most_s is None else most_s + _MARGIN_S
        filled, tail = 0, np.zeros((0, channels), dtype=np.float32)
        for piece in _lay(
            path, track.frames, track.stream, start=track.zero, start_s=0.0, wanted_s=wanted_s, channels=channels
        ):
            filled += piece.shape[1]
            tail = np.concatenate([tail, piece.T])
            yield tail[:-_LONGEST_FRAME], track.rate
            tail = tail[-_LONGEST_FRAME:]
        surplus = _encoder_padding(container, track.stream, filled, track.zero, track.rate)
        yield tail[: len(tail) - surplus], track.rate


@dataclass(frozen=True)
class _Track:
    """The first sound track of an open file: its facts, its clock's zero, its rate and all of its decoded frames."""

    info: MediaInfo
    stream: AudioStream
    zero: Fraction
    rate: int
    frames: Iterator[AudioFrame]


def _sound_track(path: str | os.PathLike[str], container: InputContainer) -> _Track:
    """Begin to decode, or a MediaError that says why there is nothing to hear."""
    info, zero = survey(path) if picture_streams(container) else (facts_of(container, None, None), None)
    streams = sound_streams(container)
    if not streams:
        raise MediaError(path, "has pictures but no sound" if info.has_video else "has no sound track")
    stream = streams[0]
    following: Iterator[AudioFrame] = decode(container, stream)  # type: ignore[assignment]
    first = next(following, None)
    if first is None:
        raise MediaError(path, "has a sound track, but none of it can be decoded (empty, damaged or truncated)")
    if zero is None:
        zero = time_of(first, stream) or Fraction(0)
    return _Track(info, stream, zero, first.sample_rate, chain([first], following))


def _resampled(pieces: Iterator[tuple[np.ndarray, int]], sample_rate: int) -> Iterator[np.ndarray]:
    """Pieces (n, c) at another rate; the filter's state goes from piece to piece."""
    resampler = None
    for samples, rate in pieces:
        if rate == sample_rate:
            yield samples
            continue
        if resampler is None:
            channels = samples.shape[1]
            resampler = soxr.ResampleStream(rate, sample_rate, channels, dtype="float32", quality="HQ")
        if len(samples):
            yield resampler.resample_chunk(np.ascontiguousarray(samples)).reshape(-1, channels)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True).reshape(-1, channels)


def _decode_sound(
    path: str | os.PathLike[str], *, start_s: float, wanted_s: float | None, channels: int
) -> tuple[np.ndarray, int, MediaInfo]:
    """Samples (channels, n) from ``start_s`` on at the file's own rate, that rate, and the facts of the file."""
    for may_seek in (True, False):
        with open_media(path) as container:
            track = _sound_track(path, container)
            info, stream, rate = track.info, track.stream, track.rate
            start = track.zero + Fraction(start_s)
            run: Iterator[AudioFrame] | None = track.frames
            if may_seek and start_s > (_SEEK_FROM_IN_FILMS_S if info.has_video else _SEEK_FROM_S):
                run = jump(container, stream, start - _RUN_UP_S, latest=start - _RUN_UP_S / 2)  # type: ignore[assignment]
            if run is None:  # the jump landed too late or failed: decode from the beginning
                continue
            pieces = _lay(path, run, stream, start=start, start_s=start_s, wanted_s=wanted_s, channels=channels)
            sound = np.concatenate([np.zeros((channels, 0), dtype=np.float32), *pieces], axis=1)
            sound = sound[:, : sound.shape[1] - _encoder_padding(container, stream, sound.shape[1], start, rate)]
        break
    if not sound.size and not info.has_video:
        raise MediaError(path, f"ends before the requested start of {start_s:g} s")
    return sound, rate, info


def _lay(
    path: str | os.PathLike[str],
    run: Iterator[AudioFrame],
    stream: AudioStream,
    *,
    start: Fraction,
    start_s: float,
    wanted_s: float | None,
    channels: int,
) -> Iterator[np.ndarray]:
    """Lay decoded frames at the places their timestamps name, counted from ``start``: (channels, n) float32 pieces."""
    filled = 0  # samples put together so far
    position: int | None = None  # where the next decoded sample belongs
    rate, wanted = 0, math.inf
    for frame in run:
        time = time_of(frame, stream)
        stamped = None if time is None else round((time - start) * frame.sample_rate)
        if position is None:
            rate = frame.sample_rate
            wanted = math.inf if wanted_s is None else math.ceil(wanted_s * rate)
            position = stamped if stamped is not None else round(-start_s * rate)
        elif frame.sample_rate != rate:
            break  # chained streams: what follows the change is another recording
        elif stamped is not None and _SLACK_S * rate < abs(stamped - position) < _BROKEN_CLOCK_S * rate:
            position = stamped
        if position + frame.samples > filled:
            mixed = _mix(frame, channels)
            if not np.isfinite(mixed).all():
                raise MediaError(
                    path, f"sound contains NaN or infinite samples (near {position / rate + start_s:.2f} s)"
                )
            if np.abs(mixed).max() > _LARGEST:
                raise MediaError(
                    path, f"sound has samples up to {np.abs(mixed).max():.0f}, expected [-1, 1]; rescale it"
                )
            end = int(min(position, wanted))
            while filled < end:  # a hole, or a late beginning
                piece = np.zeros((channels, min(end - filled, _LONGEST_HOLE)), dtype=np.float32)
                filled += piece.shape[1]
                yield piece
            if position <= filled:
                piece = mixed[:, filled - position :]
                filled += piece.shape[1]
                yield piece
        position += frame.samples
        if filled >= wanted:
            break


def _encoder_padding(container: InputContainer, stream: AudioStream, filled: int, start: Fraction, rate: int) -> int:
    """How many of ``filled`` samples since ``start`` only fill up the last AAC frame, by the index of an mp4 file."""
    if "mp4" not in container.format.name or not stream.duration or stream.time_base is None:
        return 0  # elsewhere the decoder cuts them, or the length is an estimate
    end = round((((stream.start_time or 0) + stream.duration) * stream.time_base - start) * rate)
    surplus = filled - end
    return surplus if 0 < surplus <= min(filled, _LONGEST_FRAME) else 0


def _mix(frame: AudioFrame, channels: int) -> np.ndarray:
    """One decoded frame as (channels, n) float32 around [-1, 1]."""
    raw = frame.to_ndarray()
    if not frame.format.is_planar:
        raw = raw.reshape(-1, len(frame.layout.channels)).T  # (c, n)
    if raw.dtype == np.uint8:
        sound = (raw.astype(np.float32) - 128.0) / 128.0
    elif raw.dtype.kind == "i":
        sound = raw.astype(np.float32) / 2.0 ** (8 * raw.dtype.itemsize - 1)
    else:
        sound = raw.astype(np.float32)
    if channels == 1:
        return sound.mean(axis=0, keepdims=True)
    if sound.shape[0] < 3:
        return np.broadcast_to(sound, (2, sound.shape[1])).astype(np.float32)
    names = [channel.name for channel in frame.layout.channels]
    left = [index for index, name in enumerate(names) if not name.endswith("R")]
    right = [index for index, name in enumerate(names) if not name.endswith("L")]
    return np.stack([sound[left].mean(axis=0), sound[right].mean(axis=0)])


def resample(samples: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the rate of a sound with a band-limited filter.

    Args:
        samples: (c, n) float.
        from_rate: samples per second of ``samples``.
        to_rate: samples per second wanted.

    Returns:
        (c, round(n * to_rate / from_rate)) float32.
    """
    array = samples.detach().to("cpu", torch.float32).numpy()
    if from_rate == to_rate:
        return torch.from_numpy(array.copy())
    resampled = soxr.resample(array.T, from_rate, to_rate, quality="HQ").reshape(-1, array.shape[0])
    return torch.from_numpy(np.ascontiguousarray(resampled.T))


def as_sound(samples: Tensor) -> Tensor:
    """Check a sound that is to be written.

    Args:
        samples: (n,), (1, n) or (2, n) float.

    Returns:
        (c, n) float32 on the CPU, clipped to [-1, 1].

    Raises:
        ValueError: if the shape is another or a value is not finite.
    """
    samples = samples.detach().to("cpu", torch.float32)
    if samples.ndim == 1:
        samples = samples[None]
    if samples.ndim != 2 or samples.shape[0] not in (1, 2):
        raise ValueError(f"audio must be (n,), (1, n) or (2, n), got {tuple(samples.shape)}")
    if not torch.isfinite(samples).all():
        raise ValueError("audio contains NaN or infinite samples")
    return samples.clamp(-1.0, 1.0)


def write_wav(path: str | os.PathLike[str], samples: Tensor, sample_rate: int = 16000) -> None:
    """Write a sound as a 16-bit WAV file, in full or not at all.

    Args:
        path: file ending in ``.wav``.
        samples: (n,), (1, n) or (2, n) float in [-1, 1]; values outside are clipped.
        sample_rate: samples per second.

    Raises:
        MediaError: if the file cannot be written.
        ValueError: if ``samples`` has another shape or a value that is not finite.
    """
    require_suffix(path, SOUND_SUFFIXES)
    sound = as_sound(samples)
    with replacing(path) as scratch:
        try:
            soundfile.write(scratch, sound.T.numpy(), sample_rate, format="WAV", subtype="PCM_16")
        except soundfile.LibsndfileError as error:
            raise MediaError(path, f"cannot be written ({error})") from error


def write_wav_blocks(path: str | os.PathLike[str], blocks: Iterable[Tensor], sample_rate: int = 16000) -> int:
    """Write a sound that arrives in blocks as a 16-bit WAV file, in full or not at all.

    Args:
        path: file ending in ``.wav``; more than 4 GB, which is 37 hours at 16 kHz, do not fit into one.
        blocks: (n,), (1, n) or (2, n) float in [-1, 1], all of the same number of channels.
        sample_rate: samples per second.

    Returns:
        Samples written.

    Raises:
        MediaError: if the file cannot be written.
        ValueError: as ``write_wav``, or if there is no block.
    """
    require_suffix(path, SOUND_SUFFIXES)
    written = 0
    with replacing(path) as scratch, contextlib.ExitStack() as stack:
        file: soundfile.SoundFile | None = None
        for block in blocks:
            sound = as_sound(block)
            try:
                if file is None:
                    options = {"samplerate": sample_rate, "channels": len(sound), "format": "WAV", "subtype": "PCM_16"}
                    file = stack.enter_context(soundfile.SoundFile(scratch, "w", **options))
                file.write(sound.T.numpy())
            except soundfile.LibsndfileError as error:
                raise MediaError(path, f"cannot be written ({error})") from error
            written += sound.shape[1]
        if file is None:
            raise ValueError(f"{path}: there is no sound to write")
    return written
