"""The products of a sampling step: few rows against matrices that are read from memory each time.

Small matrices stay in the processor's cache, where calls cost more than bytes: those that read the same vectors become
one, laid out (in, out), the quickest form for one or two rows. Large ones stay where they are in the model, as a copy
would double its memory, and go through ``mmtok.nn.linear``, which shares a float32 product among threads. Int8 ones go
through ``llm.int8``.

Shape letters: r rows, i inputs, o outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from llm.int8 import Int8Linear, int8_linear
from mmtok.nn.linear import linear

SMALL = 2**20  # entries, 4 MB in float32


class Product(ABC):
    """Layers that read the same vectors, their outputs behind one another."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""

    def plus(self, y: Tensor, x: Tensor) -> Tensor:
        """``y`` and the product of ``x``.

        Args:
            y: (r, o).
            x: (r, i).

        Returns:
            (r, o).
        """
        return y + self(x)


class _Columns(Product):
    """Small floats."""

    def __init__(self, weights: list[Tensor]):
        self.columns = torch.cat(weights).t().contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.columns)

    def plus(self, y: Tensor, x: Tensor) -> Tensor:
        return torch.addmm(y, x, self.columns)


class _Rows(Product):
    """Large floats, as they lie in the model."""

    def __init__(self, weights: list[Tensor]):
        self.weights = weights

    def __call__(self, x: Tensor) -> Tensor:
        made = [linear(x, weight) for weight in self.weights]
        return made[0] if len(made) == 1 else torch.cat(made, dim=-1)


class _Int8(Product):
    """Int8 weights; the small ones joined."""

    def __init__(self, layers: list[Int8Linear]):
        self.parts = [(layer.codes, layer.scale) for layer in layers]
        if sum(codes.numel() for codes, _ in self.parts) <= SMALL:
            self.parts = [(torch.cat([c for c, _ in self.parts]), torch.cat([s for _, s in self.parts]))]

    def __call__(self, x: Tensor) -> Tensor:
        made = [int8_linear(x, codes, scale) for codes, scale in self.parts]
        return made[0] if len(made) == 1 else torch.cat(made, dim=-1)


def product(*layers: nn.Module) -> Product:
    """The quickest product for these linear layers without bias, all floats or all int8."""
    int8 = [layer for layer in layers if isinstance(layer, Int8Linear)]
    if int8:
        return _Int8(int8)
    weights = [layer.get_parameter("weight").detach() for layer in layers]
    return _Columns(weights) if sum(w.numel() for w in weights) <= SMALL else _Rows(weights)


class HeadProduct:
    """Scores of a range of ids.

    Args:
        head: the model's last layer.
    """

    def __init__(self, head: nn.Module):
        self.int8 = head if isinstance(head, Int8Linear) else None
        self.weight = None if self.int8 is not None else head.get_parameter("weight").detach()
        small = self.weight is not None and self.weight.numel() <= 4 * SMALL
        self.columns = self.weight.t().contiguous() if small and self.weight is not None else None

    def __call__(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Multiply with some rows of the head."""
        if self.int8 is not None:
            return self.int8.rows(x, start, stop)
        if self.columns is not None:
            return torch.mm(x, self.columns[:, start:stop])
        assert self.weight is not None, "a head that is not int8 has float weights"
        return linear(x, self.weight[start:stop])
