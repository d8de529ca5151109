"""How much the tokenizers of a model lose: PSNR of pictures, log-mel distance of sounds, and how many codes are used.

Shapes come from the held-out split, real media from the files that a listing keeps out of training. A silent
recording of the same length is the baseline for sound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mmtok.metrics.audio import LogMel
from mmtok.metrics.codebook import CodebookUse
from mmtok.metrics.table import Metric, Metrics
from mmtok.metrics.visual import Psnr
from recipes.corpora.folder import MediaFolder, clip_pool, sound_pool
from recipes.corpora.shapes import render_audio, render_video
from recipes.evaluate.contract import Again, Material, Result, Subject, evaluate
from recipes.evaluate.held_out import held_out_scenes
from recipes.pipeline.cinepoet import CinePoetPipeline
from recipes.runtime.progress import track

BATCH, PIECES = 4, 4  # scenes at once; pieces of a recording


def evaluate_reconstruction(
    subject: Subject,
    pipe: CinePoetPipeline,
    *,
    media: MediaFolder | None = None,
    scenes: int = 200,
    size: int = 128,
) -> Result:
    """Measure both tokenizers of a model.

    Args:
        subject: who it is.
        pipe: the model.
        media: real files; only those kept out of training are measured.
        scenes: held-out scenes of corpus ``shapes``.
        size: side of the pictures, pixels.

    Returns:
        Figures by name: "shapes/..." and "real/...", and "all/..." for the codes of both.
    """
    visual, audio, frames = pipe.visual, pipe.audio, pipe.config.num_frames
    device = pipe.compute.device
    num_samples = round(frames / pipe.config.fps * audio.sample_rate)
    picture_codes = CodebookUse(visual.codebook_size)  # one count for all codebooks
    sound_codes = CodebookUse(audio.codebook_size, num_codebooks=audio.num_codebooks)
    result = Result(
        "reconstruction",
        subject,
        f"{scenes} held-out scenes, {frames} frames of {size}x{size} at 8 fps, PSNR (peak 2 on [-1, 1]) of a clip's "
        f"mean squared error, mean over clips; LogMelDistance over {num_samples} samples",
        {},
        {},
    )

    def seen(video: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        codes = visual.encode(video.to(device))
        picture_codes.update(codes.reshape(1, 1, -1))
        return video, {"again": visual.decode(codes).float().cpu()}

    def heard(sounds: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        codes = audio.encode(sounds.to(device))
        sound_codes.update(codes)
        again = audio.decode(codes, num_samples=sounds.shape[-1]).float().cpu()
        return sounds, {"again": again, "silence": torch.zeros_like(sounds)}

    def measure(of: str, again: Again, items: Iterable[Tensor], name: str, metric: Metric) -> None:
        material = Material(f"{of} media", items)
        told = evaluate(of, dataclasses.replace(subject, again=again), material, Metrics({name: metric}), digits=3)
        result.protocol.update(told.protocol)
        result.figures[f"{of}/{name}"] = told.figures["again"][name]
        if "silence" in told.figures:
            result.figures[f"{of}/{name}_silence"] = told.figures["silence"][name]

    def count(of: str) -> None:
        result.figures[f"{of}/visual_codes"] = _use(picture_codes)[0]
        result.figures[f"{of}/audio_codes"] = _use(sound_codes)

    drawn = held_out_scenes(scenes)
    batches = [drawn[start : start + BATCH] for start in range(0, scenes, BATCH)]
    clips = (
        torch.stack([render_video(s, size=size, num_frames=frames) for s in batch])
        for batch in track(batches, title="shapes")
    )
    measure("shapes", seen, clips, "psnr_db", Psnr())
    sounds = (
        torch.stack([render_audio(s, num_samples=num_samples, sample_rate=audio.sample_rate) for s in batch])
        for batch in track(batches, title="sounds of shapes")
    )
    measure("shapes", heard, sounds, "log_mel_distance", LogMel(audio.sample_rate))
    count("shapes")
    if media is not None:
        pool = clip_pool(media.measure_video, size=size, num_frames=frames)
        result.figures["real/clips"] = len(pool)
        if len(pool):
            measure("real", seen, (clip[None].float() / 127.5 - 1 for clip in pool), "psnr_db", Psnr())
        recordings = sound_pool(media.measure_audio + media.measure_video, sample_rate=audio.sample_rate)
        cut = [r[: len(r) // num_samples * num_samples].view(-1, 1, num_samples)[:PIECES] for r in recordings]
        cut = [pieces for pieces in cut if len(pieces)]
        result.figures["real/sounds"] = sum(map(len, cut))
        if cut:
            real = track(cut, title="recordings")
            measure("real", heard, real, "log_mel_distance", LogMel(audio.sample_rate))
        count("all")
    return result


def _use(codes: CodebookUse) -> list[dict[str, Any]]:
    """Of each codebook."""
    both = zip(codes.share().tolist(), codes.entropy_bits().tolist(), strict=True)
    return [{"used": round(used, 4), "entropy_bits": round(bits, 3)} for used, bits in both]
