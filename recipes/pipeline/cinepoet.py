"""``CinePoetPipeline``: every task of a bundle as one call, from text, pictures and sound to a film with sound.

    pipe = CinePoetPipeline.from_pretrained("tiny")
    film = pipe("a red circle moves left on a dark plain background")
    film.save("film.mp4")
    pipe(video=film, extensions=2).save("longer.mp4")

Parts are loaded when they are first needed. ``seconds`` holds the time of each stage of the last call.
Shape letters: b films, c channels, t h w time/height/width, k audio levels, n samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm.sampling import each_row, film_generators
from llm.tasks import TASKS, Clip, fitting_tasks, named, nearest_task, slices_of_frames, task_content, task_layout
from mmtok.conditions.masks import Mask
from mmtok.conditions.paste import paste_back
from mmtok.metrics.drift import drift_note, look_at
from mmtok.visual.holistic import is_holistic
from recipes.bundle.folder import OPTIONAL_PARTS, PARTS, Bundle, open_bundle
from recipes.bundle.parts import Parts, Text
from recipes.pipeline.inputs import Given, Inputs
from recipes.pipeline.output import Block, Output
from recipes.pipeline.plan import FilmPlan, make_plan
from recipes.pipeline.request import (
    OnStep,
    Request,
    Segment,
    check_media,
    number_of_films,
    require_sound,
    texts_of,
    with_own_sound,
)
from recipes.pipeline.upscaling import film_upscaler
from recipes.runtime.device import Compute, choose_compute
from superres.film import FilmUpscaler


@dataclass
class _Job:
    """A request on its way: what it means, what it reads, and who draws.

    ``text`` and ``negative`` change from segment to segment; rows are films times candidates.
    """

    request: Request
    plan: FilmPlan
    media: dict[str, Tensor]
    pictures: list[Tensor | None]  # of each segment
    films: int
    generators: list[torch.Generator]
    given: Given  # to the first clip
    notes: list[str] = field(default_factory=list)
    text: Text | None = None
    negative: Text | None = None

    @property
    def rows(self) -> int:
        return len(self.generators)


@dataclass
class _Made:
    """A new piece: pictures as the language model made them and as they are shown, sound, and codes."""

    frames: Tensor
    shown: Tensor
    samples: Tensor | None
    codes: dict[str, Tensor]


@dataclass
class _Tail:
    """All that later pieces need of the earlier ones: the last second, and how long the film is."""

    frames: Tensor
    shown: Tensor
    samples: Tensor | None
    num_frames: int


def _of(owner: str, name: str, what: str) -> Any:
    """An attribute of something that the pipeline holds, under the same name."""

    def hand_on(self: CinePoetPipeline, new: Any) -> None:
        setattr(getattr(self, owner), name, new)

    return property(lambda self: getattr(getattr(self, owner), name), hand_on, doc=what)


class CinePoetPipeline:
    """A bundle, ready to generate.

    It holds the parts, what reads inputs with them, and the upscaler of films. Parts have their own names here too.

    Args:
        bundle: folder and config.
        compute: device and precision; None chooses.
        lm_weights: as in ``Parts``.
    """

    visual = _of("parts", "visual", "The visual tokenizer that the language model speaks.")
    audio = _of("parts", "audio", "The audio tokenizer.")
    lm = _of("parts", "lm", "The language model.")
    flow = _of("parts", "flow", "Optical flow for stylization; set it to use another estimator.")
    depth = _of("parts", "depth", "Inverse depth for stylization; set it to use another estimator.")
    fit = _of("parts", "fit", "Pictures at the language model's size, as ``Parts.fit``.")
    embed = _of("parts", "embed", "Vectors of prompts, as ``Parts.embed``.")
    seconds = _of("parts", "seconds", "Stage to seconds, of the last call.")
    plan_film = _of("upscaler", "plan_film", "How a film comes to a size, as ``FilmUpscaler.plan_film``.")
    upscale_stream = _of("upscaler", "upscale_stream", "A film in blocks, as ``FilmUpscaler.upscale_stream``.")

    def __init__(self, bundle: Bundle, compute: Compute | None = None, *, lm_weights: str = "float32"):
        self.parts = Parts(bundle, compute, lm_weights=lm_weights)
        self.bundle, self.config, self.compute = bundle, bundle.config, self.parts.compute
        self.inputs = Inputs(self.parts, self.config)

    def __repr__(self) -> str:
        config, (h, w) = self.config, self.config.picture_size(self.config.aspects[0])
        sharp = f" -> {config.upscaled_size}" if config.upscaled_size else ""
        names = (*PARTS, *OPTIONAL_PARTS)
        loaded = ", ".join(name for name in names if name in vars(self.parts)) or "nothing yet"
        return (
            f"CinePoetPipeline({self.bundle.folder.name}: {config.num_frames} pictures of {w}x{h}{sharp} at "
            f"{config.fps:g} fps, {len(config.tasks)} tasks, on {self.compute.device}, loaded: {loaded})"
        )

    @property
    def fps(self) -> float:
        """Pictures per second."""
        return self.config.fps

    @property
    def sample_rate(self) -> int:
        """Samples of sound per second."""
        return int(self.audio.sample_rate)

    @cached_property
    def upscaler(self) -> FilmUpscaler:
        """Super-resolution of films.

        Raises:
            ValueError: if the bundle has none.
        """
        return film_upscaler(self.parts)

    @classmethod
    def from_pretrained(
        cls, name: str | Path = "tiny", *, device: str = "auto", lm_weights: str = "float32"
    ) -> CinePoetPipeline:
        """A pipeline by embedded name, folder or hub id.

        Args:
            name: such as "tiny".
            device: "auto" or a torch device.
            lm_weights: of the language model in memory: "float32", "bfloat16", "float16" or "int8".

        Returns:
            The pipeline; its parts are loaded later.
        """
        return cls(open_bundle(name), choose_compute(device), lm_weights=lm_weights)

    # The call.

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *,
        image: Tensor | Output | None = None,
        video: Tensor | Output | None = None,
        audio: Tensor | Output | None = None,
        mask: Mask | None = None,
        task: str = "auto",
        num_frames: int | None = None,
        aspect: str | None = None,
        source: str | None = None,
        given_frames: int | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        num_candidates: int = 1,
        extensions: int | None = None,
        segments: Sequence[str | Segment] = (),
        upscale: bool = True,
        sound: bool = True,
        paste_back: bool = False,
        feather_px: int = 0,
        exact_first_frame: bool = False,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pt",
        on_step: OnStep | None = None,
    ) -> Output:
        """Generate.

        Outputs of other calls may stand for ``image`` (of one picture), ``video`` (its sound comes along) and
        ``audio``; docs/tasks.md tells what each task reads.

        Args:
            prompt: one text, a list (one a film), or None.
            image: (3, h, w) or (b, 3, h, w) in [-1, 1]; resized and centre-cropped.
            video: (3, t, h, w) or (b, 3, t, h, w) in [-1, 1], at the model's pictures per second.
            audio: (1, n) or (b, 1, n) in [-1, 1] at the model's sample rate; beside a video, its sound from its
                beginning on; padded or cut to the clip.
            mask: what inpaint and outpaint make anew: a name of ``mmtok.conditions.masks.NAMES``, a box (top, left,
                bottom, right) in shares of the clip's picture, or (h, w) or (t, h, w) of the video's or the clip's
                size, True or 1.0 where it is made anew.
            task: one of ``llm.tasks.TASKS`` that the model was trained on; "auto" is decided by what is given.
            num_frames: pictures of the first clip, a length that the model was trained on; 1 asks for an image.
            aspect: form of the pictures, "square" or "portrait"; None is the model's first.
            source: name of a data source or tier of quality of the model, or None for none.
            given_frames: pictures of the video's end that are gone on from, or those that a mask along time leaves;
                None is the last second, or one.
            negative_prompt: takes the place of the empty text in guidance.
            guidance_scale: 1.0 is off; None is the model's default, as for the next three but one.
            guidance_interval: shares of a clip's output between which guidance works.
            temperature: 0.0 is greedy.
            top_k: keep that many best codes.
            top_p: keep the best codes of that total probability.
            num_candidates: films made from each prompt; they stand next to each other in the output.
            extensions: times that the last second is re-read and another one added; None is one a segment.
            segments: prompts of the extensions, or ``Segment`` for a prompt with a picture to start from.
            upscale: whether super-resolution follows.
            sound: whether sound is made; False stops behind the picture.
            paste_back: whether what a mask left visible comes back unchanged.
            feather_px: width of the soft edge around that, in pixels of the output.
            exact_first_frame: whether the first picture of image_to_video is the image itself, not what its codes say.
            generator: one for all films, or a list of one a film; the same state gives the same film, whatever is made
                beside it.
            output_type: "pt" for tensors, "np" for numpy arrays of shape (b, t, h, w, 3) in [0, 1].
            on_step: called with (task or "super-resolution", done, in all) while codes are sampled.

        Returns:
            The films, codes, notes and times.

        Raises:
            ValueError: for contradicting inputs, untrained tasks, unknown names or values out of range.
            ImportError: if stylization lacks OpenCV.
        """
        options = {name: value for name, value in locals().items() if name not in ("self", "output_type")}
        if output_type not in ("pt", "np"):
            raise ValueError(f"unknown output_type {output_type!r}; known: np, pt")
        blocks = list(self.stream(**options))
        sounds = [block.audio for block in blocks if block.audio is not None]
        output = Output(
            frames=torch.cat([block.frames for block in blocks], 2),
            fps=self.fps,
            audio=torch.cat(sounds, -1) if sounds else None,
            sample_rate=self.sample_rate,
            codes=blocks[0].codes,
            notes=[line for block in blocks for line in block.notes],
            seconds=dict(self.seconds),
            looks=[block.look for block in blocks],
        )
        if output_type == "np":
            pictures: Any = ((output.frames.permute(0, 2, 3, 4, 1) + 1) / 2).numpy()
            heard: Any = None if output.audio is None else output.audio.numpy()
            output = dataclasses.replace(output, frames=pictures, audio=heard)
        return output

    def stream(self, prompt: str | list[str] | None = None, **options: Any) -> Iterator[Block]:
        """Generate piece by piece: the first clip, then every extension as it is made, in constant memory.

        Everything is checked before this returns; work begins with the first piece.

        Args:
            prompt: as of the call.
            options: the call's other arguments but ``output_type``.

        Returns:
            An iterator of the pieces; together they are the call's film.

        Raises:
            ValueError: as of the call.
            ImportError: as of the call.
        """
        self.seconds = {}
        return self._blocks(self._prepare(Request(prompt, **options)))

    def _prepare(self, request: Request) -> _Job:
        """Check everything that can be checked without the language model."""
        request = with_own_sound(request)
        plan, config = make_plan(request, self.config), self.config
        media = check_media(request, config)
        require_sound(plan.task, request.task, media)
        films = number_of_films(plan.prompts, media)
        pictures = []
        for segment in plan.segments:
            own = check_media(Request(image=segment.image), config)
            if number_of_films(texts_of(segment.prompt), own) not in (1, films):
                raise ValueError(f"a segment has another number of films than {films}")
            pictures.append(own.get("image"))
        generators = film_generators(request.generator, films, request.num_candidates)
        if is_holistic(self.visual):
            self._require_uncut(plan)
        given = self.inputs.open(request, plan, media)
        if plan.sharp_size is not None:
            self.upscaler.plan_clip(plan.size)  # raises where super-resolution does not take that size
        return _Job(request, plan, media, pictures, films, generators, given)

    def _require_uncut(self, plan: FilmPlan) -> None:
        """Raise where slices of a clip are needed and tokens are about the whole of it."""
        if plan.segments:
            raise ValueError("extensions re-read the last second, and this model's tokens are about the whole clip")
        if plan.row.cuts:
            offered = [name for name in self.config.tasks if not TASKS[name].cuts]
            raise ValueError(
                f"task {plan.task} needs slices of a clip, and this model's tokens are about the whole clip; "
                f"offered: {', '.join(offered)}"
            )

    # Films that are there already.

    def upscale(self, video: Tensor, **options: Any) -> Tensor:
        """Sharpen any film, as ``superres.film.FilmUpscaler.upscale``.

        Args:
            video: (3, t, h, w) or (b, 3, t, h, w) in [-1, 1].
            options: ``prompt``, ``to``, ``aspect``, ``generator`` and ``notes``.

        Returns:
            (b, 3, t, h', w') in [-1, 1].
        """
        self.seconds = {}
        return self.upscaler.upscale(video, **options)

    @torch.inference_mode()
    def upscale_codes(
        self, low: Tensor, *, prompts: list[str] | None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Super-resolution of a clip's codes alone.

        Args:
            low: (b, 1, t, h, w) codes of the language model.
            prompts: b texts, or None.
            generator: CPU generator, of which every film takes its own.

        Returns:
            (b, 1, t, h', w') codes for ``upscaler.decode``.
        """
        low, upscaler = low.to(self.compute.device), self.upscaler
        if upscaler.tokenizer is not self.visual:  # the pictures again, in tokens that super-resolution knows
            low = upscaler.encode(self.visual.decode(low))
        _, sh, sw = upscaler.tokenizer.stride
        passes = upscaler.plan_clip((low.shape[-2] * sh, low.shape[-1] * sw))
        draws = film_generators(generator, len(low), 1)
        return upscaler.double(low, self.embed(prompts, []), draws, passes=passes)

    # Piece by piece.

    @torch.inference_mode()
    def _blocks(self, job: _Job) -> Iterator[Block]:
        plan = job.plan
        self._read_texts(job, plan.prompts)
        self.inputs.read(job.given, job.request, plan, job.media)
        made = self._clip(job, plan.task, job.given, num_frames=plan.num_frames)
        if made.samples is None:  # a silent film stays silent
            job.request = dataclasses.replace(job.request, sound=False)
        tail = self._remember(None, made) if plan.segments else None
        looks = []
        for number in range(len(plan.segments) + 1):
            if number:
                assert tail is not None, "kept where there are segments"
                made, tail = self._segment(job, tail, number - 1)
            block = self._block(job, made)
            looks.append(block.look)
            if number == len(plan.segments) and (line := drift_note(looks)) is not None:
                block.notes.append(line)
            yield block

    def _segment(self, job: _Job, tail: _Tail, number: int) -> tuple[_Made, _Tail]:
        """The next piece of a film, and what is kept of it."""
        segment, picture = job.plan.segments[number], job.pictures[number]
        if segment.prompt is not None:
            self._read_texts(job, texts_of(segment.prompt))
        if picture is None:
            made = self._extend(job, tail)
        else:
            given = Given(tokens={"visual": self.inputs.encode(picture[:, :, None], job.plan.size)})
            task = fitting_tasks({"image"})[0]
            made = self._clip(job, task, given, num_frames=self.config.num_frames, picture=picture)
        if made.samples is None and job.request.sound:  # a film that sounds does so to its end
            made.samples = made.frames.new_zeros(len(made.frames), 1, self._new_samples(tail, made.frames.shape[2]))
        return made, self._remember(tail, made, cut=picture is not None)

    def _read_texts(self, job: _Job, prompts: list[str] | None) -> None:
        """Texts of the next pieces."""
        job.text, job.negative = self.inputs.texts(prompts, job.plan.negative_prompt, job.notes)

    def _new_samples(self, tail: _Tail, num_frames: int) -> int:
        """Samples beside that many pictures behind a film; films of any number of pieces keep the clock."""
        return self.inputs.samples(tail.num_frames + num_frames) - self.inputs.samples(tail.num_frames)

    def _block(self, job: _Job, made: _Made) -> Block:
        """The piece as it is handed out; what is measured of it is as long in every piece, so that it compares."""
        low, frames = made.codes["low"], made.frames
        if not is_holistic(self.visual) and low.shape[2] > 1:
            slices = (self.config.num_frames - self.inputs.second) // self.visual.stride[0]
            low, frames = low[:, :, -slices:], frames[:, :, -slices * self.visual.stride[0] :]
        notes, job.notes = job.notes, []
        return Block(
            frames=made.shown.float().cpu(),
            audio=None if made.samples is None else made.samples.float().cpu(),
            codes={name: codes.cpu() for name, codes in made.codes.items()},
            look=look_at(frames, low),
            notes=notes,
        )

    def _remember(self, tail: _Tail | None, made: _Made, *, cut: bool = False) -> _Tail:
        """The last second behind a new piece; copies, so that whole films are not kept alive by their ends."""
        keep, joined = self.inputs.second, tail if not cut else None
        frames, shown, samples = made.frames, made.shown, made.samples
        if joined is not None:
            frames, shown = torch.cat([joined.frames, frames], 2), torch.cat([joined.shown, shown], 2)
            if samples is not None and joined.samples is not None:
                samples = torch.cat([joined.samples, samples], -1)
        total = made.frames.shape[2] + (tail.num_frames if tail is not None else 0)
        if samples is not None:
            beside = self.inputs.samples(total) - self.inputs.samples(total - keep)
            samples = samples[..., -beside:].clone()
        return _Tail(frames[:, :, -keep:].clone(), shown[:, :, -keep:].clone(), samples, total)

    # From codes to codes.

    def _clip(self, job: _Job, task: str, given: Given, *, num_frames: int, picture: Tensor | None = None) -> _Made:
        """A clip of one task: codes, then pictures and sound, then sharper pictures."""
        plan, device = job.plan, self.compute.device
        codes = self._codes(job, task, given, num_frames=num_frames, candidates=job.rows // job.films)
        with self.parts.timed("decode picture"):
            frames = self.visual.decode(codes["low"])
        shown_size = plan.sharp_size or plan.size

        def as_given(size: tuple[int, int]) -> Tensor:
            assert given.clip is not None, f"{task} was chosen without a video"
            return each_row(self.fit(given.clip, size).to(device), job.rows)

        if TASKS[task].keeps_pictures:  # as they were given, at the size of the result
            frames, shown = as_given(plan.size), as_given(shown_size)
        else:
            shown, high = self._sharp(job, codes["low"], frames)
            codes |= {} if high is None else {"high": high}
        if job.request.paste_back and given.hidden is not None:
            known, feather_px = given.hidden.known.to(device), job.request.feather_px
            frames, shown = (
                paste_back(made, as_given((h, w)), known, feather_px=feather_px * w // shown_size[1])
                for made in (frames, shown)
                for h, w in (made.shape[-2:],)
            )
        image = picture if picture is not None else job.media.get("image")
        if job.request.exact_first_frame and image is not None:
            shown = shown.clone()
            shown[:, :, :1] = each_row(self.fit(image[:, :, None], shown_size).to(shown), job.rows)
        samples = each_row(given.sound, job.rows) if given.sound is not None else None
        if samples is None and "audio" in codes:
            samples = self._decode_sound(codes["audio"], frames.shape[2])
        return _Made(frames, shown, samples, codes)

    def _sharp(
        self, job: _Job, low: Tensor, frames: Tensor, before: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Pictures as they are shown, and the codes behind them; those ``before`` are not made again."""
        if job.plan.sharp_size is None:
            return frames[:, :, 0 if before is None else before.shape[2] :], None
        codes = low if self.upscaler.tokenizer is self.visual else None  # else they are of another tokenizer
        return self.upscaler.upscale_clip(
            frames, job.text, job.generators, job.request.on_step, codes=codes, before=before
        )

    def _codes(self, job: _Job, task: str, given: Given, *, num_frames: int, candidates: int) -> dict[str, Tensor]:
        """A whole clip's visual codes "low" (b, 1, t, h, w), and "audio" where there is sound."""
        row, tokens = TASKS[task], given.tokens
        wants_sound = job.request.sound or row.needs_audio
        num_frames = self.config.num_frames if row.is_image else num_frames
        clip = self.inputs.clip_shape(num_frames, job.plan.size, sound=wants_sound)
        made = self._sample(job, task, clip, given, num_frames=num_frames, candidates=candidates)
        past = {name: each_row(tokens[name], job.rows) for name in ("visual", "audio") if name in tokens}
        out = {"low": past["visual"] if row.keeps_pictures else made["visual_out"]}
        if row.visual_out == "future" and not row.keeps_pictures:
            out["low"] = torch.cat([past["visual"], out["low"]], 2)
        if row.audio_out == "future":
            out["audio"] = torch.cat([past["audio"], made["audio_out"]], 2)
        elif "audio_out" in made:
            out["audio"] = made["audio_out"]
        elif row.audio_in == "whole":
            out["audio"] = past["audio"]
        elif wants_sound and not row.is_image and given.sound is None:
            # the task is silent, so the sound is made for the finished picture, behind the sound that is there
            sounding = named(keeps_pictures=True)[0]
            if sounding in self.config.tasks:
                seen = {"visual": out["low"]} | ({"audio": past["audio"]} if "audio" in past else {})
                heard = self._sample(job, sounding, clip, Given(tokens=seen), num_frames=num_frames)
                out["audio"] = heard["audio_out"]
            else:
                job.notes.append(f"{task} is silent in this model: it was not trained on {sounding}")
        return out

    def _sample(
        self, job: _Job, task: str, clip: Clip, given: Given, *, num_frames: int, candidates: int = 1
    ) -> dict[str, Tensor]:
        """Run the language model on one task and read its outputs, ``candidates`` of every film."""
        from llm.generate import generate

        model, plan, config = self.lm, job.plan, self.config
        rows = job.rows // candidates
        longer = num_frames in config.more_num_frames
        layout = task_layout(
            task,
            model.vocabulary,
            clip,
            text_slots=model.config.text_slots,
            given=given.slices,
            source=plan.source,
            resolution=plan.resolution,
            duration=config.more_num_frames.index(num_frames) if longer else None,
            audio_order=model.config.audio_order,
        )
        tokens = {name: each_row(codes, rows) for name, codes in given.tokens.items()}
        content = task_content(task, clip, given=given.slices, outputs=False, **tokens)
        if TASKS[task].keeps_first:
            content["visual_out"] = tokens["visual"][:, :, :1]
        if TASKS[task].keeps_pictures and "audio" in tokens:
            content["audio_out"] = tokens["audio"]  # the sound goes on from what was heard
        ids, known = layout.fill(content, rows)
        text = mask = negative = None
        if layout.text_slots:
            slots, width = layout.text_slots, model.config.text_dim
            empty = (torch.zeros(1, slots, width), torch.zeros(1, slots, dtype=torch.bool))
            text, mask = (each_row(x.to(self.compute.device), rows) for x in job.text or empty)
            if job.negative is not None and job.text is not None:
                negative = (each_row(job.negative[0], rows), each_row(job.negative[1], rows))
        on_step, request = job.request.on_step, job.request
        with self.parts.timed(f"sample {task}"), self.parts.threads_for(job.rows):
            ids = generate(
                model,
                layout,
                ids.to(self.compute.device),
                known,
                text=text,
                text_mask=mask,
                negative=negative,
                cfg_scale=config.guidance_scale if request.guidance_scale is None else request.guidance_scale,
                guidance_interval=request.guidance_interval,
                temperature=config.temperature if request.temperature is None else request.temperature,
                top_k=config.top_k if request.top_k is None else request.top_k,
                top_p=config.top_p if request.top_p is None else request.top_p,
                candidates=candidates,
                generator=job.generators,
                on_step=None if on_step is None else lambda done, of: on_step(task, done, of),
            )
        return {s.name: layout.read(ids, s.name) for s in layout.stretches if s.name.endswith("_out")}

    def _decode_sound(self, codes: Tensor, num_frames: int) -> Tensor:
        with self.parts.timed("decode sound"):
            return self.audio.decode(codes, num_samples=self.inputs.samples(num_frames))  # type: ignore[no-any-return]

    def _extend(self, job: _Job, tail: _Tail) -> _Made:
        """New pictures and sound: re-encode the last second, because a mid-clip latent cannot start a clip."""
        num_frames, past = self.config.num_frames, tail.frames
        slices = slices_of_frames(past.shape[2], self.visual.stride[0])
        with self.parts.timed("encode picture"):
            given = Given(tokens={"visual": self.visual.encode(past)}, slices=slices)
        if job.request.sound and tail.samples is not None:
            given.tokens["audio"] = self.inputs.past_sound(tail.samples, num_frames, slices)
        there = {"video", "audio"} if "audio" in given.tokens else {"video"}
        task = nearest_task(fitting_tasks(there), self.config.tasks)
        if task not in self.config.tasks:
            raise ValueError(f"extensions need {task}, which is not trained in this model")
        codes = self._codes(job, task, given, num_frames=num_frames, candidates=1)
        with self.parts.timed("decode picture"):
            window = self.visual.decode(codes["low"])
        frames = window[:, :, past.shape[2] :]
        shown, _ = self._sharp(job, codes["low"], window, before=tail.shown)
        samples = None
        if "audio" in codes:
            wanted = self._new_samples(tail, frames.shape[2])
            samples = self._decode_sound(codes["audio"], window.shape[2])[..., -wanted:]
        return _Made(frames, shown, samples, codes)
