"""The numbers of a whole model: geometry, tasks, sampling defaults, what super-resolution does."""

from __future__ import annotations

from dataclasses import dataclass

from llm.tasks import FIRST_TASKS, find_task
from mmtok.conditions.structure import FLOW_METHODS
from superres.sample import Decoding

STAGES = ("superres", "superres2")  # the stages of super-resolution, the first one first
# Name of a picture's form to its <resolution> token, None for the one that needs none, and height over width.
ASPECTS: dict[str, tuple[int | None, float]] = {"square": (None, 1.0), "portrait": (0, 1.75)}


@dataclass(frozen=True)
class BundleConfig:
    """What binds the parts.

    Attributes:
        size: width of the pictures the language model speaks, pixels; their height follows from the aspect.
        num_frames: pictures a clip.
        fps: pictures per second.
        upscaled_size: width after super-resolution, pixels: ``size`` doubled once or several times; 0 when the bundle
            has none.
        guidance_scale: default of the language model.
        temperature: default of the language model.
        top_k: default of the language model, or None.
        top_p: default of the language model, or None.
        sr_steps: decoding steps of super-resolution.
        sr_text_scale: guidance of super-resolution by the text.
        sr_low_scale: guidance of super-resolution by the low-resolution codes.
        sr_temperature: scale of the noise on super-resolution's confidence.
        sr_draw_temperature: of super-resolution's codes.
        sr_schedule: how many codes stay hidden after each step, a name of ``superres.sample.SCHEDULES``.
        sr2_steps: decoding steps of the second stage; what is not said of it is as in the first.
        sr2_text_scale: guidance of the second stage by the text.
        sr2_low_scale: guidance of the second stage by the codes of the first.
        negative_prompt: default, or None for the empty text branch.
        tasks: tasks that the language model was trained on.
        more_num_frames: further lengths of clips, each with the <duration> token of its place here.
        aspects: forms of pictures that it was trained on, of ``ASPECTS``.
        sources: names of its <source> tokens, data sets or tiers of quality, each with the token of its place here.
        flow: estimator behind stylization's structure, one of ``FLOW_METHODS``.
        depth: the other one: "saturation", which needs no weights, or a Depth Anything by folder or hub id.
    """

    size: int
    num_frames: int
    fps: float
    upscaled_size: int
    guidance_scale: float = 2.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    sr_steps: int = 24
    sr_text_scale: float = 1.0
    sr_low_scale: float = 1.0
    sr_temperature: float = 4.5
    sr_draw_temperature: float = 1.0
    sr_schedule: str = "cosine"
    sr2_steps: int = 24
    sr2_text_scale: float = 1.0
    sr2_low_scale: float = 1.0
    negative_prompt: str | None = None
    tasks: tuple[str, ...] = FIRST_TASKS
    more_num_frames: tuple[int, ...] = ()
    aspects: tuple[str, ...] = ("square",)
    sources: tuple[str, ...] = ()
    flow: str = "dis"
    depth: str = "saturation"

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("num_frames", 1), ("upscaled_size", 0), ("sr_steps", 1), ("sr2_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.fps > 0:
            raise ValueError(f"fps must be positive, got {self.fps}")
        for task in self.tasks:
            find_task(task)
        if self.num_frames in self.more_num_frames or any(n < 2 for n in self.more_num_frames):
            raise ValueError(
                f"more_num_frames must be other lengths than {self.num_frames}, got {self.more_num_frames}"
            )
        if not self.aspects or (unknown := sorted(set(self.aspects) - set(ASPECTS))):
            raise ValueError(f"unknown aspects {unknown if self.aspects else '()'}; known: {', '.join(ASPECTS)}")
        if self.flow not in FLOW_METHODS:
            raise ValueError(f"unknown flow method {self.flow!r}; known: {', '.join(FLOW_METHODS)}")
        for part in STAGES:
            self.decoding(part)

    def decoding(self, part: str) -> Decoding:
        """How a stage of super-resolution, one of ``STAGES``, fills its grid; numbers out of range raise."""
        first = part == STAGES[0]
        return Decoding(
            num_steps=self.sr_steps if first else self.sr2_steps,
            text_scale=self.sr_text_scale if first else self.sr2_text_scale,
            low_scale=self.sr_low_scale if first else self.sr2_low_scale,
            temperature=self.sr_draw_temperature,
            choice_temperature=self.sr_temperature,
            schedule=self.sr_schedule,
        )

    def picture_size(self, aspect: str, *, upscaled: bool = False) -> tuple[int, int]:
        """Height and width of pictures.

        Args:
            aspect: one of ``ASPECTS``.
            upscaled: behind super-resolution.

        Returns:
            (h, w) pixels.
        """
        width = self.upscaled_size if upscaled else self.size
        return round(width * ASPECTS[aspect][1]), width
