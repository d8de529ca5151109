"""``cinepoet evaluate tokenizer``: any tokenizer in the field's metrics, each with its protocol."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipes.terminal.options import (
    add_device,
    add_every_file,
    add_held_out,
    add_networks,
    add_tile,
    number,
    require_media,
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
    require_media(args)
    if args.out is not None:
        check_folder(args.out)
    from recipes.bundle.named import load_tokenizers

    if args.baseline:
        print(json.dumps(_baseline(args), indent=1))
        return 0
    if args.media is not None and args.scenes is not None:
        raise ValueError("--scenes counts made-up scenes; it has no meaning with --media")
    device = compute_of(args).device
    loaded = load_tokenizers(args.tokenizer or "tiny", device)
    part = args.part or ("audio" if loaded.visual is None else "visual")
    if getattr(loaded, part) is None:
        raise ValueError(f"{loaded.source} has no {part} tokenizer")
    for name in _AUDIO if part == "visual" else _VISUAL:
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} has no meaning for a tokenizer of {part} (--part {part})")
    result = _visual(args, loaded, device) if part == "visual" else _audio(args, loaded, device)
    print(json.dumps(result, indent=1))
    return 0


def _audio(args: argparse.Namespace, loaded: Any, device: Any) -> dict[str, Any]:
    from mmtok.features.yamnet import YAMNet
    from recipes.corpora.folder import MediaFolder
    from recipes.corpora.shapes import ShapesCorpus, render_audio
    from recipes.evaluate.audio_tokenizer import evaluate_audio, folder_sounds, write_audio_figures
    from recipes.runtime.progress import track

    embedding = None if args.yamnet is None else YAMNet.from_npz(args.yamnet)
    tokenizer = loaded.audio
    left_out: list[str] = []
    sounds: Iterator[tuple[str, Any]]
    if args.media is None:
        if args.seconds is not None or args.pieces is not None:
            raise ValueError("--seconds and --pieces are for --media; the made-up scenes have 2.125 s")
        corpus, rate = ShapesCorpus(0, "heldout"), tokenizer.sample_rate
        told = "held-out scenes of corpus shapes"
        sounds = (
            (f"scene {i}", render_audio(corpus.scene(i), num_samples=round(2.125 * rate), sample_rate=rate)[0])
            for i in track(range(args.scenes or 100), title="scenes")
        )
    else:
        folder = MediaFolder.open(args.media, args.media_list)
        files = folder.measure + (folder.train if args.every_file else ())
        if not files:
            raise ValueError(
                f"{args.media} has no file that is kept out (every third one is); --every-file takes all of them"
            )
        seconds, most = args.seconds or 10.0, args.pieces or 4
        sounds = folder_sounds(files, sample_rate=tokenizer.sample_rate, seconds=seconds, most=most, left_out=left_out)
        told = (
            f"up to {most} pieces of {seconds:g} s, or the whole of a shorter sound, of each of {len(files)} files "
            f"{'in the folder' if args.every_file else 'kept out of training'}, mono, at their own loudness"
        )
    result = evaluate_audio(
        tokenizer,
        sounds,
        protocol=told,
        levels=args.levels,
        rate=args.rate,
        embedding=embedding,
        sheet=None if args.out is None else args.out / "spectrograms.png",
        device=device,
    )
    result = {"tokenizer": loaded.source} | result | {"left_out": left_out}
    if args.out is not None:
        write_audio_figures(result, args.out)
    return result


def _visual(args: argparse.Namespace, loaded: Any, device: Any) -> dict[str, Any]:
    import torch

    from recipes.bundle.named import in_tiles
    from recipes.corpora.folder import MediaFolder, clip_pool
    from recipes.corpora.shapes import ShapesCorpus, render_video
    from recipes.evaluate.backbones import load_backbones
    from recipes.evaluate.reconstruction import write_reconstruction
    from recipes.evaluate.visual_tokenizer import evaluate_tokenizer

    backbones = load_backbones(squeezenet=args.squeezenet, vgg=args.vgg, lpips=args.lpips, i3d=args.i3d)
    loaded = in_tiles(loaded, args.tile)
    tokenizer = loaded.visual
    size, frames, fps = args.size or loaded.size, args.frames or loaded.clip, args.fps or loaded.fps
    tokenizer.grid(frames, size, size)  # refuses sizes before the work
    if args.media is None and args.fps is not None:
        raise ValueError("--fps is for --media; the made-up scenes have 8 frames a second")
    if args.media is None:
        corpus = ShapesCorpus(0, "heldout")
        scenes = (corpus.scene(i) for i in range(args.scenes or 100))
        drawn = torch.stack([render_video(s, size=size, num_frames=frames) for s in scenes])
        clips, told = ((drawn + 1) * 127.5).round().to(torch.uint8), "held-out scenes of corpus shapes at 8 fps"
    else:
        folder = MediaFolder.open(args.media, args.media_list)
        files = folder.measure_video + (folder.train_video if args.every_file else ())
        if not files:
            raise ValueError(
                f"{args.media} has no film that is kept out (every third one is); name some in --media-list, "
                "or take all with --every-file"
            )
        clips = clip_pool(files, size=size, num_frames=frames, fps=fps)
        told = (
            f"up to 4 windows of each of {len(files)} files "
            f"{'in the folder' if args.every_file else 'kept out of training'}, {fps:g} fps, shorter side resized "
            "(bicubic, antialiased), centre crop, 8 bits; a film shorter than a window holds its last picture"
        )
    if args.tile is not None:
        told += f"; in tiles of {args.tile} px, neighbours sharing {tokenizer.overlap}"
    sheet = None if args.out is None else args.out / "reconstructions.png"
    result = evaluate_tokenizer(
        tokenizer,
        clips,
        protocol=told,
        backbones=backbones,
        batch_size=args.batch_size or 4,
        sheet=sheet,
        device=device,
    )
    result = {"tokenizer": loaded.source} | result
    if args.out is not None:
        write_reconstruction(result, args.out / "tokenizer.json")
    return result


def _baseline(args: argparse.Namespace) -> dict[str, Any]:
    from mmtok.features.yamnet import YAMNet
    from recipes.corpora.folder import MediaFolder
    from recipes.evaluate.audio_tokenizer import evaluate_audio, folder_sounds, write_audio_figures
    from recipes.evaluate.mel_kmeans import MelKMeansCodec

    for name in ("tokenizer", "part", "every_file", "scenes", *_VISUAL):
        if getattr(args, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} has no meaning with --baseline")
    if args.media is None:
        raise ValueError("--baseline needs --media: it is fitted on some of the files and measured on the others")
    folder = MediaFolder.open(args.media, args.media_list)
    if not folder.measure or not folder.train:
        raise ValueError(f"{args.media} has too few files to train on some and measure others (every third one)")
    codec = MelKMeansCodec()
    left_out: list[str] = []
    seconds, most = args.seconds or 10.0, args.pieces or 4
    cut: dict[str, Any] = {"sample_rate": codec.sample_rate, "seconds": seconds, "most": most, "left_out": left_out}
    frames = codec.fit(sound for _, sound in folder_sounds(folder.train, **cut))
    result = evaluate_audio(
        codec,
        folder_sounds(folder.measure, **cut),
        protocol=f"up to {most} pieces of {seconds:g} s of {len(folder.measure)} files kept out",
        levels=args.levels,
        rate=args.rate,
        embedding=None if args.yamnet is None else YAMNet.from_npz(args.yamnet),
        sheet=None if args.out is None else args.out / "spectrograms.png",
    )
    told = f"mel k-means, fitted on {frames} frames of {len(folder.train)} files"
    result = {"tokenizer": told} | result | {"left_out": left_out}
    if args.out is not None:
        write_audio_figures(result, args.out)
    return result
