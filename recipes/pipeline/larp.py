"""``LarpPipeline``: a LARP generator with its tokenizer, from a class or from the first frames to a clip.

    pipe = LarpPipeline.from_pretrained("runs/larp_ar/model")
    pipe(classes=["star spins"]).save("film.mp4")

A generator trained here carries its tokenizer in a folder ``tokenizer`` inside its own; the published ones use the
published tokenizer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mmtok
from llm.larp_ar import LarpAR
from llm.loading import load_larp
from mmtok.contract import require_video
from mmtok.metrics.drift import look_at
from mmtok.pretrained import resolve_folder
from mmtok.visual.grid import repeat_last_frame
from mmtok.visual.larp import Larp
from recipes.bundle.named import tokenizer_of
from recipes.pipeline.output import Block, Output
from recipes.runtime.device import Compute, choose_compute

LARGE = 100_000_000  # parameters from which on sampling takes as long as reading them from memory does


def sampling_dtype(model: LarpAR, device: torch.device) -> torch.dtype:
    """The type in which a generator samples: float32 for small ones, else half precision, which a CPU reads faster."""
    if sum(p.numel() for p in model.parameters()) < LARGE:
        return torch.float32
    return torch.float16 if device.type == "cpu" else torch.bfloat16


class LarpPipeline:
    """A generator, ready to use; it answers what ``CinePoetPipeline`` does about clocks, times and pieces.

    Args:
        model: class-conditional or frame prediction.
        tokenizer: that its codes belong to.
        compute: device and precision.

    Raises:
        ValueError: if the two do not fit.
    """

    def __init__(self, model: LarpAR, tokenizer: Larp, compute: Compute):
        config = model.config
        theirs = (tokenizer.codebook_size, tokenizer.params.num_tokens)
        if theirs != (config.vocab_size, config.num_tokens):
            raise ValueError(
                f"the tokenizer makes {theirs[1]} tokens of {theirs[0]} codes, the generator was trained on "
                f"{config.num_tokens} of {config.vocab_size}; name the tokenizer it was trained with (--tokenizer)"
            )
        self.model, self.tokenizer, self.compute = model, tokenizer, compute
        self.seconds: dict[str, float] = {}

    def __repr__(self) -> str:
        params, kind = self.tokenizer.params, "first frames" if self.model.config.frame_prediction else "classes"
        return (
            f"LarpPipeline({params.num_frames} pictures of {params.size}x{params.size} at {self.fps:g} fps from "
            f"{kind}, on {self.compute.device})"
        )

    @property
    def fps(self) -> float:
        """Pictures per second."""
        return self.tokenizer.fps

    @property
    def sample_rate(self) -> int:
        """Of the sound that its films do not have."""
        return 16000

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        tokenizer: str | Path | None = None,
        device: str = "auto",
        dtype: torch.dtype | None = None,
    ) -> LarpPipeline:
        """Load both halves.

        Args:
            name: folder or hub id of the generator.
            tokenizer: folder or hub id; None takes the one inside the generator's folder, or the published one.
            device: "auto" or a torch device.
            dtype: of the generator; None chooses, see ``sampling_dtype``.

        Returns:
            The pipeline.

        Raises:
            FileNotFoundError: if one is not there.
            ValueError: if one is something else, or they do not fit.
        """
        compute = choose_compute(device)
        folder = resolve_folder(name)
        model = load_larp(folder)
        model.to(compute.device, sampling_dtype(model, compute.device) if dtype is None else dtype)
        source = tokenizer_of(folder) if tokenizer is None else tokenizer
        try:
            loaded = mmtok.load(source, device=compute.device)
        except FileNotFoundError as fault:
            advice = "; name its tokenizer's folder (--tokenizer)" if tokenizer is None else ""
            raise FileNotFoundError(f"{fault}{advice}") from fault
        if not isinstance(loaded, Larp):
            raise ValueError(f"{source} is not a LARP tokenizer, and LARP's generators speak its codes only")
        return cls(model, loaded, compute)

    @property
    def usual_guidance(self) -> float:
        """The published scale for classes; first frames have no empty condition to move away from."""
        return 1.0 if self.model.config.frame_prediction else 1.25

    def label(self, name: str | int) -> int:
        """Number of a class.

        Args:
            name: a number, or a name where the model has names.

        Returns:
            The number.

        Raises:
            ValueError: for an unknown class, with the known ones.
        """
        count, names = self.model.config.num_classes, self.model.classes
        if isinstance(name, str) and name in names:
            return names.index(name)
        if str(name).isdecimal() and int(name) < count:
            return int(name)
        known = f"0 to {count - 1}" + (f", or {', '.join(names)}" if names else "")
        raise ValueError(f"unknown class {str(name)!r}; known: {known}")

    @torch.inference_mode()
    def __call__(
        self,
        *,
        classes: Sequence[str | int] | None = None,
        video: Tensor | None = None,
        cfg_scale: float = 1.0,
        cfg_steps: int | None = None,
        num_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        on_step: Callable[[str, int, int], None] | None = None,
    ) -> Output:
        """Generate clips.

        Args:
            classes: one a clip, numbers or names; of a class-conditional model.
            video: (b, 3, t, h, w) in [-1, 1] the frames that are known, at the tokenizer's size and clock; of a frame
                prediction model. At most one frame less than the clip has.
            cfg_scale: guidance by the class, 1.0 is off (published: 1.25).
            cfg_steps: see ``LarpAR.generate``.
            num_tokens: codes to draw, the first ones, for tokenizers trained on random numbers of them; None for all.
            temperature: 0.0 is greedy.
            top_k: keep that many best codes.
            top_p: keep the best codes of that total probability.
            generator: CPU generator; the same state gives the same clips.
            on_step: called with (stage, done, in all).

        Returns:
            The clips. With ``video`` all frames are the model's own, also the known ones (upstream's protocol).

        Raises:
            ValueError: if the input is not what the model is conditioned on, or a number is out of range.
        """
        config, params = self.model.config, self.tokenizer.params
        started = time.monotonic()
        if config.frame_prediction:
            if video is None or classes is not None:
                raise ValueError("this model continues first frames; give a video and no class")
            require_video(video)
            if video.shape[-2:] != (params.size, params.size):
                raise ValueError(f"the frames must be of {params.size}x{params.size}, got {tuple(video.shape[-2:])}")
            if not 1 <= video.shape[2] < params.num_frames:
                raise ValueError(f"give 1 to {params.num_frames - 1} known frames, got {video.shape[2]}")
            filled = repeat_last_frame(video, params.num_frames)
            condition = self.tokenizer.encode(filled.to(self.compute.device))[:, 0]
        else:
            if classes is not None and not len(classes):
                raise ValueError("classes is empty; name one for each clip")
            if classes is None or video is not None:
                raise ValueError("this model makes clips of classes; give classes and no video")
            condition = torch.tensor([self.label(c) for c in classes], device=self.compute.device)
        encoded_s, count = time.monotonic(), num_tokens or config.num_tokens
        codes = self.model.generate(
            condition,
            num_tokens=num_tokens,
            cfg_scale=cfg_scale,
            cfg_steps=cfg_steps,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            generator=generator if generator is not None else torch.Generator().manual_seed(0),
            on_step=None if on_step is None else lambda step, _: on_step("codes", step + 1, count),
        )
        drawn_s = time.monotonic()
        frames = self.tokenizer.decode(codes[:, None]).float().cpu()
        self.seconds = {
            "condition": encoded_s - started,
            "codes": drawn_s - encoded_s,
            "decode picture": time.monotonic() - drawn_s,
        }
        made = {"low": codes[:, None].cpu()}
        return Output(frames, self.fps, None, self.sample_rate, made, seconds=dict(self.seconds))

    def stream(self, **options: Any) -> Iterator[Block]:
        """The call's clips as the one piece that they are."""
        output = self(**options)
        yield Block(output.frames, None, output.codes, look_at(output.frames, output.codes["low"]), output.notes)
