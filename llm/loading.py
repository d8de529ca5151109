"""LARP generators by folder or hub id: ours, and those of the authors."""

from __future__ import annotations

import json
from pathlib import Path

from llm.convert import from_upstream, identify
from llm.larp_ar import LarpAR
from mmtok.pretrained import load_tensors, read_names, resolve_folder


def load_larp(name: str | Path) -> LarpAR:
    """A LARP generator in float32, ready to use.

    Args:
        name: folder or hub id, ours or as the authors ship it.

    Returns:
        The model in eval mode.

    Raises:
        FileNotFoundError: if there is no such folder or repository.
        ValueError: if it holds something else, or the weights do not fit.
    """
    folder = resolve_folder(name)
    return load_published(folder) if is_published(folder) else LarpAR.from_pretrained(folder)


def is_published(folder: Path) -> bool:
    """Whether a folder holds a generator as LARP's authors ship it.

    Args:
        folder: with model.safetensors under published names and their config.json.

    Returns:
        False for a folder of ours, whose config names its family.
    """
    file = folder / "config.json"
    if identify(read_names(folder)) is None or not file.is_file():
        return False
    config = json.loads(file.read_text())
    return isinstance(config, dict) and "family" not in config


def load_published(folder: Path) -> LarpAR:
    """The generator of such a folder.

    Args:
        folder: see ``is_published``.

    Returns:
        The model in eval mode, float32.

    Raises:
        ValueError: if the weights do not fit.
    """
    tensors = load_tensors(folder)
    model: LarpAR = from_upstream(str(identify(tensors)), tensors, json.loads((folder / "config.json").read_text()))
    return model
