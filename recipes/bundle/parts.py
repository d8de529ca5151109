"""The parts of a bundle, loaded when first used, and the stop watch of their stages.

Shape letters: b films, c channels, t h w time/height/width.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import mmtok
from mmtok.conditions.structure import DepthEstimator, FlowEstimator, OpenCVFlow, depth_estimator
from mmtok.media.resize import cover
from mmtok.pretrained import read_config
from mmtok.text.t5 import read_prompts
from mmtok.visual.holistic import as_grid
from recipes.bundle.folder import Bundle
from recipes.runtime.device import Compute, choose_compute

LM_WEIGHTS = ("float32", "bfloat16", "float16", "int8")  # of the language model in memory

Text = tuple[Tensor, Tensor]
"""Vectors (b or 1, slots, d) and mask (b or 1, slots)."""


class Parts:
    """A bundle whose parts are loaded when they are first used.

    Args:
        bundle: folder and config.
        compute: device and precision; None chooses.
        lm_weights: of the language model in memory, one of ``LM_WEIGHTS``; docs/language_model.md has what each costs.

    Raises:
        ValueError: for other ``lm_weights``.
    """

    def __init__(self, bundle: Bundle, compute: Compute | None = None, *, lm_weights: str = "float32"):
        if lm_weights not in LM_WEIGHTS:
            raise ValueError(f"unknown lm_weights {lm_weights!r}; known: {', '.join(LM_WEIGHTS)}")
        self.bundle, self.config, self.lm_weights = bundle, bundle.config, lm_weights
        self.compute = compute if compute is not None else choose_compute()
        self.seconds: dict[str, float] = {}
        self._inner_s = [0.0]  # seconds spent in stages inside each open stage, so that no second counts twice

    def _tokenizer(self, part: str) -> Any:
        if not self.bundle.has(part):
            raise ValueError(f"the model {self.bundle.folder} has no {part} part")
        with self.timed(f"load {part}"):
            return mmtok.load(self.bundle.part(part), device=self.compute.device)

    @cached_property
    def visual(self) -> Any:
        """The visual tokenizer that the language model speaks; its codes have three axes also where it has no grid."""
        config = self.config
        return as_grid(self._tokenizer("visual"), (config.num_frames, config.size, config.size))

    @cached_property
    def flow(self) -> FlowEstimator:
        """Optical flow for stylization; set it to use another estimator."""
        return OpenCVFlow(self.config.flow)

    @cached_property
    def depth(self) -> DepthEstimator:
        """Inverse depth for stylization; set it to use another estimator."""
        with self.timed("load depth"):
            return depth_estimator(self.config.depth, device=self.compute.device)

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
        encoder.max_length = min(encoder.max_length, self.text_slots)
        return encoder

    @cached_property
    def text_slots(self) -> int:
        """Positions that the language model reserves for text; its weights are not loaded for that."""
        from llm.model import FAMILY

        return int(read_config(self.bundle.part("lm"), FAMILY)["params"]["text_slots"])

    @cached_property
    def lm(self) -> Any:
        """The language model; its vocabulary must be the tokenizers'."""
        from llm.model import PrefixLM

        with self.timed("load lm"):
            model = PrefixLM.from_pretrained(self.bundle.part("lm"))
            if self.lm_weights == "int8":
                model.quantize_weights("int8")
            else:
                model.to(getattr(torch, self.lm_weights))
            model.to(self.compute.device).eval()
        model.vocabulary.require(self.visual, self.audio)
        return model

    @cached_property
    def superres(self) -> Any:
        """The super-resolution transformer, of the first stage where there are two."""
        return self._superres("superres")

    @cached_property
    def superres2(self) -> Any:
        """The second stage's transformer."""
        return self._superres("superres2")

    def _superres(self, part: str) -> Any:
        from superres.model import SuperResTransformer

        with self.timed(f"load {part}"):
            model = SuperResTransformer.from_pretrained(self.bundle.part(part))
            return model.to(self.compute.device, self.compute.dtype).eval()

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what happens in it to ``seconds`` under a name; a stage inside another counts for itself alone."""
        start = time.monotonic()
        self._inner_s.append(0.0)
        try:
            yield
        finally:
            spent = time.monotonic() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent - self._inner_s.pop()
            self._inner_s[-1] += spent

    @contextlib.contextmanager
    def threads_for(self, batch: int) -> Iterator[None]:
        """One CPU thread while few rows of a small model are sampled.

        A step is then too little work to share: threads would wait for each other at every product, and on a machine
        that is busy otherwise sampling takes minutes instead of seconds.

        Args:
            batch: rows that are sampled at once.
        """
        threads = torch.get_num_threads()
        few = self.compute.device.type == "cpu" and batch <= 4 and self.lm.config.dim <= 512
        torch.set_num_threads(1 if few else threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    # What is given, as the parts take it.

    def fit(self, video: Tensor, size: int | tuple[int, int] | None = None) -> Tensor:
        """``cover`` at the language model's size, or another.

        Args:
            video: (3, t, h, w) or (b, 3, t, h, w) in [-1, 1].
            size: (h, w) or side in pixels; None is the language model's.

        Returns:
            (b, 3, t, h, w) in [-1, 1].
        """
        size = self.config.size if size is None else size
        return cover(video if video.ndim == 5 else video[None], (size, size) if isinstance(size, int) else size)

    def embed(self, prompts: list[str] | None, notes: list[str]) -> Text | None:
        """Vectors of prompts at the positions that the language model reserves.

        Args:
            prompts: texts, or None.
            notes: receives what a user should know, such as a prompt that was cut.

        Returns:
            Vectors and mask, or None without prompts.
        """
        if prompts is None:
            return None
        with self.timed("text"):
            slots = self.text_slots
            kept = read_prompts(self.text.tokenizer, prompts, most=min(slots, self.text.max_length), notes=notes)
            vectors, mask = self.text.encode(kept, pad_to=slots)
        return vectors.to(self.compute.device), mask.to(self.compute.device)
