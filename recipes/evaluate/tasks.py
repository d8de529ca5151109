"""Does a model do every task? Measured on scenes of corpus ``shapes`` whose combinations training never saw.

Each task has its own figure: what the analyzers read in pictures made for a sound and in a sound made for pictures,
how much better hidden regions are than their fill, how far a shape strays when its film goes on, and whether a film in
another colour keeps its motion. Tasks that a model was not trained on are left out and named.

Shape letters: b films, t h w time/height/width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm.tasks import TASKS, named
from mmtok.conditions.commit_masks import PAINTINGS
from mmtok.conditions.masks import make_mask
from mmtok.media.resize import half_size
from recipes.corpora.shapes import COLOURS, Scene, render_audio, render_video
from recipes.evaluate.analyzers import read_centres, read_pitch, read_video
from recipes.evaluate.contract import Result, Subject
from recipes.evaluate.held_out import held_out_scenes
from recipes.figures.sheets import write_sheet
from recipes.pipeline.cinepoet import CinePoetPipeline
from recipes.runtime.progress import track

Figures = dict[str, float]
SCENES_SHOWN = 3  # scenes on the sheet
PROTOCOL = {
    **dict.fromkeys(("shape", "pitch", "colour", "motion"), "per cent that the analyzers read right"),
    "strayed_px_median": "pixels of the language model's size, eight pictures behind nine given ones",
    "psnr_db": "of the hidden region, peak 2 on [-1, 1], mean over films",
    "fill_psnr_db": "the same of what the model is given in its place",
}


@dataclasses.dataclass(frozen=True)
class _Batch:
    scenes: list[Scene]
    video: Tensor  # (b, 3, t, h, w)
    audio: Tensor  # (b, 1, n)


@dataclasses.dataclass(frozen=True)
class _Done:
    """What a task made of a batch; films are (b, 3, t, h, w), sounds (b, 1, n)."""

    figures: list[Figures]
    given: Tensor
    made: Tensor


Measure = Callable[..., _Done]


def _psnr(wrong: Tensor) -> float:
    """dB of squared differences of values in [-1, 1]."""
    return 10 * math.log10(4 / max(float(wrong.mean()), 1e-10))


def _hear(pipe: CinePoetPipeline, batch: _Batch, *, task: str, captioned: bool = False, **sampling: Any) -> _Done:
    prompts = [scene.caption for scene in batch.scenes] if captioned else None
    made = pipe(prompts, video=batch.video, task=task, upscale=False, **sampling)
    assert made.audio is not None, "the task makes sound"
    heard = [read_pitch(sound, made.sample_rate) for sound in made.audio]
    figures = [{"pitch": float(pitch == scene.shape)} for pitch, scene in zip(heard, batch.scenes, strict=True)]
    return _Done(figures, batch.video, made.audio)


def _see(pipe: CinePoetPipeline, batch: _Batch, *, task: str, **sampling: Any) -> _Done:
    made = pipe(audio=batch.audio, task=task, upscale=False, **sampling)
    seen = [read_video(film).shape for film in made.frames]
    figures = [{"shape": float(shape == scene.shape)} for shape, scene in zip(seen, batch.scenes, strict=True)]
    return _Done(figures, batch.audio, made.frames)


def _go_on(pipe: CinePoetPipeline, batch: _Batch, *, task: str, **sampling: Any) -> _Done:
    """Nine pictures are given; the eighth one behind them is compared."""
    given = 9
    audio = batch.audio if TASKS[task].must_sound else None
    video = batch.video[:, :, :given]
    made = pipe(video=video, audio=audio, task=task, upscale=False, sound=audio is not None, **sampling)
    out = []
    for film, truth in zip(made.frames, batch.video, strict=True):
        strayed = float((read_centres(film)[given + 7] - read_centres(truth)[given + 7]).norm())
        out.append({"strayed_px": strayed if math.isfinite(strayed) else float(film.shape[-1])})
    return _Done(out, batch.video, made.frames)


def _paint(pipe: CinePoetPipeline, batch: _Batch, *, task: str, mask: str, **sampling: Any) -> _Done:
    prompts = [scene.caption for scene in batch.scenes]
    made = pipe(prompts, video=batch.video, mask=mask, task=task, upscale=False, sound=False, **sampling)
    size, stride = (batch.video.shape[-2], batch.video.shape[-1]), pipe.visual.stride
    seen = make_mask(mask, TASKS[task].masks, batch.video, given_size=size, fit=lambda hidden: hidden, stride=stride)
    hidden = ~seen.known
    out = []
    for film, fill, truth in zip(made.frames, seen.video, batch.video, strict=True):
        filled, painted = ((x - truth).square()[:, hidden] for x in (fill, film))
        out.append({"psnr_db": _psnr(painted), "fill_psnr_db": _psnr(filled)})
    return _Done(out, seen.video, made.frames)


def _stylize(pipe: CinePoetPipeline, batch: _Batch, *, task: str, **sampling: Any) -> _Done:
    """The same scene in the next colour."""
    following = dict(zip(COLOURS, [*list(COLOURS)[1:], *COLOURS], strict=False))
    wanted = [dataclasses.replace(scene, colour=following[scene.colour]) for scene in batch.scenes]
    prompts = [scene.caption for scene in wanted]
    made = pipe(prompts, video=batch.video, task=task, upscale=False, sound=False, **sampling)
    seen = [read_video(film) for film in made.frames]
    figures = [
        {"colour": float(reading.colour == scene.colour), "motion": float(reading.motion == scene.motion)}
        for reading, scene in zip(seen, wanted, strict=True)
    ]
    return _Done(figures, batch.video, made.frames)


# What measures tasks of ``Task.judged_by``, in the order in which they draw.
MEASURES: dict[str, Measure] = {"see": _see, "hear": _hear, "go_on": _go_on, "stylize": _stylize, "paint": _paint}


def measures() -> dict[str, tuple[str, Measure, dict[str, Any]]]:
    """Name of a row to its task, its function of pipeline and batch, and that function's options."""
    rows: dict[str, tuple[str, Measure, dict[str, Any]]] = {}
    for name, measure in MEASURES.items():
        for task in named(judged_by=name):
            masks = TASKS[task].masks
            shown = [mask.removeprefix(f"{masks}_") for mask in PAINTINGS[masks]] if masks else []
            rows |= {f"{task} {mask}": (task, measure, {"task": task, "mask": mask}) for mask in shown}
            rows |= {} if masks else {task: (task, measure, {"task": task})}
            if measure is _hear:
                rows[f"{task} captioned"] = (task, measure, {"task": task, "captioned": True})
    return rows


