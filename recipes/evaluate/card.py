"""The model card: README.md of a bundle, written from what was measured and from how its parts were trained."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from mmtok.files import write_atomically
from mmtok.pretrained import ROW_SCALE
from recipes.bundle.folder import OPTIONAL_PARTS, PARTS, Bundle
from recipes.evaluate.analyzers import ATTRIBUTES
from recipes.evaluate.contract import Result, weights_of
from recipes.figures.tables import text_table

NEEDED, WELCOME = ("prompts", "reconstruction"), ("tasks", "superres")  # measurements
_ROWS = {  # of the table of prompt adherence
    "ground_truth": "ground truth, {low}",
    "reconstructed": "ground truth behind the tokenizers, {low}",
    "reconstructed_upscaled": "ground truth behind the tokenizers, {high}",
    "generated": "generated, {low}",
    "upscaled": "generated, after super-resolution, {high}",
}


def _parameters(folder: Path) -> int:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping
    # a row's scale belongs to a matrix stored as int8 and is no weight
    return sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(ROW_SCALE))


def _read(bundle: Bundle, weights: str, folder: Path, name: str) -> Result:
    path = folder / f"{name}.json"
    result = Result.load(path)
    if result.of != name:
        raise ValueError(f"{path} holds a result of evaluate {result.of}; {name} is needed there")
    return result.require_model(bundle.folder, path, weights)


def _adherence(shapes: dict[str, Any], names: dict[str, str]) -> str:
    attributes = list(shapes["generated"])
    rows = [
        [title.format(**names), *(f"{shapes[key][a]:.1f} %" for a in attributes)]
        for key, title in _ROWS.items()
        if key in shapes
    ]
    return text_table(["", *attributes], rows)


def _reconstruction(result: dict[str, Any]) -> str:
    def codes(of: str, told: str) -> list[list[str]]:
        levels = ", ".join(f"{100 * level['used']:.0f} %" for level in result[f"{of}/audio_codes"])
        seen = result[f"{of}/visual_codes"]
        used = f"{100 * seen['used']:.0f} %, {seen['entropy_bits']:.1f} bits"
        return [[f"visual codes in use, {told}", used], [f"audio codes in use by level, {told}", levels]]

    def pictures(of: str, told: str) -> list[str]:
        return [f"pictures, {told}", f"{result[f'{of}/psnr_db']:.1f} dB"]

    def sounds(of: str, told: str) -> list[str]:
        silence = f"log-mel distance (silence {result[f'{of}/log_mel_distance_silence']:.2f})"
        return [f"sounds, {told}: {silence}", f"{result[f'{of}/log_mel_distance']:.2f}"]

    shapes = "held-out shapes"
    rows = [pictures("shapes", shapes), sounds("shapes", shapes), *codes("shapes", "shapes")]
    if "real/psnr_db" in result:
        rows.append(pictures("real", f"{result['real/clips']} real clips kept out of training"))
    if "real/log_mel_distance" in result:
        rows.append(sounds("real", f"{result['real/sounds']} real pieces kept out of training"))
    rows += codes("all", "shapes and real") if "all/visual_codes" in result else []
    return text_table(["", "measured"], rows)


def _tasks(result: dict[str, Any]) -> str:
    """A row a task and mask, each with its own figures."""
    rows = []
    for name, figures in result["tasks"].items():
        told = [f"{what} {value:.1f} %" for what, value in figures.items() if what in ATTRIBUTES]
        if "strayed_px_median" in figures:
            told.append(f"strays {figures['strayed_px_median']:.1f} pixels after eight pictures (median)")
        if "psnr_db" in figures:
            told.append(f"hidden region {figures['psnr_db']:.1f} dB, its fill {figures['fill_psnr_db']:.1f} dB")
        rows.append([name, ", ".join(told)])
    return text_table(["every other task", "measured"], rows)


def _superres_protocol(result: Result) -> str:
    """What was enlarged, and how, in one line."""
    way, seed = result.protocol["way"], result.protocol["seed"]
    return f"{way}, seed {seed}. {result.material[0].upper()}{result.material[1:]}."


def _superres(result: dict[str, Any]) -> str:
    """A row a set of clips and method, with the figures that were measured."""
    sets = result["sets"]
    figures = [*next(iter(sets.values()))["methods"]["ours"]]
    rows = [
        [
            f"{name}, {method.replace('_', ' ')}",
            *("" if told.get(f) is None else f"{told[f]:,.{0 if abs(told[f]) >= 100 else 2}f}" for f in figures),
        ]
        for name, measured in sets.items()
        for method, told in measured["methods"].items()
    ]
    return text_table(["super-resolution", *(f.replace("_", " ") for f in figures)], rows)


def model_card(bundle: Bundle, results: Path, notes: str = "") -> str:
    """The card as text, see ``write_card``."""
    read = partial(_read, bundle, weights_of(bundle.folder), results)
    prompts, reconstruction = (read(name) for name in NEEDED)
    tasks, superres = (read(name) if (results / f"{name}.json").is_file() else None for name in WELCOME)
    card, config = bundle.card, bundle.config
    names = {"low": f"{config.size}x{config.size}", "high": f"{config.upscaled_size}x{config.upscaled_size}"}
    seconds = config.num_frames / config.fps
    parts = [part for part in (*PARTS, *OPTIONAL_PARTS) if bundle.has(part)]
    training = card.get("training", {})
    rows = []
    for part in parts:
        stage = "larp" if part == "visual" and "larp" in training else "visual" if part == "superres_visual" else part
        rows.append([part, f"{_parameters(bundle.part(part)) / 1e6:.1f} M", *_stage(card, stage)])
        if stage == "visual" and "decoder" in training:
            rows.append(["its decoder alone, behind the same codes", "", *_stage(card, "decoder")])
        if stage == "superres" and "superres_media" in training:
            rows.append(["it goes on, on films and scenes", "", *_stage(card, "superres_media")])
        if stage == "lm" and "tasks" in training:
            runs = (*card.get("adapted_before", []), card)
            rows += [["it goes on, with every task", "", *_stage(run, "tasks")] for run in runs]
    table = text_table(["part", "parameters", "steps", "minutes"], rows)
    size_mb = sum(f.stat().st_size for f in bundle.folder.rglob("*") if f.is_file()) / 1e6
    sections = [
        f"# cinepoet {card.get('name', bundle.folder.name)}",
        f"{config.num_frames} pictures of {names['low']} at {config.fps:g} per second with {seconds:g} s of sound"
        + (f", then {names['high']}" if config.upscaled_size else "")
        + f". {size_mb:.1f} MB on disk. Licence {card.get('licence', 'not stated')}.",
        table,
        "## How it was made",
        f"Command: `{card['command']}`{_spelled(card['command'])}." if "command" in card else "",
        f"Data: {card.get('data', 'not stated')}. Seed {card.get('seed', 'not recorded')}. "
        f"Machine: {card.get('machine', 'not recorded')}. `cinepoet.json` holds every number of every stage.",
        "## Measured",
        f"{prompts.material}; {prompts.figures['seconds_per_film']} s a film in batches.",
        _adherence(prompts.figures, names),
        *(() if tasks is None else (f"{tasks.material}.", _tasks(tasks.figures))),
        f"{reconstruction.material}.",
        _reconstruction(reconstruction.figures),
        *(() if superres is None else (_superres_protocol(superres), _superres(superres.figures))),
        notes.strip(),
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


def _spelled(command: str) -> str:
    """What a reader must know to type a command of before again; the record itself is not rewritten."""
    old = "--tokenizers" in command or " tasks.lr=" in command
    return " (as it was typed; some words have new names since, which the command tells)" if old else ""


def _stage(card: dict[str, Any], stage: str) -> list[str]:
    """Steps and minutes of a stage."""
    numbers, minutes = card.get("training", {}).get(stage, {}), card.get("minutes", {})
    steps = "not recorded"
    if "steps" in numbers:
        steps = f"{numbers['steps']:,}"
    elif "video_steps" in numbers:
        steps = f"{numbers['image_steps']:,} on images, {numbers['video_steps']:,} on clips"
    return [steps, f"{minutes[stage]:.0f}" if stage in minutes else "not recorded"]


def write_card(bundle: Bundle, results: Path, notes: str = "") -> Path:
    """Write README.md into the bundle.

    Args:
        bundle: the model.
        results: folder with what ``cinepoet evaluate prompts`` and ``reconstruction`` wrote under ``--out``, and
            ``tasks`` and ``superres`` where they were measured.
        notes: Markdown put behind the figures, such as known limits.

    Returns:
        The file.

    Raises:
        FileNotFoundError: if a measurement is not in ``results``.
        ValueError: if one is damaged, or measured another model.
    """
    try:
        text = model_card(bundle, results, notes)
    except KeyError as fault:
        raise ValueError(f"a result in {results} lacks the figure {fault}; measure again with evaluate") from fault
    write_atomically(bundle.folder / "README.md", text)
    return bundle.folder / "README.md"
