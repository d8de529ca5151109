"""What a request means for one model: every choice made and checked before any weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass

from llm.tasks import MEDIA, TASKS, Task, find_task, fitting_tasks, named, nearest_task
from mmtok.conditions.masks import check_mask, family_of
from recipes.bundle.config import ASPECTS, BundleConfig
from recipes.pipeline.output import Output
from recipes.pipeline.request import Request, Segment, texts_of


@dataclass(frozen=True)
class FilmPlan:
    """What a request means for one model.

    Attributes:
        task: the first clip's.
        prompts: texts of the first clip, one a film, or one for all; None without.
        segments: the extensions, one each; prompts None keep what was said before.
        num_frames: pictures of the first clip; 1 for an image.
        size: (h, w) pixels that the language model speaks.
        sharp_size: (h, w) behind super-resolution, or None without it.
        source: index of its token, or None.
        resolution: index of its token, or None.
        duration: index of its token, or None.
        negative_prompt: text, or None.
    """

    task: str
    prompts: list[str] | None
    segments: tuple[Segment, ...]
    num_frames: int
    size: tuple[int, int]
    sharp_size: tuple[int, int] | None
    source: int | None
    resolution: int | None
    duration: int | None
    negative_prompt: str | None

    @property
    def row(self) -> Task:
        """All that is known of the first clip's task."""
        return TASKS[self.task]


def choose_task(request: Request, config: BundleConfig, given: frozenset[str]) -> str:
    """The task that the inputs mean, checked against the one asked for and against those the model knows."""
    media = [name for name in MEDIA if name in given]
    task = _meant(request, config, given) if request.task == "auto" else request.task
    row = find_task(task)
    if task not in config.tasks:
        raise ValueError(f"task {task} is not trained in this model; trained: {', '.join(config.tasks)}")
    if "prompt" in row.needs and "prompt" not in given:
        raise ValueError(f"task {task} needs a prompt")
    if "prompt" in given and not row.takes("prompt"):
        raise ValueError(f"task {task} takes no prompt; leave the prompt or the task out")
    if not set(row.media) <= set(media) or not all(row.takes(name) for name in media):
        takes = " and ".join(row.media) if row.media else "text only"
        raise ValueError(f"task {task} takes {takes}, got {' and '.join(media) or 'no media'}")
    return task


def _meant(request: Request, config: BundleConfig, given: frozenset[str]) -> str:
    """The task that the inputs mean where none is named."""
    fitting = [name for name in fitting_tasks(given) if request.sound or not TASKS[name].must_sound]
    if "mask" in given:
        fitting = [name for name in fitting if TASKS[name].masks == family_of(request.mask)]
    if not fitting:
        media = " and ".join(name for name in MEDIA if name in given)
        raise ValueError(f"no task takes {media} together; give one of image, video and audio")
    task = nearest_task(fitting, config.tasks)
    pictures = named(is_image=True, needs=TASKS[task].needs)
    return pictures[0] if request.num_frames == 1 and pictures else task


def make_plan(request: Request, config: BundleConfig, *, given: frozenset[str] | None = None) -> FilmPlan:
    """Check a request against a model, without weights and without looking at the media.

    Args:
        request: what was asked for.
        config: of the model.
        given: which of ``prompt`` and ``MEDIA`` there will be, where they are not read yet; None takes the request's.

    Returns:
        What it means.

    Raises:
        ValueError: for contradicting inputs, unknown names or values out of range.
    """
    given = request.given if given is None else given
    prompts = texts_of(request.prompt)
    task = choose_task(request, config, given)
    if request.negative_prompt and not prompts:
        raise ValueError("negative_prompt works against a prompt; give one")
    if request.num_candidates < 1:
        raise ValueError(f"num_candidates must be at least 1, got {request.num_candidates}")
    begin, end = request.guidance_interval
    if not 0 <= begin < end <= 1:
        raise ValueError(f"guidance_interval must be two shares with 0 <= first < last <= 1, got {(begin, end)}")
    for name, value in (("temperature", request.temperature), ("guidance_scale", request.guidance_scale)):
        if value is not None and not 0 <= value < float("inf"):  # NaN fails too
            raise ValueError(f"{name} must be a number that is not negative, got {value}")
    scale = config.guidance_scale if request.guidance_scale is None else request.guidance_scale
    if request.negative_prompt and scale == 1:
        raise ValueError("negative_prompt works through guidance, which guidance_scale 1 turns off; use another scale")
    if request.top_k is not None and request.top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {request.top_k}; None is off")
    if request.top_p is not None and not 0 < request.top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {request.top_p}; None is off")
    _check_task_options(request, task)
    num_frames, duration = _length(request, config, task)
    if request.given_frames is not None and not 1 <= request.given_frames < num_frames:
        raise ValueError(f"given_frames must lie in [1, {num_frames - 1}], got {request.given_frames}")
    aspect = _aspect(request, config)
    upscale = request.upscale and config.upscaled_size > 0
    return FilmPlan(
        task=task,
        prompts=prompts,
        segments=_segments(request, config, task),
        num_frames=num_frames,
        size=config.picture_size(aspect),
        sharp_size=config.picture_size(aspect, upscaled=True) if upscale else None,
        source=_source(request, config),
        resolution=ASPECTS[aspect][0],
        duration=duration,
        negative_prompt=config.negative_prompt if request.negative_prompt is None else request.negative_prompt,
    )


