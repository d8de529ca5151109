"""Is speech still understood behind an audio tokenizer, and does the tokenizer beat plain k-means at the same bits?

Speakers are held out: the baseline of ``recipes.evaluate.mel_kmeans`` is fitted on the recordings of the others, and a
tokenizer that is compared with it must not have heard them either (that is the trainer's care; nothing here can see
it). The first takes of the held-out speakers, as strings of ten digits, go through every tokenizer level by level; the
figures are those of ``recipes.evaluate.audio_tokenizer``, all compared at 16 kHz. Each digit is then cut out and given
to a classifier that was trained on originals: intelligibility is its accuracy on reconstructions over that on the
originals. ``recipes.corpora.spoken_digits.split_digits`` says who trained on what.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.metrics.fad import SoundEmbedding
from recipes.corpora.spoken_digits import DigitString, digit_strings, open_digits, split_digits
from recipes.evaluate.audio_tokenizer import evaluate_audio
from recipes.evaluate.contract import Material, Result, Subject, subject_of
from recipes.evaluate.digit_classifier import DigitClassifier, train_classifier
from recipes.evaluate.mel_kmeans import MelKMeansCodec
from recipes.figures.tables import text_table
from recipes.runtime.progress import track

RATE = 16_000
BASELINE = "mel k-means"
COLUMNS = ("log_mel_distance", "stft_distance", "si_sdr_db", "stoi", "fad", "digit_accuracy", "intelligibility")


def measure_speech(
    subject: Subject,
    tokenizer: Any,
    strings: Sequence[DigitString],
    classifier: DigitClassifier,
    *,
    whose: str,
    embedding: SoundEmbedding | None = None,
    sheet: Path | None = None,
    device: str | torch.device = "cpu",
) -> Result:
    """The figures of ``evaluate_audio``, and how many of the digits in strings of different names are understood."""
    by_name = {string.name: string for string in strings}
    right: dict[int, list[bool]] = {}

    def listen(name: str, levels: int, sound: Tensor) -> None:
        digits = by_name[name].cut(sound, RATE)
        heard = classifier.understand([part for _, part in digits], RATE)
        right.setdefault(levels, []).extend(h == d for h, (d, _) in zip(heard, digits, strict=True))

    result = evaluate_audio(
        subject,
        tokenizer,
        Material(whose, ((string.name, string.sound) for string in track(strings, title="strings"))),
        rate=RATE,
        embedding=embedding,
        sheet=sheet,
        listener=listen,
        device=device,
    )
    share = {levels: sum(answers) / len(answers) for levels, answers in right.items()}
    for row in result.figures["levels"]:
        row["digit_accuracy"] = round(share[row["levels"]], 4)
        if share[0]:  # absent where no original is understood
            row["intelligibility"] = round(share[row["levels"]] / share[0], 4)
    originals = {"digit_accuracy": round(share[0], 4), "recordings": len(right[0])}
    return dataclasses.replace(result, of="speech", figures=result.figures | {"originals": originals})


def speech_table(results: Sequence[Result]) -> str:
    """The figures of ``measure_speech`` side by side, in Markdown."""
    rows = [(result.subject.name, row) for result in results for row in result.figures["levels"]]
    names = [n for n in COLUMNS if any(n in row for _, row in rows)]
    cells = [
        [told, str(row["levels"]), f"{row['kbps']:g}", *(f"{row[n]:.3f}" if n in row else "" for n in names)]
        for told, row in rows
    ]
    return text_table(["tokenizer", "levels", "kbit/s", *(n.replace("_", " ") for n in names)], cells)


def evaluate_speech(
    tokenizers: dict[Subject, Any],
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
) -> list[Result]:
    """Fit the baseline, train the classifier, measure all.

    Args:
        tokenizers: who they are, and themselves.
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
        A result for each, the baseline's last.

    Raises:
        FileNotFoundError: if a folder or file is absent.
        ValueError: for an unknown speaker, or a tokenizer that has no sound.
    """
    chosen = split_digits(open_digits(digits), held_out=held_out, test_takes=takes, kind=split)
    for subject, tokenizer in tokenizers.items():
        if tokenizer is None:
            raise ValueError(f"{subject.name} has no audio tokenizer")
    classifier = train_classifier(chosen.classifier, seed=seed, epochs=epochs)
    baseline = MelKMeansCodec()
    sounds = (r.read(baseline.sample_rate) for r in track(chosen.codec, title="baseline"))
    frames = baseline.fit(sounds, seed=seed)
    voices = "the other takes of all speakers" if split == "takes" else "all takes of the other speakers"
    understood = (
        f"classifier (8 kHz, seed {seed}, {epochs} epochs) trained on originals, {voices} ({len(chosen.classifier)}), "
        f"tested on {len(chosen.test)} recordings"
    )
    protocol = {
        "digit_accuracy": f"share of digits that are understood; {understood}",
        "intelligibility": "digit accuracy over that on the originals",
        "held_out": f"{', '.join(held_out)}; baseline fitted on {frames} frames of the other speakers; the tokenizers "
        "are taken at their word not to have heard the held-out speakers",
        "split": split,
    }
    results = []
    for number, (subject, tokenizer) in enumerate({**tokenizers, subject_of(BASELINE, baseline): baseline}.items()):
        result = measure_speech(
            subject,
            tokenizer,
            digit_strings(chosen.test, tokenizer.sample_rate),
            classifier,
            whose=f"takes below {takes} of {', '.join(held_out)}, strings of ten digits",
            embedding=embedding,
            sheet=folder / f"spectrograms_{number}.png",
            device="cpu" if tokenizer is baseline else device,
        )
        results.append(dataclasses.replace(result, protocol=result.protocol | protocol))
    return results
