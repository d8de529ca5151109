"""``cinepoet evaluate``: does a film show what its prompt says, and what do the tokenizers keep?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipes.terminal.options import add_lm_weights, add_model, add_seed, add_tile, number
from recipes.terminal.report import check_folder, compute_of

SUMMARY = "measure a model: prompts and tasks on unseen combinations, reconstruction; write its card"
EXAMPLES = """\
  cinepoet evaluate shapes --prompts 200 --out results
  cinepoet evaluate shapes --prompts 20 --no-upscale
  cinepoet evaluate tasks --scenes 100 --out results          # every other task that the model was trained on
  cinepoet evaluate reconstruction --media my_clips --out results
  cinepoet evaluate tokenizer --tokenizer cosmos-dv --media my_clips --squeezenet squeezenet_v1_0.npz --out results
  cinepoet evaluate tokenizer --tokenizer my_soundstream --media my_sounds --yamnet yamnet_int8.npz --out results
  cinepoet evaluate tokenizer --tokenizer tiny --part audio   # level by level, on made-up scenes
  cinepoet evaluate superres --media my_clips --squeezenet squeezenet_v1_0.npz --steps 4 8 12 24 --out results
  cinepoet evaluate card --model runs/tiny/bundle --results results   # writes README.md from both
"""
_FILM_FRAMES = 41  # of the films whose seams are measured
KINDS = ("shapes", "tasks", "reconstruction", "tokenizer", "superres", "card")

_VISUAL_OPTIONS = ("size", "frames", "fps", "tile", "squeezenet", "vgg", "lpips", "i3d", "batch_size")
_SUPERRES_OPTIONS = (
    *("model", "seed", "scenes", "media", "media_list", "every_file", "to", "films", "steps", "batch_size", "out"),
    *("squeezenet", "vgg", "lpips", "i3d"),
)
_AUDIO_OPTIONS = ("yamnet", "seconds", "pieces", "levels", "rate")
_TOKENIZER_OPTIONS = (
    *("tokenizer", "part", "media", "media_list", "every_file", "scenes", "out"),
    *_VISUAL_OPTIONS,
    *_AUDIO_OPTIONS,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options.

    Args:
        parser: of the command.
    """
    parser.add_argument("kind", choices=KINDS, metavar="|".join(KINDS), help="what is measured")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write the figures there as JSON")
    add_model(parser)
    add_lm_weights(parser)
    shapes = parser.add_argument_group("shapes: films from captions that training never saw, read by analyzers")
    shapes.add_argument("--prompts", type=number(int, 1), metavar="N", help="how many captions (default: 200)")
    shapes.add_argument("--batch-size", type=number(int, 1), metavar="N", help="films at once (default: 10)")
    shapes.add_argument("--no-upscale", action="store_true", help="leave super-resolution out")
    add_seed(shapes)  # type: ignore[arg-type]  # a group takes options like a parser
    back = parser.add_argument_group("reconstruction: held-out scenes and real media through the tokenizers")
    back.add_argument(
        "--media", type=Path, metavar="FOLDER", help="real files; those kept out of training are measured"
    )
    back.add_argument("--media-list", type=Path, metavar="CSV", help="path,split,licence of the files to use")
    back.add_argument("--scenes", type=number(int, 1), metavar="N", help="how many scenes (default: 200; tasks: 100)")
    single = parser.add_argument_group("tokenizer: any tokenizer in the field's metrics, with their protocols")
    single.add_argument("--tokenizer", metavar="M", help="a model or a tokenizer's folder (default: tiny)")
    single.add_argument(
        "--part", choices=("visual", "audio"), help="which one of a model that has both (default: visual)"
    )
    single.add_argument(
        "--every-file", action="store_true", help="measure all of --media, for a folder that no training saw"
    )
    add_tile(single)
    single.add_argument("--frames", type=number(int, 1), metavar="N", help="frames a clip (default: 17)")
    single.add_argument("--fps", type=number(float, 0.1), metavar="R", help="frames a second (default: its own)")
    single.add_argument("--squeezenet", type=Path, metavar="F.npz", help="for Frechet distances of frames")
    single.add_argument("--vgg", type=Path, metavar="F", help="torchvision's vgg16, for LPIPS")
    single.add_argument("--lpips", type=Path, metavar="F", help="LPIPS's linear layers for VGG16")
    single.add_argument("--i3d", type=Path, metavar="F.pt", help="TorchScript I3D for rFVD; it is run, so trust it")
    heard = parser.add_argument_group("tokenizer, audio: sounds and the sound of films, level by level")
    heard.add_argument("--yamnet", type=Path, metavar="F.npz", help="for the Frechet audio distance")
    heard.add_argument("--seconds", type=number(float, 0.1), metavar="S", help="longest piece (default: 10)")
    heard.add_argument("--pieces", type=number(int, 1), metavar="N", help="pieces of a file at most (default: 4)")
    heard.add_argument("--levels", type=_levels, metavar="K,K", help="numbers of levels (default: 1,2,... up to all)")
    heard.add_argument(
        "--rate", type=number(int, 8000), metavar="HZ", help="rate of the comparison (default: the tokenizer's)"
    )
    sharp = parser.add_argument_group(
        "superres: beside bicubic, Lanczos and its ceiling; made-up scenes, --media, or both"
    )
    sharp.add_argument("--to", type=number(int, 1), metavar="PX", help="side of the result (default: the model's)")
    sharp.add_argument("--films", type=number(int, 0), metavar="N", help="films of 41 frames, for seams (default: 4)")
    sharp.add_argument("--steps", type=number(int, 1), nargs="+", metavar="N", help="compare numbers of decoding steps")
    parser.set_defaults(model=None, seed=None)  # so that a kind which does not read them can say so
    card = parser.add_argument_group("card: the model's README.md from both measurements")
    card.add_argument("--results", type=Path, metavar="FOLDER", help="the --out of the measurements")
    card.add_argument("--notes", type=Path, metavar="F.md", help="Markdown to end with, such as known limits")
    back.add_argument("--size", type=number(int, 8), metavar="PX", help="side of the pictures (default: 128)")


