"""What an audio tokenizer keeps with its first 1, 2, ... levels, each figure with its protocol.

Sounds pass one by one, so memory does not grow with their number. Log-mel distance, multi-resolution STFT distance and
SI-SDR need nothing, STOI the package pystoi, the Fréchet audio distance an embedding such as YAMNet's file.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.audio.long_sound import encode_sound
from mmtok.contract import bitrate_kbps
from mmtok.files import write_atomically
from mmtok.media.audio import resample
from mmtok.media.errors import MediaError
from mmtok.metrics.audio import LogMelDistance, STFTDistance, si_sdr_db, stoi
from mmtok.metrics.codebook import CodebookUse
from mmtok.metrics.fad import SoundEmbedding, embed_sound, fad_protocol
from mmtok.metrics.frechet import Gaussian, gaussian_distance
from recipes.corpora.folder import sound_pieces
from recipes.figures.plots import plot_rates
from recipes.figures.sheets import write_spectrograms
from recipes.runtime.progress import track

QUIET = 1e-3  # a sound whose peak stays below this is left out
SHOWN = 3  # sounds on the sheet of spectrograms
Listener = Callable[[str, int, Tensor], None]  # (name of the sound, levels or 0 for the original, (n,) sound)


def folder_sounds(
    files: Sequence[Path], *, sample_rate: int, seconds: float, most: int, left_out: list[str]
) -> Iterator[tuple[str, Tensor]]:
    """Sounds of files behind a progress bar; what cannot be read or is silent is named and skipped.

    Args:
        files: sounds, or films with sound.
        sample_rate: Hz.
        seconds: longest piece.
        most: pieces a file.
        left_out: receives a line for each file or piece that gives no sound.

    Yields:
        File name and (n,) sound.

    Raises:
        ValueError: at the end, if no file gave a sound.
    """
    given = 0
    for path in track(files, title="sounds"):
        told = len(left_out)
        try:
            for sound in sound_pieces(path, sample_rate=sample_rate, seconds=seconds, most=most):
                if sound.numel() and float(sound.abs().max()) >= QUIET:
                    yield path.name, sound
                    given += 1
                else:
                    left_out.append(f"{path}: {'a piece of it is silent' if sound.numel() else 'is too short'}")
        except MediaError as fault:
            left_out.append(str(fault))
        for line in left_out[told:]:
            print(f"left out: {line}", file=sys.stderr)
    if not given:
        raise ValueError(f"none of {len(files)} files gives a sound, such as {left_out[0]}")


def usual_levels(num_codebooks: int) -> tuple[int, ...]:
    """Numbers of levels to measure: each up to 8, else powers of two and all.

    Args:
        num_codebooks: levels that there are.

    Returns:
        Increasing, the last one is ``num_codebooks``.
    """
    if num_codebooks <= 8:
        return tuple(range(1, num_codebooks + 1))
    return (*(2**i for i in range(num_codebooks.bit_length()) if 2**i < num_codebooks), num_codebooks)


@torch.inference_mode()
def evaluate_audio(
    tokenizer: Any,
    sounds: Iterable[tuple[str, Tensor]],
    *,
    protocol: str,
    levels: Sequence[int] | None = None,
    rate: int | None = None,
    embedding: SoundEmbedding | None = None,
    sheet: Path | None = None,
    listener: Listener | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Measure a tokenizer on sounds, level by level.

    Args:
        tokenizer: an ``AudioTokenizer`` whose ``decode`` takes codes of fewer levels.
        sounds: names and (n,) sounds in [-1, 1] at the tokenizer's rate, read once.
        protocol: how the sounds were made.
        levels: numbers of first levels to decode; None for ``usual_levels``.
        rate: Hz at which originals and reconstructions are compared, so that tokenizers of several rates can stand
            beside each other; None for the tokenizer's.
        embedding: network for the Fréchet audio distance, or None to leave it out.
        sheet: PNG that receives spectrograms of the first sounds, or None.
        listener: hears every original and reconstruction, at ``rate``.
        device: where the tokenizer is.

    Returns:
        Figures of each number of levels, use of the codes of each level, and the protocol of each figure.

    Raises:
        ValueError: if a number of levels is not there, or no sound came.
    """
    levels = usual_levels(tokenizer.num_codebooks) if levels is None else tuple(sorted(set(levels)))
    if not levels or levels[0] < 1 or levels[-1] > tokenizer.num_codebooks:
        raise ValueError(f"levels must lie in 1..{tokenizer.num_codebooks}, got {', '.join(map(str, levels))}")
    own, rate = tokenizer.sample_rate, rate or tokenizer.sample_rate
    scores = {k: _Scores(rate, embedding) for k in (0, *levels)}  # 0 holds the originals, and silence in their place
    use = CodebookUse(tokenizer.codebook_size, num_codebooks=tokenizer.num_codebooks)
    shown: dict[str, dict[int, Tensor]] = {}
    samples = pieces = 0
    for name, sound in sounds:
        codes = encode_sound(tokenizer, sound.view(1, 1, -1).to(device))
        use.update(codes)
        original = resample(sound[None], own, rate)  # (1, n)
        scores[0].add_distances(torch.zeros_like(original), original)
        scores[0].embed(original)
        versions = {0: original[0]}
        for k in levels:
            decoded = tokenizer.decode(codes[:, :k], num_samples=len(sound)).float().cpu()[0]
            versions[k] = resample(decoded, own, rate)[0]
            scores[k].add(versions[k][None], original)
            scores[k].embed(versions[k][None])
        for k, version in versions.items():
            if listener is not None:
                listener(name, k, version)
        if len(shown) < SHOWN:
            shown.setdefault(name, versions)
        samples, pieces = samples + len(sound), pieces + 1
    if not pieces:
        raise ValueError("there are no sounds to measure")
    if sheet is not None:
        write_spectrograms(sheet, list(shown.values()), rate)
    bits = use.entropy_bits().tolist()
    return {
        "protocol": f"{pieces} sounds, {samples / own:.1f} s at {own} Hz; {protocol}; compared at {rate} Hz, means "
        "over sounds",
        "kbps_protocol": "frame rate x levels x log2(codebook size), no entropy coding",
        **_protocols(scores, levels, pieces, embedding),
        "silence": {name: scores[0].mean(name) for name in ("log_mel_distance", "stft_distance")},
        "levels": [
            {
                "levels": k,
                "kbps": _kbps(tokenizer, k),
                **{name: scores[k].mean(name) for name in scores[k].rows if scores[k].valid(name)},
                **scores[k].fad(scores[0]),
            }
            for k in levels
        ],
        "codes": [
            {
                "level": level + 1,
                "used": round(used, 4),
                "perplexity": round(2**entropy, 1),
                "entropy_kbps": round(tokenizer.frame_rate * entropy / 1000, 4),
            }
            for level, (used, entropy) in enumerate(zip(use.share().tolist(), bits, strict=True))
        ],
        "frames": int(use.counts[0].sum()),
        "codebook_size": tokenizer.codebook_size,
        "frame_rate": tokenizer.frame_rate,
    }


