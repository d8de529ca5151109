"""Mimi, the codec of Moshi (Defossez et al. 2024, arXiv 2410.00037): transformers' ``MimiModel``.

Published: 24 kHz, hop 1,920 = 12.5 frames a second, up to 32 levels of 2,048 codes, of which Moshi speaks 8. Causal,
with a transformer on each side. Level 0 is a codebook of its own, taught what is said; the others quantize the same
vector again from its beginning, each the rest of the one before. Decoding sums all, so that fewer levels are a coarser
sound here too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mmtok.audio.frozen_codec import FrozenCodec

if TYPE_CHECKING:
    from typing_extensions import Self


class Mimi(FrozenCodec):
    """Mimi as an ``AudioTokenizer``."""

    family = "mimi"

    @classmethod
    def _classes(cls) -> tuple[Any, Any]:
        from transformers.models.mimi.configuration_mimi import MimiConfig
        from transformers.models.mimi.modeling_mimi import MimiModel

        return MimiConfig, MimiModel

    @classmethod
    def _require_usable(cls, config: Any) -> None:
        super()._require_usable(config)
        if config.encoder_config is None or config.decoder_config is None:
            raise ValueError("this Mimi has only one of its halves, and a tokenizer encodes and decodes")
        if config.frame_rate == config.encodec_frame_rate:
            raise ValueError("this Mimi has no downsampling behind its transformer, which transformers cannot run")

    def _hop_length(self) -> int:
        return math.prod(self.model.config.upsampling_ratios) * self.model.config.latent_stride

    def _levels(self) -> tuple[int, int]:
        return self.model.config.num_semantic_quantizers, self.model.config.num_quantizers

    def _codes_of(self, audio: Tensor) -> Tensor:
        return self.model.encode(audio, num_quantizers=self.num_codebooks).audio_codes  # type: ignore[no-any-return]

    def _sound_of(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes).audio_values  # type: ignore[no-any-return]

    def _books(self) -> list[Any]:
        quantizer = self.model.quantizer
        halves = (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer)
        return [layer.codebook for half in halves for layer in half.layers]

    def _tables(self) -> list[Tensor]:
        return [book.embed for book in self._books()]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moving or casting; the vectors that transformers keeps beside its buffers would stay behind."""
        super()._apply(fn, recurse)
        for book in self._books():
            book._embed = None
        return self
