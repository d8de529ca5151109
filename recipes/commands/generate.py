"""``cinepoet generate``: a film from text, a picture, a film or a sound."""

from __future__ import annotations

import argparse
import time
from inspect import signature
from pathlib import Path
from typing import Any

from recipes.terminal.films import numbered, write_blocks
from recipes.terminal.given_media import Files, mask_of, read_first_frames, read_media
from recipes.terminal.options import add_lm_weights, add_model, add_preview, add_seed, number, preview_path
from recipes.terminal.report import check_outputs, compute_of, profile_table, prompt_of

SUMMARY = "make a film from text, a picture, a film or a sound"
EXAMPLES = """\
  cinepoet generate "a red circle moves left on a dark plain background" --out film.mp4
  cinepoet generate "a green star" --candidates 4 --out star.mp4            # star_0.mp4 ... star_3.mp4
  cinepoet generate "a green star" --out star.png                           # one picture
  cinepoet generate "it moves right" --image photo.jpg --out moving.mp4     # the picture is the first frame
  cinepoet generate --video clip.mp4 --out more.mp4                         # goes on where the clip ends
  cinepoet generate "a circle" --then "it grows" --then "it spins" --out long.mp4   # one second more for each
  cinepoet generate --video clip.mp4 --task video_to_audio --out heard.mp4  # a sound for the clip
  cinepoet generate --audio song.wav --out seen.mp4                         # pictures for the sound
tasks that a model must have been trained on (cinepoet models):
  cinepoet generate "a star" --task inpaint --video clip.mp4 --mask central --paste-back --out filled.mp4
  cinepoet generate --task inpaint --video clip.mp4 --mask hole.png --out filled.mp4         # white is made anew
  cinepoet generate --task outpaint --video clip.mp4 --mask vertical --out wide.mp4
  cinepoet generate "a blue star" --task stylize --video clip.mp4 --out blue.mp4             # its motion, other looks
  cinepoet generate --task continue_av --video clip.mp4 --given-frames 5 --out more.mp4      # with its sound
LARP generators:
  cinepoet generate --model runs/larp_ar/model --class "star spins" --out star.mp4
  cinepoet generate --model hywang66/LARP-L-long-AR --class 23 --out ucf.mp4                 # a published one
  cinepoet generate --model runs/larp_fp/model --video clip.mp4 --out more.mp4               # 5 frames -> 11 more
"""
COMMON = ("out", "model", "device", "threads", "seed", "preview", "profile", "guidance_scale")  # of every kind of model
# Option to the argument of a pipeline that it becomes, or that it goes with, where the two have other names.
BECOMES = {
    "then": "segments",
    "candidates": "num_candidates",
    "no_upscale": "upscale",
    "no_sound": "sound",
    "feather": "feather_px",
    "class": "classes",
    "first_frames": "classes",
}


