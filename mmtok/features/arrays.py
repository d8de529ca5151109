"""Weights kept as plain arrays in an .npz file, read without running anything in it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


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
