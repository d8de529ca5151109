"""DAC (Kumar et al. 2023, arXiv 2306.06546): transformers' ``DacModel``.

Published: 16 kHz (hop 320 = 50 frames a second, 12 levels), 24 kHz (hop 320, 32 levels) and 44.1 kHz (hop 512,
9 levels) of 1,024 codes. Nothing in it is causal: when a sound goes on, the last codes of its beginning change.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from mmtok.audio.frozen_codec import FrozenCodec


class Dac(FrozenCodec):
    """DAC as an ``AudioTokenizer``."""

    family = "dac"

    @classmethod
    def _classes(cls) -> tuple[Any, Any]:
        from transformers.models.dac.configuration_dac import DacConfig
        from transformers.models.dac.modeling_dac import DacModel

        return DacConfig, DacModel

    def _hop_length(self) -> int:
        return math.prod(self.model.config.downsampling_ratios)

    def _levels(self) -> tuple[int, int]:
        return 1, len(self.model.quantizer.quantizers)

    def _codes_of(self, audio: Tensor) -> Tensor:
        return self.model.encode(audio, n_quantizers=self.num_codebooks).audio_codes  # type: ignore[no-any-return]

    def _sound_of(self, codes: Tensor) -> Tensor:
        return self.model.decode(audio_codes=codes).audio_values.unsqueeze(1)  # type: ignore[no-any-return]

    def _tables(self) -> list[Tensor]:
        return [layer.codebook.weight for layer in self.model.quantizer.quantizers]