def _batch(pipe: CinePoetPipeline, scenes: list[Scene]) -> _Batch:
    config, rate = pipe.config, pipe.audio.sample_rate
    large = torch.stack([render_video(s, size=2 * config.size, num_frames=config.num_frames) for s in scenes])
    samples = round(config.num_frames / config.fps * rate)
    sounds = torch.stack([render_audio(s, num_samples=samples, sample_rate=rate) for s in scenes])
    return _Batch(scenes, half_size(large), sounds)


def _row(figures: list[Figures]) -> dict[str, float]:
    """Shares in per cent, the median of pixels, means of decibels."""
    out = {}
    for name in figures[0]:
        values = [f[name] for f in figures]
        if name.endswith("_px"):
            out[f"{name}_median"] = round(float(torch.tensor(values).median()), 2)
        elif name.endswith("_db"):
            out[name] = round(sum(values) / len(values), 2)
        else:
            out[name] = round(100 * sum(value == 1 for value in values) / len(values), 1)
    return out


@torch.inference_mode()
def evaluate_tasks(
    subject: Subject,
    pipe: CinePoetPipeline,
    *,
    scenes: int = 100,
    seed: int = 0,
    batch_size: int = 10,
    only: tuple[str, ...] = (),
    folder: Path | None = None,
    **sampling: Any,
) -> Result:
    """Measure every task that a model was trained on, but for text to video (``evaluate_prompts``).

    Args:
        subject: who it is.
        pipe: the model.
        scenes: how many; the first of the held-out split.
        seed: of sampling.
        batch_size: films a call.
        only: names of rows, as in ``measures``; () measures all.
        folder: receives a sheet of the first scenes, tasks.png; or None.
        sampling: further arguments of the pipeline's call.

    Returns:
        Row to figures under "tasks", and the tasks that were "not_trained".

    Raises:
        ValueError: for no scenes or an unknown row.
    """
    rows = measures()
    if scenes < 1 or batch_size < 1:
        raise ValueError(f"scenes and batch_size must be positive, got {scenes} and {batch_size}")
    if unknown := sorted(set(only) - set(rows)):
        raise ValueError(f"unknown rows {', '.join(unknown)}; known: {', '.join(rows)}")
    wanted = {name: row for name, row in rows.items() if not only or name in only}
    trained = {name: row for name, row in wanted.items() if row[0] in pipe.config.tasks}
    drawn = held_out_scenes(scenes)
    figures: dict[str, list[Figures]] = {name: [] for name in trained}
    generator = torch.Generator().manual_seed(seed)
    shown: dict[str, tuple[Tensor, Tensor]] = {}
    for start in track(range(0, scenes, batch_size), title="tasks"):
        batch = _batch(pipe, drawn[start : start + batch_size])
        for name, (_, measure, options) in trained.items():
            done = measure(pipe, batch, generator=generator, **options, **sampling)
            figures[name] += done.figures
            shown.setdefault(name, (done.given[:SCENES_SHOWN], done.made[:SCENES_SHOWN]))
    guidance = sampling.get("guidance_scale", pipe.config.guidance_scale)
    if folder is not None and shown:
        write_sheet(folder / "tasks.png", shown, pipe.audio.sample_rate)
    material = (
        f"{scenes} scenes of held-out (colour, shape, motion) triples, corpus seed 0, sampling seed {seed}, guidance "
        f"{guidance}, {pipe.config.size} pixels"
    )
    told = {
        "not_trained": sorted({row[0] for name, row in wanted.items() if name not in trained}),
        "tasks": {name: _row(found) for name, found in figures.items()},
    }
    return Result("tasks", subject, material, PROTOCOL, told)
