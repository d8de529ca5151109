"""``cinepoet evaluate tokenizer``: any tokenizer in the field's metrics, each with its protocol."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipes.terminal.options import (
    add_device,
    add_every_file,
    add_held_out,
    add_networks,
    add_tile,
    check_media,
    number,
)
from recipes.terminal.report import check_folder, compute_of

SUMMARY = "any tokenizer in the field's metrics, with their protocols"
EXAMPLES = """\
  cinepoet evaluate tokenizer --tokenizer cosmos-dv --media my_clips --squeezenet squeezenet_v1_0.npz --out results
  cinepoet evaluate tokenizer --tokenizer my_soundstream --media my_sounds --yamnet yamnet_int8.npz --out results
  cinepoet evaluate tokenizer --tokenizer tiny --part audio      # level by level, on made-up scenes
  cinepoet evaluate tokenizer --baseline --media my_sounds --out results/baseline   # the codec to beat
"""
_VISUAL = ("size", "frames", "fps", "tile", "squeezenet", "vgg", "lpips", "i3d", "batch_size")
_AUDIO = ("yamnet", "seconds", "pieces", "levels", "rate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--tokenizer", metavar="M", help="a model or a tokenizer's folder (default: tiny)")
    parser.add_argument("--part", choices=("visual", "audio"), help="of a model that has both (default: visual)")
    parser.add_argument(
        "--baseline", action="store_true", help="instead: mel frames and k-means, fitted on the rest of --media"
    )
    add_device(parser)
    add_held_out(parser, scenes=100)
    add_every_file(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="receives the figures as JSON, sheets and plots")
    seen = parser.add_argument_group("pictures")
    seen.add_argument("--size", type=number(int, 8), metavar="PX", help="side of the pictures (default: the model's)")
    seen.add_argument("--frames", type=number(int, 1), metavar="N", help="frames a clip (default: 17)")
    seen.add_argument("--fps", type=number(float, 0.1), metavar="R", help="frames a second (default: its own)")
    add_tile(seen)
    seen.add_argument("--batch-size", type=number(int, 1), metavar="N", help="clips at once (default: 4)")
    add_networks(seen)
    heard = parser.add_argument_group("sounds and the sound of films, level by level")
    heard.add_argument("--yamnet", type=Path, metavar="F.npz", help="for the Frechet audio distance")
    heard.add_argument("--seconds", type=number(float, 0.1), metavar="S", help="longest piece (default: 10)")
    heard.add_argument("--pieces", type=number(int, 1), metavar="N", help="pieces of a file at most (default: 4)")
    heard.add_argument("--levels", type=_levels, metavar="K,K", help="numbers of levels (default: 1,2,... up to all)")
    heard.add_argument(
        "--rate", type=number(int, 8000), metavar="HZ", help="rate of the comparison (default: the tokenizer's)"
    )


def _levels(text: str) -> tuple[int, ...]:
    read = number(int, 1)
    return tuple(read(word) for word in text.split(","))


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    check_media(args)
    check_folder(args.out)
    if args.baseline:
        return _baseline(args)
    from recipes.bundle.named import load_tokenizers

    if args.media is not None and args.scenes is not None:
        raise ValueError("--scenes counts made-up scenes; it has no meaning with --media")
    device = compute_of(args).device
    loaded = load_tokenizers(args.tokenizer or "tiny", device)
    part = args.part or ("audio" if loaded.visual is None else "visual")
    if getattr(loaded, part) is None:
        raise ValueError(f"{loaded.source} has no {part} tokenizer")
    _refuse(args, _AUDIO if part == "visual" else _VISUAL, f"for a tokenizer of {part} (--part {part})")
    return _visual(args, loaded, device) if part == "visual" else _audio(args, loaded, device)


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    for name in names:
        if getattr(args, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} has no meaning {why}")


def _visual(args: argparse.Namespace, loaded: Any, device: Any) -> int:
    from recipes.bundle.named import in_tiles
    from recipes.evaluate.backbones import load_backbones
    from recipes.evaluate.contract import subject_named
    from recipes.evaluate.held_out import drawn_clips, film_clips, kept_out
    from recipes.evaluate.visual_tokenizer import evaluate_visual

    networks = load_backbones(squeezenet=args.squeezenet, vgg=args.vgg, lpips=args.lpips, i3d=args.i3d)
    tokenizer = in_tiles(loaded, args.tile).visual
    size, frames = args.size or loaded.size, args.frames or loaded.clip
    tokenizer.grid(frames, size, size)  # refuses sizes before the work
    if args.media is None:
        if args.fps is not None:
            raise ValueError("--fps is for --media; the made-up scenes have 8 frames a second")
        clips = drawn_clips(args.scenes or 100, size=size, num_frames=frames)
    else:
        files = kept_out(args.media, args.media_list, every_file=args.every_file)
        clips = film_clips(files, size=size, num_frames=frames, fps=args.fps or loaded.fps)
    result = evaluate_visual(
        subject_named(loaded.source, "visual"),
        tokenizer,
        clips,
        networks=networks,
        batch_size=args.batch_size or 4,
        sheet=None if args.out is None else args.out / "reconstructions.png",
        device=device,
    )
    if args.tile is not None:
        told = f"in tiles of {args.tile} px, neighbours sharing {tokenizer.overlap}"
        result = replace(result, protocol={"tiles": told} | result.protocol)
    result.tell(args.out)
    return 0


def _audio(args: argparse.Namespace, loaded: Any, device: Any) -> int:
    from recipes.evaluate.contract import subject_named
    from recipes.evaluate.held_out import drawn_sounds, file_sounds, kept_out

    rate = loaded.audio.sample_rate
    if args.media is None:
        if args.seconds is not None or args.pieces is not None:
            raise ValueError("--seconds and --pieces are for --media; the made-up scenes have 2.125 s")
        sounds = drawn_sounds(args.scenes or 100, sample_rate=rate)
    else:
        files = kept_out(args.media, args.media_list, every_file=args.every_file, films=False)
        sounds = file_sounds(files, sample_rate=rate, seconds=args.seconds or 10.0, most=args.pieces or 4)
    return _measure_sounds(args, subject_named(loaded.source, "audio"), loaded.audio, sounds, _embedding(args), device)


def _baseline(args: argparse.Namespace) -> int:
    from recipes.corpora.folder import MediaFolder
    from recipes.evaluate.contract import subject_of
    from recipes.evaluate.held_out import file_sounds, kept_out, read_sounds
    from recipes.evaluate.mel_kmeans import MelKMeansCodec

    _refuse(args, ("tokenizer", "part", "every_file", "scenes", *_VISUAL), "with --baseline")
    if args.media is None:
        raise ValueError("--baseline needs --media: it is fitted on some of the files and measured on the others")
    train = MediaFolder.open(args.media, args.media_list).train
    if not train:
        raise ValueError(f"{args.media} has no file to fit the baseline on; it needs three or more")
    embedding = _embedding(args)  # refuses a wrong file before the work
    codec, seconds, most = MelKMeansCodec(), args.seconds or 10.0, args.pieces or 4
    files = kept_out(args.media, args.media_list, films=False)
    left_out: list[str] = []
    fitted = read_sounds(train, sample_rate=codec.sample_rate, seconds=seconds, most=most, left_out=left_out)
    frames = codec.fit(sound for _, sound in fitted)
    sounds = file_sounds(files, sample_rate=codec.sample_rate, seconds=seconds, most=most)
    subject = subject_of(f"mel k-means, fitted on {frames} frames of {len(train)} files", codec)
    return _measure_sounds(args, subject, codec, sounds, embedding, "cpu")


def _embedding(args: argparse.Namespace) -> Any:
    from mmtok.features.yamnet import YAMNet

    return None if args.yamnet is None else YAMNet.from_npz(args.yamnet)


def _measure_sounds(
    args: argparse.Namespace, subject: Any, tokenizer: Any, sounds: Any, embedding: Any, device: Any
) -> int:
    from recipes.evaluate.audio_tokenizer import evaluate_audio
    from recipes.figures.plots import plot_rates

    result = evaluate_audio(
        subject,
        tokenizer,
        sounds,
        levels=args.levels,
        rate=args.rate,
        embedding=embedding,
        sheet=None if args.out is None else args.out / "spectrograms.png",
        device=device,
    )
    if args.out is not None:
        plot_rates({subject.name: result.figures}, args.out / "rate_distortion.png")
    result.tell(args.out)
    return 0
