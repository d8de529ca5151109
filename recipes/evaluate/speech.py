"""Is speech still understood behind an audio tokenizer, and does the tokenizer beat plain k-means at the same bits?

Speakers are held out: the baseline of ``recipes.evaluate.mel_kmeans`` is fitted on the recordings of the others, and a
tokenizer that is compared with it must not have heard them either (that is the trainer's care; nothing here can see
it). The first takes of the held-out speakers, as strings of ten digits, go through every tokenizer level by level; the
figures are those of ``recipes.evaluate.audio_tokenizer``, all compared at 16 kHz. Each digit is then cut out and given
to a classifier that was trained on originals: intelligibility is its accuracy on reconstructions over that on the
originals. ``recipes.corpora.spoken_digits.split_digits`` says who trained on what.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.metrics.fad import SoundEmbedding
from recipes.corpora.spoken_digits import DigitString, digit_strings, open_digits, split_digits
from recipes.evaluate.audio_tokenizer import evaluate_audio
from recipes.evaluate.digit_classifier import DigitClassifier, train_classifier
from recipes.evaluate.mel_kmeans import MelKMeansCodec
from recipes.runtime.progress import track

RATE = 16_000
BASELINE = "mel k-means"
COLUMNS = ("log_mel_distance", "stft_distance", "si_sdr_db", "stoi", "fad", "digit_accuracy", "intelligibility")


def measure_speech(
    tokenizer: Any,
    strings: Sequence[DigitString],
    classifier: DigitClassifier,
    *,
    protocol: str,
    embedding: SoundEmbedding | None = None,
    sheet: Path | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """The figures of ``evaluate_audio`` and how many digits are understood.

    Args:
        tokenizer: an ``AudioTokenizer``.
        strings: at the tokenizer's rate, with other names each.
        classifier: trained on originals.
        protocol: whose strings they are.
        embedding: for the Fréchet audio distance, or None.
        sheet: PNG for spectrograms, or None.
        device: where the tokenizer is.

    Returns:
        As ``evaluate_audio``; every row of ``levels`` has ``digit_accuracy`` and ``intelligibility`` too (the latter
        absent where no original is understood), and ``originals`` has the accuracy on the originals.

    Raises:
        ValueError: if there are no strings.
    """
    by_name = {string.name: string for string in strings}
    right: dict[int, list[bool]] = {}

    def listen(name: str, levels: int, sound: Tensor) -> None:
        digits = by_name[name].cut(sound, RATE)
        heard = classifier.understand([part for _, part in digits], RATE)
        right.setdefault(levels, []).extend(h == d for h, (d, _) in zip(heard, digits, strict=True))

    result = evaluate_audio(
        tokenizer,
        ((string.name, string.sound) for string in track(strings, title="strings")),
        protocol=protocol,
        rate=RATE,
        embedding=embedding,
        sheet=sheet,
        listener=listen,
        device=device,
    )
    share = {levels: sum(answers) / len(answers) for levels, answers in right.items()}
    for row in result["levels"]:
        row["digit_accuracy"] = round(share[row["levels"]], 4)
        if share[0]:
            row["intelligibility"] = round(share[row["levels"]] / share[0], 4)
    return result | {"originals": {"digit_accuracy": round(share[0], 4), "recordings": len(right[0])}}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The figures side by side.

    Args:
        results: name to what ``measure_speech`` returned.

    Returns:
        Markdown.
    """
    names = [n for n in COLUMNS if any(n in row for result in results.values() for row in result["levels"])]
    lines = ["| tokenizer | levels | kbit/s | " + " | ".join(n.replace("_", " ") for n in names) + " |"]
    lines.append("|---" * (len(names) + 3) + "|")
    for told, result in results.items():
        for row in result["levels"]:
            figures = " | ".join(f"{row[n]:.3f}" if n in row else "" for n in names)
            lines.append(f"| {told} | {row['levels']} | {row['kbps']:g} | {figures} |")
    return "\n".join(lines)


def compare(
    tokenizers: dict[str, Any],
    digits: Path,
    *,
    held_out: Sequence[str],
    takes: int,
    split: str,
    epochs: int,
    seed: int,
    embedding: SoundEmbedding | None,
    folder: Path,
    device: str | torch.device,
) -> dict[str, Any]:
    """Fit the baseline, train the classifier, measure all.

    Args:
        tokenizers: name to tokenizer.
        digits: folder of recordings.
        held_out: speakers whom no codec has heard.
        takes: of them, for testing.
        split: what the classifier hears, of ``SPLITS``.
        epochs: the classifier's.
        seed: of classifier and k-means.
        embedding: for the Fréchet audio distance, or None.
        folder: receives the sheets of spectrograms.
        device: where the tokenizers are.

    Returns:
        What is written to ``speech.json``.

    Raises:
        FileNotFoundError: if a folder or file is absent.
        ValueError: for an unknown speaker, or a tokenizer that has no sound.
    """
    chosen = split_digits(open_digits(digits), held_out=held_out, test_takes=takes, kind=split)
    for name, tokenizer in tokenizers.items():
        if tokenizer is None:
            raise ValueError(f"{name} has no audio tokenizer")
    classifier = train_classifier(chosen.classifier, seed=seed, epochs=epochs)
    baseline = MelKMeansCodec()
    sounds = (r.read(baseline.sample_rate) for r in track(chosen.codec, title="baseline"))
    frames = baseline.fit(sounds, seed=seed)
    who = f"takes below {takes} of {', '.join(held_out)}, strings of ten digits"
    results = {}
    for number, (name, tokenizer) in enumerate({**tokenizers, BASELINE: baseline}.items()):
        results[name] = measure_speech(
            tokenizer,
            digit_strings(chosen.test, tokenizer.sample_rate),
            classifier,
            protocol=who,
            embedding=embedding,
            sheet=folder / f"spectrograms_{number}.png",
            device="cpu" if name == BASELINE else device,
        )
    voices = "the other takes of all speakers" if split == "takes" else "all takes of the other speakers"
    return {
        "protocol": f"held out: {', '.join(held_out)}; baseline fitted on {frames} frames of the other speakers; "
        f"classifier (8 kHz, seed {seed}, {epochs} epochs) trained on originals, {voices} "
        f"({len(chosen.classifier)}), tested on {len(chosen.test)} recordings; the tokenizers are taken at their word "
        "not to have heard the held-out speakers",
        "split": split,
        "results": results,
    }
