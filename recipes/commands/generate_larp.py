"""``cinepoet generate`` with a LARP generator: a clip of a class, or the frames behind the first ones of a film."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from recipes.terminal.options import preview_path
from recipes.terminal.report import check_outputs, describe_film, note

GUIDANCE = 1.25  # of the published class-conditional sampling


def is_generator(name: str) -> bool:
    """Whether a model is a LARP generator rather than a bundle.

    Args:
        name: embedded name, folder or hub id.

    Returns:
        False also for what does not exist, which is told later.
    """
    folder = Path(name)
    if not folder.is_dir():
        if "/" not in name:  # an embedded name
            return False
        from mmtok.pretrained import resolve_folder

        try:
            folder = resolve_folder(name)
        except FileNotFoundError:
            return False
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    if isinstance(config, dict) and "family" in config:
        return str(config["family"]).startswith("larp-ar")
    from llm.loading import is_published

    return is_published(folder)


def run_larp(args: argparse.Namespace) -> int:
    """Generate one clip.

    Args:
        args: of ``cinepoet generate``.

    Returns:
        The exit code.

    Raises:
        ValueError: for options that such a model does not take.
    """
    from recipes.commands.generate import FILM_OPTIONS
    from recipes.runtime.progress import sampling_bar

    flags = ("no_upscale", "no_sound", "paste_back", "exact_first_frame")
    asked = {"a PROMPT": args.prompt, "--task": None if args.task == "auto" else args.task}
    asked |= {f"--{name.replace('_', '-')}": getattr(args, name) for name in FILM_OPTIONS}
    asked |= {f"--{name.replace('_', '-')}": getattr(args, name) or None for name in flags}
    asked |= {"--candidates": args.candidates if args.candidates > 1 else None, "--feather": args.feather or None}
    for name, given in asked.items():
        if given is not None:
            raise ValueError(f"LARP generators take --class or --video, not {name}")
    if args.label is not None and args.first_frames is not None:
        raise ValueError("--first-frames counts frames of --video; --class takes none")
    if (args.label is None) == (args.video is None):
        raise ValueError("a LARP generator takes either --class (class-conditional) or --video (frame prediction)")
    if not is_generator(args.model):
        raise ValueError(f"{args.model} is not a LARP generator; --class is for these (cinepoet train larp-ar)")
    preview = preview_path(args, before="the other options")
    started = time.monotonic()
    import torch

    from mmtok.media.video import FILM_SUFFIXES
    from recipes.pipeline.larp import LarpPipeline
    from recipes.terminal.report import compute_of, profile_table

    imports_s = time.monotonic() - started
    outputs: dict[str, tuple[Path, tuple[str, ...]]] = {"--out": (args.out, FILM_SUFFIXES)}
    if preview is not None:
        outputs["--preview"] = (preview, (".png",))
    check_outputs(outputs, [args.video])
    compute_of(args)  # threads, and a device that is known
    pipe = LarpPipeline.from_pretrained(args.model, tokenizer=args.tokenizer, device=args.device)
    video = None if args.video is None else _first_frames(args, pipe)
    guidance = args.guidance_scale
    if guidance is None:
        guidance = 1.0 if pipe.model.config.frame_prediction else GUIDANCE
    loaded_s = time.monotonic() - started - imports_s
    with sampling_bar() as on_step:
        output = pipe(
            classes=None if args.label is None else [args.label],
            video=video,
            cfg_scale=guidance,
            cfg_steps=args.cfg_steps,
            num_tokens=args.num_tokens,
            temperature=args.temperature if args.temperature is not None else 1.0,
            top_k=args.top_k,
            top_p=args.top_p,
            generator=torch.Generator().manual_seed(args.seed),
            on_step=on_step,
        )
    output.save(args.out, preview=preview)
    print(describe_film(args.out, output.frames, output.fps, False))
    if preview is not None:
        print(f"{preview}: preview")
    if args.profile:
        stages = {"imports": imports_s, "loading, reading media": loaded_s, **output.seconds}
        print(profile_table(stages, time.monotonic() - args.started))
    return 0


def _first_frames(args: argparse.Namespace, pipe: Any) -> Any:
    """The first frames of a film at the tokenizer's size and clock, as a batch of one."""
    from mmtok.media.video import read_video

    params, known = pipe.tokenizer.params, args.first_frames or pipe.model.given_frames
    clip = read_video(args.video, fps=pipe.tokenizer.fps, num_frames=known, size=params.size)
    if clip.held_frames:
        note(f"{args.video}: has fewer than {known} frames at {pipe.tokenizer.fps:g} fps; the last is held")
    return clip.frames[None]
