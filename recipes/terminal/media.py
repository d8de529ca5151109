"""Media through tokenizers alone: what ``reconstruct`` and ``tokenize`` share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.bundle.named import Tokenizers
from recipes.terminal.report import describe_film, describe_sound, note


@dataclass(frozen=True)
class Media:
    """What a file holds, at the tokenizers' size, clock and rate.

    Attributes:
        frames: (1, 3, t, h, w) in [-1, 1], or None.
        sound: (1, 1, n) in [-1, 1], or None.
        long_sound_s: most seconds of a sound alone that is so long that it is coded block by block, not read; or None.
    """

    frames: Any = None
    sound: Any = None
    long_sound_s: float | None = None

    @property
    def has_sound(self) -> bool:
        """Whether there is any, read or not."""
        return self.sound is not None or self.long_sound_s is not None


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
        ValueError: if nothing in it suits the tokenizers, or a sound is so long that a tokenizer which cannot stream
            would fill the memory.
    """
    import torch

    from mmtok.audio.long_sound import LONG_SOUND_S, WHOLE_SOUND_S
    from mmtok.contract import Streaming
    from mmtok.media.audio import read_audio, stream_audio
    from mmtok.media.video import probe, read_video

    info = probe(path)
    seen = info.has_video and tokenizers.visual is not None
    heard = info.has_audio and tokenizers.audio is not None
    length_s = min(info.duration_s or math.inf, seconds)
    in_blocks = heard and not seen and length_s > LONG_SOUND_S and isinstance(tokenizers.audio, Streaming)
    if heard and not seen and not in_blocks and length_s > WHOLE_SOUND_S:
        raise ValueError(
            f"{path}: {tokenizers.source} codes a sound as a whole, which takes too much memory for {length_s:g} s; "
            f"take at most --seconds {WHOLE_SOUND_S:g}, or a SoundStream, which goes block by block"
        )
    if info.duration_s and info.duration_s > seconds + 0.05:
        note(f"{path}: {info.duration_s:.1f} s long, the first {seconds:g} s are taken (--seconds)")
    if in_blocks:
        return Media(long_sound_s=length_s)
    frames = sound = None
    if seen:
        most = max(1, round(seconds * tokenizers.fps))
        if info.num_frames == 1:
            most = 1
        elif info.duration_s:  # no more than there is, so that a short clip is not held for minutes in memory
            most = min(most, math.ceil(info.duration_s * tokenizers.fps) + 1)
        clip = read_video(path, fps=tokenizers.fps, num_frames=most, size=size)
        frames = clip.frames[None, :, : most - clip.held_frames]
    if heard:
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


def output_endings(media: Media) -> tuple[str, ...]:
    """Endings that suit what was read, lower case with the dot."""
    from mmtok.media.audio import SOUND_SUFFIXES
    from mmtok.media.video import FILM_SUFFIXES

    if media.frames is None:
        return SOUND_SUFFIXES
    endings = tuple(s for s in FILM_SUFFIXES if s != ".gif" or media.sound is None)
    return (".png", *endings) if media.frames.shape[2] == 1 else endings


def write_media(path: Path, media: Media, *, fps: float, sample_rate: int, preview: Path | None = None) -> str:
    """Write a picture, a film or a sound, by the ending of the name.

    Args:
        path: the file.
        media: what to write.
        fps: pictures per second.
        sample_rate: Hz.
        preview: also receives a sheet of the pictures with the spectrogram.

    Returns:
        The line that names it.

    Raises:
        MediaError: if it cannot be written.
    """
    from mmtok.media.audio import write_wav
    from recipes.pipeline.output import Output

    if media.frames is None:
        write_wav(path, media.sound[0], sample_rate)
        return describe_sound(path, media.sound.shape[-1], sample_rate)
    Output(media.frames, fps, media.sound, sample_rate, codes={}).save(path, preview=preview)
    return describe_film(path, media.frames, fps, media.sound is not None)
