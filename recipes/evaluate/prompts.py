"""Does a generated film show and sound what its caption says? Measured on triples that training never saw.

Captions come from the held-out split of corpus ``shapes``; the analyzers read the finished pictures and sound. Beside
the model's figures stand those of the ground truth (the ceiling) and of the ground truth passed through the tokenizers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.files import write_atomically
from mmtok.media.resize import half_size
from recipes.corpora.shapes import Scene, ShapesCorpus, render_audio, render_video
from recipes.evaluate.analyzers import ATTRIBUTES, judge, percent_right
from recipes.figures.sheets import write_film_rows
from recipes.pipeline.cinepoet import CinePoetPipeline
from recipes.runtime.progress import track

CEILINGS = ("ground_truth", "reconstructed", "reconstructed_upscaled")


@torch.inference_mode()
def evaluate_shapes(
    pipe: CinePoetPipeline,
    *,
    prompts: int = 200,
    seed: int = 0,
    upscale: bool = True,
    batch_size: int = 10,
    folder: Path | None = None,
    **sampling: Any,
) -> dict[str, Any]:
    """Generate from held-out captions and read the films back.

    Args:
        pipe: the model.
        prompts: how many captions; the first of the held-out split.
        seed: of the corpus' held-out captions (the corpus seed is the pipeline's training one, 0) and of sampling.
        upscale: also judge the pictures behind super-resolution.
        batch_size: films a call.
        folder: receives result.json and a contact sheet of the first films, or None.
        sampling: further arguments of the pipeline's call, such as ``guidance_scale``.

    Returns:
        Percentages under "generated", "upscaled" and ``CEILINGS``, with the protocol.

    Raises:
        ValueError: if fewer than one prompt is asked for.
    """
    if prompts < 1:
        raise ValueError(f"prompts must be positive, got {prompts}")
    corpus = ShapesCorpus(0, "heldout")
    scenes = [corpus.scene(i) for i in range(prompts)]
    names = ("generated", "upscaled", *CEILINGS)
    rows: dict[str, list[dict[str, bool]]] = {name: [] for name in names}
    generator = torch.Generator().manual_seed(seed)
    started = time.monotonic()
    shown: list[Tensor] = []
    for start in track(range(0, prompts, batch_size), title="films"):
        batch = scenes[start : start + batch_size]
        output = pipe([s.caption for s in batch], upscale=False, generator=generator, **sampling)
        assert output.audio is not None, "text to video makes sound"
        sharp = _sharpened(pipe, output.codes["low"], batch, generator) if upscale else None
        for i, scene in enumerate(batch):
            sound = output.audio[i]
            rows["generated"].append(judge(scene, output.frames[i], sound, output.sample_rate))
            if sharp is not None:
                rows["upscaled"].append(judge(scene, sharp[i], sound, output.sample_rate))
            if len(shown) < 24:
                shown.append(output.frames[i])
    spent_s = time.monotonic() - started
    for start in track(range(0, prompts, batch_size), title="ground truth"):
        for scene, films in _truth(pipe, scenes[start : start + batch_size], upscaled=upscale):
            for name, film in films.items():
                rows[name].append(judge(scene, *film))
    result: dict[str, Any] = {
        "protocol": f"{prompts} captions of held-out (colour, shape, motion) triples, corpus seed 0, sampling seed "
        f"{seed}, one film each, guidance {sampling.get('guidance_scale', pipe.config.guidance_scale)}",
        "seconds_per_film": round(spent_s / prompts, 2),
    }
    result |= {name: percent_right(judged) for name, judged in rows.items() if judged}
    if folder is not None:
        write_atomically(folder / "result.json", json.dumps(result, indent=1) + "\n")
        write_film_rows(shown, folder / "films.png")
    return result


def _sharpened(pipe: CinePoetPipeline, low: Tensor, batch: list[Scene], generator: torch.Generator) -> Tensor:
    """Super-resolution of codes that are already there, so that both judgements are of the same films."""
    codes = pipe.upscale_codes(low, prompts=[s.caption for s in batch], generator=generator)
    return pipe.upscaler.decode(codes).float().cpu()


def _truth(
    pipe: CinePoetPipeline, batch: list[Scene], *, upscaled: bool
) -> list[tuple[Scene, dict[str, tuple[Tensor, Tensor, int]]]]:
    """Rendered scenes and the same behind the tokenizers, at the language model's size and at twice that."""
    config, audio, device = pipe.config, pipe.audio, pipe.compute.device
    num_samples = round(config.num_frames / config.fps * audio.sample_rate)
    large = torch.stack([render_video(s, size=2 * config.size, num_frames=config.num_frames) for s in batch])
    small = half_size(large)
    sounds = torch.stack([render_audio(s, num_samples=num_samples, sample_rate=audio.sample_rate) for s in batch])
    heard = audio.decode(audio.encode(sounds.to(device)), num_samples=num_samples).float().cpu()

    def behind(clips: Tensor) -> Tensor:
        return pipe.visual.decode(pipe.visual.encode(clips.to(device))).float().cpu()

    films = {"ground_truth": (small, sounds), "reconstructed": (behind(small), heard)}
    if upscaled:
        films["reconstructed_upscaled"] = (pipe.upscaler.decode(pipe.upscaler.encode(large)).float().cpu(), heard)
    rate = audio.sample_rate
    return [(s, {n: (seen[i], sound[i], rate) for n, (seen, sound) in films.items()}) for i, s in enumerate(batch)]


def report(result: dict[str, Any], printer: Callable[[str], None] = print) -> None:
    """Print a result as a table.

    Args:
        result: of ``evaluate_shapes``.
        printer: takes one line.
    """
    printer(result["protocol"])
    printer(f"{'':23}" + "".join(f"{name:>9}" for name in ATTRIBUTES))
    for name in (*CEILINGS, "generated", "upscaled"):
        if name in result:
            printer(f"{name:23}" + "".join(f"{result[name].get(a, float('nan')):8.1f}%" for a in ATTRIBUTES))
