"""Sizes of the prefix language model, as numbers and as named presets.

VideoPoet publishes three sizes (300 M, 1 B, 8 B) and no widths; the presets are our reading of them over its own
vocabulary of 256 + 262,144 + 4,096 ids. A name counts the weights of the layers, within 5 %: tables and head depend on
the tokenizers, which change, and at 300 M the published vocabulary alone would be nine tenths of the whole.
``llm.model.count_weights`` tells body, tables and total. ``tiny`` is the size of the embedded default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm.code_halves import VisualFactors
from mmtok.audio.orders import require_order
from mmtok.find import find
from mmtok.vocabulary import Vocabulary


@dataclass(frozen=True)
class LMConfig:
    """Everything that fixes the shape of a ``PrefixLM``.

    Attributes:
        dim: width of the residual stream.
        num_layers: transformer layers.
        num_heads: query heads.
        num_kv_heads: key and value heads, a divisor of ``num_heads``.
        head_dim: width of a head, even.
        hidden_dim: inner width of the gated feed-forward layer.
        visual_codes: entries of the visual codebook.
        audio_levels: residual levels of the sound tokenizer, 0 without sound.
        audio_codes: entries of one level, 0 without sound.
        text_dim: width of the text encoder's vectors.
        text_slots: positions reserved for text; VideoPoet reserves 64.
        max_grid: largest token grid (t, h, w); sizes of the visual position tables.
        max_audio_frames: most frames of one audio level; size of the audio position table.
        rope_base: base of the rotary frequencies.
        norm_eps: added to mean squares in norms.
        tie_embeddings: True when the output head is the embedding table.
        audio_order: in which audio codes stand in a sequence, one of ``mmtok.audio.orders.ORDERS``; "level" also for
            models that were saved before there was a choice.
        visual_factors: 1 has a row of the table for every visual code, as VideoPoet; 2 has rows for their halves and a
            head of two small softmaxes, see ``llm.code_halves``.
    """

    dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_dim: int
    visual_codes: int
    audio_levels: int
    audio_codes: int
    text_dim: int
    text_slots: int
    max_grid: tuple[int, int, int]
    max_audio_frames: int
    rope_base: float = 10_000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    audio_order: str = "level"
    visual_factors: int = 1

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary positions, got {self.head_dim}")
        if len(self.max_grid) != 3:
            raise ValueError(f"max_grid must be (t, h, w), got {self.max_grid}")
        require_order(self.audio_order)
        if self.visual_factors not in (1, 2):
            raise ValueError(f"visual_factors must be 1 or 2, got {self.visual_factors}")
        self.table_size  # noqa: B018 - checks of vocabulary and factors run here

    @property
    def vocabulary(self) -> Vocabulary:
        """The unified vocabulary of these sizes."""
        return Vocabulary(self.visual_codes, self.audio_levels, self.audio_codes)

    @property
    def factors(self) -> VisualFactors | None:
        """How visual codes are halved, or None where every code has a row."""
        return VisualFactors(self.vocabulary) if self.visual_factors == 2 else None

    @property
    def table_size(self) -> int:
        """Rows of the embedding table and of the head."""
        factors = self.factors
        return self.vocabulary.vocab_size if factors is None else factors.table_size


# VideoPoet's tokens: 2^18 visual codes on grids up to 41 frames portrait or landscape, 4 x 1024 audio codes at 50 Hz,
# T5 XL vectors in 64 slots.
_VIDEOPOET: dict[str, Any] = {
    "visual_codes": 2**18,
    "audio_levels": 4,
    "audio_codes": 1024,
    "text_dim": 2048,
    "text_slots": 64,
    "max_grid": (11, 28, 28),
    "max_audio_frames": 256,
}

# The embedded default: 17 frames of 64x64, one tokenizer of 2^12 codes, 2.125 s of sound. 32 text slots instead of 64
# halve the prefix; its captions are short.
_TINY: dict[str, Any] = {
    "visual_codes": 2**12,
    "audio_levels": 4,
    "audio_codes": 1024,
    "text_dim": 256,
    "text_slots": 32,
    "max_grid": (5, 16, 16),
    "max_audio_frames": 106,
}

SIZES = ("dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "hidden_dim")
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": dict(zip(SIZES, (256, 6, 4, 2, 64, 640), strict=True)) | _TINY,
    "300m": dict(zip(SIZES, (1024, 24, 16, 16, 64, 2816), strict=True)) | _VIDEOPOET,
    "1b": dict(zip(SIZES, (2048, 16, 16, 16, 128, 7168), strict=True)) | _VIDEOPOET,
    "8b": dict(zip(SIZES, (4096, 32, 32, 8, 128, 16384), strict=True)) | _VIDEOPOET,
}


def preset(name: str, **changes: Any) -> LMConfig:
    """A named size, with some numbers replaced.

    Args:
        name: a key of ``PRESETS``.
        changes: fields of ``LMConfig`` that differ, such as the tokenizers' sizes.

    Returns:
        The config.

    Raises:
        ValueError: for an unknown name, with the known ones.
    """
    return LMConfig(**{**find(PRESETS, name, "language model size"), **changes})
