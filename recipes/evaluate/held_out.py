"""What is measured on: scenes of corpus ``shapes`` that training never saw, and files kept out of training.

Shape letters: n clips, t h w time/height/width.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmtok.media.errors import MediaError
from recipes.corpora.folder import MediaFolder, clip_pool, sound_pieces
from recipes.corpora.shapes import Scene, ShapesCorpus, render_audio, render_video
from recipes.evaluate.contract import Material
from recipes.runtime.progress import track

QUIET = 1e-3  # a sound whose peak stays below this is left out
SCENE_S = 2.125  # of sound: 17 pictures at 8 fps


def held_out_scenes(count: int) -> list[Scene]:
    """The first scenes of the held-out split: combinations of colour, shape and motion that training never saw."""
    corpus = ShapesCorpus(0, "heldout")
    return [corpus.scene(i) for i in range(count)]


@dataclass(frozen=True)
class Clips:
    """Clips in memory."""

    pixels: Tensor  # (n, 3, t, h, w) uint8
    made: str  # how
    scenes: tuple[Scene, ...] = ()  # what they show, where that is known; their captions are the prompts

    @property
    def told(self) -> str:
        """How many of which size, and how they were made."""
        n, _, t, h, w = self.pixels.shape
        return f"{n} clips of {t} frames of {h}x{w}; {self.made}"

    def batches(self, size: int, title: str) -> Iterator[tuple[Tensor, list[Scene]]]:
        """Clips in [-1, 1] and what they show, behind a progress bar.

        Args:
            size: clips a batch.
            title: of the bar.

        Yields:
            (b, 3, t, h, w), and b scenes or none.
        """
        for start in track(range(0, len(self.pixels), size), title=title):
            yield self.pixels[start : start + size].float() / 127.5 - 1, list(self.scenes[start : start + size])


def drawn_clips(count: int, *, size: int, num_frames: int, captioned: bool = False) -> Clips:
    """Made-up scenes as clips.

    Args:
        count: how many.
        size: side, pixels.
        num_frames: pictures a clip.
        captioned: whether their captions are used.

    Returns:
        The clips.
    """
    scenes = held_out_scenes(count)
    drawn = torch.stack([render_video(s, size=size, num_frames=num_frames) for s in scenes])
    told = "held-out scenes of corpus shapes at 8 fps" + (", their captions as prompts" if captioned else "")
    return Clips(((drawn + 1) * 127.5).round().to(torch.uint8), told, tuple(scenes) if captioned else ())


def drawn_sounds(count: int, *, sample_rate: int) -> Material:
    """Made-up scenes as sounds.

    Args:
        count: how many.
        sample_rate: Hz.

    Returns:
        Names and (n,) sounds.
    """
    length = round(SCENE_S * sample_rate)
    scenes = track(held_out_scenes(count), title="scenes")
    sounds = (
        (f"scene {i}", render_audio(scene, num_samples=length, sample_rate=sample_rate)[0])
        for i, scene in enumerate(scenes)
    )
    return Material("held-out scenes of corpus shapes", sounds)


@dataclass(frozen=True)
class Files:
    """Files that may be measured, and why they may."""

    paths: tuple[Path, ...]
    why: str

    @property
    def told(self) -> str:
        """How many, and why they may."""
        return f"{len(self.paths)} files {self.why}"


def kept_out(folder: Path, listing: Path | None = None, *, every_file: bool = False, films: bool = True) -> Files:
    """Files of a folder that training left alone.

    Args:
        folder: of media.
        listing: CSV of those to use, or None to take every third one.
        every_file: all of them, for a folder that no training saw.
        films: only films; else also sounds.

    Returns:
        The files, at least one.

    Raises:
        FileNotFoundError: if something is absent.
        ValueError: if none is kept out, or the listing is wrong.
    """
    found = MediaFolder.open(folder, listing)
    paths = found.measure_video if films else found.measure
    if every_file:
        paths += found.train_video if films else found.train
    if not paths:
        raise ValueError(
            f"{folder} has no {'film' if films else 'file'} that is kept out (every third one is); name some in "
            "--media-list, or take all with --every-file"
        )
    return Files(paths, "in the folder" if every_file else "kept out of training")


def film_clips(files: Files, *, size: int, num_frames: int, fps: float, most: int = 4) -> Clips:
    """Windows spread over films.

    Args:
        files: of ``kept_out``.
        size: side, pixels.
        num_frames: pictures a clip.
        fps: pictures per second.
        most: windows of a film.

    Returns:
        The clips.
    """
    pixels = clip_pool(files.paths, size=size, num_frames=num_frames, clips_per_file=most, fps=fps)
    windows = f"up to {most} windows" if most > 1 else "one window"
    told = (
        f"{windows} of each of {files.told}, {fps:g} fps, shorter side resized (bicubic, antialiased), centre crop, "
        "8 bits; a film shorter than a window holds its last picture"
    )
    return Clips(pixels, told)


def file_sounds(files: Files, *, sample_rate: int, seconds: float, most: int) -> Material:
    """Pieces spread over sounds, or the sound of films.

    Args:
        files: of ``kept_out``.
        sample_rate: Hz.
        seconds: longest piece.
        most: pieces a file.

    Returns:
        File names and (n,) sounds; what gives none is named in ``left_out``.
    """
    told = (
        f"up to {most} pieces of {seconds:g} s, or the whole of a shorter sound, of each of {files.told}, mono, at "
        "their own loudness"
    )
    left_out: list[str] = []
    sounds = read_sounds(files.paths, sample_rate=sample_rate, seconds=seconds, most=most, left_out=left_out)
    return Material(told, sounds, left_out)


def read_sounds(
    paths: Sequence[Path], *, sample_rate: int, seconds: float, most: int, left_out: list[str]
) -> Iterator[tuple[str, Tensor]]:
    """Sounds of files behind a progress bar; what cannot be read or is silent is named and skipped.

    Args:
        paths: sounds, or films with sound.
        sample_rate: Hz.
        seconds: longest piece.
        most: pieces a file.
        left_out: receives a line for each file or piece that gives no sound.

    Yields:
        File name and (n,) sound.

    Raises:
        ValueError: at the end, if no file gave a sound.
    """
    given = 0
    for path in track(paths, title="sounds"):
        told = len(left_out)
        try:
            for sound in sound_pieces(path, sample_rate=sample_rate, seconds=seconds, most=most):
                if sound.numel() and float(sound.abs().max()) >= QUIET:
                    yield path.name, sound
                    given += 1
                else:
                    left_out.append(f"{path}: {'a piece of it is silent' if sound.numel() else 'is too short'}")
        except MediaError as fault:
            left_out.append(str(fault))
        for line in left_out[told:]:
            print(f"left out: {line}", file=sys.stderr)
    if not given:
        raise ValueError(f"none of {len(paths)} files gives a sound, such as {left_out[0]}")
