"""How much the tokenizers lose: PSNR of pictures, log-mel distance of sounds, and how many codes are used.

Shapes come from the held-out split, real media from the files that a listing keeps out of training. A silent
recording of the same length is the baseline for sound.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.files import write_atomically
from mmtok.metrics.audio import LogMelDistance
from mmtok.metrics.codebook import codebook_use
from mmtok.metrics.visual import psnr_db
from recipes.corpora.folder import MediaFolder, clip_pool, sound_pool
from recipes.corpora.shapes import ShapesCorpus, render_audio, render_video
from recipes.pipeline.cinepoet import CinePoetPipeline
from recipes.runtime.progress import track


def _use(codes: Tensor, codebook_size: int) -> dict[str, float]:
    used, bits = codebook_use(codes, codebook_size)
    return {"used": round(used, 4), "entropy_bits": round(bits, 3)}


@torch.inference_mode()
def evaluate_reconstruction(
    pipe: CinePoetPipeline, *, media: MediaFolder | None = None, scenes: int = 200, size: int = 128
) -> dict[str, Any]:
    """Measure both tokenizers of a bundle.

    Args:
        pipe: the model.
        media: real files; only those kept out of training are measured.
        scenes: held-out scenes of corpus ``shapes``.
        size: side of the pictures, pixels.

    Returns:
        Figures by name, with the protocol.
    """
    visual, audio, frames = pipe.visual, pipe.audio, pipe.config.num_frames
    corpus = ShapesCorpus(0, "heldout")
    num_samples = round(frames / pipe.config.fps * audio.sample_rate)
    video_scores: list[float] = []
    sound_scores: list[float] = []
    silence_scores: list[float] = []
    codes: list[Tensor] = []
    sounds: list[Tensor] = []
    for start in track(range(0, scenes, 4), title="shapes"):
        batch = [corpus.scene(i) for i in range(start, min(start + 4, scenes))]
        clips = torch.stack([render_video(s, size=size, num_frames=frames) for s in batch])
        video_scores += _pictures(visual, clips, codes)
        heard = torch.stack([render_audio(s, num_samples=num_samples, sample_rate=audio.sample_rate) for s in batch])
        _sounds(audio, heard, sounds, sound_scores, silence_scores)
    result: dict[str, Any] = {
        "protocol": f"{scenes} held-out scenes, {frames} frames of {size}x{size} at 8 fps, PSNR (peak 2 on [-1, 1]) of "
        f"a clip's mean squared error, mean over clips; LogMelDistance over {num_samples} samples",
        "shapes/psnr_db": _mean(video_scores),
        "shapes/log_mel_distance": _mean(sound_scores),
        "shapes/log_mel_distance_silence": _mean(silence_scores),
        "shapes/visual_codes": _use(torch.cat(codes), visual.codebook_size),
        "shapes/audio_codes": [_use(torch.cat(sounds)[:, k], audio.codebook_size) for k in range(audio.num_codebooks)],
    }
    if media is not None:
        pool = clip_pool(media.measure_video, size=size, num_frames=frames)
        real = [c for clip in pool for c in _pictures(visual, clip[None].float() / 127.5 - 1, codes)]
        recordings = sound_pool(media.measure_audio + media.measure_video, sample_rate=audio.sample_rate)
        real_sound: list[float] = []
        real_silence: list[float] = []
        for recording in track(recordings, title="recordings"):
            pieces = recording[: len(recording) // num_samples * num_samples].view(-1, 1, num_samples)[:4]
            if len(pieces):
                _sounds(audio, pieces, sounds, real_sound, real_silence)
        result |= {
            "real/clips": len(real),
            "real/psnr_db": _mean(real),
            "real/sounds": len(real_sound),
            "real/log_mel_distance": _mean(real_sound),
            "real/log_mel_distance_silence": _mean(real_silence),
            "all/visual_codes": _use(torch.cat(codes), visual.codebook_size),
            "all/audio_codes": [_use(torch.cat(sounds)[:, k], audio.codebook_size) for k in range(audio.num_codebooks)],
        }
    return result


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 3) if values else math.nan


def _pictures(visual: Any, clips: Tensor, codes: list[Tensor]) -> list[float]:
    made = visual.encode(clips.to(next(visual.parameters()).device))
    codes.append(made.flatten().cpu())
    again = visual.decode(made)
    return [float(psnr_db(a[None], b[None])) for a, b in zip(again.float().cpu(), clips, strict=True)]


def _sounds(audio: Any, sounds: Tensor, codes: list[Tensor], scores: list[float], silence: list[float]) -> None:
    made = audio.encode(sounds.to(next(audio.parameters()).device))
    codes.append(made.cpu().transpose(1, 2).flatten(0, 1))  # (frames, k)
    again = audio.decode(made, num_samples=sounds.shape[-1]).float().cpu()
    distance = LogMelDistance(sample_rate=audio.sample_rate)
    scores += distance(again, sounds).tolist()
    silence += distance(torch.zeros_like(sounds), sounds).tolist()


def write_reconstruction(result: dict[str, Any], path: Path) -> None:
    """Save the figures as JSON.

    Args:
        result: of ``evaluate_reconstruction``.
        path: the file.
    """
    write_atomically(path, json.dumps(result, indent=1) + "\n")
