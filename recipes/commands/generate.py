"""``cinepoet generate``: a film from text, a picture, a film or a sound."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from recipes.commands.common import (
    add_model,
    add_preview,
    add_seed,
    check_outputs,
    compute_of,
    describe_film,
    note,
    number,
    preview_path,
    prompt_of,
    sampling_bar,
)
from recipes.commands.generate_larp import is_generator, run_larp

SUMMARY = "make a film from text, a picture, a film or a sound"
EXAMPLES = """\
  cinepoet generate "a red circle moves left on a dark plain background" --out film.mp4
  cinepoet generate "a blue square grows" --extensions 2 --seed 7 --preview --out long.mp4
  cinepoet generate "it moves right" --image photo.jpg --out moving.mp4     # the picture is the first frame
  cinepoet generate --video clip.mp4 --out more.mp4                         # goes on where the clip ends
  cinepoet generate --video clip.mp4 --task video_to_audio --out heard.mp4  # a sound for the clip
  cinepoet generate --audio song.wav --out seen.mp4                         # pictures for the sound
  cinepoet generate "a green star" --out star.png                           # one picture
  cinepoet generate --model runs/larp_ar/model --class "star spins" --out star.mp4   # a LARP generator
  cinepoet generate --model hywang66/LARP-L-long-AR --class 23 --out ucf.mp4         # a published one
  cinepoet generate --model runs/larp_fp/model --video clip.mp4 --out more.mp4       # 5 frames -> 11 more
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options.

    Args:
        parser: of the command.
    """
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what should be seen and heard")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="F", help=".mp4, .mov, .gif, or .png for one picture"
    )
    given = parser.add_argument_group("what is given besides the text (one of)")
    given.add_argument("--image", metavar="F", help="a picture, or the first frame of a film, to set in motion")
    given.add_argument("--video", metavar="F", help="a film to go on from its end, or to make a sound for")
    given.add_argument("--audio", metavar="F", help="a sound, or a film with sound, to make pictures for")
    larp = parser.add_argument_group("LARP generators")
    larp.add_argument("--class", dest="label", metavar="C", help="name or number of the class to make a clip of")
    larp.add_argument(
        "--first-frames",
        type=number(int, 1),
        metavar="N",
        help="frames of --video that are known (default: as trained, or 5)",
    )
    larp.add_argument("--cfg-steps", type=number(int, 0), metavar="N", help="steps behind the first that are guided")
    larp.add_argument("--num-tokens", type=number(int, 1), metavar="N", help="draw only the first N codes")
    larp.add_argument("--tokenizer", metavar="T", help="LARP tokenizer (default: the one the generator came with)")
    parser.add_argument("--task", default="auto", help="e.g. video_to_audio, unconditional (default: by what is given)")
    parser.add_argument("--extensions", type=number(int, 0), default=0, metavar="N", help="N times one second more")
    add_seed(parser)
    sampling = parser.add_argument_group("sampling (defaults are the model's)")
    sampling.add_argument("--negative-prompt", metavar="TEXT", help="what guidance moves away from")
    sampling.add_argument("--guidance-scale", type=number(float, 0), metavar="X", help="weight of the text; 1 is off")
    sampling.add_argument("--temperature", type=number(float, 0), metavar="X", help="0 takes the likeliest token")
    sampling.add_argument("--top-k", type=number(int, 1), metavar="N", help="only the N likeliest tokens")
    sampling.add_argument(
        "--top-p", type=number(float, 0, 1), metavar="X", help="only tokens of that total probability"
    )
    parser.add_argument("--no-upscale", action="store_true", help="leave super-resolution out")
    parser.add_argument("--no-sound", action="store_true", help="make a silent film")
    add_preview(parser)
    parser.add_argument("--profile", action="store_true", help="print a table of times and the peak memory")
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    """Generate one film.

    Args:
        args: as parsed.

    Returns:
        The exit code.
    """
    if args.label is not None or is_generator(args.model):
        return run_larp(args)
    for name in ("tokenizer", "cfg_steps", "num_tokens", "first_frames"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is for LARP generators; {args.model} is none")
    prompt = prompt_of(args.prompt)
    prompt_of(args.negative_prompt)
    task, silent = args.task, args.no_sound
    media = [args.image, args.video, args.audio]
    picture = args.out.suffix.lower() == ".png"
    if prompt is None and task == "auto" and not any(m is not None for m in media):
        raise ValueError("give a PROMPT, --image, --video or --audio; --task unconditional needs none of them")
    if sum(m is not None for m in media) > 1:
        raise ValueError("give one of --image, --video and --audio")
    if picture and task not in ("auto", "text_to_image"):
        raise ValueError(f"--out {args.out} is one picture, but the task is {task}; choose .mp4")
    if picture and (any(m is not None for m in media) or args.extensions):
        raise ValueError(f"--out {args.out} is one picture, which is made from text alone; choose .mp4")
    if not picture and task == "text_to_image":
        raise ValueError(f"text_to_image makes one picture; choose a .png for --out, got {args.out}")
    if silent and task == "video_to_audio":
        raise ValueError("--no-sound leaves nothing of the task video_to_audio")
    if args.out.suffix.lower() == ".gif" and not silent:
        raise ValueError("a .gif holds no sound; add --no-sound or choose .mp4")
    if silent and args.audio is not None:
        raise ValueError("--no-sound does not go with --audio, whose sound stays in the film")
    preview = preview_path(args, before="the PROMPT")

    # Heavy imports from here on; whatever can fail early is checked before weights are loaded.
    started = time.monotonic()
    from mmtok.media.video import FILM_SUFFIXES
    from recipes.bundle import open_bundle
    from recipes.pipeline import CinePoetPipeline

    imports_s = time.monotonic() - started
    outputs: dict[str, tuple[Path, tuple[str, ...]]] = {"--out": (args.out, (".png",) if picture else FILM_SUFFIXES)}
    if preview is not None:
        outputs["--preview"] = (preview, (".png",))
    check_outputs(outputs, media)
    pipe = CinePoetPipeline(open_bundle(args.model), compute_of(args))
    given, reading_s = _read(args, pipe), time.monotonic() - started - imports_s
    with sampling_bar() as on_step:
        output = pipe(
            prompt,
            **given,
            task="text_to_image" if picture else task,
            negative_prompt=args.negative_prompt,
            guidance_scale=args.guidance_scale,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            extensions=args.extensions,
            upscale=not args.no_upscale,
            sound=not silent,
            generator=_generator(args.seed),
            on_step=on_step,
        )
    before_writing = time.monotonic()
    output.save(args.out, preview=preview)
    writing_s = time.monotonic() - before_writing
    for line in output.notes:
        note(line)
    print(describe_film(args.out, output.frames, output.fps, output.audio is not None))
    if preview is not None:
        print(f"{preview}: preview")
    if args.profile:
        stages = {"imports": imports_s, "opening, reading media": reading_s, **output.seconds, "writing": writing_s}
        print(profile_table(stages, time.monotonic() - args.started))
    return 0


def _generator(seed: int) -> Any:
    import torch

    return torch.Generator().manual_seed(seed)


def _read(args: argparse.Namespace, pipe: Any) -> dict[str, Any]:
    """The media that were given, at the model's size and clock."""
    config = pipe.config
    size = max(config.size, config.upscaled_size)
    if args.image is not None:
        return {"image": read_picture(args.image, size)}
    if args.video is not None:
        if args.task == "video_to_audio":
            return {"video": _read_film(args.video, fps=config.fps, num_frames=config.num_frames, size=size)}
        return {"video": read_end(args.video, fps=config.fps, num_frames=config.num_frames, size=size)}
    if args.audio is not None:
        from mmtok.media.audio import read_audio

        rate = pipe.audio.sample_rate
        clip = read_audio(args.audio, sample_rate=rate, num_samples=round(config.num_frames / config.fps * rate))
        if not clip.samples.any():
            note(f"{args.audio}: the first {config.num_frames / config.fps:g} s are silent")
        return {"audio": clip.samples}
    return {}


