"""``cinepoet upscale``: any film through the super-resolution transformer."""

from __future__ import annotations

import argparse
from pathlib import Path

from recipes.commands.common import (
    add_model,
    add_seed,
    check_outputs,
    compute_of,
    describe_film,
    note,
    number,
    prompt_of,
)

SUMMARY = "sharpen a film with the super-resolution model"
EXAMPLES = """\
  cinepoet upscale film.mp4 --out sharp.mp4
  cinepoet upscale clip.mp4 --prompt "a red circle moves left" --seconds 10 --out sharp.mp4
"""
_SOUND_HZ = 48000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options.

    Args:
        parser: of the command.
    """
    parser.add_argument("video", metavar="VIDEO", help="a film; it is brought to the model's size and rate first")
    parser.add_argument("--out", required=True, type=Path, metavar="F", help=".mp4, .mov, or .gif without sound")
    parser.add_argument("--prompt", metavar="TEXT", help="what is seen")
    parser.add_argument("--seconds", type=number(float, 0.1), default=20.0, metavar="S", help="longest piece (20)")
    parser.add_argument("--no-sound", action="store_true", help="leave the film's sound out")
    add_seed(parser)
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    """Upscale one film; its own sound goes with it.

    Args:
        args: as parsed.

    Returns:
        The exit code.
    """
    prompt = prompt_of(args.prompt)
    import torch

    from mmtok.media.audio import read_audio
    from mmtok.media.video import FILM_SUFFIXES, probe, read_video, write_film
    from recipes.bundle import open_bundle
    from recipes.pipeline import CinePoetPipeline

    check_outputs({"--out": (args.out, FILM_SUFFIXES)}, [args.video])
    pipe = CinePoetPipeline(open_bundle(args.model), compute_of(args))
    if not pipe.config.upscaled_size:
        raise ValueError(f"the model {args.model} has no super-resolution")
    info, fps = probe(args.video), pipe.config.fps
    with_sound = info.has_audio and not args.no_sound
    if with_sound and args.out.suffix.lower() == ".gif":
        raise ValueError("a .gif holds no sound; add --no-sound or choose .mp4")
    if info.duration_s and info.duration_s > args.seconds + 0.05:
        note(f"{args.video}: {info.duration_s:.1f} s long, the first {args.seconds:g} s are taken (--seconds)")
    most = max(1, round(args.seconds * fps))
    clip = read_video(args.video, fps=fps, num_frames=most, size=pipe.config.size)
    frames = clip.frames[:, : most - clip.held_frames]
    sound = None
    if with_sound:
        samples = round(frames.shape[1] / fps * _SOUND_HZ)
        channels = 2 if (info.channels or 1) > 1 else 1
        sound = read_audio(args.video, sample_rate=_SOUND_HZ, num_samples=samples, channels=channels).samples
    notes: list[str] = []
    generator = torch.Generator().manual_seed(args.seed)
    sharp = pipe.upscale(frames, prompt=prompt, generator=generator, notes=notes)[0]
    for line in notes:
        note(line)
    write_film(args.out, sharp, fps=fps, audio=sound, sample_rate=_SOUND_HZ)
    print(describe_film(args.out, sharp, fps, sound is not None))
    return 0
