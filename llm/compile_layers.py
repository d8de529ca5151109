"""Compile the layers of a model by themselves, where that can be done."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

FORMS = 64  # compiled forms of a layer, one a shape


def compile_each(layers: Iterable[nn.Module], *, backend: str = "inductor") -> bool:
    """Compile every layer with ``torch.compile``; names and values of the weights stay.

    All layers of one kind share compiled forms, and torch's limit of 8 of them is raised. On a CPU inductor needs a C++
    compiler; without one the layers stay as they are and a warning says so.

    Args:
        layers: with weights, all on one device.
        backend: of ``torch.compile``.

    Returns:
        True where the layers will be compiled, each when it is first called.
    """
    layers = tuple(layers)
    on_cpu = backend == "inductor" and all(p.device.type == "cpu" for layer in layers for p in layer.parameters())
    if on_cpu and not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl")):
        warnings.warn("no C++ compiler (g++, clang++ or $CXX) was found; layers run uncompiled", stacklevel=3)
        return False
    limits: Any = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, FORMS)
    for layer in layers:
        layer.compile(backend=backend)
    return True
