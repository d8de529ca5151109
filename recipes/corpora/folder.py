"""A folder of real clips and sounds: what is in it, what may train, what is kept out, and decoded pools.

Every third file (in name order, within its kind) is kept out for measuring, unless a listing says otherwise. A
listing is a CSV with columns ``path,split,licence`` (split: train or measure); only listed files are used then. A path
may be a pattern such as ``speech/*.wav``, for files that no row before it named.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mmtok.media.audio import read_audio
from mmtok.media.errors import MediaError
from mmtok.media.image import to_bytes
from mmtok.media.video import probe, read_video
from recipes.runtime.progress import track

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".gif", ".mpg", ".m4v"}
AUDIO_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma"}


@dataclass(frozen=True)
class MediaFolder:
    """Files by use.

    Attributes:
        root: the folder.
        train_video: clips that training may see.
        measure_video: clips kept out.
        train_audio: sound files that training may hear.
        measure_audio: sound files kept out.
        licences: relative path to licence, where a listing gave one.
    """

    root: Path
    train_video: tuple[Path, ...] = ()
    measure_video: tuple[Path, ...] = ()
    train_audio: tuple[Path, ...] = ()
    measure_audio: tuple[Path, ...] = ()
    licences: dict[str, str] = field(default_factory=dict)

    @property
    def train(self) -> tuple[Path, ...]:
        """All files that may train."""
        return self.train_video + self.train_audio

    @property
    def measure(self) -> tuple[Path, ...]:
        """All files kept out."""
        return self.measure_video + self.measure_audio

    @classmethod
    def open(cls, root: str | Path, listing: str | Path | None = None) -> MediaFolder:
        """Look through a folder.

        Args:
            root: the folder.
            listing: a CSV as described above, or None to take every media file.

        Returns:
            The files by use.

        Raises:
            FileNotFoundError: if the folder, the listing or a listed file is absent.
            ValueError: if the listing has a wrong column or split, or nothing usable is found.
        """
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(
                f"{root} is a file, not a folder" if root.is_file() else f"media folder {root} does not exist"
            )
        licences: dict[str, str] = {}
        found: dict[tuple[str, str], list[Path]] = {}
        if listing is not None:
            if not Path(listing).is_file():
                raise FileNotFoundError(f"media listing {listing} does not exist")
            with Path(listing).open(newline="") as file:
                rows = list(csv.DictReader(file))
            for row in rows:
                if set(row) != {"path", "split", "licence"} or row["split"] not in ("train", "measure"):
                    raise ValueError(f"{listing}: expected columns path,split,licence with split train or measure")
                if any(sign in row["path"] for sign in "*?["):
                    paths = sorted(p for p in root.glob(row["path"]) if _relative(p, root) not in licences)
                else:
                    paths = [root / row["path"]]
                if not paths or not all(path.is_file() for path in paths):
                    raise FileNotFoundError(f"{listing} names {row['path']}, which is not in {root}")
                for path in paths:
                    licences[_relative(path, root)] = row["licence"]
                    kind = "video" if path.suffix.lower() in VIDEO_SUFFIXES else "audio"
                    found.setdefault((row["split"], kind), []).append(path)
        else:
            files = sorted(p for p in root.rglob("*") if p.is_file())
            for kind, suffixes in (("video", VIDEO_SUFFIXES), ("audio", AUDIO_SUFFIXES)):
                for number, path in enumerate(p for p in files if p.suffix.lower() in suffixes):
                    found.setdefault(("measure" if number % 3 == 2 else "train", kind), []).append(path)
        if not found:
            raise ValueError(f"{root} holds no clips or sounds")

        parts = {f"{split}_{kind}": tuple(paths) for (split, kind), paths in found.items()}
        return cls(root, licences=licences, **parts)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def film_windows(path: Path, *, size: int, num_frames: int, fps: float, most: int) -> Iterator[Tensor]:
    """Windows spread over a film, which never overlap.

    Args:
        path: video file.
        size: height and width after resize and centre crop, pixels.
        num_frames: pictures a window.
        fps: pictures per second.
        most: windows at most.

    Yields:
        (3, t, size, size) in [-1, 1].

    Raises:
        MediaError: if the file cannot be read.
    """
    length_s = probe(path).duration_s or 0.0
    windows = max(1, min(most, int(length_s * fps / num_frames)))
    for number in range(windows):
        start_s = number * max(0.0, length_s - num_frames / fps) / max(1, windows - 1)
        yield read_video(path, fps=fps, num_frames=num_frames, size=size, start_s=start_s).frames


def clip_pool(
    paths: tuple[Path, ...], *, size: int, num_frames: int = 17, clips_per_file: int = 4, fps: float = 8.0
) -> Tensor:
    """Decode windows spread over each file; files that cannot be read are left out with a printed line.

    Args:
        paths: video files.
        size: height and width after resize and centre crop, pixels.
        num_frames: pictures a window.
        clips_per_file: most windows a file, never overlapping.
        fps: pictures per second.

    Returns:
        (n, 3, t, size, size) uint8.
    """
    clips = []
    for path in paths:
        try:
            for frames in film_windows(path, size=size, num_frames=num_frames, fps=fps, most=clips_per_file):
                clips.append(to_bytes(frames))
        except MediaError as fault:
            print(f"left out: {fault}")
    return torch.stack(clips) if clips else torch.zeros(0, 3, num_frames, size, size, dtype=torch.uint8)


def sound_pool(
    paths: tuple[Path, ...], *, sample_rate: int = 16000, longest_s: float = 20.0, title: str | None = None
) -> list[Tensor]:
    """Decode sounds, peak-normalised to 0.9; silent or unreadable files are left out with a printed line.

    Args:
        paths: sound files, or films with sound.
        sample_rate: Hz.
        longest_s: only the first seconds are kept.
        title: of a progress bar, or None for none.

    Returns:
        Mono (n,) float tensors in [-1, 1].
    """
    sounds = []
    most = max(1, int(longest_s * sample_rate))
    for path in paths if title is None else track(paths, title=title):
        try:
            clip = read_audio(path, sample_rate=sample_rate, num_samples=most)
        except MediaError as fault:
            print(f"left out: {fault}")
            continue
        samples = clip.samples[0, : most - clip.padded_samples]
        peak = float(samples.abs().max()) if samples.numel() else 0.0
        if peak > 1e-3:
            sounds.append(samples * (0.9 / peak))
        else:
            print(f"left out: {path}: {'is silent' if samples.numel() else 'is too short'}")
    return sounds


def sound_pieces(path: Path, *, sample_rate: int, seconds: float, most: int) -> Iterator[Tensor]:
    """Pieces spread over a sound or the sound of a film, which never overlap; a short sound is one piece as it is.

    Args:
        path: sound file, or film with sound.
        sample_rate: Hz.
        seconds: length of a piece.
        most: pieces at most; only they are held in memory, one at a time.

    Yields:
        Mono (n,) in [-1, 1], without the silence behind the end of the file.

    Raises:
        MediaError: if the file cannot be read or has no sound.
    """
    length_s = probe(path).duration_s or 0.0
    pieces = max(1, min(most, int(length_s / seconds)))
    for number in range(pieces):
        start_s = number * max(0.0, length_s - seconds) / max(1, pieces - 1)
        clip = read_audio(path, sample_rate=sample_rate, num_samples=round(seconds * sample_rate), start_s=start_s)
        yield clip.samples[0, : clip.samples.shape[1] - clip.padded_samples]
