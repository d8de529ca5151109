"""A complete model as one folder: the tokenizers, the language model and super-resolution, with what binds them.

cinepoet.json                      clip geometry, sampling defaults, where each part lies
visual/ audio/ text/ lm/ superres/ each with config.json and model.safetensors
superres2/                         a second stage, which doubles again what the first one made, in the same tokens
superres_visual/                   super-resolution's own tokenizer, where the language model speaks another one
README.md                          the model card
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtok.files import write_atomically
from mmtok.loading import what_is
from mmtok.pretrained import BUNDLE_FILE, OPTIONAL_PARTS, PARTS, resolve_folder
from recipes.bundle.config import BundleConfig
from recipes.runtime.config import from_dict

FORMAT = 1  # of cinepoet.json
ALL_PARTS = (*PARTS, *OPTIONAL_PARTS)


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder and its config; the parts are loaded by the pipeline when they are needed.

    Attributes:
        folder: where it lies.
        config: what binds the parts.
        card: facts for ``cinepoet models``, such as the licence.
    """

    folder: Path
    config: BundleConfig
    card: dict[str, Any] = field(default_factory=dict)

    def part(self, name: str) -> Path:
        """Folder of one part, of ``ALL_PARTS``."""
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether the bundle holds a part, of ``ALL_PARTS``."""
        return (self.part(name) / "config.json").is_file()


def open_bundle(name: str | Path) -> Bundle:
    """A whole model by name, folder or hub id.

    Args:
        name: such as "tiny", see recipes/bundle/named.py.

    Returns:
        The bundle.

    Raises:
        FileNotFoundError: if there is none of that name, with the known ones, or it holds something else.
        ValueError: if its cinepoet.json is damaged or of a newer format.
    """
    folder = resolve_folder(name)
    file = folder / BUNDLE_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{name} is not a cinepoet model: it has no {BUNDLE_FILE}{_instead(folder)}")
    try:
        values = json.loads(file.read_text())
        if not isinstance(values, dict) or not isinstance(values.get("config"), dict):
            raise ValueError("it holds no table named config")
        if values.get("format") != FORMAT:
            raise ValueError(f"format {values.get('format')}, expected {FORMAT}")
        config = from_dict(BundleConfig, values["config"])
    except (TypeError, ValueError) as fault:  # ValueError: also what is no JSON or no text
        raise ValueError(f"{file} is damaged or made by another version: {fault}") from fault
    return Bundle(folder, config, values.get("card", {}))


def _instead(folder: Path) -> str:
    """What a folder holds instead of a whole model, as the end of a sentence."""
    try:
        return f"; it is {what_is(folder).words}"
    except (FileNotFoundError, ValueError):
        return ""


def write_bundle(folder: Path, config: BundleConfig, card: dict[str, Any]) -> None:
    """Write cinepoet.json; the parts are written by their own ``save_pretrained``.

    Args:
        folder: the bundle's folder.
        config: what binds the parts.
        card: facts for ``cinepoet models``.
    """
    text = json.dumps({"format": FORMAT, "config": dataclasses.asdict(config), "card": card}, indent=1)
    write_atomically(folder / BUNDLE_FILE, text + "\n")