class _Scores:
    """Figures of one number of levels, and the Gaussian of its vectors."""

    def __init__(self, rate: int, embedding: SoundEmbedding | None):
        self.rate, self.embedding = rate, embedding
        self.log_mel, self.stft = LogMelDistance(sample_rate=rate), STFTDistance()
        self.gaussian = Gaussian(embedding.dim) if embedding is not None else None
        self.rows: dict[str, list[float]] = {}

    def add_distances(self, output: Tensor, target: Tensor) -> None:
        """Compare spectra of two sounds, (1, n) each."""
        self._keep("log_mel_distance", self.log_mel(output[None], target[None]))
        self._keep("stft_distance", self.stft(output[None], target[None]))

    def add(self, output: Tensor, target: Tensor) -> None:
        """Compare two sounds, (1, n) each, in every figure."""
        self.add_distances(output, target)
        self._keep("si_sdr_db", si_sdr_db(output, target))
        if importlib.util.find_spec("pystoi") is not None:
            self._keep("stoi", stoi(output, target, sample_rate=self.rate))

    def _keep(self, name: str, values: Tensor) -> None:
        self.rows.setdefault(name, []).extend(values.tolist())

    def embed(self, sound: Tensor) -> None:
        """Take the vectors of a (1, n) sound."""
        if self.embedding is not None and self.gaussian is not None:
            self.gaussian.update(embed_sound(self.embedding, sound[0], sample_rate=self.rate))

    def valid(self, name: str) -> int:
        """How many sounds have that figure."""
        return sum(math.isfinite(value) for value in self.rows.get(name, ()))

    def mean(self, name: str) -> float:
        """Over the sounds that have that figure."""
        return round(sum(v for v in self.rows[name] if math.isfinite(v)) / self.valid(name), 4)

    def fad(self, originals: _Scores) -> dict[str, float]:
        """The Fréchet audio distance, where it can be had."""
        if self.gaussian is None or originals.gaussian is None or originals.gaussian.count < 2:
            return {}
        return {"fad": round(gaussian_distance(originals.gaussian, self.gaussian), 4)}


def _kbps(tokenizer: Any, levels: int) -> float:
    rate, size = tokenizer.frame_rate, tokenizer.codebook_size
    return round(bitrate_kbps(frame_rate=rate, num_codebooks=levels, codebook_size=size), 4)


def _protocols(
    scores: dict[int, _Scores], levels: Sequence[int], pieces: int, embedding: SoundEmbedding | None
) -> dict[str, str]:
    """What each figure is, in words."""
    last = scores[levels[-1]]
    if "stoi" not in last.rows:
        told = "left out: pip install 'cinepoet[speech]'"
    elif not last.valid("stoi"):
        told = "left out: no sound has 384 ms that are loud enough"
    else:
        told = f"Taal et al. 2011 by pystoi, over {last.valid('stoi')} of {pieces} sounds long enough; meant for speech"
    if embedding is None or last.gaussian is None:
        distance = "left out: needs an embedding (--yamnet)"
    elif last.gaussian.count < 2:
        distance = "left out: needs at least two windows"
    else:
        distance = fad_protocol(embedding, scores[0].gaussian.count if scores[0].gaussian else 0, last.gaussian.count)
    resolutions = ", ".join(f"{w}/{h}/{n}" for n, h, w in last.stft.resolutions)
    return {
        "log_mel_distance_protocol": "L1 of natural-log mel magnitudes, Hann window 1024, hop 256, 64 Slaney bands, "
        "floor 1e-4 of full scale",
        "stft_distance_protocol": f"spectral convergence + L1 of natural-log magnitudes (floor 1e-4 of full scale), "
        f"mean over window/hop/transform of {resolutions} samples (arXiv 1910.11480)",
        "si_sdr_db_protocol": "arXiv 1811.02508, means removed, limited to +-120 dB",
        "stoi_protocol": told,
        "fad_protocol": distance,
    }


def write_audio_figures(result: dict[str, Any], folder: Path) -> None:
    """Save the figures as ``audio_tokenizer.json`` and their plot as ``rate_distortion.png``.

    Args:
        result: of ``evaluate_audio``, with its ``tokenizer``.
        folder: an existing folder.
    """
    write_atomically(folder / "audio_tokenizer.json", json.dumps(result, indent=1) + "\n")
    plot_rates({result["tokenizer"]: result}, folder / "rate_distortion.png")