class _Then(argparse.Action):
    """``--then PROMPT`` adds a segment; ``--then-from F`` says which picture the one before it starts from."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        segments: list[list[str | None]] = [*(namespace.then or [])]
        if option_string == "--then":
            segments.append([values, None])
        elif not segments or segments[-1][1] is not None:
            raise ValueError("--then-from F says which picture a segment starts from; put it behind that --then")
        else:
            segments[-1] = [segments[-1][0], values]
        namespace.then = segments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what should be seen and heard")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="F", help=".mp4, .mov, .gif, or .png for one picture"
    )
    parser.add_argument("--task", default="auto", help="e.g. inpaint, video_to_audio (default: by what is given)")
    given = parser.add_argument_group("what is given besides the text")
    given.add_argument("--image", metavar="F", help="a picture, or the first frame of a film, to set in motion")
    given.add_argument("--video", metavar="F", help="a film to go on from its end, to paint in, or to make a sound for")
    given.add_argument("--audio", metavar="F", help="a sound, or a film with sound, to make pictures for")
    given.add_argument(
        "--mask", metavar="M", help="what is painted: central, dynamic, ..., top,left,bottom,right, or a .png"
    )
    given.add_argument(
        "--given-frames", type=number(int, 1), metavar="N", help="pictures of the film's end that are gone on from"
    )
    film = parser.add_argument_group("the film")
    film.add_argument("--num-frames", type=number(int, 1), metavar="N", help="pictures of the first clip")
    film.add_argument("--aspect", metavar="A", help="square or portrait, where the model knows both")
    film.add_argument("--source", metavar="S", help="a data source or tier of quality of the model")
    film.add_argument("--extensions", type=number(int, 0), metavar="N", help="N times one second more")
    film.add_argument("--then", action=_Then, metavar="PROMPT", help="one second more, of this; may be repeated")
    film.add_argument(
        "--then-from", action=_Then, dest="then", metavar="F", help="cut to a new clip that starts from this picture"
    )
    film.add_argument(
        "--candidates", type=number(int, 1), default=1, metavar="N", help="N films, in files that end in _0, _1, ..."
    )
    film.add_argument("--no-upscale", action="store_true", help="leave super-resolution out")
    film.add_argument("--no-sound", action="store_true", help="make a silent film")
    film.add_argument("--paste-back", action="store_true", help="keep what the mask left visible as it was")
    film.add_argument("--feather", type=number(int, 0), default=0, metavar="PX", help="soft edge around that")
    film.add_argument("--exact-first-frame", action="store_true", help="begin with --image itself, not with its codes")
    sampling = parser.add_argument_group("sampling (defaults are the model's)")
    add_seed(sampling)
    sampling.add_argument("--negative-prompt", metavar="TEXT", help="what guidance moves away from")
    sampling.add_argument("--guidance-scale", type=number(float, 0), metavar="X", help="weight of the text; 1 is off")
    sampling.add_argument(
        "--guidance-interval",
        nargs=2,
        type=number(float, 0, 1),
        metavar=("FROM", "TO"),
        help="shares of the output between which guidance works (default: 0 1)",
    )
    sampling.add_argument("--temperature", type=number(float, 0), metavar="X", help="0 takes the likeliest token")
    sampling.add_argument("--top-k", type=number(int, 1), metavar="N", help="only the N likeliest tokens")
    sampling.add_argument(
        "--top-p", type=number(float, 0, 1), metavar="X", help="only tokens of that total probability"
    )
    larp = parser.add_argument_group("LARP generators")
    larp.add_argument("--class", metavar="C", help="name or number of the class to make a clip of")
    larp.add_argument(
        "--first-frames",
        type=number(int, 1),
        metavar="N",
        help="frames of --video that are known (default: as trained, or 5)",
    )
    larp.add_argument("--cfg-steps", type=number(int, 0), metavar="N", help="steps behind the first that are guided")
    larp.add_argument("--num-tokens", type=number(int, 1), metavar="N", help="draw only the first N codes")
    larp.add_argument("--tokenizer", metavar="T", help="LARP tokenizer (default: the one the generator came with)")
    add_preview(parser)
    parser.add_argument("--profile", action="store_true", help="print a table of times, the peak memory, and the drift")
    add_model(parser)
    add_lm_weights(parser)


def run(args: argparse.Namespace) -> int:
    """Generate films."""
    _check_words(args)
    preview = preview_path(args, before="the PROMPT")

    # Heavy imports from here on; whatever can fail early is checked before weights are loaded.
    started = time.monotonic()
    from mmtok.media.video import FILM_SUFFIXES
    from recipes.bundle.named import is_generator
    from recipes.runtime.progress import sampling_bar

    imports_s = time.monotonic() - started
    larp = is_generator(args.model)
    picture = bool(args.out.suffix.lower() == ".png") and not larp
    films, previews = numbered(args.out, args.candidates), numbered(preview, args.candidates)
    if args.preview == "":
        previews = [film.with_name(f"{film.stem}.preview.png") for film in films]
    outputs: dict[str, tuple[Path, tuple[str, ...]]] = {}
    for film, sheet in zip(films, previews, strict=True):
        which = f" ({film.name})" if args.candidates > 1 else ""
        outputs[f"--out{which}"] = (film, (".png",) if picture else FILM_SUFFIXES)
        if sheet is not None:
            outputs[f"--preview{which}"] = (sheet, (".png",))
    pipe, options = _clip_of_a_class(args, outputs) if larp else _film(args, outputs, picture)
    reading_s = time.monotonic() - started - imports_s
    before_writing = time.monotonic()
    with sampling_bar() as on_step:
        looks = write_blocks(pipe.stream(**options, on_step=on_step), pipe, films, previews)
    writing_s = time.monotonic() - before_writing - sum(pipe.seconds.values())
    if args.profile:
        stages = {"imports": imports_s, "opening, reading media": reading_s, **pipe.seconds, "writing": writing_s}
        print(profile_table(stages, time.monotonic() - args.started))
        if len(looks) > 1:
            from mmtok.metrics.drift import drift_table

            print(drift_table(looks))
    return 0


def _check_words(args: argparse.Namespace) -> None:
    """Contradictions that show in the arguments alone, whatever the model."""
    for text in (args.prompt, args.negative_prompt, *(prompt for prompt, _ in args.then or [])):
        prompt_of(text)
    if args.audio is not None and args.video is not None:
        raise ValueError("give one of --video and --audio; a film's own sound goes along")
    if args.mask is not None and args.video is None:
        raise ValueError("--mask says which part of --video is made anew; give that too")
    if args.no_sound and args.audio is not None:
        raise ValueError("--no-sound does not go with --audio, whose sound stays in the film")
    if args.extensions is not None and args.extensions < len(args.then or []):
        raise ValueError(f"--extensions {args.extensions} are fewer than the {len(args.then)} --then")


def _refuse_foreign(args: argparse.Namespace, pipeline: Any, own: str, other: str) -> None:
    """Options that become arguments which this kind of pipeline does not have."""
    takes = {name for call in (pipeline.__call__, pipeline.from_pretrained) for name in signature(call).parameters}
    options = argparse.ArgumentParser(add_help=False)
    add_arguments(options)
    for option in options._actions:
        foreign = option.dest not in COMMON and BECOMES.get(option.dest, option.dest) not in takes
        if foreign and getattr(args, option.dest) != option.default:
            spelled = option.option_strings[0] if option.option_strings else f"a {option.metavar}"
            raise ValueError(f"{spelled} is for {other}, and {args.model} is {own}")


def _sampling(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of both kinds of pipeline."""
    import torch

    generator = torch.Generator().manual_seed(args.seed)
    return {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p, "generator": generator}


