"""Loading any tokenizer or text encoder by folder or hub id."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch

from mmtok.convert import load_published, published_family
from mmtok.pretrained import read_names, resolve_folder
from mmtok.table import FAMILIES


def family_of(folder: Path) -> str:
    """The family of a model folder: ours by ``family``, transformers' by ``model_type``, published ones by their names.

    Args:
        folder: holds config.json.

    Returns:
        A key of ``FAMILIES``.

    Raises:
        FileNotFoundError: if there is no config.json.
        ValueError: if the family is unknown, with the known ones.
    """
    file = folder / "config.json"
    if not file.is_file():
        if published := published_family(folder):
            return published
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a model folder")
    try:
        config = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as fault:
        raise ValueError(f"{file} is not valid JSON: {fault}") from fault
    family = config.get("family", config.get("model_type")) if isinstance(config, dict) else None
    if family is None:
        family = published_family(folder)
    if family in ("larp-ar", "larp-ar-fp") or (
        family is None and "layers.0.attention.wqkv.weight" in read_names(folder)
    ):
        raise ValueError(f"{folder} holds a LARP generator, not a tokenizer; llm.loading.load_larp loads it")
    if family not in FAMILIES:
        raise ValueError(f"{folder} holds a {family!r} model; known families: {', '.join(sorted(FAMILIES))}")
    return family


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
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    num_codebooks: int | None = None,
) -> Any:
    """A tokenizer or text encoder, ready for use.

    Args:
        name_or_path: a folder written by ``save_pretrained``, a folder of transformers' T5, EnCodec, DAC or Mimi, a
            folder of published weights (config.json and model.safetensors, as LARP's repositories are), or a hub id of
            one of these.
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
    name = family_of(folder)
    if num_codebooks is not None and FAMILIES[name].kind != "audio":
        raise ValueError(f"num_codebooks is a choice of sound tokenizers, and {name_or_path} is of family {name}")
    if not is_ours(folder):  # then it was known by its weights
        model = load_published(folder)
        if num_codebooks is not None:
            model = type(model)(model.model, num_codebooks=num_codebooks)
        return model.to(device=device, dtype=dtype).eval()
    family = FAMILIES[name]
    cls = getattr(importlib.import_module(family.module), family.name)
    if family.kind == "text":  # read in the type wanted: XL in float32 first would take twice the memory
        return cls.from_pretrained(folder, dtype=dtype, device=device)
    options = {} if num_codebooks is None else {"num_codebooks": num_codebooks}
    return cls.from_pretrained(folder, **options).to(device=device, dtype=dtype).eval()
