"""What a pipeline makes: a film with its sound, as one object that can be saved, or handed to the next task.

Shape letters: b films, t h w time/height/width, k audio levels, n samples.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from mmtok.metrics.drift import Look


def _shown(frames: Tensor, sounds: bool, codes: dict[str, Tensor]) -> str:
    """Numbers instead of tensors, for a ``repr``; arrays of "np" outputs have their channels last."""
    t, h, w = frames.shape[2:] if isinstance(frames, Tensor) else frames.shape[1:4]
    made = ", ".join(f"{name} {tuple(ids.shape)}" for name, ids in codes.items()) or "none"
    return f"{t} picture{'s' if t > 1 else ''} of {w}x{h}, {'with sound' if sounds else 'silent'}, codes: {made}"


@dataclass(repr=False)
class Output:
    """What a call made.

    Attributes:
        frames: (b, 3, t, h, w) in [-1, 1].
        fps: pictures per second.
        audio: (b, 1, n) in [-1, 1] with n = t / fps * sample_rate, or None.
        sample_rate: Hz.
        codes: "low" (b, 1, t, h, w), "audio" (b, k, T) and "high" (b, 1, t, 2h, 2w), those that were made; of a film
            with extensions, those of its first clip.
        notes: what a user should know, such as a prompt that was cut.
        seconds: stage to seconds.
        looks: statistics of the first clip and of each extension, see ``mmtok.metrics.drift``.
    """

    frames: Tensor
    fps: float
    audio: Tensor | None
    sample_rate: int
    codes: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)

    def __repr__(self) -> str:
        b = len(self.frames)
        shown = _shown(self.frames, self.audio is not None, self.codes)
        return f"Output({b} film{'s' if b > 1 else ''} of {shown}, {self.fps:g} fps)"

    def film(self, index: int) -> Output:
        """One film of several, such as the candidate to go on with.

        Args:
            index: from 0.

        Returns:
            An output of one film.

        Raises:
            ValueError: if there is none of that number.
        """
        if not 0 <= index < len(self.frames):
            raise ValueError(f"there are films 0 to {len(self.frames) - 1}, got {index}")
        one = slice(index, index + 1)
        return dataclasses.replace(
            self,
            frames=self.frames[one],
            audio=None if self.audio is None else self.audio[one],
            codes={name: codes[one] for name, codes in self.codes.items()},
        )

    def save(self, path: str | Path, *, index: int = 0, preview: str | Path | None = None) -> Path:
        """Write one film (H.264 and AAC in mp4), or a PNG when there is a single picture.

        Args:
            path: the file; its folder must exist.
            index: which of the batch.
            preview: also write a contact sheet with the spectrogram there, as PNG.

        Returns:
            The path.

        Raises:
            MediaError: if the file cannot be written.
        """
        from mmtok.media.image import write_png
        from mmtok.media.preview import write_preview
        from mmtok.media.video import write_film

        path = Path(path)
        frames = self.frames[index].float().cpu()
        audio = None if self.audio is None else self.audio[index].float().cpu()
        if frames.shape[1] == 1 and path.suffix.lower() == ".png":
            write_png(path, frames[:, 0])
        else:
            write_film(path, frames, fps=self.fps, audio=audio, sample_rate=self.sample_rate)
        if preview is not None:
            write_preview(preview, frames, self.fps, audio, self.sample_rate)
        return path


@dataclass(repr=False)
class Block:
    """The next piece of a film that is made piece by piece.

    Attributes:
        frames: (b, 3, t, h, w) in [-1, 1], the new pictures.
        audio: (b, 1, n) in [-1, 1], the sound beside them, or None.
        codes: of the first clip as in ``Output``, of an extension those of its whole window.
        look: statistics of the new pictures and codes.
        notes: what a user should know, new ones.
    """

    frames: Tensor
    audio: Tensor | None
    codes: dict[str, Tensor]
    look: Look
    notes: list[str]

    def __repr__(self) -> str:
        return f"Block({_shown(self.frames, self.audio is not None, self.codes)})"