def _film(args: argparse.Namespace, outputs: Any, picture: bool) -> tuple[Any, dict[str, Any]]:
    """The pipeline of a whole model and the arguments of its call."""
    from recipes.bundle.folder import open_bundle
    from recipes.pipeline.cinepoet import CinePoetPipeline
    from recipes.pipeline.plan import make_plan
    from recipes.pipeline.request import Request, Segment

    bundle = open_bundle(args.model)
    _refuse_foreign(args, CinePoetPipeline, "a whole model", "LARP generators")
    cuts = tuple(file for _, file in args.then or [])
    files = Files(args.image, args.video, args.audio, args.mask, cuts)
    media = any(name is not None for name in (args.image, args.video, args.audio))
    if args.prompt is None and args.task == "auto" and not media:
        raise ValueError("give a PROMPT, --image, --video or --audio; --task unconditional needs none of them")
    guides = ("guidance_scale", "guidance_interval", "negative_prompt")
    told = [f"--{name.replace('_', '-')}" for name in guides if getattr(args, name) is not None]
    if told and args.prompt is None and not args.then and args.guidance_scale != 1:
        raise ValueError(f"{' and '.join(told)} guides by the text of a prompt; give a PROMPT or --then")
    if picture and (media or args.extensions or args.then):
        raise ValueError(f"--out {args.out} is one picture, which is made from text alone; choose .mp4")
    if args.out.suffix.lower() == ".gif" and not args.no_sound:
        raise ValueError("a .gif holds no sound; add --no-sound or choose .mp4")
    check_outputs(outputs, [args.image, args.video, args.audio, *cuts])
    same = (
        *("prompt", "task", "aspect", "source", "given_frames", "negative_prompt", "guidance_scale", "extensions"),
        *("paste_back", "exact_first_frame"),
    )
    options = {name: getattr(args, name) for name in same} | _sampling(args)
    options |= {
        "mask": mask_of(args.mask),
        "num_frames": 1 if picture and args.task == "auto" else args.num_frames,
        "num_candidates": args.candidates,
        "segments": [prompt for prompt, _ in args.then or []],
        "upscale": not args.no_upscale,
        "sound": not args.no_sound,
        "feather_px": args.feather,
    }
    if args.guidance_interval is not None:
        options["guidance_interval"] = tuple(args.guidance_interval)
    pipe = CinePoetPipeline(bundle, compute_of(args), lm_weights=args.lm_weights or "float32")
    given = files.given(args.task) | ({"prompt"} if args.prompt is not None else frozenset())
    plan = make_plan(Request(**options), pipe.config, given=given)
    if picture != plan.row.is_image:
        made = f"{plan.task} makes one picture; choose a .png for --out, got {args.out}"
        asked = f"--out {args.out} is one picture, but the task is {plan.task}; choose .mp4"
        raise ValueError(asked if picture else made)
    found = read_media(files, pipe, plan, mask=options["mask"], sound=not args.no_sound)
    pictures = zip(options["segments"], found.pop("cuts"), strict=True)
    return pipe, options | {"segments": [Segment(prompt, image) for prompt, image in pictures]} | found


def _clip_of_a_class(args: argparse.Namespace, outputs: Any) -> tuple[Any, dict[str, Any]]:
    """The pipeline of a LARP generator and the arguments of its call."""
    from recipes.pipeline.larp import LarpPipeline

    label = getattr(args, "class")
    _refuse_foreign(args, LarpPipeline, "a LARP generator", "whole models")
    if label is not None and args.first_frames is not None:
        raise ValueError("--first-frames counts frames of --video; --class takes none")
    if (label is None) == (args.video is None):
        raise ValueError("a LARP generator takes either --class (class-conditional) or --video (frame prediction)")
    check_outputs(outputs, [args.video])
    compute_of(args)  # threads, and a device that is known
    pipe = LarpPipeline.from_pretrained(args.model, tokenizer=args.tokenizer, device=args.device)
    options = _sampling(args) | {
        "cfg_scale": pipe.usual_guidance if args.guidance_scale is None else args.guidance_scale,
        "cfg_steps": args.cfg_steps,
        "num_tokens": args.num_tokens,
        "temperature": 1.0 if args.temperature is None else args.temperature,
    }
    if label is not None:
        return pipe, options | {"classes": [label]}
    count = args.first_frames or pipe.model.given_frames
    return pipe, options | {
        "video": read_first_frames(args.video, fps=pipe.fps, count=count, size=pipe.tokenizer.params.size)
    }
