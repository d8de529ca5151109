"""What an audio tokenizer keeps with its first 1, 2, ... levels, by every metric of sound in ``mmtok.metrics.table``.

Sounds pass one by one, so memory does not grow with their number. Log-mel distance, multi-resolution STFT distance and
SI-SDR need nothing, STOI the package pystoi, the Fréchet audio distance an embedding such as YAMNet's file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.audio.long_sound import encode_sound
from mmtok.contract import bitrate_kbps
from mmtok.media.audio import resample
from mmtok.metrics.codebook import CodebookUse
from mmtok.metrics.fad import SoundEmbedding
from mmtok.metrics.table import make_metrics
from recipes.evaluate.contract import Material, Result, Subject, evaluate
from recipes.figures.sheets import write_spectrograms

SOUNDS_SHOWN = 3  # sounds on the sheet of spectrograms
SILENCE = "silence"  # in the place of a sound: what a distance means
Listener = Callable[[str, int, Tensor], None]  # (name of the sound, levels or 0 for the original, (n,) sound)


def usual_levels(num_codebooks: int) -> tuple[int, ...]:
    """Numbers of levels to measure: each up to 8, else powers of two and all."""
    if num_codebooks <= 8:
        return tuple(range(1, num_codebooks + 1))
    return (*(2**i for i in range(num_codebooks.bit_length()) if 2**i < num_codebooks), num_codebooks)


def evaluate_audio(
    subject: Subject,
    tokenizer: Any,
    sounds: Material,
    *,
    levels: Sequence[int] | None = None,
    rate: int | None = None,
    embedding: SoundEmbedding | None = None,
    sheet: Path | None = None,
    listener: Listener | None = None,
    device: str | torch.device = "cpu",
) -> Result:
    """Measure a tokenizer on sounds, level by level.

    Args:
        subject: who it is.
        tokenizer: an ``AudioTokenizer`` whose ``decode`` takes codes of fewer levels.
        sounds: names and (n,) sounds in [-1, 1] at the tokenizer's rate.
        levels: numbers of first levels to decode; None for ``usual_levels``.
        rate: Hz at which originals and reconstructions are compared, so that tokenizers of several rates can stand
            beside each other; None for the tokenizer's.
        embedding: network for the Fréchet audio distance, or None to leave it out.
        sheet: PNG that receives spectrograms of the first sounds, or None.
        listener: hears every original and reconstruction, at ``rate``.
        device: where the tokenizer is.

    Returns:
        Figures of each number of levels, distances of silence, and use of the codes of each level.

    Raises:
        ValueError: if a number of levels is not there, or no sound came.
    """
    levels = usual_levels(tokenizer.num_codebooks) if levels is None else tuple(sorted(set(levels)))
    if not levels or levels[0] < 1 or levels[-1] > tokenizer.num_codebooks:
        raise ValueError(f"levels must lie in 1..{tokenizer.num_codebooks}, got {', '.join(map(str, levels))}")
    own, rate = tokenizer.sample_rate, rate or tokenizer.sample_rate
    use = CodebookUse(tokenizer.codebook_size, num_codebooks=tokenizer.num_codebooks)
    shown: dict[str, dict[int, Tensor]] = {}
    lengths: list[int] = []

    def again(item: tuple[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        name, sound = item
        codes = encode_sound(tokenizer, sound.view(1, 1, -1).to(device))
        use.update(codes)
        versions = {0: resample(sound[None], own, rate)[0]}
        for k in levels:
            decoded = tokenizer.decode(codes[:, :k], num_samples=len(sound)).float().cpu()[0]
            versions[k] = resample(decoded, own, rate)[0]
        if listener is not None:
            for k, version in versions.items():
                listener(name, k, version)
        if len(shown) < SOUNDS_SHOWN:
            shown.setdefault(name, versions)
        lengths.append(len(sound))
        original, *rest = (version.view(1, 1, -1) for version in versions.values())
        return original, {**dict(zip(map(str, levels), rest, strict=True)), SILENCE: torch.zeros_like(original)}

    measured = evaluate(
        "audio_tokenizer",
        dataclasses.replace(subject, again=again),
        sounds,
        make_metrics("sound", sample_rate=rate, embedding=embedding),
        only={SILENCE: ("log_mel_distance", "stft_distance")},
    )
    if sheet is not None:
        write_spectrograms(sheet, list(shown.values()), rate)
    told = f"{len(lengths)} sounds, {sum(lengths) / own:.1f} s at {own} Hz; {sounds.told}; compared at {rate} Hz"
    figures = {
        SILENCE: measured.figures[SILENCE],
        "levels": [{"levels": k, "kbps": _kbps(tokenizer, k), **measured.figures[str(k)]} for k in levels],
        "codes": [
            {
                "level": level + 1,
                "used": round(used, 4),
                "perplexity": round(2**entropy, 1),
                "entropy_kbps": round(tokenizer.frame_rate * entropy / 1000, 4),
            }
            for level, (used, entropy) in enumerate(zip(use.share().tolist(), use.entropy_bits().tolist(), strict=True))
        ],
        "frames": int(use.counts[0].sum()),
        "codebook_size": tokenizer.codebook_size,
        "frame_rate": tokenizer.frame_rate,
        "left_out": sounds.left_out,
    }
    kbps = {"kbps": "frame rate x levels x log2(codebook size), no entropy coding"}
    return dataclasses.replace(
        measured, material=f"{told}, means over sounds", protocol=kbps | measured.protocol, figures=figures
    )


def _kbps(tokenizer: Any, levels: int) -> float:
    rate, size = tokenizer.frame_rate, tokenizer.codebook_size
    return round(bitrate_kbps(frame_rate=rate, num_codebooks=levels, codebook_size=size), 4)