def _read_film(path: str, *, fps: float, num_frames: int, size: int) -> Any:
    from mmtok.media.video import read_video

    clip = read_video(path, fps=fps, num_frames=num_frames, size=size)
    if clip.held_frames:
        note(f"{path}: is shorter than {num_frames / fps:g} s; its last picture is held")
    return clip.frames


def read_picture(path: str, size: int) -> Any:
    """A picture file, or the first frame of a film.

    Args:
        path: the file.
        size: side in pixels after resize and centre crop.

    Returns:
        (3, size, size) in [-1, 1].

    Raises:
        MediaError: if it is neither.
    """
    from mmtok.media.errors import MediaError
    from mmtok.media.image import read_image
    from mmtok.media.video import probe, read_video

    try:
        return read_image(path, size)
    except MediaError as fault:
        try:
            is_film = probe(path).has_video
        except MediaError:
            is_film = False
        if not is_film:
            raise fault from None
    return read_video(path, num_frames=1, size=size).frames[:, 0]


def read_end(path: str, *, fps: float, num_frames: int, size: int) -> Any:
    """The last pictures of a film.

    Args:
        path: the file.
        fps: pictures per second wanted.
        num_frames: most pictures wanted.
        size: side in pixels after resize and centre crop.

    Returns:
        (3, t, size, size) in [-1, 1] with t from 1 to ``num_frames``.

    Raises:
        MediaError: if the file cannot be read or has no pictures.
    """
    from mmtok.media.errors import MediaError
    from mmtok.media.video import probe, read_video

    # The header may promise more than the file holds, so the end is looked for from further and further in front.
    length_s = probe(path).duration_s or 0.0
    starts = [max(0.0, length_s - num_frames / fps), max(0.0, length_s / 2 - num_frames / fps), 0.0]
    for start_s in starts[:-1]:
        try:
            frames = read_video(path, fps=fps, num_frames=None, size=size, start_s=start_s).frames
        except MediaError:
            continue
        if frames.shape[1] >= num_frames or start_s == 0.0:
            return frames[:, -num_frames:]
    return read_video(path, fps=fps, num_frames=None, size=size).frames[:, -num_frames:]


def profile_table(stages: dict[str, float], total_s: float) -> str:
    """Times of each stage, the rest, the total, and the peak memory where the system tells it.

    Args:
        stages: name to seconds.
        total_s: seconds since the command started, imports included.

    Returns:
        Lines of text.
    """
    rows = {**stages, "other": max(0.0, total_s - sum(stages.values())), "total": total_s}
    width = max(len(name) for name in rows)
    lines = [f"{name:<{width}}  {seconds:8.2f} s" for name, seconds in rows.items()]
    try:
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
        lines.append(f"{'peak memory':<{width}}  {peak:8.2f} GB")
    except ImportError:  # not on Windows
        pass
    return "\n".join(lines)
