"""The table of tasks: what each is given, reads and writes, and how a clip becomes one of its sequences.

VideoPoet section 4.1. A row names inputs and outputs by the part of the clip that they are; ``task_layout`` turns a
row and the clip's shape into places, ``task_content`` cuts the same parts out of the clip's codes.

Shape letters: b batch, t h w grid of visual tokens, k audio levels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from llm.sequence import Layout, Span, build_layout
from mmtok.find import find
from mmtok.vocabulary import Vocabulary

MEDIA = ("image", "video", "audio", "mask")
COLUMNS = {  # what layouts, inputs and batches can be made of
    "visual_in": ("none", "first", "past", "whole"),
    "audio_in": ("none", "past", "whole"),
    "visual_out": ("none", "first", "future", "whole"),
    "audio_out": ("none", "future", "whole"),
}


@dataclass(frozen=True)
class Clip:
    """Shape of a tokenized clip.

    Attributes:
        grid: (t, h, w) visual tokens.
        audio_frames: frames of an audio level; 0 when the clip is silent or its sound is not modelled.
    """

    grid: tuple[int, int, int]
    audio_frames: int = 0


@dataclass(frozen=True)
class Task:
    """One row of the table: all that the project knows of a task.

    Attributes:
        value: the <task> id, one per distinct kind of output.
        needs: what it must be given, of "prompt" and ``MEDIA``.
        may: what it may be given besides.
        auto: True for the task that is meant where just this is given and no task is named.
        visual_in: "none", "first" (slice 0: an image), "past" (the given slices) or "whole".
        keeps_first: True when the first slice of the output stays the image's.
        masks: family of the masks that say what is painted, of ``mmtok.conditions.masks.NAMES``; "" for no mask.
        condition: what the names of the conditions begin with that it can read as a second clip in its visual input:
            masked pixels, or flow and depth; () for none.
        audio_in: "none", "past" (frames that sound during the given slices) or "whole".
        visual_out: "none", "first", "future" (all but the given slices) or "whole".
        audio_out: "none", "future" or "whole".
        ends: False leaves the end markers out.
        weight: share of the steps of training where nothing else is said.
        judged_by: what measures it, a name of ``recipes.evaluate.tasks.MEASURES``; "" is measured elsewhere.
    """

    value: str
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ("prompt",)
    auto: bool = False
    visual_in: str = "none"
    keeps_first: bool = False
    masks: str = ""
    condition: tuple[str, ...] = ()
    audio_in: str = "none"
    visual_out: str = "whole"
    audio_out: str = "none"
    ends: bool = True
    weight: float = 0.0
    judged_by: str = ""

    def __post_init__(self) -> None:
        for column, known in COLUMNS.items():
            if getattr(self, column) not in known:
                raise ValueError(f"{column} must be one of {', '.join(known)}, got {getattr(self, column)!r}")
        if unknown := sorted({*self.needs, *self.may} - {"prompt", *MEDIA}):
            raise ValueError(f"a task reads prompt, {', '.join(MEDIA)}, not {', '.join(unknown)}")

    def takes(self, name: str) -> bool:
        """Whether it can be given something of "prompt" and ``MEDIA``."""
        return name in self.needs or name in self.may

    @property
    def media(self) -> tuple[str, ...]:
        """What it must be given besides a text."""
        return tuple(name for name in MEDIA if name in self.needs)

    @property
    def text(self) -> bool:
        """Whether there is a text span; its slots stay empty when no caption is given."""
        return self.takes("prompt")

    @property
    def is_image(self) -> bool:
        """Whether one picture is all that is written."""
        return self.visual_out == "first"

    @property
    def continues(self) -> bool:
        """Whether it goes on from the end of a clip."""
        return self.visual_in == "past"

    @property
    def stylizes(self) -> bool:
        """Whether it reads how a clip moves, and not its pixels."""
        return bool(self.condition) and not self.masks

    @property
    def keeps_pictures(self) -> bool:
        """Whether the pictures stay as they were given, and a sound is made for them."""
        return self.visual_out == "none"

    @property
    def needs_audio(self) -> bool:
        """Whether it makes no sense for a clip without sound."""
        return "audio" in self.needs or self.keeps_pictures

    @property
    def must_sound(self) -> bool:
        """Whether nothing is left of it without the sound that it writes."""
        return self.needs_audio and self.audio_out != "none"

    @property
    def cuts(self) -> bool:
        """Whether it gives or asks for some of a clip's slices, which tokens about the whole clip do not have."""
        return self.visual_in in ("first", "past") or self.visual_out in ("first", "future")


