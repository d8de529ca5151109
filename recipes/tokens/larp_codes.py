"""Clips as LARP codes with what a generator is conditioned on: a class, or the first frames.

Clips come from corpus ``shapes`` (a class is a shape with a motion) or from a folder of films, where the name of a
film's folder is its class, as UCF-101 has it. Codes are the nearest ones, made once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from mmtok.media.errors import MediaError
from mmtok.visual.grid import repeat_last_frame
from mmtok.visual.larp import Larp
from recipes.corpora.folder import VIDEO_SUFFIXES, film_windows
from recipes.corpora.shapes import MOTIONS, SHAPES, ShapesCorpus, render_video
from recipes.runtime.device import Compute
from recipes.runtime.progress import track
from recipes.train.larp_ar import LarpCodes

SHAPES_CLASSES = tuple(
    f"{shape} {motion}" for shape in SHAPES for motion in MOTIONS if (shape, motion) != ("circle", "spins")
)
Labelled = Iterator[tuple[Tensor, str]]
"""Clips (3, t, h, w) in [-1, 1], each with the name of its class."""


def shapes_clips(tokenizer: Larp, *, first: int, count: int, seed: int = 0, split: str = "train") -> Labelled:
    """Scenes at the tokenizer's length and size.

    Args:
        tokenizer: tells them.
        first: number of the first scene.
        count: how many.
        seed: of the corpus.
        split: of the corpus.

    Yields:
        Clips with their classes, members of ``SHAPES_CLASSES``.
    """
    corpus, params = ShapesCorpus(seed, split), tokenizer.params
    for index in range(first, first + count):
        scene = corpus.scene(index)
        clip = render_video(scene, size=params.size, num_frames=params.num_frames)
        yield clip, f"{scene.shape} {scene.motion}"


def folder_clips(tokenizer: Larp, root: Path, *, windows: int = 4, seed: int = 0) -> Labelled:
    """Windows of the films in a folder, spread over their lengths; what cannot be read is left out with a printed line.

    Films come in an order drawn by the seed, so that the first so many are of all classes.

    Args:
        tokenizer: tells length, size and clock.
        root: the folder; a film's class is the name of the folder that it lies in.
        windows: most windows a film.
        seed: of the order.

    Yields:
        Clips with their classes.
    """
    params, films = tokenizer.params, folder_films(root)
    for number in torch.randperm(len(films), generator=torch.Generator().manual_seed(seed)).tolist():
        path = films[number]
        try:
            for frames in film_windows(
                path, size=params.size, num_frames=params.num_frames, fps=tokenizer.fps, most=windows
            ):
                yield frames, path.parent.name
        except MediaError as fault:
            print(f"left out: {fault}")


def folder_films(root: Path) -> list[Path]:
    """Films in a folder and below it, by name.

    Args:
        root: the folder.

    Returns:
        Their paths.

    Raises:
        ValueError: if there are none.
    """
    films = sorted(p for p in root.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not films:
        raise ValueError(f"{root} holds no films ({', '.join(sorted(VIDEO_SUFFIXES))})")
    return films


def folder_classes(root: Path) -> tuple[str, ...]:
    """Names of the folders that films lie in, sorted as UCF-101's labels are.

    Args:
        root: the folder.

    Returns:
        The names.
    """
    return tuple(sorted({film.parent.name for film in folder_films(root)}))


def first_frames(video: Tensor, given: int) -> Tensor:
    """The condition of frame prediction: the first frames, filled up with the last of them.

    Args:
        video: (b, 3, t, h, w).
        given: frames that are known.

    Returns:
        (b, 3, t, h, w).
    """
    return repeat_last_frame(video[:, :, :given], video.shape[2])


def encode_clips(
    tokenizer: Larp,
    clips: Labelled,
    *,
    count: int,
    classes: tuple[str, ...],
    given_frames: int | None,
    compute: Compute,
    seed: int = 0,
    batch_size: int = 16,
) -> LarpCodes:
    """Codes of clips, in an order drawn by the seed, so that the last ones are a fair sample.

    Args:
        tokenizer: frozen.
        clips: what to encode.
        count: how many there are at most, for the progress bar.
        classes: names in the order of their labels.
        given_frames: frame prediction from that many frames; None conditions on the class.
        compute: device and precision; codes come from float32.
        seed: of the order.
        batch_size: clips a call.

    Returns:
        The codes.

    Raises:
        ValueError: if there are no clips, or ``given_frames`` leaves nothing to predict.
    """
    length = tokenizer.params.num_frames
    if given_frames is not None and not 1 <= given_frames < length:
        raise ValueError(f"given_frames ({given_frames}) must lie in [1, {length - 1}], the clip has {length}")
    codes: list[Tensor] = []
    conditions: list[Tensor] = []
    names: list[str] = []
    held: list[Tensor] = []

    def encode() -> None:
        if not held:
            return
        video = torch.stack(held).to(compute.device)
        held.clear()
        codes.append(tokenizer.encode(video)[:, 0].cpu())
        if given_frames is not None:
            conditions.append(tokenizer.encode(first_frames(video, given_frames))[:, 0].cpu())

    for _, (clip, name) in zip(track(range(count), title="codes"), clips, strict=False):
        held.append(clip)
        names.append(name)
        if len(held) == batch_size:
            encode()
    encode()
    if not codes:
        raise ValueError("there are no clips to encode")
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    rows = torch.cat(codes)[order]
    if given_frames is not None:
        return LarpCodes(rows, torch.cat(conditions)[order], tokenizer.codebook_size, 0)
    labels = torch.tensor([classes.index(name) for name in names])[order]
    return LarpCodes(rows, labels, tokenizer.codebook_size, len(classes), classes)
