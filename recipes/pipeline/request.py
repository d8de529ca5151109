"""What a user asks a pipeline for, and what that means for one model: all of it checked before any weights are loaded.

Shape letters: b films, c channels, t h w time/height/width, n samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llm.tasks import MEDIA, find_task
from mmtok.conditions.masks import Mask
from recipes.bundle.config import BundleConfig
from recipes.pipeline.output import Output

OnStep = Callable[[str, int, int], None]  # stage, places done, places in all


@dataclass(frozen=True)
class Segment:
    """One extension of a film.

    Attributes:
        prompt: one text, or one a film; None keeps what was said before.
        image: as in ``Request``; the film cuts to a new clip that starts from this picture. None goes on with the last
            second.
    """

    prompt: str | list[str] | None = None
    image: Tensor | Output | None = None


@dataclass(frozen=True)
class Request:
    """A call of the pipeline; the fields are the arguments of ``CinePoetPipeline.__call__``, described there."""

    prompt: str | list[str] | None = None
    image: Tensor | Output | None = None
    video: Tensor | Output | None = None
    audio: Tensor | Output | None = None
    mask: Mask | None = None
    task: str = "auto"
    num_frames: int | None = None
    aspect: str | None = None
    source: str | None = None
    given_frames: int | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    num_candidates: int = 1
    extensions: int | None = None
    segments: Sequence[str | Segment] = ()
    upscale: bool = True
    sound: bool = True
    paste_back: bool = False
    feather_px: int = 0
    exact_first_frame: bool = False
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    on_step: OnStep | None = None

    @property
    def given(self) -> frozenset[str]:
        """Which of ``prompt`` and ``MEDIA`` are there."""
        return frozenset(name for name in ("prompt", *MEDIA) if getattr(self, name) is not None)


def with_own_sound(request: Request) -> Request:
    """The request with the sound of a ``video`` that another call made, where the task may read or keep it."""
    video = request.video
    takes = request.task == "auto" or find_task(request.task).takes("audio")
    wanted = takes and request.sound and request.audio is None
    if wanted and isinstance(video, Output) and video.audio is not None:
        return dataclasses.replace(request, audio=video)
    return request


def texts_of(prompt: str | list[str] | None) -> list[str] | None:
    """A prompt as a list of texts, or None; empty ones raise."""
    if prompt is None:
        return None
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, (list, tuple)) or not all(isinstance(text, str) for text in prompts):
        raise ValueError(f"a prompt is a text or a list of texts, got {prompt!r}")
    prompts = list(prompts)
    if not all(p.strip() for p in prompts or [""]):
        raise ValueError("the prompt is empty; describe what should be seen or heard")
    return prompts


def check_media(request: Request, config: BundleConfig) -> dict[str, Tensor]:
    """The media of a request as tensors, those of other outputs among them.

    Args:
        request: what was asked for.
        config: of the model.

    Returns:
        "image" (b, 3, h, w), "video" (b, 3, t, h, w) and "audio" (b, 1, n), those that were given.

    Raises:
        ValueError: if one has another shape, type or range, is a numpy output, or its clock is not the model's.
    """
    found = {}
    kinds = (("image", "(3, h, w)", 3), ("video", "(3, t, h, w)", 4), ("audio", "(1, n)", 2))
    for name, shape, ndim in kinds:
        value = getattr(request, name)
        if value is None:
            continue
        tensor = _of_output(value, name, config) if isinstance(value, Output) else value
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a tensor of shape {shape} or an output, got {type(value).__name__}")
        channels = tensor.shape[-ndim] if tensor.ndim in (ndim, ndim + 1) else None
        if channels != (1 if name == "audio" else 3) or not tensor.numel() or not tensor.is_floating_point():
            raise ValueError(
                f"{name} must be floats of shape {shape}, with or without a batch axis, got {tensor.dtype} of "
                f"{tuple(tensor.shape)}"
            )
        low, high = torch.aminmax(tensor)
        if not (low >= -1.01 and high <= 1.01):  # NaN fails too
            raise ValueError(f"{name} must lie in [-1, 1], got values in [{low:.3g}, {high:.3g}]")
        found[name] = tensor if tensor.ndim == ndim + 1 else tensor[None]
    return found


def _of_output(output: Output, name: str, config: BundleConfig) -> Tensor:
    """The part of another call's result that a task reads."""
    if not isinstance(output.frames, Tensor):
        raise ValueError(f"{name} is an output of numpy arrays; make it with output_type='pt' to go on from it")
    if name == "audio":
        if output.audio is None:
            raise ValueError("audio is an output without sound")
        return output.audio
    if name == "image":
        if output.frames.shape[2] != 1:
            raise ValueError(f"image is an output of {output.frames.shape[2]} pictures; pick one: .frames[:, :, i]")
        return output.frames[:, :, 0]
    if output.fps != config.fps:
        raise ValueError(f"video is an output at {output.fps:g} pictures per second, this model's are {config.fps:g}")
    return output.frames


def require_sound(task: str, asked: str, media: dict[str, Tensor]) -> None:
    """Raise where a task is about a sound and there is none in it; models have never heard digital silence.

    Args:
        task: what will be done.
        asked: the task as the user named it, "auto" where it follows from the media.
        media: of ``check_media``.

    Raises:
        ValueError: if a film's sound is all zeros.
    """
    reads = find_task(task).audio_in
    listens = reads == "whole" or (reads == "past" and asked != "auto")  # a film's own sound may be silence
    if listens and not bool(media["audio"].flatten(1).any(1).all()):
        raise ValueError(f"task {task} needs a sound to go by, and the audio is silence")


def number_of_films(prompts: list[str] | None, media: dict[str, Tensor]) -> int:
    """How many films the prompts and media make.

    Args:
        prompts: texts, or None.
        media: of ``check_media``.

    Returns:
        The number.

    Raises:
        ValueError: if they disagree; one of a kind serves all.
    """
    sizes = ({len(prompts)} if prompts else set()) | {len(tensor) for tensor in media.values()}
    if len(sizes - {1}) > 1:
        raise ValueError(f"prompts and media disagree about the number of films: {sorted(sizes)}")
    return max(sizes, default=1)
