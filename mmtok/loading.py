"""Any tokenizer or text encoder by name, folder or hub id, alone or of a whole model; and what a folder holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmtok.convert import load_published, published_family
from mmtok.pretrained import BUNDLE_FILE, read_names, resolve_folder
from mmtok.table import KINDS, TOKENIZERS, Family

# What else a folder can hold: its family, what that is, and what loads it.
_OTHERS = {
    "larp-ar": ("generator", "a LARP generator", "llm.loading.load_larp"),
    "larp-ar-fp": ("generator", "a LARP generator", "llm.loading.load_larp"),
    "prefix-lm": ("lm", "a language model", "llm.model.PrefixLM.from_pretrained"),
    "superres": ("superres", "a super-resolution model", "superres.model.SuperResTransformer.from_pretrained"),
}

_PART_KINDS = {
    **{name: (name, words) for name, words in KINDS.items()},
    "superres_visual": ("visual", KINDS["visual"]),
    "lm": ("lm", "a language model"),
    "superres": ("superres", "a super-resolution model"),
    "superres2": ("superres", "a super-resolution model"),
}


@dataclass(frozen=True)
class Held:
    """What a model folder holds.

    Attributes:
        kind: "model" for a whole one, a kind of ``mmtok.table.KINDS``, "lm", "superres", "generator", or "other" for
            what only transformers knows.
        family: its name; "" for a whole model.
        words: the same for people, such as "a visual tokenizer (magvit2)".
        loader: what loads it in Python.
    """

    kind: str
    family: str
    words: str
    loader: str = "mmtok.load"


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
    config = None
    if file.is_file():
        try:
            config = json.loads(file.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as fault:
            raise ValueError(f"{file} is not valid JSON: {fault}") from fault
    said = config if isinstance(config, dict) else {}
    family = said.get("family", said.get("model_type")) or published_family(folder)
    if family is None and "layers.0.attention.wqkv.weight" in read_names(folder):
        family = "larp-ar"
    if family is None and not file.is_file():
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a model folder")
    if family in _OTHERS:
        return Held(_OTHERS[family][0], family, *_OTHERS[family][1:])
    if (row := TOKENIZERS.find(str(family))) is not None:
        return Held(row.kind, str(family), f"{KINDS[row.kind]} ({family})")
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
    kind, words = _PART_KINDS[part]
    if held.kind != kind and not (kind == "lm" and held.kind == "other"):  # a training may start from a text model
        raise ValueError(f"{name} cannot be the {part} part: it is {held.words}, and {words} is needed")
    return folder


def _tokenizer_of(folder: Path) -> tuple[str, Family]:
    """The family of a tokenizer's or text encoder's folder; what holds something else is refused."""
    held = what_is(folder)
    if (row := TOKENIZERS.find(held.family)) is not None:
        return held.family, row
    if held.kind == "other":
        raise ValueError(f"{folder} holds {held.words}; known families: {', '.join(sorted(TOKENIZERS.rows()))}")
    raise ValueError(f"{folder} holds {held.words}, not a tokenizer; {held.loader} loads it")


def is_ours(folder: Path) -> bool:
    """Whether a folder's config.json names a family or a ``model_type``, so that its own class reads it.

    Args:
        folder: a model folder.

    Returns:
        False for published weights.
    """
    file = folder / "config.json"
    config = json.loads(file.read_text()) if file.is_file() else None
    return isinstance(config, dict) and ("family" in config or "model_type" in config)


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
    name, family = _tokenizer_of(folder)
    if num_codebooks is not None and family.kind != "audio":
        raise ValueError(f"num_codebooks is a choice of sound tokenizers, and {name_or_path} is of family {name}")
    if not is_ours(folder):  # then it was known by its weights
        model = load_published(folder)
        if num_codebooks is not None:
            model = type(model)(model.model, num_codebooks=num_codebooks)
        return model.to(device=device, dtype=dtype).eval()
    cls = family.load_class()
    if family.kind == "text":  # read in the type wanted: XL in float32 first would take twice the memory
        return cls.from_pretrained(folder, dtype=dtype, device=device)
    options = {} if num_codebooks is None else {"num_codebooks": num_codebooks}
    return cls.from_pretrained(folder, **options).to(device=device, dtype=dtype).eval()