TASKS: dict[str, Task] = {
    "text_to_video": Task("generate_video", ("prompt",), (), auto=True, audio_out="whole", weight=0.55),
    "text_to_image": Task("generate_video", ("prompt",), (), visual_out="first", ends=False, weight=0.05),
    "unconditional": Task("generate_video", (), (), auto=True, audio_out="whole", weight=0.05),
    # whole-clip output, so that it shares its value with text to video; a generator keeps the first slice
    "image_to_video": Task(
        "generate_video", ("image",), auto=True, visual_in="first", keeps_first=True, audio_out="whole", weight=0.1
    ),
    "continue_video": Task(
        "continue_video",
        ("video",),
        ("prompt", "audio"),
        auto=True,
        visual_in="past",
        visual_out="future",
        weight=0.1,
        judged_by="go_on",
    ),
    "inpaint": Task(
        "paint",
        ("video", "mask"),
        ("prompt", "audio"),
        auto=True,
        masks="inpaint",
        condition=("inpaint", "interpolation", "frame_prediction"),
        judged_by="paint",
    ),
    "outpaint": Task(
        "paint",
        ("video", "mask"),
        ("prompt", "audio"),
        auto=True,
        masks="outpaint",
        condition=("outpaint",),
        judged_by="paint",
    ),
    "stylize": Task("stylize", ("video",), ("prompt", "audio"), condition=("structure",), judged_by="stylize"),
    "stylize_from_image": Task(
        "stylize", ("video", "image"), ("prompt", "audio"), auto=True, visual_in="first", condition=("structure",)
    ),
    "video_to_audio": Task(
        "generate_audio",
        ("video",),
        visual_in="whole",
        visual_out="none",
        audio_out="whole",
        weight=0.1,
        judged_by="hear",
    ),
    "audio_to_video": Task("generate_video", ("audio",), auto=True, audio_in="whole", weight=0.05, judged_by="see"),
    "continue_av": Task(
        "continue_av",
        ("video", "audio"),
        auto=True,
        visual_in="past",
        audio_in="past",
        visual_out="future",
        audio_out="future",
        judged_by="go_on",
    ),
}
FIRST_TASKS = (  # what bundles know that were written before they said so
    "unconditional",
    "text_to_image",
    "text_to_video",
    "image_to_video",
    "continue_video",
    "video_to_audio",
    "audio_to_video",
)


def default_weights() -> dict[str, float]:
    """Task to share of the steps of training, of those that have one where nothing else is said."""
    return {name: task.weight for name, task in TASKS.items() if task.weight}


def named(**columns: object) -> list[str]:
    """Tasks whose columns or properties have these values, such as ``named(continues=True)``, in the table's order."""
    return [name for name, task in TASKS.items() if all(getattr(task, key) == value for key, value in columns.items())]


def fitting_tasks(given: Collection[str]) -> list[str]:
    """Tasks that may be meant where just this is given and no task is named.

    Args:
        given: of "prompt" and ``MEDIA``.

    Returns:
        Their names, in the table's order; [] where no task takes all of it.
    """
    return [
        name
        for name, task in TASKS.items()
        if task.auto and set(task.needs) <= set(given) and all(task.takes(what) for what in given)
    ]


def nearest_task(names: Sequence[str], known: Collection[str]) -> str:
    """The task among several that makes most of what is given, of those that a model knows if there are any.

    Args:
        names: of ``fitting_tasks``, at least one.
        known: tasks that the model was trained on.

    Returns:
        The name.
    """
    return max([name for name in names if name in known] or names[:1], key=lambda name: len(TASKS[name].needs))


def find_task(name: str) -> Task:
    """The row of a task in ``TASKS``; ValueError for an unknown name, with the known ones."""
    return find(TASKS, name, "task")


def slices_of_frames(num_frames: int, stride: int) -> int:
    """Latent slices of the first ``num_frames`` pictures: the first alone, then ``stride`` to a slice.

    Args:
        num_frames: 1 + a multiple of ``stride``.
        stride: pictures per slice.

    Returns:
        The slices.

    Raises:
        ValueError: if the pictures do not fill whole slices.
    """
    if num_frames < 1 or (num_frames - 1) % stride:
        raise ValueError(f"a clip of {num_frames} frames does not fill whole slices; use 1 + a multiple of {stride}")
    return 1 + (num_frames - 1) // stride


