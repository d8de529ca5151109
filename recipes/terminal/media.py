"""Media through tokenizers alone: what ``reconstruct`` and ``tokenize`` share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.bundle.named import Tokenizers
from recipes.terminal.report import note


@dataclass(frozen=True)
class Media:
    """What a file holds, at the tokenizers' size, clock and rate.

    Attributes:
        frames: (1, 3, t, h, w) in [-1, 1], or None.
        sound: (1, 1, n) in [-1, 1], or None.
    """

    frames: Any
    sound: Any


def read_media(path: str, tokenizers: Tokenizers, *, size: int, seconds: float) -> Media:
    """Read what the tokenizers can take of a file: picture, film with or without sound, or sound.

    Args:
        path: the file.
        tokenizers: what is there to take it.
        size: side of the pictures, pixels.
        seconds: longest piece read; a note tells when something is left out.

    Returns:
        Pictures and sound; both of the same length for a film with sound.

    Raises:
        MediaError: if the file cannot be read.
        ValueError: if nothing in it suits the tokenizers.
    """
    import torch

    from mmtok.media.audio import read_audio, stream_audio
    from mmtok.media.video import probe, read_video

    info = probe(path)
    if info.duration_s and info.duration_s > seconds + 0.05:
        note(f"{path}: {info.duration_s:.1f} s long, the first {seconds:g} s are taken (--seconds)")
    frames = sound = None
    if info.has_video and tokenizers.visual is not None:
        most = max(1, round(seconds * tokenizers.fps))
        if info.num_frames == 1:
            most = 1
        elif info.duration_s:  # no more than there is, so that a short clip is not held for minutes in memory
            most = min(most, math.ceil(info.duration_s * tokenizers.fps) + 1)
        clip = read_video(path, fps=tokenizers.fps, num_frames=most, size=size)
        frames = clip.frames[None, :, : most - clip.held_frames]
    if info.has_audio and tokenizers.audio is not None:
        rate = tokenizers.audio.sample_rate
        if frames is not None:  # exactly as long as the pictures
            wanted = round(frames.shape[2] / tokenizers.fps * rate)
            sound = read_audio(path, sample_rate=rate, num_samples=wanted).samples[None]
        else:
            blocks = list(stream_audio(path, sample_rate=rate, most_s=seconds))  # no room for what is not there
            if not blocks:
                raise ValueError(f"{path} is too short: its sound gives no sample at {rate} Hz")
            sound = torch.cat(blocks, -1)[None]
    if frames is None and sound is None:
        has = " and ".join(["pictures"] * info.has_video + ["sound"] * info.has_audio)
        takes = " and ".join(
            ["pictures"] * (tokenizers.visual is not None) + ["sound"] * (tokenizers.audio is not None)
        )
        raise ValueError(f"{path} has {has or 'nothing to tokenize'}, but {tokenizers.source} takes {takes} only")
    if info.has_audio and sound is None:
        note(f"{path}: its sound is left out, as {tokenizers.source} takes pictures only")
    return Media(frames, sound)


def long_sound_s(path: str, tokenizers: Tokenizers, seconds: float) -> float | None:
    """Whether a file is a sound so long that it is coded block by block.

    Args:
        path: the file.
        tokenizers: what is there to take it.
        seconds: longest piece wanted.

    Returns:
        Its length in seconds (the most it can have where the file does not tell), or None for anything else: pictures
        that are taken too, a short sound, a tokenizer that cannot stream.

    Raises:
        MediaError: if the file cannot be read.
        ValueError: if it is so long that a tokenizer which cannot stream would fill the memory.
    """
    from mmtok.audio import long_sound
    from mmtok.contract import Streaming
    from mmtok.media.video import probe

    info = probe(path)
    if not info.has_audio or tokenizers.audio is None or (info.has_video and tokenizers.visual is not None):
        return None
    length = min(info.duration_s or math.inf, seconds)
    if length <= long_sound.LONG_SOUND_S:
        return None
    if not isinstance(tokenizers.audio, Streaming):
        if length > long_sound.WHOLE_SOUND_S:
            raise ValueError(
                f"{path}: {tokenizers.source} codes a sound as a whole, which takes too much memory for {length:g} s; "
                f"take at most --seconds {long_sound.WHOLE_SOUND_S:g}, or a SoundStream, which goes block by block"
            )
        return None
    if info.duration_s and info.duration_s > seconds + 0.05:
        note(f"{path}: {info.duration_s:.1f} s long, the first {seconds:g} s are taken (--seconds)")
    return length


def output_endings(media: Media) -> tuple[str, ...]:
    """Endings that suit what was read.

    Args:
        media: pictures, sound or both.

    Returns:
        With the dot, lower case.
    """
    from mmtok.media.audio import SOUND_SUFFIXES
    from mmtok.media.video import FILM_SUFFIXES

    if media.frames is None:
        return SOUND_SUFFIXES
    endings = tuple(s for s in FILM_SUFFIXES if s != ".gif" or media.sound is None)
    return (".png", *endings) if media.frames.shape[2] == 1 else endings


def write_media(path: Path, media: Media, *, fps: float, sample_rate: int) -> None:
    """Write a picture, a film or a sound, by the ending of the name.

    Args:
        path: the file.
        media: what to write.
        fps: pictures per second.
        sample_rate: Hz.

    Raises:
        MediaError: if it cannot be written.
    """
    from mmtok.media.audio import write_wav
    from mmtok.media.image import write_png
    from mmtok.media.video import write_film

    if media.frames is None:
        write_wav(path, media.sound[0], sample_rate)
    elif path.suffix.lower() == ".png":
        write_png(path, media.frames[0, :, 0])
    else:
        sound = None if media.sound is None else media.sound[0]
        write_film(path, media.frames[0], fps=fps, audio=sound, sample_rate=sample_rate)
