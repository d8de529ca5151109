"""The second clip that some tasks read: masked pictures, or flow and depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmtok.conditions.commit_masks import PAINTINGS, make_condition
from mmtok.conditions.structure import OpenCVFlow, depth_estimator, make_structure, saturation_depth
from recipes.runtime.device import Compute
from recipes.runtime.seeds import step_generator
from recipes.tokens.plan import STRUCTURE, PrepareConfig


def condition_of(name: str, video: Tensor, *, stride: tuple[int, int, int], numbers: list[int]) -> Tensor:
    """The clip whose codes are a condition.

    Args:
        name: as in ``EncodeConfig.conditions``.
        video: (b, 3, t, h, w) in [-1, 1].
        stride: of the visual tokenizer.
        numbers: b numbers of the scenes, which draw a mask where the name leaves it open.

    Returns:
        (b, 3, t, h, w) in [-1, 1].

    Raises:
        ImportError: if structure is asked for and OpenCV is not installed.
    """
    if name == STRUCTURE:
        return make_structure(video, flow=OpenCVFlow(), depth=saturation_depth)
    kinds = PAINTINGS.get(name, (name,))
    masks = [kinds[int(torch.randint(len(kinds), (1,), generator=step_generator(0, number)))] for number in numbers]
    return torch.cat(
        [make_condition(clip[None], mask, stride=stride).video for clip, mask in zip(video, masks, strict=True)]
    )


@dataclass(frozen=True)
class Tokenizing:
    """What turns clips into codes.

    Attributes:
        visual: a ``VisualTokenizer`` with a grid of three axes.
        audio: an ``AudioTokenizer``, or None to leave sound out.
        compute: where they are.
    """

    visual: Any
    audio: Any
    compute: Compute


def condition_settings(config: PrepareConfig) -> dict[str, Any]:
    """Plain values that each condition is made with, for dataset.json."""
    painted = {"latent_exact": False}
    structure = {"flow": config.flow, "depth": config.depth}
    return {name: structure if name == STRUCTURE else painted for name in config.conditions}


def condition_makers(config: PrepareConfig, tokenizing: Tokenizing) -> dict[str, Callable[[Tensor], Tensor]]:
    """Functions that make a condition's clip (b, 3, t, h, w) of the clip.

    Args:
        config: what is wanted.
        tokenizing: for the stride, and for the device of the depth estimator.

    Returns:
        Name to function.

    Raises:
        ImportError: if the structure is wanted and OpenCV is not there.
        FileNotFoundError: if the weights of the depth estimator are not there.
        ValueError: if a condition needs what the tokenizer has not.
    """
    stride = tuple(tokenizing.visual.stride)
    makers: dict[str, Callable[[Tensor], Tensor]] = {}
    for name in config.conditions:
        if name == STRUCTURE:
            depth = depth_estimator(config.depth, device=tokenizing.compute.device)
            makers[name] = partial(make_structure, flow=OpenCVFlow(config.flow), depth=depth)
        else:
            makers[name] = lambda video, name=name: make_condition(video, name, stride=stride).video  # type: ignore[misc]
    return makers
