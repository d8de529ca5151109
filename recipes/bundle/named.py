"""What a name means on the command line, the same for every option.

tiny                 a whole model that is embedded, or that an installed package adds (``cinepoet models``)
tiny/audio           a part of it: visual, audio, text, lm, superres, superres2, superres_visual
FOLDER               a whole model, one part of one, or published weights
OWNER/NAME           the same on the hub; OWNER/NAME/audio is a part

``--model`` needs a whole model. ``--visual``, ``--audio`` and ``--text`` need one part and take a whole model's;
``--tokenizer`` takes either. Python understands the same names: ``mmtok.load("tiny/audio")``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mmtok
from mmtok.contract import needs_size
from mmtok.loading import part_folder, what_is
from mmtok.pretrained import resolve_folder
from mmtok.table import KINDS
from recipes.bundle.folder import open_bundle

TOKENIZER_FOLDER = "tokenizer"
PUBLISHED_TOKENIZER = "hywang66/LARP-L-long-tokenizer"


@dataclass(frozen=True)
class Tokenizers:
    """The tokenizers of a whole model, or a single one.

    Attributes:
        visual: a ``VisualTokenizer``, or None.
        audio: an ``AudioTokenizer``, or None.
        fps: pictures per second.
        size: usual side of the pictures, pixels.
        clip: pictures that are encoded together.
        source: name or folder, for the record.
    """

    visual: Any
    audio: Any
    fps: float
    size: int
    clip: int
    source: str


def load_tokenizers(name: str, device: Any, levels: int | None = None) -> Tokenizers:
    """What ``--tokenizer`` means: the tokenizers of a whole model, or one tokenizer.

    Args:
        name: such as "tiny" or "tiny/audio".
        device: torch device.
        levels: of the codes of sound, where that is a choice; None leaves it to the tokenizer.

    Returns:
        The tokenizers.

    Raises:
        FileNotFoundError: if there is no such thing.
        ValueError: if it holds no tokenizer of media, or levels are chosen where there is no choice.
    """
    folder = resolve_folder(name)
    held = what_is(folder)
    if held.kind == "model":
        bundle = open_bundle(folder)
        options = {"visual": {}, "audio": {"num_codebooks": levels}}
        parts = {p: mmtok.load(bundle.part(p), device=device, **o) for p, o in options.items() if bundle.has(p)}
        config = bundle.config
        size = max(config.size, config.upscaled_size)
        if needs_size(parts.get("visual")):  # it works at the size that it was trained for
            size = config.size
        return Tokenizers(parts.get("visual"), parts.get("audio"), config.fps, size, config.num_frames, name)
    if held.kind not in ("visual", "audio"):
        raise ValueError(f"{name} is {held.words}; {KINDS['visual']} or {KINDS['audio']} is needed")
    tokenizer = mmtok.load(folder, device=device, num_codebooks=levels)
    if held.kind == "audio":
        return Tokenizers(None, tokenizer, 8.0, 128, 17, name)
    size = tokenizer.clip_size[1] if needs_size(tokenizer) else 128
    return Tokenizers(tokenizer, None, tokenizer.fps, size, tokenizer.valid_num_frames(17), name)


def chosen_part(part: str, given: str | None, model: str) -> Path | None:
    """What ``--visual``, ``--audio`` or ``--text`` means beside ``--model`` or ``--tokenizer``.

    Args:
        part: "visual", "audio" or "text".
        given: the option's value; "none" goes without, None takes the model's.
        model: name of the model that has all else.

    Returns:
        The part's folder, or None without.

    Raises:
        FileNotFoundError: if there is no such thing.
        ValueError: if it is something else.
    """
    if given == "none":
        return None
    if given is not None:
        return part_folder(given, part)
    bundle = open_bundle(model)
    return bundle.part(part) if bundle.has(part) else None


def in_tiles(tokenizers: Tokenizers, tile: int | None) -> Tokenizers:
    """The tokenizers with the visual one working on tiles.

    Args:
        tokenizers: as loaded.
        tile: side of a tile, pixels; neighbours share a quarter. None leaves everything as it is.

    Returns:
        The tokenizers.

    Raises:
        ValueError: if there is no visual tokenizer or the tile does not fit its stride.
    """
    from mmtok.visual.tiling import TiledTokenizer

    if tile is None:
        return tokenizers
    if tokenizers.visual is None:
        raise ValueError(f"--tile is for pictures, and {tokenizers.source} has no visual tokenizer")
    step = math.lcm(*tokenizers.visual.stride[1:])
    overlap = tile // 4 // step * step
    return replace(tokenizers, visual=TiledTokenizer(tokenizers.visual, tile=tile, overlap=overlap))


def is_generator(name: str) -> bool:
    """Whether ``--model`` names a LARP generator instead of a whole model.

    Args:
        name: such as "tiny".

    Returns:
        False also for what does not exist or is damaged, which is told where it is opened.
    """
    try:
        return what_is(resolve_folder(name)).kind == "generator"
    except (FileNotFoundError, ValueError):
        return False


def tokenizer_of(folder: Path) -> str:
    """Where a LARP generator's tokenizer lies.

    Args:
        folder: of the generator.

    Returns:
        A folder or a hub id.

    Raises:
        ValueError: if nothing tells.
    """
    from llm.loading import is_published

    inside = folder / TOKENIZER_FOLDER
    if inside.is_dir():
        return str(inside)
    if is_published(folder):
        return PUBLISHED_TOKENIZER  # a hub id; --tokenizer names another place
    raise ValueError(f"{folder} does not hold its tokenizer; name the one it was trained with (--tokenizer)")
