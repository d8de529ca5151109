"""Clips as LARP codes with what a generator is conditioned on: a class, or the first frames.

Clips come from corpus ``shapes`` (a class is a shape with a motion) or from a folder of films, where the name of a
film's folder is its class, as UCF-101 has it. Codes are the nearest ones, made once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmtok.files import write_tensors
from mmtok.media.errors import MediaError
from mmtok.visual.grid import repeat_last_frame
from mmtok.visual.larp import Larp
from recipes.corpora.folder import VIDEO_SUFFIXES, film_windows
from recipes.corpora.shapes import MOTIONS, SHAPES, ShapesCorpus, render_video
from recipes.runtime.device import Compute
from recipes.runtime.progress import track

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
    """Films in a folder and below it, by name; none is refused."""
    films = sorted(p for p in root.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not films:
        raise ValueError(f"{root} holds no films ({', '.join(sorted(VIDEO_SUFFIXES))})")
    return films


def folder_classes(root: Path) -> tuple[str, ...]:
    """Names of the folders that films lie in, sorted as UCF-101's labels are."""
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


@dataclass(frozen=True)
class LarpCodes:
    """Codes of clips and what they are conditioned on.

    Attributes:
        codes: (rows, n) of the clips.
        condition: (rows,) class labels, or (rows, n) codes of the first frames, repeated to a clip.
        codebook_size: of the tokenizer.
        num_classes: labels there are; 0 for frame prediction.
        classes: names of the labels, or none.
    """

    codes: Tensor
    condition: Tensor
    codebook_size: int
    num_classes: int
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.codes) != len(self.condition):
            raise ValueError(f"{len(self.codes)} clips have {len(self.condition)} conditions")
        if (self.condition.ndim == 1) != bool(self.num_classes):
            raise ValueError("class labels have one axis and num_classes; codes of first frames two and none")
        if self.classes and len(self.classes) != self.num_classes:
            raise ValueError(f"{len(self.classes)} names do not fit {self.num_classes} classes")
        if int(self.codes.max()) >= self.codebook_size:
            raise ValueError(f"codes up to {int(self.codes.max())} do not fit a codebook of {self.codebook_size}")

    def save(self, file: Path) -> None:
        """Write as safetensors, replacing the file atomically."""
        facts = {"codebook_size": str(self.codebook_size), "num_classes": str(self.num_classes)}
        facts["classes"] = json.dumps(self.classes)
        write_tensors({"codes": self.codes.int(), "condition": self.condition.int()}, file, facts)

    @classmethod
    def load(cls, file: Path) -> LarpCodes:
        """Read what ``save`` wrote."""
        from safetensors import safe_open

        if not file.is_file():
            raise FileNotFoundError(f"codes {file} do not exist")
        with safe_open(file, "pt") as stored:
            facts = stored.metadata()
            codes, condition = stored.get_tensor("codes").long(), stored.get_tensor("condition").long()
        classes = tuple(json.loads(facts["classes"]))
        return cls(codes, condition, int(facts["codebook_size"]), int(facts["num_classes"]), classes)
