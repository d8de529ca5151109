"""Weights kept as plain arrays in an .npz file, read without running anything in it.

A matrix may stand as ``NAME.weight_int8`` with ``NAME.weight_scale``, one number for each output: their product is its
weight.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mmtok.pretrained import load_strictly

if TYPE_CHECKING:
    from typing_extensions import Self


def read_arrays(path: Path, title: str) -> dict[str, Tensor]:
    """All arrays of a file.

    Args:
        path: .npz of plain arrays.
        title: whose weights they are, for the error.

    Returns:
        Name to tensor, of the types in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{title} weights {path} do not exist")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    except (ValueError, OSError, EOFError, TypeError, KeyError, AttributeError, zipfile.BadZipFile) as fault:
        raise ValueError(f"{path} is not an .npz of plain arrays: {fault}") from fault


def _weights(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name to floats, int8 matrices by their scales."""
    tensors = {}
    for name, array in arrays.items():
        if name.endswith(".weight_int8"):
            layer = name.removesuffix(".weight_int8")
            scale = arrays.get(f"{layer}.weight_scale")
            if scale is None or array.ndim < 2 or scale.shape != array.shape[:1]:
                raise ValueError(f"{name} needs {layer}.weight_scale with one number for each output")
            tensors[f"{layer}.weight"] = array.float() * scale.float().view(-1, *[1] * (array.ndim - 1))
        elif not name.endswith(".weight_scale"):
            tensors[name] = array.float()
    return tensors


class FrozenNetwork(nn.Module):
    """A network whose published weights are plain arrays; its class takes no arguments.

    Attributes:
        title: its name and version.
        source: what its weights are, with a hash, for protocols.
    """

    title: str
    source: str

    @classmethod
    def from_npz(cls, path: str | Path) -> Self:
        """The network with published weights.

        Args:
            path: .npz of plain arrays.

        Returns:
            The network.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it does not hold these arrays.
        """
        path, model = Path(path), cls()
        arrays = read_arrays(path, cls.__name__)
        try:
            load_strictly(model, _weights(arrays))
        except ValueError as fault:
            raise ValueError(f"{path}: {fault}") from fault
        model.source = f"{cls.title}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
        return model
