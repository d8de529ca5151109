"""What is given to a clip, as the language model takes it: texts as vectors, pictures and sound as codes.

Shape letters: b films, t h w time/height/width, k audio levels, n samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from llm.tasks import Clip, audio_frames_of_slices, slices_of_frames
from mmtok.conditions.commit_masks import Condition
from mmtok.conditions.masks import make_mask
from mmtok.conditions.structure import make_structure
from mmtok.visual.grid import repeat_last_frame
from mmtok.visual.holistic import is_holistic
from recipes.bundle.config import BundleConfig
from recipes.bundle.parts import Parts, Text
from recipes.pipeline.plan import FilmPlan
from recipes.pipeline.request import Request


@dataclass
class Given:
    """What one clip reads, and what stays in it as it was given.

    Attributes:
        tokens: "visual" and "condition" (b, 1, t, h, w), "audio" (b, k, T), those that its task reads.
        slices: how many of the clip's are given, for tasks that continue.
        clip: (b, 3, t, h, w) the film as it was given, cut to the clip.
        hidden: what a painting task sees of it.
        sound: (b, 1, n) kept beside the new pictures.
    """

    tokens: dict[str, Tensor] = field(default_factory=dict)
    slices: int | None = None
    clip: Tensor | None = None
    hidden: Condition | None = None
    sound: Tensor | None = None


class Inputs:
    """Reads what a request gives, with the parts of a bundle.

    Args:
        parts: tokenizers, text encoder, and what sees motion and depth.
        config: numbers of the clips.
    """

    def __init__(self, parts: Parts, config: BundleConfig):
        self.parts, self.config = parts, config

    # Shapes.

    def clip_shape(self, num_frames: int, size: tuple[int, int] | None = None, *, sound: bool = True) -> Clip:
        """Tokens of a clip.

        Args:
            num_frames: pictures.
            size: (h, w) pixels; None is the square.
            sound: whether it has any.

        Returns:
            The shape.
        """
        grid = self.parts.visual.grid(num_frames, *(size or (self.config.size, self.config.size)))
        return Clip(grid, self.samples(num_frames) // self.parts.audio.hop_length if sound else 0)

    def samples(self, num_frames: int) -> int:
        """Samples of sound beside that many pictures."""
        return round(num_frames / self.config.fps * self.parts.audio.sample_rate)

    @property
    def second(self) -> int:
        """Pictures of the last second that fill whole slices: nine at eight a second; at most half a clip."""
        stride = self.parts.visual.stride[0]
        half = (self.config.num_frames - 1) // stride // 2
        return int(1 + stride * max(0, min(half, max(1, round(self.config.fps / stride)))))

    # Before any large weights are loaded.

    def open(self, request: Request, plan: FilmPlan, media: dict[str, Tensor]) -> Given:
        """Cut the film to the clip and hide what is painted, so that mistakes show early.

        Args:
            request: what was asked for.
            plan: what that means.
            media: "image", "video" and "audio", those that were given.

        Returns:
            What the first clip is given, without codes yet.

        Raises:
            ValueError: if a mask does not fit, or pictures are missing or do not fill slices.
            ImportError: if stylization lacks OpenCV.
        """
        given, visual = Given(), self.parts.visual
        if not is_holistic(visual):
            visual.grid(self.config.num_frames if plan.num_frames == 1 else plan.num_frames, *plan.size)
            if plan.row.continues and request.given_frames is not None:
                slices_of_frames(request.given_frames, visual.stride[0])
                if (have := media["video"].shape[2]) < request.given_frames:
                    raise ValueError(f"given_frames is {request.given_frames}, the video has {have} pictures")
        if plan.row.stylizes:
            _ = self.parts.flow, self.parts.depth  # what is not installed is told now
        if "video" in media and not plan.row.continues:
            given.clip = repeat_last_frame(media["video"][:, :, : plan.num_frames], plan.num_frames)
        if plan.row.masks:
            assert given.clip is not None and request.mask is not None, f"{plan.task} was chosen without its inputs"
            given.hidden = make_mask(
                request.mask,
                plan.row.masks,
                self.parts.fit(given.clip, plan.size),
                given_size=(given.clip.shape[-2], given.clip.shape[-1]),
                fit=lambda mask: self.parts.fit(mask, plan.size),
                stride=visual.stride,
                given_frames=request.given_frames,
            )
        return given

    # Vectors and codes.

    def texts(self, prompts: list[str] | None, negative: str | None, notes: list[str]) -> tuple[Text | None, ...]:
        """Vectors of prompts, and of what guidance moves away from.

        Args:
            prompts: one a film, or one for all, or None.
            negative: a text; without prompts it has nothing to work against.
            notes: receives what a user should know, such as a prompt that was cut.

        Returns:
            Vectors and mask of both, each None where there is no text.
        """
        text = self.parts.embed(prompts, notes)
        return text, self.parts.embed([negative], notes) if negative and prompts else None

    def encode(self, video: Tensor, size: tuple[int, int]) -> Tensor:
        """Codes of pictures at a size.

        Args:
            video: (b, 3, t, h, w) in [-1, 1], of any size.
            size: (h, w) pixels that the language model speaks.

        Returns:
            (b, 1, t', h', w').
        """
        with self.parts.timed("encode picture"):
            video = self.parts.fit(video, size).to(self.parts.compute.device)
            return self.parts.visual.encode(video)  # type: ignore[no-any-return]

    def read(self, given: Given, request: Request, plan: FilmPlan, media: dict[str, Tensor]) -> None:
        """Tokenize everything that the first clip is given.

        Args:
            given: of ``open``; receives the codes.
            request: what was asked for.
            plan: what that means.
            media: as of ``open``.
        """
        row, tokens, parts = plan.row, given.tokens, self.parts
        if row.continues:
            video = media["video"]
            count = request.given_frames or min(self.second, parts.visual.valid_num_frames(video.shape[2]))
            given.slices = slices_of_frames(count, parts.visual.stride[0])
            tokens["visual"] = self.encode(video[:, :, video.shape[2] - count :], plan.size)
            if "audio" in media and request.sound:
                begin, end = (self.samples(video.shape[2] - n) for n in (count, 0))
                heard = F.pad(media["audio"].float(), (0, max(0, end - media["audio"].shape[-1])))[..., begin:end]
                tokens["audio"] = self.past_sound(heard, plan.num_frames, given.slices)
            return
        if row.visual_in == "whole":
            assert given.clip is not None, f"{plan.task} was chosen without a video"
            tokens["visual"] = self.encode(given.clip, plan.size)
        if "image" in media:
            tokens["visual"] = self.encode(media["image"][:, :, None], plan.size)
        if given.hidden is not None:
            tokens["condition"] = self.encode(given.hidden.video, plan.size)
        if row.stylizes:
            assert given.clip is not None, f"{plan.task} was chosen without a video"
            with parts.timed("flow and depth"):
                structure = make_structure(parts.fit(given.clip, plan.size), flow=parts.flow, depth=parts.depth)
            tokens["condition"] = self.encode(structure, plan.size)
        if "audio" in media and (request.sound or row.audio_in == "whole"):
            wanted, sound = self.samples(plan.num_frames), media["audio"].float()  # exactly one clip of it
            sound = F.pad(sound, (0, max(0, wanted - sound.shape[-1])))[..., :wanted]
            given.sound = sound.to(parts.compute.device)
        if row.audio_in == "whole":
            with parts.timed("encode sound"):
                tokens["audio"] = parts.audio.encode(given.sound)

    def past_sound(self, samples: Tensor, num_frames: int, slices: int) -> Tensor:
        """Codes of the sound beside the given slices, with as many frames as the tasks count.

        Args:
            samples: (b, 1, n) in [-1, 1].
            num_frames: pictures of the whole clip.
            slices: of it that are given.

        Returns:
            (b, k, T).
        """
        wanted = audio_frames_of_slices(self.clip_shape(num_frames), slices, self.parts.visual.stride[0])
        missing = wanted * self.parts.audio.hop_length - samples.shape[-1]
        with self.parts.timed("encode sound"):
            codes = self.parts.audio.encode(F.pad(samples, (0, max(0, missing))).to(self.parts.compute.device))
        return codes[..., :wanted]  # type: ignore[no-any-return]
