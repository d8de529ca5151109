"""A whole model in words: its parts, their sizes, its tasks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def describe_bundle(name: str) -> str:
    """What a name (recipes/bundle/named.py) stands for, in a few lines: a whole model with its parts, or a part."""
    from mmtok.loading import what_is
    from mmtok.pretrained import BUNDLE_FILE, OPTIONAL_PARTS, PARTS, resolve_folder
    from recipes.bundle.folder import open_bundle

    folder = resolve_folder(name)
    if not (folder / BUNDLE_FILE).is_file() and (folder / "config.json").is_file():
        count = count_parameters(folder / "model.safetensors") / 1e6
        return f"  {name}: {what_is(folder).words}, {count:.2f} M parameters\n    {folder}"
    bundle = open_bundle(name)
    config = bundle.config
    geometry = f"{config.num_frames} frames of {config.size}x{config.size} at {config.fps:g} fps"
    if config.upscaled_size:
        geometry += f", then {config.upscaled_size}x{config.upscaled_size}"
    lines = [f"  {name}: {geometry}", f"    licence {bundle.card.get('licence', 'not stated')}; {bundle.folder}"]
    lines.append(f"    tasks: {', '.join(config.tasks)}")
    others = {"lengths": config.more_num_frames, "aspects": config.aspects[1:], "sources": config.sources}
    if any(others.values()):
        lines.append("    further " + "; ".join(f"{n}: {', '.join(map(str, v))}" for n, v in others.items() if v))
    if "data" in bundle.card:
        lines.append(f"    trained on {bundle.card['data']}")
    total = 0
    for part in (*PARTS, *(p for p in OPTIONAL_PARTS if bundle.has(p))):
        if not bundle.has(part):
            lines.append(f"    {part:<15} absent")
            continue
        folder = bundle.part(part)
        size = sum(f.stat().st_size for f in folder.iterdir() if f.is_file())
        total += size
        config_values = json.loads((folder / "config.json").read_text())
        family = config_values.get("family", config_values.get("model_type", "unknown"))
        count = count_parameters(folder / "model.safetensors")
        lines.append(f"    {part:<15} {family:<12} {count / 1e6:7.2f} M parameters {size / 1e6:7.2f} MB")
    lines.append(f"    {'in all':<15} {total / 1e6:>42.2f} MB")
    return "\n".join(lines)


def count_parameters(file: Path) -> int:
    """Numbers in a safetensors file, buffers included, from its header."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        text = opened.read(length) if length <= file.stat().st_size else b""
    try:
        header: dict[str, Any] = json.loads(text)
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError) as fault:
        raise ValueError(f"{file} is damaged: its header cannot be read") from fault
