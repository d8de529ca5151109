"""The one table of families: what ``mmtok.load`` can build, and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One kind of tokenizer or encoder.

    Attributes:
        kind: "visual", "audio" or "text".
        module: module that defines the class.
        name: the class; it has ``from_pretrained(folder_or_hub_id)``.
        about: one line for ``cinepoet models``.
        paper: where it comes from.
        weights: licence of the published weights, "" where there are none but ours.
        hub: ids of published weights that load as they are, "" where they are converted.
    """

    kind: str
    module: str
    name: str
    about: str
    paper: str
    weights: str = ""
    hub: str = ""


FAMILIES: dict[str, Family] = {
    "magvit2": Family(
        "visual",
        "mmtok.visual.magvit2",
        "Magvit2",
        "causal 3-D CNN with lookup-free quantization",
        "arXiv 2310.05737",
        "Open-MAGVIT2's: Apache-2.0",
    ),
    "cosmos-dv": Family(
        "visual",
        "mmtok.visual.cosmos",
        "CosmosDV",
        "factorised causal CNN on a Haar packet with scalar quantization",
        "NVIDIA/Cosmos-Tokenizer",
        "NVIDIA Open Model License",
    ),
    "vidtok-fsq": Family(
        "visual",
        "mmtok.visual.vidtok",
        "VidTokFSQ",
        "causal CNN over space and time in turn with scalar quantization",
        "arXiv 2412.13061",
        "MIT",
    ),
    "larp": Family(
        "visual",
        "mmtok.visual.larp",
        "Larp",
        "holistic tokens of a ViT with stochastic vector quantization and a learned prior",
        "arXiv 2410.21264",
        "MIT",
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
