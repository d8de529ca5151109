"""Any tokenizer or text encoder by name, folder or hub id, alone or of a whole model; and what a folder holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmtok.convert import load_published, published_family
from mmtok.pretrained import BUNDLE_FILE, read_json, read_names, resolve_folder
from mmtok.table import FAMILY_KINDS, TOKENIZERS, Family

_WORDS = {
    **FAMILY_KINDS,
    "lm": "a language model",
    "superres": "a super-resolution model",
    "generator": "a LARP generator",
}
# What else a folder can hold: its family, the kind, and what loads it.
_OTHERS = {
    "larp-ar": ("generator", "llm.loading.load_larp"),
    "larp-ar-fp": ("generator", "llm.loading.load_larp"),
    "prefix-lm": ("lm", "llm.model.PrefixLM.from_pretrained"),
    "superres": ("superres", "superres.model.SuperResTransformer.from_pretrained"),
}

_PART_KINDS = {name: name for name in FAMILY_KINDS} | {
    "superres_visual": "visual",
    "lm": "lm",
    "superres": "superres",
    "superres2": "superres",
}


@dataclass(frozen=True)
class Held:
    """What a model folder holds.

    Attributes:
        kind: "model" for a whole one, a kind of ``mmtok.table.FAMILY_KINDS``, "lm", "superres", "generator", or
            "other" for what only transformers knows.
        family: its name; "" for a whole model.
        words: the same for people, such as "a visual tokenizer (magvit2)".
        loader: what loads it in Python.
        row: of a tokenizer's or text encoder's family.
        published: whether its weights are as others publish them, without a config.json that names the family.
    """

    kind: str
    family: str
    words: str
    loader: str = "mmtok.load"
    row: Family | None = None
    published: bool = False


def what_is(folder: Path) -> Held:
    """What a folder holds: ours by ``family``, transformers' by ``model_type``, published weights by their names.

    Args:
        folder: holds config.json, or published weights.

    Returns:
        What it is.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: if config.json is damaged or says nothing known.
    """
    if (folder / BUNDLE_FILE).is_file():
        return Held("model", "", "a whole model", "recipes.CinePoetPipeline.from_pretrained")
    file = folder / "config.json"
    config = read_json(file) if file.is_file() else None
    said = config if isinstance(config, dict) else {}
    family = said.get("family", said.get("model_type")) or published_family(folder)
    published = not said.keys() & {"family", "model_type"}
    if family is None and "layers.0.attention.wqkv.weight" in read_names(folder):
        family = "larp-ar"
    if family is None and not file.is_file():
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a model folder")
    if family in _OTHERS:
        kind, loader = _OTHERS[family]
        return Held(kind, family, _WORDS[kind], loader)
    if (row := TOKENIZERS.find(str(family))) is not None:
        return Held(row.kind, str(family), f"{FAMILY_KINDS[row.kind]} ({family})", row=row, published=published)
    if "model_type" in said:
        return Held("other", str(family), f"a {family!r} model", "transformers")
    raise ValueError(f"{folder} holds a {family!r} model; known families: {', '.join(sorted(TOKENIZERS.rows()))}")


def part_folder(name: str | Path, part: str) -> Path:
    """Where a part lies: inside a whole model, or by itself.

    Args:
        name: as of ``resolve_folder``.
        part: "visual", "audio", "text", "lm", "superres", "superres_visual" or "superres2".

    Returns:
        The part's folder.

    Raises:
        FileNotFoundError: if there is no such thing, or the model lacks the part.
        ValueError: if it is something else, with what it is and what is needed.
    """
    if part not in _PART_KINDS:
        raise ValueError(f"unknown part {part!r}; known: {', '.join(_PART_KINDS)}")
    folder = resolve_folder(name)
    held = what_is(folder)
    if held.kind == "model":
        if part == "superres_visual" and not (folder / part).is_dir():
            part = "visual"  # super-resolution then speaks the language model's tokens
        if not (folder / part / "config.json").is_file():
            raise FileNotFoundError(f"the model {name} has no {part} part")
        return folder / part
    kind = _PART_KINDS[part]
    if held.kind != kind and not (kind == "lm" and held.kind == "other"):  # a training may start from a text model
        raise ValueError(f"{name} cannot be the {part} part: it is {held.words}, and {_WORDS[kind]} is needed")
    return folder


def load(
    name_or_path: str | Path,
    *,
    part: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    num_codebooks: int | None = None,
) -> Any:
    """A tokenizer or text encoder, ready for use.

    Args:
        name_or_path: a folder written by ``save_pretrained``, a folder of transformers' T5, EnCodec, DAC or Mimi, a
            folder of published weights (config.json and model.safetensors, as LARP's repositories are), a whole model
            ("tiny", or its folder), a part of one ("tiny/audio"), or a hub id of one of these.
        part: of a whole model, "visual" (None means that), "audio", "text" or "superres_visual"; of anything else it
            says what must be found there.
        device: where its weights go.
        dtype: type of its weights.
        num_codebooks: residual levels of a sound tokenizer to use; None uses those recorded in the folder, or all.

    Returns:
        A ``VisualTokenizer``, ``AudioTokenizer`` or ``TextEncoder`` in evaluation mode.

    Raises:
        FileNotFoundError: if there is no such folder or repository.
        ValueError: if the family is unknown, the weights do not fit, or levels are chosen where there is no choice.
    """
    folder = resolve_folder(name_or_path)
    if part is not None or (folder / BUNDLE_FILE).is_file():
        folder = part_folder(name_or_path, part or "visual")
    held = what_is(folder)
    if held.row is None:
        known = f"known families: {', '.join(sorted(TOKENIZERS.rows()))}"
        instead = f"; {known}" if held.kind == "other" else f", not a tokenizer; {held.loader} loads it"
        raise ValueError(f"{folder} holds {held.words}{instead}")
    if num_codebooks is not None and held.kind != "audio":
        raise ValueError(
            f"num_codebooks is a choice of sound tokenizers, and {name_or_path} is of family {held.family}"
        )
    if held.published:
        model = load_published(folder)
        if num_codebooks is not None:
            model = type(model)(model.model, num_codebooks=num_codebooks)
        return model.to(device=device, dtype=dtype).eval()
    cls = held.row.load_class()
    if held.kind == "text":  # read in the type wanted: XL in float32 first would take twice the memory
        return cls.from_pretrained(folder, dtype=dtype, device=device)
    options = {} if num_codebooks is None else {"num_codebooks": num_codebooks}
    return cls.from_pretrained(folder, **options).to(device=device, dtype=dtype).eval()
