"""The one table of families: what ``mmtok.load`` can build, and where; packages may add rows (docs/plugins.md)."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

from mmtok.plugins import Table


@dataclass(frozen=True)
class Published:
    """Weights as others publish them, that a family's converter reads.

    Attributes:
        name: what ``cinepoet convert --family`` calls them.
        module: has ``from_upstream(tensors, config)``.
        marks: names of weights that only these have; one of them is enough.
        options: further arguments of ``from_upstream``.
        averaged: whether ``from_upstream`` takes ``ema``, for files that hold a running average beside the weights.
    """

    name: str
    module: str
    marks: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    averaged: bool = False


@dataclass(frozen=True)
class Family:
    """One kind of tokenizer or encoder.

    Attributes:
        kind: "visual", "audio" or "text".
        module: module that defines the class, and ``PRESETS`` (name to params) where its sizes have names.
        name: the class; it has ``from_pretrained(folder_or_hub_id)``.
        about: one line for ``cinepoet models``.
        paper: where it comes from.
        weights: licence of the published weights, "" where there are none but ours.
        hub: ids of published weights that load as they are, "" where they are converted.
        published: what ``cinepoet convert`` turns into it.

    Raises:
        ValueError: for an unknown kind.
    """

    kind: str
    module: str
    name: str
    about: str
    paper: str
    weights: str = ""
    hub: str = ""
    published: tuple[Published, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in FAMILY_KINDS:
            raise ValueError(f"kind must be one of {', '.join(FAMILY_KINDS)}, got {self.kind!r}")

    def load_class(self) -> Any:
        """The class; its module is imported."""
        return getattr(importlib.import_module(self.module), self.name)

    def presets(self) -> dict[str, Any]:
        """Name to params of each named size, none where sizes have no names; the module is imported."""
        return dict(getattr(importlib.import_module(self.module), "PRESETS", {}))


FAMILY_KINDS = {"visual": "a visual tokenizer", "audio": "an audio tokenizer", "text": "a text encoder"}

_MAGVIT2 = "mmtok.convert.open_magvit2"
FAMILIES: dict[str, Family] = {
    "magvit2": Family(
        "visual",
        "mmtok.visual.magvit2",
        "Magvit2",
        "causal 3-D CNN with lookup-free quantization",
        "arXiv 2310.05737",
        "Open-MAGVIT2's: Apache-2.0",
        published=(
            Published("open-magvit2-video", _MAGVIT2, ("encoder.conv_out.conv_1.weight",), {"video": True}, True),
            Published("open-magvit2-image", _MAGVIT2, ("decoder.adaptive.0.gamma.weight",), {"video": False}, True),
        ),
    ),
    "cosmos-dv": Family(
        "visual",
        "mmtok.visual.cosmos",
        "CosmosDV",
        "factorised causal CNN on a Haar packet with scalar quantization",
        "NVIDIA/Cosmos-Tokenizer",
        "NVIDIA Open Model License",
        published=(
            Published(
                "cosmos-dv",
                "mmtok.convert.cosmos",
                ("encoder.conv_in.0.conv3d.weight", "network.encoder.conv_in.0.conv3d.weight"),
            ),
        ),
    ),
    "vidtok-fsq": Family(
        "visual",
        "mmtok.visual.vidtok",
        "VidTokFSQ",
        "causal CNN over space and time in turn with scalar quantization",
        "arXiv 2412.13061",
        "MIT",
        published=(
            Published("vidtok-fsq", "mmtok.convert.vidtok", ("encoder.down_temporal.0.block.0.conv1.conv.weight",)),
        ),
    ),
    "larp": Family(
        "visual",
        "mmtok.visual.larp",
        "Larp",
        "holistic tokens of a ViT with stochastic vector quantization and a learned prior",
        "arXiv 2410.21264",
        "MIT",
        published=(Published("larp", "mmtok.convert.larp", ("encoder_latent_query_embed",)),),
    ),
    "soundstream": Family(
        "audio", "mmtok.audio.soundstream", "SoundStream", "causal CNN with residual quantization", "arXiv 2107.03312"
    ),
    "encodec": Family(
        "audio",
        "mmtok.audio.encodec",
        "Encodec",
        "EnCodec of transformers or the encodec package, any number of its levels",
        "arXiv 2210.13438",
        "CC-BY-NC 4.0",
        "facebook/encodec_24khz, facebook/encodec_32khz",
        published=(Published("encodec", "mmtok.convert.encodec", ("quantizer.vq.layers.0._codebook.embed",)),),
    ),
    "dac": Family(
        "audio",
        "mmtok.audio.dac",
        "Dac",
        "DAC of transformers, any number of its levels",
        "arXiv 2306.06546",
        "MIT",
        "descript/dac_16khz, descript/dac_24khz, descript/dac_44khz",
    ),
    "mimi": Family(
        "audio",
        "mmtok.audio.mimi",
        "Mimi",
        "Mimi of transformers, any number of its levels",
        "arXiv 2410.00037",
        "CC-BY 4.0",
        "kyutai/mimi",
    ),
    "t5": Family("text", "mmtok.text.t5", "T5TextEncoder", "frozen T5 encoder", "arXiv 1910.10683", "Apache-2.0"),
}

TOKENIZERS = Table("the tokenizer", ("cinepoet.tokenizers", "cinepoet.audio"), Family, FAMILIES)

# Whole models that mmtok.load and every command know by name, and the package whose folder holds their files; others
# add theirs as entry points of the group cinepoet.models.
MODELS = {"tiny": "recipes.pretrained.tiny"}
