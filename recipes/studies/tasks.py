"""What do tasks cost each other? One language model for all of them beside one for each, at equal steps.

Kondratyuk et al. 2024, arXiv 2312.14125, table 1, on corpus ``shapes``: every variant starts from the same weights,
takes as many steps of as many tokens, draws from the same clips, and is measured on the same unseen combinations.

    python -m recipes.studies.tasks --out runs/task_study
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llm.tasks import TASKS, find_task
from mmtok.files import write_atomically
from recipes.bundle.assemble import assemble
from recipes.bundle.folder import Bundle, open_bundle
from recipes.bundle.parts import Parts
from recipes.evaluate.contract import subject_of
from recipes.evaluate.prompts import evaluate_prompts
from recipes.evaluate.tasks import evaluate_tasks
from recipes.figures.tables import text_table
from recipes.pipeline.cinepoet import CinePoetPipeline
from recipes.runtime.config import CONFIGS, load_config, to_dict
from recipes.runtime.device import Compute, choose_compute
from recipes.runtime.memory import keep_freed_memory
from recipes.runtime.records import same_study
from recipes.tokens.caption_vectors import CaptionVectors
from recipes.tokens.lm_batches import cached_data
from recipes.tokens.shapes import EncodeConfig, encode_shapes
from recipes.train.lm import LMTrainConfig, train_lm

ALL = "all"


@dataclass(frozen=True)
class StudyConfig:
    """The study's numbers.

    Attributes:
        scenes: unseen combinations that each task is measured on.
        variants: name to the tasks that a variant trains; one of them is ``all``, which the others are compared with.
        tokens: the clips that all train on.
        lm: training of every variant; ``task_weights`` are those among a variant's tasks, and the
            codebooks are those of the tokenizers.
    """

    scenes: int = 20
    variants: dict[str, tuple[str, ...]] = field(default_factory=lambda: {ALL: ("text_to_video",)})
    tokens: EncodeConfig = field(default_factory=EncodeConfig)
    lm: LMTrainConfig = field(default_factory=LMTrainConfig)

    def __post_init__(self) -> None:
        if self.scenes < 1:
            raise ValueError(f"scenes must be positive, got {self.scenes}")
        if ALL not in self.variants:
            raise ValueError(f"variants must name {ALL!r}, got {', '.join(self.variants)}")
        for name, tasks in self.variants.items():
            for task in tasks:
                find_task(task)
                if task not in self.lm.task_weights:
                    raise ValueError(f"variant {name} trains {task}, which lm.task_weights gives no weight")
                if task not in self.variants[ALL]:
                    raise ValueError(f"variant {name} trains {task}, which variant {ALL} does not")


def run_variant(config: StudyConfig, name: str, folder: Path, *, tokens: Path, base: Bundle, compute: Compute) -> None:
    """Train and measure one variant; what is finished is not repeated."""
    own, result = folder / name, folder / name / "result.json"
    if result.exists():
        return
    tasks = config.variants[name]
    if not (own / "lm" / "model" / "config.json").exists():
        parts = Parts(base, compute)
        lm = replace(
            config.lm,
            task_weights={task: config.lm.task_weights[task] for task in tasks},
            visual_codes=parts.visual.codebook_size,
            audio_codes=parts.audio.codebook_size,
        )
        clips = encode_shapes(config.tokens, tokens, visual=parts.visual, audio=parts.audio, compute=compute)
        data = cached_data(clips, validation_rows=lm.validation_rows)
        train_lm(
            lm,
            own / "lm",
            data=data,
            captions=CaptionVectors(data.captions, parts.text, slots=lm.text_slots),
            text_dim=parts.text.dim,
            compute=compute,
            code_vectors=(parts.visual.code_vectors(), parts.audio.code_vectors()),
        )
    bundle = own / "bundle"
    if bundle.exists():
        shutil.rmtree(bundle)
    trained = tuple(name for name in TASKS if name in tasks)
    asked = replace(base.config, tasks=trained, aspects=("square",), more_num_frames=(), sources=())
    model = assemble({"lm": str(own / "lm" / "model")}, bundle, base=base, config=asked)
    pipe, subject = CinePoetPipeline(model, compute), subject_of(name, bundle)
    measured: dict[str, float] = {}
    if "text_to_video" in tasks:
        prompts = evaluate_prompts(subject, pipe, prompts=config.scenes, upscale=False, folder=own)
        prompts.save(own)
        measured |= {f"text_to_video {what}": value for what, value in prompts.figures["generated"].items()}
    others = evaluate_tasks(subject, pipe, scenes=config.scenes, folder=own)
    others.save(own)
    measured |= _by_task(others.figures["tasks"])
    log = [json.loads(line) for line in (own / "lm" / "log.jsonl").read_text().splitlines()]
    last = next(row for row in reversed(log) if "val/loss" in row)
    measured |= {f"{task} loss": round(last[f"val/loss_{task}"], 4) for task in tasks}
    write_atomically(result, json.dumps({"steps": config.lm.steps, "figures": measured}, indent=1) + "\n")


def _by_task(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Figures of a task; painting is told as what it gains over the fill, on average over its masks."""
    found: dict[str, list[float]] = defaultdict(list)
    for name, figures in rows.items():
        task, *variant = name.split()
        if "fill_psnr_db" in figures:
            figures, variant = {"gain_db": figures["psnr_db"] - figures["fill_psnr_db"]}, []
        for what, value in figures.items():
            found[f"{task} {'_'.join([what, *variant])}"].append(value)
    return {name: round(sum(values) / len(values), 2) for name, values in found.items()}


