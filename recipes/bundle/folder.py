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
from mmtok.pretrained import resolve_folder
from recipes.bundle.config import BundleConfig
from recipes.runtime.config import from_dict

EMBEDDED = Path(__file__).parents[1] / "pretrained"
BUNDLE_FILE = "cinepoet.json"
FORMAT = 1  # of that file
PARTS = ("visual", "audio", "text", "lm", "superres")
OPTIONAL_PARTS = ("superres_visual", "superres2")


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
        """Folder of one part.

        Args:
            name: one of ``PARTS`` or ``OPTIONAL_PARTS``.

        Returns:
            The folder.
        """
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether the bundle holds a part.

        Args:
            name: one of ``PARTS``.

        Returns:
            True when its config.json is there.
        """
        return (self.part(name) / "config.json").is_file()


def embedded_names() -> list[str]:
    """Bundles inside the package.

    Returns:
        Their names, sorted.
    """
    return sorted(p.parent.name for p in EMBEDDED.glob(f"*/{BUNDLE_FILE}"))


def open_bundle(name: str | Path) -> Bundle:
    """A bundle by embedded name, folder or hub id.

    Args:
        name: such as "tiny".

    Returns:
        The bundle.

    Raises:
        FileNotFoundError: if there is none of that name, with the embedded ones.
        ValueError: if its cinepoet.json is damaged or of a newer format.
    """
    folder = EMBEDDED / str(name)
    if str(name) not in embedded_names():
        try:
            folder = resolve_folder(name)
        except FileNotFoundError as fault:
            known = ", ".join(embedded_names()) or "none embedded"
            raise FileNotFoundError(f"unknown model {str(name)!r} ({fault}); known: {known}") from None
    file = folder / BUNDLE_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is not a cinepoet model: it has no {BUNDLE_FILE}")
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


def part_folder(name: str | Path, part: str) -> Path:
    """A part by its own folder or hub id, or as that of a bundle.

    Args:
        name: an embedded bundle's name, or a folder or hub id of a bundle or of the part alone.
        part: one of ``PARTS`` or ``OPTIONAL_PARTS``.

    Returns:
        The part's folder.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    folder = EMBEDDED / str(name) if str(name) in embedded_names() else resolve_folder(name)
    return folder / part if (folder / BUNDLE_FILE).is_file() else folder


def write_bundle(folder: Path, config: BundleConfig, card: dict[str, Any]) -> None:
    """Write cinepoet.json; the parts are written by their own ``save_pretrained``.

    Args:
        folder: the bundle's folder.
        config: what binds the parts.
        card: facts for ``cinepoet models``.
    """
    text = json.dumps({"format": FORMAT, "config": dataclasses.asdict(config), "card": card}, indent=1)
    write_atomically(folder / BUNDLE_FILE, text + "\n")
