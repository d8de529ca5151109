"""``CinePoetPipeline``: every task of a bundle as one call, from text, pictures and sound to a film with sound.

    pipe = CinePoetPipeline.from_pretrained("tiny")
    pipe("a red circle moves left on a dark plain background").save("film.mp4")

Parts are loaded when they are first needed. ``seconds`` holds the time of each stage of the last call.
Shape letters: b batch, c channels, t h w time/height/width, k audio levels, n samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import mmtok
from llm.tasks import Clip, find_task, slices_of_frames, task_content, task_layout
from mmtok.contract import decode_clip
from mmtok.visual.grid import pad_frames, repeat_last_frame
from mmtok.visual.holistic import as_grid, is_holistic
from recipes.bundle import Bundle, BundleConfig, open_bundle
from recipes.device import Compute, choose_compute, give_back_freed_memory

# Tasks that the embedded pipeline offers; the others of llm.tasks need condition encoders.
PIPELINE_TASKS = (
    "text_to_video",
    "text_to_image",
    "unconditional",
    "image_to_video",
    "continue_video",
    "video_to_audio",
    "audio_to_video",
)
OnStep = Callable[[str, int, int], None]  # stage, places done, places in all


@dataclass
class Output:
    """What a call made.

    Attributes:
        frames: (b, 3, t, h, w) in [-1, 1].
        fps: pictures per second.
        audio: (b, 1, n) in [-1, 1] with n = t / fps * sample_rate, or None.
        sample_rate: Hz.
        codes: "low" (b, 1, t, h, w), "audio" (b, k, T) and "high" (b, 1, t, 2h, 2w), those that were made; of a film
            with
            extensions, those of its first clip.
        notes: what a user should know, such as a prompt that was cut.
        seconds: stage to seconds.
    """

    frames: Tensor
    fps: float
    audio: Tensor | None
    sample_rate: int
    codes: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

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


class CinePoetPipeline:
    """A bundle, ready to generate.

    Args:
        bundle: folder and config.
        compute: device and precision; None chooses.
    """

    def __init__(self, bundle: Bundle, compute: Compute | None = None):
        self.bundle, self.config = bundle, bundle.config
        self.compute = compute if compute is not None else choose_compute()
        self.seconds: dict[str, float] = {}
        self._inner_s = [0.0]  # seconds spent in stages inside each open stage, so that no second counts twice

    @classmethod
    def from_pretrained(cls, name: str | Path = "tiny", *, device: str = "auto") -> CinePoetPipeline:
        """A pipeline by embedded name, folder or hub id.

        Args:
            name: such as "tiny".
            device: "auto" or a torch device.

        Returns:
            The pipeline; its parts are loaded later.
        """
        return cls(open_bundle(name), choose_compute(device))

    # Parts, loaded when first used.

    def _tokenizer(self, part: str) -> Any:
        if not self.bundle.has(part):
            raise ValueError(f"the model {self.bundle.folder} has no {part} part")
        with self._timed(f"load {part}"):
            return mmtok.load(self.bundle.part(part), device=self.compute.device)

    @cached_property
    def visual(self) -> Any:
        """The visual tokenizer that the language model speaks; its codes have three axes also where it has no grid."""
        config = self.config
        return as_grid(self._tokenizer("visual"), (config.num_frames, config.size, config.size))

    @cached_property
    def sharp_visual(self) -> Any:
        """The visual tokenizer that super-resolution was trained on, another one where the first has no grid."""
        return self._tokenizer("superres_visual") if self.bundle.has("superres_visual") else self.visual

    @cached_property
    def audio(self) -> Any:
        """The audio tokenizer."""
        return self._tokenizer("audio")

    @cached_property
    def text(self) -> Any:
        """The text encoder, limited to the positions that the language model reserves."""
        encoder = self._tokenizer("text")
        encoder.max_length = min(encoder.max_length, self.lm.config.text_slots)
        return encoder

    @cached_property
    def lm(self) -> Any:
        """The language model; its vocabulary must be the tokenizers'."""
        from llm.model import PrefixLM

        with self._timed("load lm"):
            model = PrefixLM.from_pretrained(self.bundle.part("lm")).to(self.compute.device).eval()
        model.vocabulary.require(self.visual, self.audio)
        return model

    @cached_property
    def superres(self) -> Any:
        """The super-resolution transformer."""
        from superres.model import SuperResTransformer

        if not self.bundle.has("superres"):
            raise ValueError(f"the model {self.bundle.folder} has no super-resolution part; ask for no upscaling")
        with self._timed("load superres"):
            return SuperResTransformer.from_pretrained(self.bundle.part("superres")).to(self.compute.device).eval()

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        self._inner_s.append(0.0)
        try:
            yield
        finally:
            spent = time.monotonic() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent - self._inner_s.pop()
            self._inner_s[-1] += spent

    @contextlib.contextmanager
    def _threads_for(self, batch: int) -> Iterator[None]:
        """One CPU thread while few rows of a small model are sampled.

        A step is then too little work to share: threads would wait for each other at every product, and on a machine
        that is busy otherwise sampling takes minutes instead of seconds.
        """
        threads = torch.get_num_threads()
        few = self.compute.device.type == "cpu" and batch <= 4 and self.lm.config.dim <= 512
        torch.set_num_threads(1 if few else threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    # The call.

    @torch.inference_mode()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *,
        image: Tensor | None = None,
        video: Tensor | None = None,
        audio: Tensor | None = None,
        task: str = "auto",
        num_frames: int | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        extensions: int = 0,
        upscale: bool = True,
        sound: bool = True,
        generator: torch.Generator | None = None,
        output_type: str = "pt",
        on_step: OnStep | None = None,
    ) -> Output:
        """Generate.

        Args:
            prompt: one text, a list (one a film), or None.
            image: (3, h, w) or (b, 3, h, w) in [-1, 1]; resized and centre-cropped.
            video: (3, t, h, w) or (b, 3, t, h, w) in [-1, 1], at the model's pictures per second.
            audio: (1, n) or (b, 1, n) in [-1, 1] at the model's sample rate; padded or cut to the clip.
            task: one of ``PIPELINE_TASKS``; "auto" is decided by what is given.
            num_frames: pictures of a clip; only the model's own length is trained, 1 asks for an image.
            negative_prompt: takes the place of the empty text in guidance.
            guidance_scale: 1.0 is off; None is the model's default, as for the next three.
            temperature: 0.0 is greedy.
            top_k: keep that many best codes.
            top_p: keep the best codes of that total probability.
            extensions: times that the last second is re-read and another one added.
            upscale: whether super-resolution follows.
            sound: whether sound is made; False stops behind the picture.
            generator: CPU generator; the same state gives the same film.
            output_type: "pt" for tensors, "np" for numpy arrays of shape (b, t, h, w, 3) in [0, 1].
            on_step: called with (task or "super-resolution", done, in all) while codes are sampled.

        Returns:
            The film, its codes, notes and times.

        Raises:
            ValueError: for contradicting inputs, unknown names or values out of range.
        """
        self.seconds = {}
        if output_type not in ("pt", "np"):
            raise ValueError(f"unknown output_type {output_type!r}; known: np, pt")
        if extensions < 0:
            raise ValueError(f"extensions must not be negative, got {extensions}")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt) if prompt is not None else None
        if prompts is not None and not all(p.strip() for p in prompts or [""]):
            raise ValueError("the prompt is empty; describe what should be seen or heard")
        task = self.choose_task(task, prompts, image, video, audio, num_frames)
        sampling = {
            "cfg_scale": self.config.guidance_scale if guidance_scale is None else guidance_scale,
            "temperature": self.config.temperature if temperature is None else temperature,
            "top_k": self.config.top_k if top_k is None else top_k,
            "top_p": self.config.top_p if top_p is None else top_p,
            "generator": generator if generator is not None else torch.Generator().manual_seed(0),
        }
        if extensions and is_holistic(self.visual):
            raise ValueError("extensions re-read the last second, and this model's tokens are about the whole clip")
        if extensions and task == "text_to_image":
            raise ValueError("extensions lengthen a film, and text_to_image makes one picture")
        if negative_prompt and not prompts:
            raise ValueError("negative_prompt works against a prompt; give one")
        self._check_media(image, video, audio)
        negative_prompt = self.config.negative_prompt if negative_prompt is None else negative_prompt
        notes: list[str] = []
        text = self._embed(prompts, notes)
        negative = self._embed([negative_prompt], notes) if negative_prompt else None
        batch = self._batch_size(prompts, image, video, audio)
        given = None
        context = {"text": text, "negative": negative, "batch": batch, "sampling": sampling, "on_step": on_step}

        # The first clip, as codes; everything that is given is tokenized first.
        tokens: dict[str, Tensor] = {}
        film_start = None
        if task in ("image_to_video", "continue_video", "video_to_audio"):
            source = image if task == "image_to_video" else video
            assert source is not None, f"{task} was chosen without its input"
            source = source[..., None, :, :] if task == "image_to_video" else source
            if task == "video_to_audio":  # its pictures stay as they were given, at the size of the result
                source = self._clip_of(source if source.ndim == 5 else source[None])
                side = self.config.upscaled_size if upscale and self.config.upscaled_size else self.config.size
                film_start = self.fit(source, side).to(self.compute.device).expand(batch, -1, -1, -1, -1)
            source = self.fit(source)
            if task == "continue_video":
                source, given = self._last_second(source)
            with self._timed("encode picture"):
                tokens["visual"] = self.visual.encode(source.to(self.compute.device))
        if task == "audio_to_video":
            assert audio is not None, "audio_to_video was chosen without sound"
            with self._timed("encode sound"):
                tokens["audio"] = self.audio.encode(self._clip_sound(audio).to(self.compute.device))
        low, codes = self._clip_codes(task, tokens, given, context, sound=sound)

        # Codes to pictures and sound, then sharper pictures, then further seconds.
        with self._timed("decode picture"):
            frames = self.visual.decode(low) if film_start is None else self.fit(film_start)
        samples = self._decode_sound(codes.get("audio"), frames.shape[2])
        if task == "audio_to_video" and audio is not None:
            samples = self._clip_sound(audio).to(self.compute.device).expand(batch, -1, -1)
        all_codes = {"low": low, **codes}
        upscale = upscale and self.config.upscaled_size > 0
        shown = frames if film_start is None else film_start
        if upscale and film_start is None:
            all_codes["high"] = self._sharpen(low, text, context)
            with self._timed("decode sharp picture"):
                shown = self.decode_sharp(all_codes["high"])
        for _ in range(extensions if frames.shape[2] > 1 else 0):
            frames, shown, samples = self._extend(frames, shown, samples, context, upscale=upscale, sound=sound)
        output = Output(
            frames=shown.float().cpu(),
            fps=self.config.fps,
            audio=None if samples is None else samples.float().cpu(),
            sample_rate=self.audio.sample_rate,
            codes={k: v.cpu() for k, v in all_codes.items()},
            notes=notes,
            seconds=dict(self.seconds),
        )
        if output_type == "np":
            pictures: Any = ((output.frames.permute(0, 2, 3, 4, 1) + 1) / 2).numpy()
            sounds: Any = None if output.audio is None else output.audio.numpy()
            output = dataclasses.replace(output, frames=pictures, audio=sounds)
        return output

    def choose_task(
        self,
        task: str,
        prompts: list[str] | None,
        image: Tensor | None,
        video: Tensor | None,
        audio: Tensor | None,
        num_frames: int | None,
    ) -> str:
        """The task that the inputs mean, checked against the one asked for.

        Args:
            task: "auto" or one of ``PIPELINE_TASKS``.
            prompts: texts, or None.
            image: as in the call.
            video: as in the call.
            audio: as in the call.
            num_frames: as in the call.

        Returns:
            The task.

        Raises:
            ValueError: for an unknown task or length, or inputs that do not fit together.
        """
        given = [n for n, v in (("image", image), ("video", video), ("audio", audio)) if v is not None]
        if len(given) > 1:
            raise ValueError(f"give one of image, video and audio, got {' and '.join(given)}")
        if num_frames not in (None, 1, self.config.num_frames):
            raise ValueError(
                f"num_frames must be {self.config.num_frames} (this model's clip) or 1 (an image), got {num_frames}; "
                "use extensions for a longer film"
            )
        if task == "auto":
            by_input = {"image": "image_to_video", "video": "continue_video", "audio": "audio_to_video"}
            task = by_input[given[0]] if given else "text_to_video" if prompts else "unconditional"
            if num_frames == 1 and task == "text_to_video":
                task = "text_to_image"
        if task not in PIPELINE_TASKS:
            find_task(task)  # raises for names that no model knows
            raise ValueError(f"task {task!r} is not offered by this pipeline; offered: {', '.join(PIPELINE_TASKS)}")
        wanted = {
            "image_to_video": ["image"],
            "continue_video": ["video"],
            "video_to_audio": ["video"],
            "audio_to_video": ["audio"],
        }.get(task, [])
        if given != wanted:
            raise ValueError(f"task {task} takes {wanted[0] if wanted else 'text only'}, got {given or 'no media'}")
        if task in ("text_to_video", "text_to_image") and not prompts:
            raise ValueError(f"task {task} needs a prompt")
        if task == "unconditional" and prompts:
            raise ValueError("task unconditional takes no prompt; leave the prompt or the task out")
        if find_task(task).cuts and is_holistic(self.visual):
            offered = [name for name in PIPELINE_TASKS if not find_task(name).cuts]
            raise ValueError(
                f"task {task} needs slices of a clip, and this model's tokens are about the whole clip; "
                f"offered: {', '.join(offered)}"
            )
        if num_frames == 1 and task != "text_to_image":
            raise ValueError(f"num_frames=1 asks for an image, but the task is {task}")
        return task

    # Preparing what is given.

    def _embed(self, prompts: list[str] | None, notes: list[str]) -> tuple[Tensor, Tensor] | None:
        if prompts is None:
            return None
        with self._timed("text"):
            slots = self.lm.config.text_slots
            kept = []
            for prompt in prompts:
                read = self.text.tokenizer.tokenize(prompt, min(slots, self.text.max_length))
                kept.append(read.kept)
                if read.cut:
                    notes.append(f"the prompt is longer than {slots} tokens; left out: {read.cut!r}")
            vectors, mask = self.text.encode(kept, pad_to=slots)
        return vectors.to(self.compute.device), mask.to(self.compute.device)

    @staticmethod
    def _check_media(image: Tensor | None, video: Tensor | None, audio: Tensor | None) -> None:
        kinds = (("image", image, "(3, h, w)", 3), ("video", video, "(3, t, h, w)", 4), ("audio", audio, "(1, n)", 2))
        for name, tensor, shape, ndim in kinds:
            if tensor is None:
                continue
            channels = tensor.shape[-ndim] if tensor.ndim in (ndim, ndim + 1) else None
            if channels != (1 if name == "audio" else 3) or not tensor.numel() or not tensor.is_floating_point():
                raise ValueError(
                    f"{name} must be floats of shape {shape}, with or without a batch axis, got {tensor.dtype} of "
                    f"{tuple(tensor.shape)}"
                )
            low, high = torch.aminmax(tensor)
            if not (low >= -1.01 and high <= 1.01):  # NaN fails too
                raise ValueError(f"{name} must lie in [-1, 1], got values in [{low:.3g}, {high:.3g}]")

    @staticmethod
    def _batch_size(prompts: list[str] | None, *media: Tensor | None) -> int:
        sizes = {len(prompts)} if prompts else set()
        for number, tensor in enumerate(media):
            if tensor is not None and tensor.ndim == (4, 5, 3)[number]:
                sizes.add(len(tensor))
        if len(sizes - {1}) > 1:
            raise ValueError(f"prompts and media disagree about the number of films: {sorted(sizes)}")
        return max(sizes, default=1)

    def fit(self, video: Tensor, size: int | None = None) -> Tensor:
        """Resize the shorter side and crop the centre.

        Args:
            video: (3, t, h, w) or (b, 3, t, h, w) in [-1, 1].
            size: side in pixels; None is the language model's.

        Returns:
            (b, 3, t, size, size) in [-1, 1].
        """
        size = self.config.size if size is None else size
        video = (video if video.ndim == 5 else video[None]).float()
        b, c, t, h, w = video.shape
        if (h, w) != (size, size):
            scale = size / min(h, w)
            shape = (max(size, round(h * scale)), max(size, round(w * scale)))
            flat = video.transpose(1, 2).reshape(b * t, c, h, w)
            flat = F.interpolate(flat, size=shape, mode="bicubic", antialias=True).clamp(-1, 1)
            top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
            flat = flat[..., top : top + size, left : left + size]
            video = flat.reshape(b, t, c, size, size).transpose(1, 2)
        return video.contiguous()

    def _last_second(self, video: Tensor) -> tuple[Tensor, int]:
        """The last pictures that fill whole slices, at most nine of seventeen, and how many slices they are."""
        stride = self.visual.stride[0]
        most = 1 + stride * ((self.config.num_frames - 1) // stride // 2)
        count = min(most, self.visual.valid_num_frames(video.shape[2]))
        return video[:, :, video.shape[2] - count :], slices_of_frames(count, stride)

    def _clip_of(self, video: Tensor) -> Tensor:
        """The first clip; a shorter one holds its last picture."""
        missing = self.config.num_frames - video.shape[2]
        if missing > 0:
            video = torch.cat([video, video[:, :, -1:].expand(-1, -1, missing, -1, -1)], 2)
        return video[:, :, : self.config.num_frames]

    def _clip_sound(self, audio: Tensor) -> Tensor:
        """Exactly one clip of sound, (b, 1, n)."""
        audio = (audio if audio.ndim == 3 else audio[None]).float()
        wanted = round(self.config.num_frames / self.config.fps * self.audio.sample_rate)
        return F.pad(audio, (0, max(0, wanted - audio.shape[-1])))[..., :wanted]

    # Sampling.

    def _clip_codes(
        self, task: str, tokens: dict[str, Tensor], given: int | None, context: dict[str, Any], *, sound: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Whole clip's visual codes (b, 1, t, h, w), and further codes that were sampled or given."""
        grid = self.visual.grid(self.config.num_frames, self.config.size, self.config.size)
        frames = round(self.config.num_frames / self.config.fps * self.audio.sample_rate) // self.audio.hop_length
        wants_sound = sound or task in ("video_to_audio", "audio_to_video")
        clip = Clip(grid, frames if wants_sound else 0)
        made = self._sample(task, clip, tokens, given, context)
        codes = {}
        if "audio_out" in made:
            codes["audio"] = made["audio_out"]
        if task == "video_to_audio":
            return tokens["visual"], codes
        low = made["visual_out"]
        if task == "continue_video":
            low = torch.cat([tokens["visual"].expand(len(low), -1, -1, -1, -1), low], 2)
            if sound:  # this task is silent, so the sound is made for the finished picture
                heard = self._sample("video_to_audio", clip, {"visual": low}, None, context)
                codes["audio"] = heard["audio_out"]
        if "audio" in tokens:
            codes["audio"] = tokens["audio"]
        return low, codes

    def _sample(
        self, task: str, clip: Clip, tokens: dict[str, Tensor], given: int | None, context: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Run the language model on one task and read its outputs."""
        from llm.generate import generate

        model, batch = self.lm, context["batch"]
        layout = task_layout(
            task,
            model.vocabulary,
            clip,
            text_slots=model.config.text_slots,
            given=given,
            audio_order=model.config.audio_order,
        )
        expanded = {k: v.expand(batch, *v.shape[1:]) for k, v in tokens.items()}
        content = task_content(task, clip, given=given, outputs=False, **expanded)
        if task == "image_to_video":
            content["visual_out"] = expanded["visual"][:, :, :1]  # the first slice stays the image
        ids, known = layout.fill(content, batch)
        text = mask = negative = None
        if layout.text_slots:
            slots, width = layout.text_slots, model.config.text_dim
            empty = (torch.zeros(1, slots, width), torch.zeros(1, slots, dtype=torch.bool))
            text, mask = (x.to(self.compute.device).expand(batch, *x.shape[1:]) for x in context["text"] or empty)
            if context["negative"] is not None and context["text"] is not None:
                negative = tuple(x.expand(batch, *x.shape[1:]) for x in context["negative"])
        on_step = context["on_step"]
        with self._timed(f"sample {task}"), self._threads_for(batch):
            ids = generate(
                model,
                layout,
                ids.to(self.compute.device),
                known,
                text=text,
                text_mask=mask,
                negative=negative,
                on_step=None if on_step is None else lambda done, of: on_step(task, done, of),
                **context["sampling"],
            )
        return {s.name: layout.read(ids, s.name) for s in layout.segments if s.name.endswith("_out")}

    def _decode_sound(self, codes: Tensor | None, num_frames: int) -> Tensor | None:
        if codes is None:
            return None
        with self._timed("decode sound"):
            return self.audio.decode(codes, num_samples=round(num_frames / self.config.fps * self.audio.sample_rate))

    def _sharpen(self, low: Tensor, text: tuple[Tensor, Tensor] | None, context: dict[str, Any]) -> Tensor:
        """Super-resolution of the language model's codes, (b, 1, t, h, w)."""
        if self.sharp_visual is not self.visual:  # the pictures again, in tokens that super-resolution knows
            with self._timed("re-encode picture"):
                low = self.encode_sharp(self.visual.decode(low))
        return self._upsample(low, text, context)

    def _upsample(
        self,
        low: Tensor,
        text: tuple[Tensor, Tensor] | None,
        context: dict[str, Any],
        pinned: Tensor | None = None,
    ) -> Tensor:
        """Codes of ``sharp_visual`` at twice the size; ``pinned`` are leading slices that are already sharp."""
        from superres.sample import sample

        known = known_mask = None
        if pinned is not None:
            b, _, t, h, w = low.shape
            known = torch.zeros(b, t, 2 * h, 2 * w, dtype=torch.int64, device=low.device)
            known_mask = torch.zeros_like(known, dtype=torch.bool)
            known[:, : pinned.shape[2]] = pinned[:, 0]
            known_mask[:, : pinned.shape[2]] = True
        model = self.superres
        vectors, mask = (x.expand(len(low), *x.shape[1:]) for x in text) if text is not None else (None, None)
        on_step = context.get("on_step")
        if on_step is not None:
            on_step("super-resolution", 0, 1)
        with self._timed("super-resolution"), self.compute.autocast():
            high = sample(
                model,
                low[:, 0],
                vectors,
                mask,
                num_steps=self.config.sr_steps,
                text_scale=self.config.sr_text_scale,
                low_scale=self.config.sr_low_scale,
                choice_temperature=self.config.sr_temperature,
                pinned=known,
                pinned_mask=known_mask,
                generator=context["sampling"]["generator"],
            )
        if on_step is not None:
            on_step("super-resolution", 1, 1)
        return high[:, None]

    def _extend(
        self,
        frames: Tensor,
        shown: Tensor,
        samples: Tensor | None,
        context: dict[str, Any],
        *,
        upscale: bool,
        sound: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Add pictures and sound behind: re-encode the last second, because a mid-clip latent cannot start a clip."""
        past, given = self._last_second(frames)
        tokens = {"visual": self.visual.encode(past)}
        low, codes = self._clip_codes("continue_video", tokens, given, context, sound=sound and samples is not None)
        with self._timed("decode picture"):
            window = self.visual.decode(low)
        new = window.shape[2] - past.shape[2]
        grown = torch.cat([frames, window[:, :, -new:]], 2)
        if upscale:
            pinned = self.visual.encode(shown[:, :, -past.shape[2] :])
            sharp = self._upsample(low, context["text"], context, pinned=pinned)
            with self._timed("decode sharp picture"):
                shown = torch.cat([shown, self.visual.decode(sharp)[:, :, -new:]], 2)
        else:
            shown = grown
        if samples is not None and "audio" in codes:
            heard = self._decode_sound(codes["audio"], window.shape[2])
            assert heard is not None, "codes were decoded to nothing"
            wanted = round(grown.shape[2] / self.config.fps * self.audio.sample_rate)
            samples = torch.cat([samples, heard[..., heard.shape[-1] - (wanted - samples.shape[-1]) :]], -1)
        return grown, shown, samples

    # Single stages, for the commands reconstruct, tokenize and upscale, and for evaluation.

    def encode_sharp(self, video: Tensor) -> Tensor:
        """Codes of super-resolution's tokenizer; a length that it does not take is filled with the last picture.

        Args:
            video: (b, 3, t, h, w) in [-1, 1], small or large.

        Returns:
            (b, 1, t', h', w') codes.
        """
        tokenizer = self.sharp_visual
        video = video.to(self.compute.device)
        return tokenizer.encode(video if is_holistic(tokenizer) else pad_frames(video, tokenizer.stride[0]))  # type: ignore[no-any-return]

    def decode_sharp(self, codes: Tensor) -> Tensor:
        """Pictures of ``encode_sharp``'s codes, or of super-resolution's.

        Args:
            codes: (b, 1, t', h', w').

        Returns:
            (b, 3, t, h, w), no longer than a clip.
        """
        return self.sharp_visual.decode(codes)[:, :, : self.config.num_frames]  # type: ignore[no-any-return]

    @torch.inference_mode()
    def sharpen(self, low: Tensor, *, prompts: list[str] | None, generator: torch.Generator) -> Tensor:
        """Super-resolution of codes.

        Args:
            low: (b, 1, t, h, w) codes of the language model's resolution.
            prompts: b texts, or None.
            generator: CPU generator.

        Returns:
            (b, 1, t, 2h, 2w) codes of ``sharp_visual``, for ``decode_sharp``.
        """
        context = {"sampling": {"generator": generator}}
        return self._sharpen(low.to(self.compute.device), self._embed(prompts, []), context)

    @torch.inference_mode()
    def upscale(
        self,
        video: Tensor,
        *,
        prompt: str | None = None,
        generator: torch.Generator | None = None,
        notes: list[str] | None = None,
    ) -> Tensor:
        """Sharpen any video, clip by clip; each clip after the first starts with the last second before it.

        Args:
            video: (3, t, h, w) or (b, 3, t, h, w) in [-1, 1].
            prompt: what is seen, or None.
            generator: CPU generator.
            notes: receives what a user should know, such as a prompt that was cut.

        Returns:
            (b, 3, t, s, s) in [-1, 1] with s = ``config.upscaled_size``.
        """
        self.seconds = {}
        generator = generator if generator is not None else torch.Generator().manual_seed(0)
        context = {"sampling": {"generator": generator}}
        text = self._embed([prompt], notes if notes is not None else []) if prompt else None
        small = self.fit(video).to(self.compute.device)
        out: Tensor | None = None
        tokenizer = self.sharp_visual
        stride = tokenizer.stride[0]
        total, clip = small.shape[2], 1 + -(-(self.config.num_frames - 1) // stride) * stride
        while out is None or out.shape[2] < total:
            overlap = 0 if out is None else 1 + stride * ((clip - 1) // stride // 2)
            start = 0 if out is None else out.shape[2] - overlap
            window = small[:, :, start : start + clip]
            low = tokenizer.encode(repeat_last_frame(window, clip))
            pinned = None if out is None else tokenizer.encode(out[:, :, -overlap:])
            sharp = tokenizer.decode(self._upsample(low, text, context, pinned=pinned))
            out = sharp if out is None else torch.cat([out, sharp[:, :, overlap:]], 2)
        return out[:, :, :total].float().cpu()


def encode_video(tokenizer: Any, video: Tensor, *, clip: int, stream: bool = False) -> list[Tensor]:
    """Codes of a video of any length, the last clip filled with its last picture to the next length that fits.

    Args:
        tokenizer: a ``VisualTokenizer``.
        video: (b, 3, t, h, w) in [-1, 1].
        clip: pictures a clip, a valid length.
        stream: False encodes every clip alone; True carries the state from clip to clip, so that together they are the
            codes of the whole video (causal grid tokenizers).

    Returns:
        (b, k, *grid) codes of each clip.

    Raises:
        ValueError: if the tokenizer cannot stream.
    """
    if stream:
        _require_streams(tokenizer)
        give_back_freed_memory()
        st = tokenizer.stride[0]
        whole = pad_frames(video, st)
        later = whole[:, :, clip:].split(max(st, clip - 1), 2) if whole.shape[2] > clip else ()
        return list(tokenizer.encode_stream((whole[:, :, :clip], *later)))
    codes = []
    for part in video.split(clip, 2):
        codes.append(tokenizer.encode(repeat_last_frame(part, _filled(tokenizer, part.shape[2], clip))))
    return codes


def decode_video(
    tokenizer: Any, codes: Sequence[Tensor], *, size: tuple[int, int, int], clip: int, stream: bool = False
) -> Tensor:
    """The video of ``encode_video``.

    Args:
        tokenizer: the same.
        codes: of each clip.
        size: (t, h, w) of the video.
        clip: the same.
        stream: the same.

    Returns:
        (b, 3, t, h, w) in [-1, 1].

    Raises:
        ValueError: if the tokenizer cannot stream.
    """
    t, h, w = size
    if stream:
        _require_streams(tokenizer)
        clips = list(tokenizer.decode_stream(codes))
    else:
        lengths = [min(clip, t - start) for start in range(0, t, clip)]
        encoded = [_filled(tokenizer, n, clip) for n in lengths]  # as encode_video filled them
        clips = [decode_clip(tokenizer, c, (n, h, w)) for c, n in zip(codes, encoded, strict=True)]
    return torch.cat(clips, 2)[:, :, :t]


def _filled(tokenizer: Any, num_frames: int, clip: int) -> int:
    """The next length that a tokenizer takes, at most a whole clip."""
    return next(n for n in range(num_frames, clip + 1) if n == clip or _fits(tokenizer, n))


def _fits(tokenizer: Any, num_frames: int) -> bool:
    try:
        return bool(tokenizer.valid_num_frames(num_frames) == num_frames)
    except ValueError:  # fewer than one token needs
        return False


def _require_streams(tokenizer: Any) -> None:
    if not (tokenizer.is_causal and hasattr(tokenizer, "encode_stream")):
        raise ValueError("this tokenizer cannot carry its state from clip to clip (it looks ahead, or works in tiles)")


def reconstruct_video(tokenizer: Any, video: Tensor, *, clip: int, stream: bool = False) -> tuple[Tensor, list[Tensor]]:
    """``encode_video``, then ``decode_video``.

    Args:
        tokenizer: a ``VisualTokenizer``.
        video: (b, 3, t, h, w) in [-1, 1].
        clip: pictures a clip, a valid length.
        stream: see ``encode_video``.

    Returns:
        (b, 3, t, h, w) in [-1, 1], and the codes of each clip.

    Raises:
        ValueError: if the tokenizer cannot stream.
    """
    codes = encode_video(tokenizer, video, clip=clip, stream=stream)
    t, h, w = video.shape[2:]
    return decode_video(tokenizer, codes, size=(t, h, w), clip=clip, stream=stream), codes


def bundle_config(config: BundleConfig) -> str:
    """One line about a bundle's geometry.

    Args:
        config: what binds the parts.

    Returns:
        Such as "17 frames of 64x64 at 8 fps, then 128x128".
    """
    line = f"{config.num_frames} frames of {config.size}x{config.size} at {config.fps:g} fps"
    return line + (f", then {config.upscaled_size}x{config.upscaled_size}" if config.upscaled_size else "")
