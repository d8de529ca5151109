"""What a name means: an embedded model, a folder, a hub id or a part of one, as what it stands for."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

TOKENIZER_FOLDER = "tokenizer"
PUBLISHED_TOKENIZER = "hywang66/LARP-L-long-tokenizer"


@dataclass(frozen=True)
class Tokenizers:
    """The tokenizers of a bundle, or a single one.

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
    """The tokenizers of a bundle by name or folder, or one tokenizer by folder or hub id.

    Args:
        name: such as "tiny".
        device: torch device.
        levels: of the codes of sound, where that is a choice; None leaves it to the tokenizer.

    Returns:
        The tokenizers.

    Raises:
        FileNotFoundError: if there is no such bundle or tokenizer.
        ValueError: if it is neither a visual nor an audio tokenizer, or levels are chosen where there is no choice.
    """
    import mmtok
    from mmtok.contract import needs_size
    from mmtok.loading import family_of
    from mmtok.pretrained import resolve_folder
    from mmtok.table import FAMILIES
    from recipes.bundle.folder import BUNDLE_FILE, embedded_names, open_bundle

    if Path(name).is_file():
        raise ValueError(f"{name} is a file; cinepoet convert makes a folder of published weights")
    folder: Path | None = None  # of a single tokenizer
    if name not in embedded_names():
        with contextlib.suppress(FileNotFoundError):  # open_bundle then tells the known names
            folder = resolve_folder(name)
    if folder is None or (folder / BUNDLE_FILE).is_file():
        bundle = open_bundle(name)
        options = {"visual": {}, "audio": {"num_codebooks": levels}}
        parts = {p: mmtok.load(bundle.part(p), device=device, **o) for p, o in options.items() if bundle.has(p)}
        config = bundle.config
        size = max(config.size, config.upscaled_size)
        if needs_size(parts.get("visual")):  # it works at the size that it was trained for
            size = config.size
        return Tokenizers(parts.get("visual"), parts.get("audio"), config.fps, size, config.num_frames, name)
    kind = FAMILIES[family_of(folder)].kind
    if kind not in ("visual", "audio"):
        raise ValueError(f"{name} is a {kind} encoder; a visual or audio tokenizer is needed")
    tokenizer = mmtok.load(folder, device=device, num_codebooks=levels)
    if kind == "audio":
        return Tokenizers(None, tokenizer, 8.0, 128, 17, name)
    size = tokenizer.clip_size[1] if needs_size(tokenizer) else 128
    return Tokenizers(tokenizer, None, tokenizer.fps, size, tokenizer.valid_num_frames(17), name)


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


def tokenizer_of(folder: Path) -> str:
    """Where a generator's tokenizer lies.

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
