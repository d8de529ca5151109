"""Is speech still understood behind an audio tokenizer, and does the tokenizer beat plain k-means at the same bits?

Speakers are held out: the baseline of ``recipes.evaluate.mel_kmeans`` is fitted on the recordings of the others, and a
tokenizer that is compared with it must not have heard them either (that is the trainer's care; nothing here can see
it). The first takes of the held-out speakers, as strings of ten digits, go through every tokenizer level by level; the
figures are those of ``recipes.evaluate.audio_tokenizer``, all compared at 16 kHz. Each digit is then cut out and given
to a classifier that was trained on originals: intelligibility is its accuracy on reconstructions over that on the
originals. ``recipes.corpora.spoken_digits.split_digits`` says who trained on what.

    python -m recipes.evaluate.speech --digits fsdd --held-out jackson --tokenizer runs/soundstream --out results
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.features.yamnet import YAMNet
from mmtok.files import write_atomically
from mmtok.metrics.fad import SoundEmbedding
from recipes.bundle.named import load_tokenizers
from recipes.corpora.spoken_digits import SPLITS, DigitString, digit_strings, open_digits, split_digits
from recipes.evaluate.audio_tokenizer import evaluate_audio
from recipes.evaluate.digit_classifier import DigitClassifier, train_classifier
from recipes.evaluate.mel_kmeans import MelKMeansCodec
from recipes.figures.plots import plot_rates
from recipes.runtime.device import choose_compute
from recipes.runtime.progress import track
from recipes.terminal.options import number
from recipes.terminal.report import check_folder

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


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Fit the baseline, train the classifier, measure all.

    Args:
        args: of ``main``.

    Returns:
        What is written to ``speech.json``.

    Raises:
        FileNotFoundError: if a folder or file is absent.
        ValueError: for an unknown speaker, or a tokenizer that has no sound.
    """
    recordings = open_digits(args.digits)
    split = split_digits(recordings, held_out=args.held_out, test_takes=args.takes, kind=args.split)
    embedding = None if args.yamnet is None else YAMNet.from_npz(args.yamnet)
    device = choose_compute(args.device).device
    tokenizers = {name: load_tokenizers(name, device).audio for name in args.tokenizer}
    for name, tokenizer in tokenizers.items():
        if tokenizer is None:
            raise ValueError(f"{name} has no audio tokenizer")
    classifier = train_classifier(split.classifier, seed=args.seed, epochs=args.epochs)
    baseline = MelKMeansCodec()
    sounds = (r.read(baseline.sample_rate) for r in track(split.codec, title="baseline"))
    frames = baseline.fit(sounds, seed=args.seed)
    who = f"takes below {args.takes} of {', '.join(args.held_out)}, strings of ten digits"
    results = {}
    for number_, (name, tokenizer) in enumerate({**tokenizers, BASELINE: baseline}.items()):
        results[name] = measure_speech(
            tokenizer,
            digit_strings(split.test, tokenizer.sample_rate),
            classifier,
            protocol=who,
            embedding=embedding,
            sheet=args.out / f"spectrograms_{number_}.png",
            device="cpu" if name == BASELINE else device,
        )
    voices = "the other takes of all speakers" if args.split == "takes" else "all takes of the other speakers"
    return {
        "protocol": f"held out: {', '.join(args.held_out)}; baseline fitted on {frames} frames of the other speakers; "
        f"classifier (8 kHz, seed {args.seed}, {args.epochs} epochs) trained on originals, {voices} "
        f"({len(split.classifier)}), tested on {len(split.test)} recordings; the tokenizers are taken at their word "
        "not to have heard the held-out speakers",
        "split": args.split,
        "results": results,
    }


def main(argv: list[str] | None = None) -> int:
    """Compare tokenizers with the baseline on spoken digits.

    Args:
        argv: words instead of the command line's.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m recipes.evaluate.speech",
        description=__doc__.splitlines()[0],
        epilog="example: python -m recipes.evaluate.speech --digits fsdd --held-out jackson --tokenizer tiny --out out",
    )
    parser.add_argument("--digits", type=Path, required=True, metavar="FOLDER", help="of DIGIT_SPEAKER_TAKE.wav files")
    parser.add_argument("--held-out", nargs="+", required=True, metavar="SPEAKER", help="whom no codec has heard")
    parser.add_argument("--tokenizer", nargs="*", default=[], metavar="M", help="models or tokenizers' folders")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="speech.json, a plot, spectrograms")
    parser.add_argument("--split", choices=SPLITS, default="takes", help="what the classifier hears (default: takes)")
    parser.add_argument("--takes", type=number(int, 1), default=10, metavar="N", help="takes for testing (default: 10)")
    parser.add_argument("--epochs", type=number(int, 1), default=16, metavar="N", help="classifier's (default: 16)")
    parser.add_argument("--yamnet", type=Path, metavar="F.npz", help="for the Frechet audio distance")
    parser.add_argument("--seed", type=number(int, 0), default=0, metavar="N", help="of classifier and k-means")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda (default: auto)")
    args = parser.parse_args(argv)
    try:
        check_folder(args.out)
        result = compare(args)
    except (ValueError, OSError, RuntimeError) as fault:
        print(f"error: {' '.join(str(fault).split())}", file=sys.stderr)
        return 2
    write_atomically(args.out / "speech.json", json.dumps(result, indent=1) + "\n")
    plot_rates(result["results"], args.out / "speech.png")
    original = next(iter(result["results"].values()))["originals"]
    print(table(result["results"]))
    print(f"\noriginals: {original['digit_accuracy']:.1%} of {original['recordings']} digits understood")
    return 0


if __name__ == "__main__":
    sys.exit(main())
