"""Files given to ``cinepoet generate``, as the pipeline takes them: at the model's size and clock.

Shape letters: t h w time/height/width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipes.terminal.report import note


def mask_of(text: str | None) -> Any:
    """``--mask`` as the pipeline takes it; a picture stays its path, which is read with the film.

    Args:
        text: a name, four shares with commas, or a file ending in .png.

    Returns:
        A name, four numbers, or True where a bright pixel of the picture is made anew (h, w).

    Raises:
        ValueError: if four numbers cannot be read.
        MediaError: if the picture cannot be read.
    """
    if text is None:
        return None
    if text.lower().endswith(".png"):
        from mmtok.media.image import read_image

        return read_image(text).mean(0) > 0
    if "," in text:
        try:
            return tuple(float(share) for share in text.split(","))
        except ValueError:
            raise ValueError(f"--mask takes a name, top,left,bottom,right in shares, or a .png, got {text!r}") from None
    return text


@dataclass(frozen=True)
class Files:
    """What is named on the command line, as it was written there.

    Attributes:
        image: a picture or a film.
        video: a film.
        audio: a sound or a film with sound.
        mask: see ``mask_of``.
        cuts: for each ``--then`` the picture that it starts from, or None.
    """

    image: str | None = None
    video: str | None = None
    audio: str | None = None
    mask: str | None = None
    cuts: tuple[str | None, ...] = ()

    def given(self, task: str) -> frozenset[str]:
        """Of ``MEDIA``, what a task has once files are read; a film's own sound counts where it must have both."""
        from llm.tasks import MEDIA, TASKS

        names = {name for name in MEDIA if getattr(self, name) is not None}
        needs = TASKS[task].needs if task in TASKS else ()
        return frozenset(names | ({"audio"} if {"video", "audio"} <= set(needs) else set()))


def read_media(files: Files, pipe: Any, plan: Any, *, mask: Any, sound: bool) -> dict[str, Any]:
    """Read files at the model's size and clock.

    Args:
        files: what is read.
        pipe: the pipeline.
        plan: of ``recipes.pipeline.plan.make_plan``.
        mask: of ``mask_of``.
        sound: whether a film's own sound is wanted.

    Returns:
        The pipeline's arguments "image", "video", "audio" and "mask", those that are there, and "cuts", a picture or
        None for each segment.

    Raises:
        MediaError: if a file cannot be read.
        ValueError: if a mask does not fit the film, or there is no sound where it is needed.
    """
    config, size = pipe.config, plan.sharp_size or plan.size
    found: dict[str, Any] = {"cuts": [None if file is None else read_picture(file, size) for file in files.cuts]}
    if files.image is not None:
        found["image"] = read_picture(files.image, size)
    if files.video is not None:
        start_s, clock = 0.0, {"fps": config.fps, "num_frames": plan.num_frames, "size": size}
        if plan.row.continues:
            frames, start_s = read_end(files.video, **clock)
        else:
            short = f"is shorter than {plan.num_frames / config.fps:g} s; its last picture is held"
            frames = _read_film(files.video, short, **clock)
        found["video"] = frames
        drawn = not isinstance(mask, (str, tuple, type(None)))
        found["mask"] = _fit_mask(mask, files, size) if drawn else mask
        if sound and plan.row.takes("audio"):
            needed_by = plan.task if "audio" in plan.row.needs else None
            if (heard := _own_sound(files.video, pipe, start_s, frames.shape[1], needed_by=needed_by)) is not None:
                found["audio"] = heard
    if files.audio is not None:
        from mmtok.media.audio import read_audio

        rate = pipe.sample_rate
        clip = read_audio(files.audio, sample_rate=rate, num_samples=round(plan.num_frames / config.fps * rate))
        if not clip.samples.any():
            length_s = plan.num_frames / config.fps
            raise ValueError(f"{files.audio}: the first {length_s:g} s, which the pictures are made for, are silence")
        found["audio"] = clip.samples
    return found


