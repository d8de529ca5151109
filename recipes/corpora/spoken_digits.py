"""Spoken digits by several speakers, as files ``DIGIT_SPEAKER_TAKE.wav`` (the free spoken digit dataset's naming)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmtok.media.audio import read_audio

SPLITS = ("takes", "speaker")
_NAME = re.compile(r"(\d)_([^_]+)_(\d+)\.wav")
_GAP_S = 0.1


@dataclass(frozen=True)
class Recording:
    """One spoken digit.

    Attributes:
        path: the file.
        digit: 0 to 9.
        speaker: name.
        take: number of the recording of this digit by this speaker.
    """

    path: Path
    digit: int
    speaker: str
    take: int

    def read(self, sample_rate: int) -> Tensor:
        """The sound (n,) in [-1, 1] at a rate in Hz."""
        return read_audio(self.path, sample_rate=sample_rate).samples[0]


def open_digits(folder: str | Path) -> tuple[Recording, ...]:
    """All recordings of a folder or its subfolder ``recordings``, by digit, speaker and take."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"folder of spoken digits {folder} does not exist")
    inner = folder / "recordings"
    found = []
    for path in (inner if inner.is_dir() else folder).iterdir():
        if name := _NAME.fullmatch(path.name):
            found.append(Recording(path, int(name[1]), name[2], int(name[3])))
    if not found:
        raise ValueError(f"{folder} holds no files named DIGIT_SPEAKER_TAKE.wav, such as 7_jackson_32.wav")
    return tuple(sorted(found, key=lambda r: (r.digit, r.speaker, r.take)))


@dataclass(frozen=True)
class DigitSplit:
    """Who may hear what.

    Attributes:
        codec: recordings that a codec may be fitted on: those of all speakers but the held-out ones.
        classifier: recordings that the classifier is trained on.
        test: recordings that everything is measured on: the first takes of the held-out speakers.
    """

    codec: tuple[Recording, ...]
    classifier: tuple[Recording, ...]
    test: tuple[Recording, ...]


def split_digits(
    recordings: Sequence[Recording], *, held_out: Sequence[str], test_takes: int = 10, kind: str = "takes"
) -> DigitSplit:
    """Divide the recordings. In both kinds the codec never hears a held-out speaker; what differs is the classifier.

    ``takes``: the classifier is trained on the other takes of all speakers, held-out ones too. It knows their
    voices, so it understands the originals well, and what it misses behind the codec is the codec's doing. It is the
    one for intelligibility. ``speaker``: the classifier never hears a held-out speaker either. With four speakers it
    is weak on the originals themselves, and accuracies behind the codec have that ceiling.

    Args:
        recordings: of ``open_digits``.
        held_out: speakers that no codec hears.
        test_takes: takes 0 to this number minus 1 are for testing; none of them trains the classifier in ``takes``.
        kind: ``takes`` or ``speaker``.

    Returns:
        The three parts.

    Raises:
        ValueError: for an unknown speaker or kind, or a part that stays empty.
    """
    speakers = sorted({r.speaker for r in recordings})
    unknown = sorted(set(held_out) - set(speakers))
    if unknown or not held_out:
        raise ValueError(f"unknown speaker {', '.join(unknown) or '(none given)'}; known: {', '.join(speakers)}")
    if kind not in SPLITS:
        raise ValueError(f"unknown split {kind!r}; known: {', '.join(SPLITS)}")
    others = tuple(r for r in recordings if r.speaker not in held_out)
    kept = tuple(r for r in recordings if r.take >= test_takes)
    test = tuple(r for r in recordings if r.speaker in held_out and r.take < test_takes)
    split = DigitSplit(others, kept if kind == "takes" else others, test)
    for name in ("codec", "classifier", "test"):
        if not getattr(split, name):
            raise ValueError(f"no recordings are left for the {name}; hold out fewer speakers or fewer takes")
    return split


@dataclass(frozen=True)
class DigitString:
    """The digits of one take of one speaker after one another, a tenth of a second of silence around each.

    Attributes:
        name: speaker and take.
        sound: (n,) in [-1, 1].
        sample_rate: Hz.
        places: digit, first sample and the one behind the last, for every digit.
    """

    name: str
    sound: Tensor
    sample_rate: int
    places: tuple[tuple[int, int, int], ...]

    def cut(self, sound: Tensor, sample_rate: int) -> list[tuple[int, Tensor]]:
        """The digits of a version of the string.

        Args:
            sound: (n,) version.
            sample_rate: its rate, Hz.

        Returns:
            Digit and (n,) sound of each.
        """
        scale = sample_rate / self.sample_rate
        return [(digit, sound[round(start * scale) : round(stop * scale)]) for digit, start, stop in self.places]


def digit_strings(recordings: Sequence[Recording], sample_rate: int) -> list[DigitString]:
    """Strings long enough for figures that need more than a word, such as STOI.

    Args:
        recordings: of any speakers and takes.
        sample_rate: Hz.

    Returns:
        One string for each speaker and take, digits in order.
    """
    gap = torch.zeros(round(_GAP_S * sample_rate))
    strings = []
    for speaker, take in sorted({(r.speaker, r.take) for r in recordings}):
        parts, places, length = [gap], [], len(gap)
        for recording in recordings:
            if (recording.speaker, recording.take) == (speaker, take):
                sound = recording.read(sample_rate)
                places.append((recording.digit, length, length + len(sound)))
                parts += [sound, gap]
                length += len(sound) + len(gap)
        strings.append(DigitString(f"{speaker} {take}", torch.cat(parts), sample_rate, tuple(places)))
    return strings
