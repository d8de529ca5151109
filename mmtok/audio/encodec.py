"""EnCodec (Defossez et al. 2022, arXiv 2210.13438): transformers' ``EncodecModel``, and models of the encodec package.

Published: 24 kHz, hop 320 = 75 frames a second, up to 32 levels of 1,024 codes; MusicGen's 32 kHz, hop 640 = 50 frames,
4 levels of 2,048. The 24 kHz model is causal but for its start: convolutions mirror what follows into the time before a
sound begins, so that its first frame also depends on the next six. The 32 kHz one looks ahead everywhere.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmtok.audio.frozen_codec import FrozenCodec


class Encodec(FrozenCodec):
    """EnCodec as an ``AudioTokenizer``; levels are chosen, and the bandwidth follows (``bitrate_kbps``)."""

    family = "encodec"

    @classmethod
    def _classes(cls) -> tuple[Any, Any]:
        from transformers.models.encodec.configuration_encodec import EncodecConfig
        from transformers.models.encodec.modeling_encodec import EncodecModel

        return EncodecConfig, EncodecModel

    @classmethod
    def _require_usable(cls, config: Any) -> None:
        if config.audio_channels != 1 or config.normalize or config.chunk_length_s is not None:
            raise ValueError(
                "this EnCodec is stereo, scales every chunk by its loudness or cuts sound into overlapping chunks, as "
                "the 48 kHz one does: its codes alone are no sound and keep no clock; use the 24 or the 32 kHz model"
            )

    def _hop_length(self) -> int:
        return int(self.model.config.hop_length)

    def _levels(self) -> tuple[int, int]:
        return 1, len(self.model.quantizer.layers)

    def _codes_of(self, audio: Tensor) -> Tensor:
        # the narrowest bandwidth that has the levels; without one transformers takes the narrowest of all
        quantizer, offered = self.model.quantizer, sorted(self.model.config.target_bandwidths)
        enough = [b for b in offered if quantizer.get_num_quantizers_for_bandwidth(b) >= self.num_codebooks]
        return self.model.encode(audio, bandwidth=(enough or offered[-1:])[0]).audio_codes[0]  # type: ignore[no-any-return]

    def _sound_of(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes[None], [None]).audio_values  # type: ignore[no-any-return]

    def _tables(self) -> list[Tensor]:
        return [layer.codebook.embed for layer in self.model.quantizer.layers]