def audio_frames_of_slices(clip: Clip, given: int, stride: int = 4) -> int:
    """Audio frames that sound during the first ``given`` slices (VideoPoet: 6 of 106 for the first picture of 17).

    Args:
        clip: shape of the whole clip.
        given: slices.
        stride: pictures per slice behind the first.

    Returns:
        The frames, rounded down, at least one.
    """
    pictures, of = 1 + stride * (given - 1), 1 + stride * (clip.grid[0] - 1)
    return max(1, clip.audio_frames * pictures // of)


def _parts(task: Task, clip: Clip, given: int) -> dict[str, tuple[int, int]]:
    """Name of each content to (first, one past the last) slice or audio frame."""
    t, frames = clip.grid[0], clip.audio_frames
    heard = audio_frames_of_slices(clip, given)
    visual = {"first": (0, 1), "past": (0, given), "future": (given, t), "whole": (0, t)}
    audio = {"past": (0, heard), "future": (heard, frames), "whole": (0, frames)}
    named = {
        "visual_in": (visual, task.visual_in),
        "condition": (visual, "whole" if task.condition else "none"),
        "audio_in": (audio, task.audio_in),
        "visual_out": (visual, task.visual_out),
        "audio_out": (audio, task.audio_out if frames else "none"),
    }
    return {key: parts[name] for key, (parts, name) in named.items() if name != "none"}


def _check(name: str, clip: Clip, given: int | None) -> tuple[Task, int]:
    task = find_task(name)
    if task.needs_audio and not clip.audio_frames:
        raise ValueError(f"{name} needs a clip with sound")
    if not task.continues:
        if given is not None:
            raise ValueError(f"{name} takes no given slices, got given={given}")
        return task, 1
    if given is None or not 1 <= given < clip.grid[0]:
        raise ValueError(f"{name} needs given slices in [1, {clip.grid[0] - 1}], got given={given}")
    return task, given


def task_layout(
    name: str,
    vocabulary: Vocabulary,
    clip: Clip,
    *,
    text_slots: int,
    given: int | None = None,
    source: int | None = None,
    resolution: int | None = None,
    duration: int | None = None,
    audio_order: str = "level",
) -> Layout:
    """Places of one task for clips of one shape.

    A control token stands only where its output does: ``resolution`` where a picture is written, ``duration`` where
    more than one is, so that the sequence of an image begins that of a clip of the default length.

    Args:
        name: a key of ``TASKS``.
        vocabulary: where ids come from.
        clip: shape of the whole clip, input and output together.
        text_slots: places for text in the tasks that have it.
        given: slices that "past" means, for the tasks that continue a clip.
        source: index of the data source, or None.
        resolution: index of the resolution, or None for the square default.
        duration: index of the duration, or None for the default.
        audio_order: in which audio codes stand, one of ``mmtok.audio.orders.ORDERS``.

    Returns:
        The layout.

    Raises:
        ValueError: for an unknown task or order, wrong ``given``, or a task that needs sound when there is none.
    """
    task, slices = _check(name, clip, given)
    _, h, w = clip.grid
    spans = {
        key: Span(key, (stop - start, h, w), start)
        if key in ("visual_in", "visual_out", "condition")
        else Span(key, (vocabulary.audio_levels, stop - start), start)
        for key, (start, stop) in _parts(task, clip, slices).items()
    }
    return build_layout(
        vocabulary,
        task=task.value,
        text_slots=text_slots if task.text else 0,
        visual_in=tuple(spans[key] for key in ("visual_in", "condition") if key in spans),
        audio_in=spans.get("audio_in"),
        source=source,
        resolution=resolution if task.visual_out != "none" else None,
        duration=None if task.is_image else duration,
        visual_out=spans.get("visual_out"),
        audio_out=spans.get("audio_out"),
        ends=task.ends,
        audio_order=audio_order,
    )


def task_content(
    name: str,
    clip: Clip,
    *,
    visual: Tensor | None = None,
    audio: Tensor | None = None,
    condition: Tensor | None = None,
    given: int | None = None,
    outputs: bool = True,
) -> dict[str, Tensor]:
    """Cut the task's contents out of whole clips, for ``Layout.fill``.

    Args:
        name: a key of ``TASKS``.
        clip: shape of the whole clip.
        visual: (b, 1, t, h, w) codes; slices that the task does not use may be left out at the end.
        audio: (b, levels, frames) codes, or None when the task has no sound.
        condition: (b, 1, t, h, w) codes of the masked clip, or of flow and depth.
        given: as in ``task_layout``.
        outputs: False cuts the inputs only, for generation.

    Returns:
        Name to codes.

    Raises:
        ValueError: if a clip that the task reads is not given, or as in ``task_layout``.
    """
    task, slices = _check(name, clip, given)
    sources = {"visual": visual, "audio": audio, "condition": condition}
    out = {}
    for key, (start, stop) in _parts(task, clip, slices).items():
        if key.endswith("_out") and not outputs:
            continue
        what = key.split("_")[0]
        codes = sources[what]
        if codes is None or codes.shape[2] < stop:
            have = "nothing" if codes is None else f"codes {tuple(codes.shape)}"
            raise ValueError(f"{name} needs {what} up to {stop} along time, got {have}")
        out[key] = codes[:, :, start:stop]
    return out
