"""Films of ``cinepoet generate`` on disk, written piece by piece with their previews.

Shape letters: t h w time/height/width, n samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recipes.terminal.report import describe_film, note


def numbered(path: Path | None, count: int) -> list[Any]:
    """Names of several files: film_0.mp4, film_1.mp4, ...; the name itself for one.

    Args:
        path: the name, or None.
        count: how many.

    Returns:
        The paths, or None for each.
    """
    if path is None or count == 1:
        return [path] * count
    return [path.with_name(f"{path.stem}_{number}{path.suffix}") for number in range(count)]


def write_blocks(blocks: Any, pipe: Any, films: list[Path], previews: list[Path | None]) -> list[Any]:
    """Write films as their pieces come, and say what was made.

    Args:
        blocks: of ``pipe.stream``.
        pipe: a ``CinePoetPipeline`` or ``LarpPipeline``.
        films: one file a film; a .png holds one picture.
        previews: one sheet a film, or None.

    Returns:
        The statistics of the pieces.
    """
    from contextlib import ExitStack

    from mmtok.media.image import write_png
    from mmtok.media.video import FilmWriter

    fps, rate, shown = pipe.fps, pipe.sample_rate, 0
    looks: list[Any] = []
    sheets = [_Sheet() for _ in films]
    with ExitStack() as stack:
        writers: list[Any] = []
        for block in blocks:
            if not looks and films[0].suffix.lower() != ".png":
                writers = [stack.enter_context(FilmWriter(film, fps=fps, sample_rate=rate)) for film in films]
            for row, film in enumerate(films):
                audio = None if block.audio is None else block.audio[row]
                if writers:
                    writers[row].add(block.frames[row], audio)
                else:
                    write_png(film, block.frames[row, :, 0])
                if previews[row] is not None:
                    sheets[row].add(block.frames[row], audio)
            for line in dict.fromkeys(block.notes):
                note(line)
            looks.append(block.look)
            shown += block.frames.shape[2]
            last = block
    for film, preview, sheet in zip(films, previews, sheets, strict=True):
        print(describe_film(film, (shown, *last.frames.shape[-2:]), fps, last.audio is not None))
        if preview is not None:
            sheet.write(preview, fps, rate)
            print(f"{preview}: preview")
    return looks


class _Sheet:
    """Pictures for a preview, thinned out where a film is long, so that memory stays bounded."""

    MOST = 96

    def __init__(self) -> None:
        self._step, self._seen = 1, 0
        self._frames: list[Any] = []
        self._sound: list[Any] = []

    def add(self, frames: Any, audio: Any) -> None:
        """Take the next piece, (3, t, h, w) and (1, n) or None."""
        for picture in frames.unbind(1):
            if self._seen % self._step == 0:
                self._frames.append(picture.clone())
            self._seen += 1
            if len(self._frames) > self.MOST:
                self._frames, self._step = self._frames[::2], 2 * self._step
        if audio is not None:
            self._sound.append(audio)

    def write(self, path: Path, fps: float, sample_rate: int) -> None:
        """The preview of a film."""
        import torch

        from mmtok.media.preview import write_preview

        sound = torch.cat(self._sound, -1) if self._sound else None
        write_preview(path, torch.stack(self._frames, 1), fps / self._step, sound, sample_rate)