def _levels(text: str) -> tuple[int, ...]:
    read = number(int, 1)
    return tuple(read(word) for word in text.split(","))


def run(args: argparse.Namespace) -> int:
    """Measure and print.

    Args:
        args: as parsed.

    Returns:
        The exit code.
    """
    own = {
        "shapes": ("model", "lm_weights", "seed", "prompts", "batch_size", "no_upscale", "out"),
        "tasks": ("model", "lm_weights", "seed", "scenes", "batch_size", "out"),
        "reconstruction": ("model", "media", "media_list", "scenes", "size", "out"),
        "tokenizer": _TOKENIZER_OPTIONS,
        "superres": _SUPERRES_OPTIONS,
        "card": ("model", "results", "notes"),
    }
    for name in sorted({n for names in own.values() for n in names} - set(own[args.kind])):
        if getattr(args, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} has no meaning for evaluate {args.kind}")
    if args.media_list is not None and args.media is None:
        raise ValueError("--media-list says which files of --media to use; give --media too")
    if args.kind == "card":
        return _card(args)
    if args.out is not None:
        check_folder(args.out)
    if args.kind == "tokenizer":
        print(json.dumps(_tokenizer(args), indent=1))
        return 0
    from recipes.bundle.folder import open_bundle
    from recipes.pipeline.cinepoet import CinePoetPipeline

    lm_weights = args.lm_weights or "float32"
    pipe = CinePoetPipeline(open_bundle(args.model or "tiny"), compute_of(args), lm_weights=lm_weights)
    kinds = {"shapes": _shapes, "tasks": _tasks, "reconstruction": _reconstruction, "superres": _superres}
    result = kinds[args.kind](args, pipe)
    print(json.dumps(result, indent=1))
    return 0


def _tokenizer(args: argparse.Namespace) -> dict[str, Any]:
    from recipes.bundle.named import load_tokenizers

    if args.every_file and args.media is None:
        raise ValueError("--every-file is for --media")
    if args.media is not None and args.scenes is not None:
        raise ValueError("--scenes counts made-up scenes; it has no meaning with --media")
    device = compute_of(args).device
    loaded = load_tokenizers(args.tokenizer or "tiny", device)
    part = args.part or ("audio" if loaded.visual is None else "visual")
    if getattr(loaded, part) is None:
        raise ValueError(f"{loaded.source} has no {part} tokenizer")
    for name in _AUDIO_OPTIONS if part == "visual" else _VISUAL_OPTIONS:
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} has no meaning for a tokenizer of {part} (--part {part})")
    return _visual(args, loaded, device) if part == "visual" else _audio(args, loaded, device)


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


def _usual_size(pipe: Any) -> int:
    """128 pixels, or those that a tokenizer without a grid works at."""
    from mmtok.visual.holistic import is_holistic

    return pipe.config.size if is_holistic(pipe.visual) else 128


