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
    """

    kind: str
    module: str
    name: str
    about: str
    paper: str


FAMILIES: dict[str, Family] = {
    "magvit2": Family(
        "visual", "mmtok.visual.magvit2", "Magvit2", "causal 3-D CNN with lookup-free quantization", "arXiv 2310.05737"
    ),
    "soundstream": Family(
        "audio", "mmtok.audio.soundstream", "SoundStream", "causal CNN with residual quantization", "arXiv 2107.03312"
    ),
    "t5": Family("text", "mmtok.text.t5", "T5TextEncoder", "frozen T5 encoder", "arXiv 1910.10683"),
}
