"""Files given to ``cinepoet generate``, as the pipeline takes them: at the model's size and clock.

Shape letters: t h w time/height/width.
"""

from __future__ import annotations

import argparse
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


def read_media(args: argparse.Namespace, pipe: Any, plan: Any, options: dict[str, Any]) -> None:
    """Read the media that were given, at the model's size and clock, into the pipeline's arguments.

    Args:
        args: of the command.
        pipe: the pipeline.
        plan: of ``recipes.pipeline.plan.make_plan``.
        options: receives "image", "video", "audio" and the pictures of segments.

    Raises:
        MediaError: if a file cannot be read.
        ValueError: if a mask does not fit the film, or there is no sound where it is needed.
    """
    from recipes.pipeline.request import Segment

    config, size = pipe.config, plan.sharp_size or plan.size
    if args.image is not None:
        options["image"] = read_picture(args.image, size)
    if args.then:
        pictures = [None if file is None else read_picture(file, size) for _, file in args.then]
        options["segments"] = [Segment(p, i) for (p, _), i in zip(args.then, pictures, strict=True)]
    if args.video is not None:
        start_s = 0.0
        if plan.row.continues:
            frames, start_s = read_end(args.video, fps=config.fps, num_frames=plan.num_frames, size=size)
        else:
            frames = _read_film(args.video, fps=config.fps, num_frames=plan.num_frames, size=size)
        options["video"] = frames
        if not isinstance(options["mask"], (str, tuple, type(None))):
            options["mask"] = _fit_mask(options["mask"], args, size)
        if not args.no_sound and plan.row.takes("audio"):
            sound = _own_sound(
                args, pipe, frames.shape[1], start_s, needed_by=plan.task if "audio" in plan.row.needs else None
            )
            options |= {} if sound is None else {"audio": sound}
    if args.audio is not None:
        from mmtok.media.audio import read_audio

        rate = pipe.audio.sample_rate
        clip = read_audio(args.audio, sample_rate=rate, num_samples=round(plan.num_frames / config.fps * rate))
        if not clip.samples.any():
            length_s = plan.num_frames / config.fps
            raise ValueError(f"{args.audio}: the first {length_s:g} s, which the pictures are made for, are silence")
        options["audio"] = clip.samples


def _own_sound(args: argparse.Namespace, pipe: Any, num_frames: int, start_s: float, *, needed_by: str | None) -> Any:
    """The film's sound beside the pictures that were read, or None."""
    from llm.tasks import fitting_tasks
    from mmtok.media.audio import read_audio
    from mmtok.media.video import probe

    other = fitting_tasks({"video"})[0]
    if not probe(args.video).has_audio:
        if needed_by:
            raise ValueError(f"{args.video} has no sound, and {needed_by} goes on with it; try --task {other}")
        return None
    rate = pipe.audio.sample_rate
    count = round(num_frames / pipe.config.fps * rate)
    clip = read_audio(args.video, sample_rate=rate, num_samples=count, start_s=start_s)
    if needed_by and not clip.samples.any():
        raise ValueError(f"{args.video}: the sound beside its last pictures is silence; try --task {other}")
    return clip.samples


def _fit_mask(hidden: Any, args: argparse.Namespace, size: tuple[int, int]) -> Any:
    """A mask's picture cut and resized as the film was."""
    import torch

    from mmtok.media.image import fit_picture
    from mmtok.media.video import probe

    info = probe(args.video)
    shapes = [size, (info.height, info.width)]
    ratio = hidden.shape[0] / hidden.shape[1]
    if not any(h and w and abs(ratio / (h / w) - 1) < 0.03 for h, w in shapes):
        raise ValueError(
            f"--mask {args.mask} has {hidden.shape[1]}x{hidden.shape[0]} pixels, which is neither the form of the film "
            f"({info.width}x{info.height}) nor of the clip ({size[1]}x{size[0]})"
        )
    pixels = (hidden.to(torch.uint8) * 255).expand(3, -1, -1)
    return fit_picture(pixels, size)[0] > 127


def _read_film(path: str, *, fps: float, num_frames: int, size: tuple[int, int]) -> Any:
    from mmtok.media.video import read_video

    clip = read_video(path, fps=fps, num_frames=num_frames, size=size)
    if clip.held_frames:
        note(f"{path}: is shorter than {num_frames / fps:g} s; its last picture is held")
    return clip.frames


def read_picture(path: str, size: tuple[int, int]) -> Any:
    """A picture file, or the first frame of a film.

    Args:
        path: the file.
        size: (h, w) pixels after resize and centre crop.

    Returns:
        (3, h, w) in [-1, 1].

    Raises:
        MediaError: if it is neither.
    """
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
    """The last pictures of a film.

    Args:
        path: the file.
        fps: pictures per second wanted.
        num_frames: most pictures wanted.
        size: (h, w) pixels after resize and centre crop.

    Returns:
        (3, t, h, w) in [-1, 1] with t from 1 to ``num_frames``, and the time of the first of them in seconds.

    Raises:
        MediaError: if the file cannot be read or has no pictures.
    """
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