def _card(args: argparse.Namespace) -> int:
    if args.results is None:
        raise ValueError("evaluate card needs --results, the folder with both measurements")
    if args.notes is not None and not args.notes.is_file():
        raise FileNotFoundError(f"notes file {args.notes} does not exist")
    from recipes.bundle.folder import open_bundle
    from recipes.evaluate.card import write_card

    print(write_card(open_bundle(args.model or "tiny"), args.results, args.notes.read_text() if args.notes else ""))
    return 0


def _shapes(args: argparse.Namespace, pipe: Any) -> dict[str, Any]:
    from recipes.evaluate.prompts import evaluate_shapes

    return evaluate_shapes(
        pipe,
        prompts=args.prompts or 200,
        seed=args.seed or 0,
        upscale=not args.no_upscale and pipe.config.upscaled_size > 0,
        batch_size=args.batch_size or 10,
        folder=args.out,
    )


def _tasks(args: argparse.Namespace, pipe: Any) -> dict[str, Any]:
    from recipes.evaluate.tasks import evaluate_tasks

    return evaluate_tasks(
        pipe, scenes=args.scenes or 100, seed=args.seed or 0, batch_size=args.batch_size or 10, folder=args.out
    )


def _reconstruction(args: argparse.Namespace, pipe: Any) -> dict[str, Any]:
    from recipes.corpora.folder import MediaFolder
    from recipes.evaluate.reconstruction import evaluate_reconstruction, write_reconstruction

    media = None if args.media is None else MediaFolder.open(args.media, args.media_list)
    result = evaluate_reconstruction(pipe, media=media, scenes=args.scenes or 200, size=args.size or _usual_size(pipe))
    if args.out is not None:
        write_reconstruction(result, args.out / "reconstruction.json")
    return result


def _superres(args: argparse.Namespace, pipe: Any) -> dict[str, Any]:
    import torch

    from recipes.corpora.folder import MediaFolder, clip_pool
    from recipes.corpora.shapes import ShapesCorpus, render_video
    from recipes.evaluate.backbones import load_backbones
    from recipes.evaluate.held_out import Material
    from recipes.evaluate.superres import evaluate_superres
    from recipes.runtime.memory import keep_freed_memory

    if args.every_file and args.media is None:
        raise ValueError("--every-file is for --media")
    keep_freed_memory()
    config = pipe.config
    backbones = load_backbones(squeezenet=args.squeezenet, vgg=args.vgg, lpips=args.lpips, i3d=args.i3d)
    size = min(pipe.plan_film((config.size, config.size), to=args.to)[-1].high)  # refuses sizes before the work
    most = 4 if args.films is None else args.films
    sets, films = {}, {}
    if args.media is None or args.scenes is not None:
        corpus, count = ShapesCorpus(0, "heldout"), args.scenes or 50
        scenes = tuple(corpus.scene(i) for i in range(max(count, most)))

        def drawn(number: int, frames: int) -> Any:
            clips = [render_video(s, size=size, num_frames=frames) for s in scenes[:number]]
            return ((torch.stack(clips) + 1) * 127.5).round().to(torch.uint8)

        told = "held-out scenes of corpus shapes at 8 fps, their captions as prompts"
        sets["shapes"] = Material(drawn(count, config.num_frames), told, scenes[:count])
        if most:
            films["shapes"] = Material(drawn(most, _FILM_FRAMES), told, scenes[:most])
    if args.media is not None:
        folder = MediaFolder.open(args.media, args.media_list)
        files = folder.measure_video + (folder.train_video if args.every_file else ())
        if not files:
            raise ValueError(
                f"{args.media} has no film that is kept out (every third one is); name some in --media-list, "
                "or take all with --every-file"
            )
        told = (
            f"windows of {len(files)} files {'in the folder' if args.every_file else 'kept out of training'}, "
            f"{config.fps:g} fps, shorter side resized (bicubic, antialiased), centre crop, 8 bits, no prompt"
        )
        sets["real"] = Material(clip_pool(files, size=size, num_frames=config.num_frames, fps=config.fps), told)
        if most:
            long = clip_pool(files[:most], size=size, num_frames=_FILM_FRAMES, clips_per_file=1, fps=config.fps)
            films["real"] = Material(long, told)
    return evaluate_superres(
        pipe,
        sets,
        films=films,
        steps=tuple(args.steps or ()),
        to=args.to,
        seed=args.seed or 0,
        batch_size=args.batch_size or 4,
        backbones=backbones,
        folder=args.out,
    )
