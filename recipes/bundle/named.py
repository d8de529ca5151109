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
from mmtok.contract import needs_size, usual_size
from mmtok.loading import part_folder, what_is
from mmtok.pretrained import BUNDLE_FILE, resolve_folder
from mmtok.table import FAMILY_KINDS
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
        token_size: side of the pictures that a language model speaks, pixels; smaller where it has super-resolution.
    """

    visual: Any
    audio: Any
    fps: float
    size: int
    clip: int
    source: str
    token_size: int


def load_tokenizers(
    name: str, device: Any, levels: int | None = None, *, visual: str | None = None, audio: str | None = None
) -> Tokenizers:
    """What ``--tokenizer`` means, with ``--visual`` and ``--audio`` beside it.

    Args:
        name: a whole model, whose tokenizers are meant, or one tokenizer; such as "tiny" or "tiny/audio".
        device: torch device.
        levels: of the codes of sound, where that is a choice; None leaves it to the tokenizer.
        visual: another visual tokenizer than the model's; "none" goes without.
        audio: the same for sound.

    Returns:
        The tokenizers; rate, size and length are of whatever has the visual one.

    Raises:
        FileNotFoundError: if there is no such thing.
        ValueError: if it holds no tokenizer of media, or levels are chosen where there is no choice.
    """
    places = {"visual": chosen_part("visual", visual, name), "audio": chosen_part("audio", audio, name)}
    if not any(places.values()):
        held = what_is(resolve_folder(name))
        raise ValueError(f"{name} is {held.words}; {FAMILY_KINDS['visual']} or {FAMILY_KINDS['audio']} is needed")
    if levels is not None and places["audio"] is None:
        raise ValueError(f"--levels is a choice of sound tokenizers, and {name} has none")
    seen: Any = places["visual"] and mmtok.load(places["visual"], device=device)
    heard = places["audio"] and mmtok.load(places["audio"], device=device, num_codebooks=levels)
    folder = resolve_folder(visual or name) if visual != "none" else None
    if folder is not None and (folder / BUNDLE_FILE).is_file():
        config = open_bundle(folder).config
        size = config.size if needs_size(seen) else max(config.size, config.upscaled_size)
        return Tokenizers(seen, heard, config.fps, size, config.num_frames, name, config.size)
    if seen is None:
        return Tokenizers(None, heard, 8.0, 128, 17, name, 128)
    size = usual_size(seen)
    return Tokenizers(seen, heard, seen.fps, size, seen.valid_num_frames(17), name, size)


def chosen_part(part: str, given: str | None, name: str) -> Path | None:
    """What ``--visual``, ``--audio`` or ``--text`` means beside ``--tokenizer`` or ``--model``.

    Args:
        part: "visual", "audio" or "text".
        given: the option's value; "none" goes without, None takes what ``name`` has.
        name: of a whole model, or of one part.

    Returns:
        The part's folder, or None without.

    Raises:
        FileNotFoundError: if there is no such thing.
        ValueError: if ``given`` is something else.
    """
    if given == "none":
        return None
    if given is not None:
        return part_folder(given, part)
    folder = resolve_folder(name)
    if (kind := what_is(folder).kind) == "model":
        bundle = open_bundle(folder)
        return bundle.part(part) if bundle.has(part) else None
    return folder if kind == part else None


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
    """Whether ``--model`` names a LARP generator; what is absent or damaged is told where it is opened."""
    try:
        return what_is(resolve_folder(name)).kind == "generator"
    except (FileNotFoundError, ValueError):
        return False


def tokenizer_of(folder: Path) -> str:
    """Folder or hub id of the tokenizer that goes with a LARP generator's folder."""
    from llm.loading import is_published

    inside = folder / TOKENIZER_FOLDER
    if inside.is_dir():
        return str(inside)
    if is_published(folder):
        return PUBLISHED_TOKENIZER  # a hub id; --tokenizer names another place
    raise ValueError(f"{folder} does not hold its tokenizer; name the one it was trained with (--tokenizer)")
