"""``cinepoet evaluate speech``: is speech still understood behind a tokenizer, and does it beat plain k-means?"""

from __future__ import annotations

import argparse
from pathlib import Path

from recipes.terminal.options import add_device, add_seed, number
from recipes.terminal.report import check_folder, compute_of

SUMMARY = "is speech still understood behind tokenizers, and do they beat plain k-means at the same bits"
EXAMPLES = """\
  cinepoet evaluate speech --digits fsdd --held-out jackson --tokenizer my_soundstream --out results
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--digits", type=Path, required=True, metavar="FOLDER", help="of DIGIT_SPEAKER_TAKE.wav files")
    parser.add_argument("--held-out", nargs="+", required=True, metavar="SPEAKER", help="whom no codec has heard")
    parser.add_argument("--tokenizer", nargs="*", default=[], metavar="M", help="models or tokenizers' folders")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="figures, a plot, spectrograms")
    parser.add_argument(
        "--split", choices=("takes", "speaker"), default="takes", help="what the classifier hears (default: takes)"
    )
    parser.add_argument("--takes", type=number(int, 1), default=10, metavar="N", help="takes for testing (default: 10)")
    parser.add_argument("--epochs", type=number(int, 1), default=16, metavar="N", help="classifier's (default: 16)")
    parser.add_argument("--yamnet", type=Path, metavar="F.npz", help="for the Frechet audio distance")
    add_seed(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, and print the tokenizers side by side."""
    check_folder(args.out)
    from mmtok.features.yamnet import YAMNet
    from recipes.bundle.named import load_tokenizers
    from recipes.evaluate.contract import subject_named
    from recipes.evaluate.speech import evaluate_speech, speech_table
    from recipes.figures.plots import plot_rates

    device = compute_of(args).device
    results = evaluate_speech(
        {subject_named(name, "audio"): load_tokenizers(name, device).audio for name in args.tokenizer},
        args.digits,
        held_out=args.held_out,
        takes=args.takes,
        split=args.split,
        epochs=args.epochs,
        seed=args.seed,
        embedding=None if args.yamnet is None else YAMNet.from_npz(args.yamnet),
        folder=args.out,
        device=device,
    )
    for place, result in enumerate(results):
        result.save(args.out, f"speech_{place}")
    plot_rates({result.subject.name: result.figures for result in results}, args.out / "speech.png")
    print(speech_table(results))
    original = results[-1].figures["originals"]
    print(f"\noriginals: {original['digit_accuracy']:.1%} of {original['recordings']} digits understood")
    return 0