def _check_task_options(request: Request, task: str) -> None:
    """Options that go with some tasks only."""
    row = TASKS[task]
    cuts = any(isinstance(segment, Segment) and segment.image is not None for segment in request.segments)
    if row.masks and request.mask is not None:
        check_mask(request.mask, row.masks, given_frames=request.given_frames)
    elif request.given_frames is not None and not row.continues and not row.masks:
        raise ValueError(f"given_frames goes with {', '.join(named(continues=True))}, not with {task}")
    painting = [name for name in TASKS if TASKS[name].masks]
    for name, asked, tasks in (
        ("paste_back", request.paste_back, painting),
        ("feather_px", request.feather_px, painting),
        ("exact_first_frame", request.exact_first_frame and not cuts, named(keeps_first=True)),
    ):
        if asked and task not in tasks:
            raise ValueError(f"{name} goes with {' and '.join(tasks)}, not with {task}")
    if not request.sound and row.must_sound:
        raise ValueError(f"without sound nothing is left of the task {task}")
    if request.feather_px < 0:
        raise ValueError(f"feather_px must not be negative, got {request.feather_px}")
    if request.feather_px and not request.paste_back:
        raise ValueError("feather_px softens the edge of what is pasted back; ask for paste_back too")


def _length(request: Request, config: BundleConfig, task: str) -> tuple[int, int | None]:
    """Pictures of the first clip, and the index of its duration token."""
    is_image = TASKS[task].is_image
    if is_image or request.num_frames == 1:
        if not is_image:
            raise ValueError(f"num_frames=1 asks for an image, but the task is {task}")
        if request.num_frames not in (None, 1):
            raise ValueError(f"{task} makes one picture, got num_frames={request.num_frames}")
        return 1, None
    lengths = (config.num_frames, *config.more_num_frames)
    num_frames = config.num_frames if request.num_frames is None else request.num_frames
    if num_frames not in lengths:
        clips = " or ".join(str(n) for n in lengths)
        raise ValueError(
            f"num_frames must be {clips} (this model's clips) or 1 (an image), got {num_frames}; "
            "use extensions for a longer film"
        )
    return num_frames, None if num_frames == config.num_frames else config.more_num_frames.index(num_frames)


def _aspect(request: Request, config: BundleConfig) -> str:
    aspect = request.aspect
    if aspect is None and isinstance(request.video, Output):  # a film goes on in the form it has
        h, w = request.video.frames.shape[-2:]
        fitting = [name for name in config.aspects if abs(ASPECTS[name][1] - h / w) < 0.02]
        if not fitting:
            raise ValueError(f"the film has pictures of {w}x{h}; this model makes: {', '.join(config.aspects)}")
        aspect = fitting[0]
    aspect = config.aspects[0] if aspect is None else aspect
    if aspect not in config.aspects:
        raise ValueError(f"aspect {aspect!r} is not trained in this model; trained: {', '.join(config.aspects)}")
    return aspect


def _source(request: Request, config: BundleConfig) -> int | None:
    if request.source is None:
        return None
    if request.source not in config.sources:
        known = ", ".join(config.sources) or "none, so leave it out"
        raise ValueError(f"source {request.source!r} is not one of this model's; it has: {known}")
    return config.sources.index(request.source)


def _segments(request: Request, config: BundleConfig, task: str) -> tuple[Segment, ...]:
    """One segment an extension; those behind the last named one keep its prompt."""
    if isinstance(request.segments, str):
        raise ValueError(f"segments is a list, one entry an extension, got the text {request.segments!r}")
    named = [s if isinstance(s, Segment) else Segment(s) for s in request.segments]
    count = len(named) if request.extensions is None else request.extensions
    if count < 0:
        raise ValueError(f"extensions must not be negative, got {count}")
    if count < len(named):
        raise ValueError(f"{len(named)} segments need as many extensions, got {count}")
    if count and TASKS[task].is_image:
        raise ValueError(f"extensions lengthen a film, and {task} makes one picture")
    segments = (*named, *(Segment() for _ in range(count - len(named))))
    for segment in segments:
        texts_of(segment.prompt)
        fitting = fitting_tasks({"image"} if segment.image is not None else {"video", "audio"})
        if not set(fitting) & set(config.tasks):
            raise ValueError(f"extensions need {fitting[0]}, which is not trained in this model")
    return segments