def _own_sound(path: str, pipe: Any, start_s: float, num_frames: int, *, needed_by: str | None) -> Any:
    """The film's sound beside the pictures that were read, or None."""
    from llm.tasks import fitting_tasks
    from mmtok.media.audio import read_audio
    from mmtok.media.video import probe

    other = fitting_tasks({"video"})[0]
    if not probe(path).has_audio:
        if needed_by:
            raise ValueError(f"{path} has no sound, and {needed_by} goes on with it; try --task {other}")
        return None
    rate = pipe.sample_rate  # loads the audio tokenizer, so not before it is needed
    count = round(num_frames / pipe.config.fps * rate)
    samples = read_audio(path, sample_rate=rate, num_samples=count, start_s=start_s).samples
    if needed_by and not samples.any():
        raise ValueError(f"{path}: the sound beside its last pictures is silence; try --task {other}")
    return samples


def _fit_mask(hidden: Any, files: Files, size: tuple[int, int]) -> Any:
    """A mask's picture cut and resized as the film was."""
    import torch

    from mmtok.media.image import fit_picture
    from mmtok.media.video import probe

    assert files.video is not None, "a mask belongs to a film"
    info = probe(files.video)
    shapes = [size, (info.height, info.width)]
    ratio = hidden.shape[0] / hidden.shape[1]
    if not any(h and w and abs(ratio / (h / w) - 1) < 0.03 for h, w in shapes):
        raise ValueError(
            f"--mask {files.mask} has {hidden.shape[1]}x{hidden.shape[0]} pixels, which is neither the form of the "
            f"film ({info.width}x{info.height}) nor of the clip ({size[1]}x{size[0]})"
        )
    pixels = (hidden.to(torch.uint8) * 255).expand(3, -1, -1)
    return fit_picture(pixels, size)[0] > 127


def read_first_frames(path: str, *, fps: float, count: int, size: int) -> Any:
    """The first frames of a film, for a model that goes on from them.

    Args:
        path: the file.
        fps: pictures per second wanted.
        count: how many.
        size: side in pixels.

    Returns:
        (1, 3, count, size, size) in [-1, 1].

    Raises:
        MediaError: if it cannot be read.
    """
    short = f"has fewer than {count} frames at {fps:g} fps; the last is held"
    return _read_film(path, short, fps=fps, num_frames=count, size=size)[None]


def _read_film(path: str, short: str, **clock: Any) -> Any:
    from mmtok.media.video import read_video

    clip = read_video(path, **clock)
    if clip.held_frames:
        note(f"{path}: {short}")
    return clip.frames


def read_picture(path: str, size: tuple[int, int]) -> Any:
    """A picture file, or the first frame of a film, (3, h, w) in [-1, 1]."""
    from mmtok.media.errors import MediaError
    from mmtok.media.image import read_image
    from mmtok.media.video import probe, read_video

    try:
        return read_image(path, size)
    except MediaError as fault:
        try:
            is_film = probe(path).has_video
        except MediaError:
            is_film = False
        if not is_film:
            raise fault from None
    return read_video(path, num_frames=1, size=size).frames[:, 0]


def read_end(path: str, *, fps: float, num_frames: int, size: tuple[int, int]) -> tuple[Any, float]:
    """The last pictures of a film, (3, t, h, w) with t from 1 to ``num_frames``, and the second that they begin at."""
    from mmtok.media.errors import MediaError
    from mmtok.media.video import probe, read_video

    # The header may promise more than the file holds, so the end is looked for from further and further in front.
    length_s = probe(path).duration_s or 0.0
    starts = [max(0.0, length_s - num_frames / fps), max(0.0, length_s / 2 - num_frames / fps), 0.0]
    for start_s in starts:
        try:
            frames = read_video(path, fps=fps, num_frames=None, size=size, start_s=start_s).frames
        except MediaError:
            if start_s == 0.0:
                raise
            continue
        if frames.shape[1] >= num_frames or start_s == 0.0:
            left_out = max(0, frames.shape[1] - num_frames)
            return frames[:, left_out:], start_s + left_out / fps
    raise AssertionError("the last start is the film's beginning")
