"""Frozen networks behind the metrics: their weights by file, their features of clips, how each is told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.features.squeezenet import SqueezeNet
from mmtok.features.vgg import LPIPS

I3D_FRAMES, I3D_SIZE = 10, 224  # the least the network takes, and its side in pixels


@dataclass(frozen=True)
class Backbones:
    """Networks that some metrics need; a metric whose network is None is left out.

    Attributes:
        squeezenet: for Fréchet distances of frames and differences.
        lpips: the learned distance.
        i3d: (b, 3, t, 224, 224) in [-1, 1] to (b, d), for rFVD.
        i3d_source: its file and hash.
        lpips_source: its files.
    """

    squeezenet: SqueezeNet | None = None
    lpips: LPIPS | None = None
    i3d: Any = None
    i3d_source: str = ""
    lpips_source: str = ""


def load_backbones(*, squeezenet: Path | None, vgg: Path | None, lpips: Path | None, i3d: Path | None) -> Backbones:
    """Networks from a user's files.

    Args:
        squeezenet: SqueezeNet v1.0 as .npz.
        vgg: torchvision's vgg16; with ``lpips``.
        lpips: LPIPS's linear layers; with ``vgg``.
        i3d: TorchScript I3D as FVD code ships it. It is a program and runs: give only one you trust.

    Returns:
        What was given.

    Raises:
        FileNotFoundError: if a file is absent.
        ValueError: if a file holds something else, or only one of ``vgg`` and ``lpips`` is given.
    """
    if (vgg is None) != (lpips is None):
        raise ValueError("LPIPS needs both files, --vgg and --lpips")
    network, source = None, ""
    if i3d is not None:
        if not i3d.is_file():
            raise FileNotFoundError(f"I3D file {i3d} does not exist")
        try:
            network = torch.jit.load(str(i3d), map_location="cpu").eval()
        except RuntimeError as fault:
            raise ValueError(f"{i3d} is no TorchScript: {str(fault).splitlines()[0]}") from fault
        source = f"{_named(i3d)}, frames resized to {I3D_SIZE} (bilinear)"
    return Backbones(
        SqueezeNet.from_npz(squeezenet) if squeezenet is not None else None,
        LPIPS.from_files(vgg, lpips) if vgg is not None and lpips is not None else None,
        network,
        source,
        f"VGG16 {_named(vgg)}, linear {_named(lpips)}" if vgg is not None and lpips is not None else "",
    )


def _named(file: Path) -> str:
    return f"{file.name}, sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"


def i3d_features(network: Any, video: Tensor) -> Tensor:
    """One vector a clip: bilinear to 224, in [-1, 1], the logits of FVD's published I3D.

    Args:
        network: TorchScript.
        video: (b, 3, t, h, w) in [-1, 1], t at least 10.

    Returns:
        (b, d).

    Raises:
        ValueError: for shorter clips.
    """
    if video.shape[2] < I3D_FRAMES:
        raise ValueError(f"rFVD needs clips of at least {I3D_FRAMES} frames, got {video.shape[2]}")
    b, _, t = video.shape[:3]
    frames = video.transpose(1, 2).flatten(0, 1)
    frames = F.interpolate(frames, size=(I3D_SIZE, I3D_SIZE), mode="bilinear", align_corners=False)
    clips = frames.unflatten(0, (b, t)).transpose(1, 2).contiguous()
    schema = getattr(getattr(network, "forward", None), "schema", None)
    options = {argument.name for argument in schema.arguments} if schema is not None else set()
    if {"rescale", "resize", "return_features"} <= options:  # the published file; a bare network has no options
        features = network(clips, rescale=False, resize=False, return_features=True)
    else:
        features = network(clips)
    result: Tensor = features.flatten(1).float()
    return result


def _frames(video: Tensor) -> Tensor:
    return video.transpose(1, 2).flatten(0, 1)


def clip_features(backbones: Backbones, video: Tensor) -> dict[str, Tensor]:
    """Feature vectors of clips, by the metric that compares them.

    Args:
        backbones: networks.
        video: (b, 3, t, h, w) in [-1, 1].

    Returns:
        Name to (n, d): a vector a frame, a difference of frames, or a clip (I3D).
    """
    out: dict[str, Tensor] = {}
    if backbones.squeezenet is not None:
        out["frechet_squeezenet_frames"] = backbones.squeezenet.features(_frames(video))
        if video.shape[2] > 1:
            out["frechet_squeezenet_differences"] = backbones.squeezenet.features(_frames(video.diff(dim=2) / 2))
    if backbones.i3d is not None:
        out["rfvd"] = i3d_features(backbones.i3d, video)
    return out


def frechet_protocol(backbones: Backbones, name: str) -> str:
    """Which network a Fréchet distance stands on.

    Args:
        backbones: networks.
        name: of ``clip_features``.

    Returns:
        Its source and how pictures are brought to it.
    """
    if name != "rfvd" and backbones.squeezenet is not None:
        return f"{backbones.squeezenet.source}, frames resized to 227 (bicubic)"
    return backbones.i3d_source


def lpips_of_frames(backbones: Backbones, made: Tensor, video: Tensor) -> list[float]:
    """LPIPS of every frame; none without the network.

    Args:
        backbones: networks.
        made: (b, 3, t, h, w) in [-1, 1].
        video: the same shape.

    Returns:
        b * t distances, or none.
    """
    if backbones.lpips is None:
        return []
    pairs = zip(_frames(made).split(16), _frames(video).split(16), strict=True)
    return [d for a, b in pairs for d in backbones.lpips(a, b).tolist()]