def gather(config: StudyConfig, folder: Path) -> dict[str, Any]:
    """Results that are there.

    Args:
        config: the variants.
        folder: of the study.

    Returns:
        "protocol", and "figures": name such as ``text_to_video shape`` to variant to value.
    """
    figures: dict[str, dict[str, float]] = {}
    for variant in config.variants:
        file = folder / variant / "result.json"
        for name, value in json.loads(file.read_text())["figures"].items() if file.exists() else ():
            figures.setdefault(name, {})[variant] = value
    lm = config.lm
    return {
        "protocol": f"{lm.steps} steps of {lm.tokens_per_step} tokens for every variant, from the same start, seed "
        f"{lm.seed}; {config.scenes} scenes of held-out (colour, shape, motion) triples, corpus seed 0",
        "config": to_dict(config),
        "figures": figures,
    }


def table(result: dict[str, Any]) -> str:
    """Markdown: a row a figure, the single-task variant that has it beside the one that learned all."""
    rows = []
    for name, values in sorted(result["figures"].items()):
        task, what = name.split()
        alone = next((v for variant, v in values.items() if variant != ALL), None)
        cells = ("–" if value is None else f"{value:g}" for value in (alone, values.get(ALL)))
        rows.append([task, what.replace("_", " "), *cells])
    return text_table(["task", "figure", "alone", "all tasks"], rows) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the study."""
    parser = argparse.ArgumentParser(prog="python -m recipes.studies.tasks", description=__doc__.splitlines()[0])
    parser.add_argument("changes", nargs="*", metavar="key=value", help="numbers that differ, such as lm.steps=500")
    default = CONFIGS / "task_study.yaml"
    parser.add_argument("--config", type=Path, default=default, metavar="F.yaml")
    parser.add_argument("--model", default="tiny", metavar="M", help="whose tokenizers are used (default: tiny)")
    parser.add_argument("--out", type=Path, default=Path("runs/task_study"), metavar="FOLDER")
    parser.add_argument("--tokens", type=Path, metavar="FOLDER", help="of clips encoded before (default: OUT/tokens)")
    parser.add_argument("--variant", action="append", metavar="NAME", help="only this one, to share the work; repeat")
    parser.add_argument("--device", default="auto")
    args = parser.parse_intermixed_args(argv)
    try:
        config = load_config(StudyConfig, args.config, args.changes)
        if unknown := sorted(set(args.variant or ()) - set(config.variants)):
            raise ValueError(f"unknown variants {', '.join(unknown)}; known: {', '.join(config.variants)}")
        base, tokens = open_bundle(args.model), args.tokens or args.out / "tokens"
        compute = choose_compute(args.device)
        same_study(args.out, to_dict(config))
    except (ValueError, FileNotFoundError, RuntimeError) as fault:
        print(f"error: {str(fault).splitlines()[0]}", file=sys.stderr)
        return 2
    keep_freed_memory()
    for name in args.variant or config.variants:
        run_variant(config, name, args.out, tokens=tokens, base=base, compute=compute)
    result = gather(config, args.out)
    write_atomically(args.out / "result.json", json.dumps(result, indent=1) + "\n")
    print(table(result), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
