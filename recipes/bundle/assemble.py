"""A complete model out of parts that were trained apart."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm.tasks import TASKS, find_task
from mmtok.files import write_atomically
from mmtok.loading import part_folder
from mmtok.visual.holistic import is_holistic
from recipes.bundle.config import ASPECTS, STAGES, BundleConfig
from recipes.bundle.folder import ALL_PARTS, OPTIONAL_PARTS, Bundle, open_bundle, write_bundle
from recipes.bundle.parts import Parts
from recipes.runtime.config import from_dict, merge, to_dict

CLIPS_FILE = "clips.json"


def assemble(parts: dict[str, str], out: Path, *, base: Bundle, config: BundleConfig, command: str = "") -> Bundle:
    """Copy parts into one folder, check that they understand each other, and only then give it its name.

    With another visual tokenizer super-resolution keeps the one it was trained on, as ``superres_visual``.

    Args:
        parts: names of ``ALL_PARTS`` to folders or hub ids; what is not named is taken from ``base``.
        out: the new folder.
        base: a complete model.
        config: what binds the parts.
        command: what was typed, for the card.

    Returns:
        The new model.

    Raises:
        ValueError: for an unknown part, or parts that do not fit.
        FileExistsError: if ``out`` exists.
        FileNotFoundError: if a part does not.
    """
    if unknown := sorted(set(parts) - set(ALL_PARTS)):
        raise ValueError(f"unknown parts {', '.join(unknown)}; known: {', '.join(ALL_PARTS)}")
    if out.exists():
        raise FileExistsError(f"{out} exists; name another folder")
    folders = {name: part_folder(place, name) for name, place in parts.items()}
    if "visual" in folders and "superres" not in folders and base.has("superres"):
        folders.setdefault("superres_visual", base.part("superres_visual" if base.has("superres_visual") else "visual"))
    for name in ALL_PARTS:
        # a second stage, and a tokenizer of its own, belong to the super-resolution they came with
        apart = name in OPTIONAL_PARTS and "superres" in parts
        if name not in folders and base.has(name) and not apart:
            folders[name] = base.part(name)
    card = {"name": out.name, "parts": {name: str(place) for name, place in parts.items()}, "command": command}
    card["licence"] = f"that of its parts; the rest is {base.card.get('name', base.folder.name)}'s"
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        whole = Path(temporary) / out.name
        for name, folder in folders.items():
            shutil.copytree(folder, whole / name)
        write_bundle(whole, config, card)
        require_fit(Parts(open_bundle(whole)))
        whole.rename(out)
    return open_bundle(out)


def tell_clips(
    folder: Path,
    sizes: Sequence[tuple[int, int]],
    durations: Sequence[int],
    *,
    stride: Sequence[int],
    structure: dict[str, str],
) -> None:
    """Write what clips a language model is trained on beside its numbers, for ``trained``.

    Args:
        folder: of the run.
        sizes: (h, w) tokens of each resolution, the default one first.
        durations: slices of each duration, the default one first.
        stride: frames and pixels of a token, of a tokenizer whose first slice is one picture.
        structure: "flow" and "depth" of its conditions; empty without.
    """
    pictures = [[h * stride[1], w * stride[2]] for h, w in sizes]
    lengths = [1 + (t - 1) * stride[0] for t in durations]
    write_atomically(
        folder / CLIPS_FILE, json.dumps({"pictures": pictures, "num_frames": lengths} | structure, indent=1) + "\n"
    )


def trained(lm: Path) -> dict[str, Any]:
    """What a language model that ``cinepoet train`` left in a run folder was trained on.

    Args:
        lm: its folder, ``RUN/model``.

    Returns:
        Numbers of a ``BundleConfig``: "tasks" and "sources" (names in the order of their tokens); behind ``cinepoet
        train lm`` those of its clips too, where a model can have them. Empty if the run's numbers are not beside it.
    """
    file, clips = lm.parent / "config.json", lm.parent / CLIPS_FILE
    if not file.is_file():
        return {}
    run = json.loads(file.read_text())
    weights = run.get("task_weights", {})
    tasks = [name for name in TASKS if weights.get(name, 0) > 0]
    if not tasks:
        return {}
    found: dict[str, Any] = {"tasks": tasks, "sources": list(run.get("sources", ()))}
    return found | _of_clips(json.loads(clips.read_text())) if clips.is_file() else found


def _of_clips(clips: dict[str, Any]) -> dict[str, Any]:
    """Lengths, forms and structure; forms only where each has the <res> token that a model gives it."""
    found: dict[str, Any] = {name: clips[name] for name in ("flow", "depth") if name in clips}
    if clips["num_frames"]:
        found["num_frames"], *found["more_num_frames"] = clips["num_frames"]
    pictures = [tuple(picture) for picture in clips["pictures"]]
    size = pictures[0][1]
    forms = {(round(size * ratio), size): (name, token) for name, (token, ratio) in ASPECTS.items()}
    tokens = [None, *range(len(pictures) - 1)]
    if all(forms.get(picture, ("", -1))[1] == token for picture, token in zip(pictures, tokens, strict=True)):
        found |= {"size": size, "aspects": [forms[picture][0] for picture in pictures]}
    return found


def require_fit(parts: Parts) -> None:
    """Load every part and compare what they say of each other."""
    config, lm, visual = parts.config, parts.lm, parts.visual  # the vocabulary is compared in ``lm``
    if lm.config.text_dim != parts.text.dim:
        raise ValueError(f"the language model reads text vectors of {lm.config.text_dim}, text gives {parts.text.dim}")
    longest = max((config.num_frames, *config.more_num_frames))
    for aspect in config.aspects:
        for num_frames in (config.num_frames, *config.more_num_frames):
            grid = visual.grid(num_frames, *config.picture_size(aspect))
            if any(side > most for side, most in zip(grid, lm.config.max_grid, strict=True)):
                raise ValueError(
                    f"{aspect} clips of {num_frames} pictures are {grid} tokens, the language model has places for "
                    f"{lm.config.max_grid}"
                )
    frames = int(longest / config.fps * parts.audio.frame_rate)
    if lm.config.audio_levels and frames > lm.config.max_audio_frames:
        raise ValueError(
            f"the sound of {longest} pictures is {frames} frames, the language model has places for "
            f"{lm.config.max_audio_frames}"
        )
    holistic = is_holistic(visual)
    for name in config.tasks:
        task = find_task(name)
        if holistic and (task.cuts or task.condition):
            raise ValueError(f"{name} needs tokens that lie in a grid, which this visual tokenizer's do not")
    if any(find_task(name).stylizes for name in config.tasks):
        _ = parts.depth  # raises where its weights are not there
    if config.upscaled_size:
        if config.upscaled_size % config.size or (times := config.upscaled_size // config.size) & (times - 1):
            raise ValueError(f"upscaled_size {config.upscaled_size} is not {config.size} doubled once or several times")
        for stage in STAGES:
            if not parts.bundle.has(stage):
                continue
            sizes, spoken = getattr(parts, stage).config, parts.sharp_visual.codebook_size
            if sizes.codebook_size != spoken:
                raise ValueError(f"{stage} speaks {sizes.codebook_size} codes, its tokenizer {spoken}")
            if sizes.text_dim != parts.text.dim:
                raise ValueError(f"{stage} reads text vectors of {sizes.text_dim}, text gives {parts.text.dim}")


def config_for(base: Bundle, parts: dict[str, str], changes: list[str]) -> BundleConfig:
    """The base's numbers, with the tasks, data sources and clips of a new language model and with changes.

    Args:
        base: a complete model.
        parts: as in ``assemble``.
        changes: ``key=value`` words.

    Returns:
        The config.

    Raises:
        ValueError: for unknown keys or values that cannot be.
    """
    values = to_dict(base.config)
    if "lm" in parts:
        values |= trained(part_folder(parts["lm"], "lm"))
        if base.config.upscaled_size:
            values["upscaled_size"] = base.config.upscaled_size // base.config.size * values["size"]
    return from_dict(BundleConfig, merge(values, changes))
