"""Media through tokenizers alone: what ``reconstruct`` and ``tokenize`` share."""

from __future__ import annotations

import argparse
import contextlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmtok.audio.long_sound import LONG_SOUND_S, WHOLE_SOUND_S
from recipes.terminal.report import note, number


@dataclass(frozen=True)
class Tokenizers:
    """The tokenizers of a bundle, or a single one.

    Attributes:
        visual: a ``VisualTokenizer``, or None.
        audio: an ``AudioTokenizer``, or None.
        fps: pictures per second.
        size: usual side of the pictures, pixels.
        clip: pictures that are encoded together.
        source: name or folder, for the record.
    """

    visual: Any
    audio: Any
    fps: float
    size: int
    clip: int
    source: str


def load_tokenizers(name: str, device: Any, levels: int | None = None) -> Tokenizers:
    """The tokenizers of a bundle by name or folder, or one tokenizer by folder or hub id.

    Args:
        name: such as "tiny".
        device: torch device.
        levels: of the codes of sound, where that is a choice; None leaves it to the tokenizer.

    Returns:
        The tokenizers.

    Raises:
        FileNotFoundError: if there is no such bundle or tokenizer.
        ValueError: if it is neither a visual nor an audio tokenizer, or levels are chosen where there is no choice.
    """
    import mmtok
    from mmtok.loading import family_of
    from mmtok.pretrained import resolve_folder
    from mmtok.table import FAMILIES
    from recipes.bundle.folder import BUNDLE_FILE, embedded_names, open_bundle

    if Path(name).is_file():
        raise ValueError(f"{name} is a file; cinepoet convert makes a folder of published weights")
    folder: Path | None = None  # of a single tokenizer
    if name not in embedded_names():
        with contextlib.suppress(FileNotFoundError):  # open_bundle then tells the known names
            folder = resolve_folder(name)
    if folder is None or (folder / BUNDLE_FILE).is_file():
        bundle = open_bundle(name)
        options = {"visual": {}, "audio": {"num_codebooks": levels}}
        parts = {p: mmtok.load(bundle.part(p), device=device, **o) for p, o in options.items() if bundle.has(p)}
        config = bundle.config
        size = max(config.size, config.upscaled_size)
        if getattr(parts.get("visual"), "needs_size", False):  # it works at the size that it was trained for
            size = config.size
        return Tokenizers(parts.get("visual"), parts.get("audio"), config.fps, size, config.num_frames, name)
    kind = FAMILIES[family_of(folder)].kind
    if kind not in ("visual", "audio"):
        raise ValueError(f"{name} is a {kind} encoder; a visual or audio tokenizer is needed")
    tokenizer = mmtok.load(folder, device=device, num_codebooks=levels)
    if kind == "audio":
        return Tokenizers(None, tokenizer, 8.0, 128, 17, name)
    size = getattr(tokenizer.params, "size", 128)
    return Tokenizers(tokenizer, None, tokenizer.fps, size, tokenizer.valid_num_frames(17), name)


def add_long_and_large(parser: argparse.ArgumentParser) -> None:
    """The options ``--stream`` and ``--tile``.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--stream", action="store_true", help="one long clip with carried state, instead of clips that start anew"
    )
    add_tile(parser)


def add_levels(parser: argparse.ArgumentParser) -> None:
    """The option ``--levels``.

    Args:
        parser: of the command.
    """
    parser.add_argument(
        "--levels", type=number(int, 1), metavar="N", help="of a codec's codes of sound (default: as saved, or all)"
    )


def add_tile(parser: argparse._ActionsContainer) -> None:
    """The option ``--tile``.

    Args:
        parser: of the command, or a group of it.
    """
    parser.add_argument(
        "--tile", type=number(int, 8), metavar="PX", help="large pictures in tiles of this side (approximate)"
    )


def in_tiles(tokenizers: Tokenizers, tile: int | None) -> Tokenizers:
    """The tokenizers with the visual one working on tiles.

    Args:
        tokenizers: as loaded.
        tile: side of a tile, pixels; neighbours share a quarter. None leaves everything as it is.

    Returns:
        The tokenizers.

    Raises:
        ValueError: if there is no visual tokenizer or the tile does not fit its stride.
    """
    from mmtok.visual.tiling import TiledTokenizer

    if tile is None:
        return tokenizers
    if tokenizers.visual is None:
        raise ValueError(f"--tile is for pictures, and {tokenizers.source} has no visual tokenizer")
    step = math.lcm(*tokenizers.visual.stride[1:])
    overlap = tile // 4 // step * step
    return replace(tokenizers, visual=TiledTokenizer(tokenizers.visual, tile=tile, overlap=overlap))


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
    from mmtok.media.video import probe

    info = probe(path)
    if not info.has_audio or tokenizers.audio is None or (info.has_video and tokenizers.visual is not None):
        return None
    length = min(info.duration_s or math.inf, seconds)
    if length <= LONG_SOUND_S:
        return None
    if not hasattr(tokenizers.audio, "encode_stream"):
        if length > WHOLE_SOUND_S:
            raise ValueError(
                f"{path}: {tokenizers.source} codes a sound as a whole, which takes too much memory for {length:g} s; "
                f"take at most --seconds {WHOLE_SOUND_S:g}, or a SoundStream, which goes block by block"
            )
        return None
    if info.duration_s and info.duration_s > seconds + 0.05:
        note(f"{path}: {info.duration_s:.1f} s long, the first {seconds:g} s are taken (--seconds)")
    return length


def require_use(args: argparse.Namespace, *, pictures: bool, sound: bool) -> None:
    """Refuse options that would change nothing.

    Args:
        args: of ``tokenize`` or ``reconstruct``.
        pictures: whether there are any.
        sound: whether there is any.

    Raises:
        ValueError: for an option on pictures without them, or one on sound without it.
    """
    for name, there, kind in (
        *((name, pictures, "pictures") for name in ("size", "tile", "stream", "side_by_side", "preview")),
        ("levels", sound, "sound"),
    ):
        if not there and getattr(args, name, None) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} needs {kind}, and {args.media or args.decode} gives none")


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
