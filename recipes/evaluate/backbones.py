"""Frozen networks behind the metrics of pictures, from a user's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmtok.features.squeezenet import SqueezeNet
from mmtok.features.vgg import LPIPS
from mmtok.metrics.fvd import I3D


def load_backbones(
    *, squeezenet: Path | None = None, vgg: Path | None = None, lpips: Path | None = None, i3d: Path | None = None
) -> dict[str, Any]:
    """What ``mmtok.metrics.table.make_metrics`` is given; a metric whose network is not there is left out.

    Args:
        squeezenet: SqueezeNet v1.0 as .npz, for Fréchet distances of frames and differences.
        vgg: torchvision's vgg16; with ``lpips``.
        lpips: LPIPS's linear layers; with ``vgg``.
        i3d: TorchScript I3D as FVD code ships it. It is a program and runs: give only one you trust.

    Returns:
        Network by the name that rows of the table have for it.

    Raises:
        FileNotFoundError: if a file is absent.
        ValueError: if a file holds something else, or only one of ``vgg`` and ``lpips`` is given.
    """
    networks: dict[str, Any] = {}
    if vgg is not None and lpips is not None:
        networks["lpips"] = LPIPS.from_files(vgg, lpips)
    elif vgg is not None or lpips is not None:
        raise ValueError("LPIPS needs both files, --vgg and --lpips")
    if i3d is not None:
        networks["i3d"] = I3D.from_file(i3d)
    if squeezenet is not None:
        networks["squeezenet"] = SqueezeNet.from_npz(squeezenet)
    return networks
