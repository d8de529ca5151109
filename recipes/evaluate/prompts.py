"""Does a generated film show and sound what its caption says? Measured on triples that training never saw.

Captions come from the held-out split of corpus ``shapes``; the analyzers read the finished pictures and sound. Beside
the model's figures stand those of the ground truth (the ceiling) and of the ground truth passed through the tokenizers.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.media.resize import half_size
from recipes.corpora.shapes import Scene, render_audio, render_video
from recipes.evaluate.analyzers import judge, percent_right
from recipes.evaluate.contract import Result, Subject
from recipes.evaluate.held_out import held_out_scenes
from recipes.figures.sheets import write_film_rows
from recipes.pipeline.cinepoet import CinePoetPipeline
from recipes.runtime.progress import track

CEILINGS = ("ground_truth", "reconstructed", "reconstructed_upscaled")
PROTOCOL = {
    "generated": "per cent of films in which the analyzers read what the caption says",
    "upscaled": "the same films behind super-resolution",
    "ground_truth": "the rendered scenes themselves: what the analyzers can reach",
    "reconstructed": "the rendered scenes behind the tokenizers, upscaled: at the larger size",
    "seconds_per_film": "wall clock, in batches",
}


@torch.inference_mode()
def evaluate_prompts(
    subject: Subject,
    pipe: CinePoetPipeline,
    *,
    prompts: int = 200,
    seed: int = 0,
    upscale: bool = True,
    batch_size: int = 10,
    folder: Path | None = None,
    **sampling: Any,
) -> Result:
    """Generate from held-out captions and read the films back.

    Args:
        subject: who it is.
        pipe: the model.
        prompts: how many captions; the first of the held-out split.
        seed: of the corpus' held-out captions (the corpus seed is the pipeline's training one, 0) and of sampling.
        upscale: also judge the pictures behind super-resolution.
        batch_size: films a call.
        folder: receives a contact sheet of the first films, films.png, or None.
        sampling: further arguments of the pipeline's call, such as ``guidance_scale``.

    Returns:
        Percentages under "generated", "upscaled" and ``CEILINGS``.

    Raises:
        ValueError: if fewer than one prompt is asked for.
    """
    if prompts < 1:
        raise ValueError(f"prompts must be positive, got {prompts}")
    scenes = held_out_scenes(prompts)
    names = ("generated", "upscaled", *CEILINGS)
    rows: dict[str, list[dict[str, bool]]] = {name: [] for name in names}
    generator = torch.Generator().manual_seed(seed)
    started = time.monotonic()
    shown: list[Tensor] = []
    for start in track(range(0, prompts, batch_size), title="films"):
        batch = scenes[start : start + batch_size]
        output = pipe([s.caption for s in batch], upscale=False, generator=generator, **sampling)
        assert output.audio is not None, "text to video makes sound"
        sharp = None
        if upscale:  # of the same codes, so that both judgements are of the same films
            codes = pipe.upscale_codes(output.codes["low"], prompts=[s.caption for s in batch], generator=generator)
            sharp = pipe.upscaler.decode(codes).float().cpu()
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
    if folder is not None:
        write_film_rows(shown, folder / "films.png")
    material = (
        f"{prompts} captions of held-out (colour, shape, motion) triples, corpus seed 0, sampling seed {seed}, one "
        f"film each, guidance {sampling.get('guidance_scale', pipe.config.guidance_scale)}"
    )
    figures = {name: percent_right(judged) for name, judged in rows.items() if judged}
    return Result("prompts", subject, material, PROTOCOL, {"seconds_per_film": round(spent_s / prompts, 2)} | figures)


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
