"""Weights in one byte: int8 with a scale for each output, for sampling only (weight-only quantization).

A step of sampling reads every weight once, so its time is their bytes. Products take torch's int8 kernel for few rows
on a CPU, whose other side is bfloat16; many rows (the prefix) and other devices turn the weights back into floats,
which saves memory and no time. The scale of an output brings its largest weight to 127, as ``save_pretrained`` with
``dtype=torch.int8`` does, so a model that was stored that way gives its stored integers again.

Shape letters: i inputs, o outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_ROWS = 8  # beyond, a product of floats is quicker (one core of an AMD EPYC)


class Int8Linear(nn.Module):
    """A linear map without bias whose weights are int8.

    Args:
        codes: (o, i) int8.
        scale: (o,) float, what one unit of a code is worth.
    """

    codes: Tensor
    scale: Tensor

    def __init__(self, codes: Tensor, scale: Tensor):
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    @classmethod
    def of(cls, weight: Tensor) -> Int8Linear:
        """Round (o, i) floats; an entry is off by at most half of 1/127 of its row's largest."""
        rows = weight.detach().float()
        scale = rows.abs().amax(1).clamp(min=1e-12) / 127
        return cls((rows / scale[:, None]).round().to(torch.int8), scale.to(weight.dtype))

    @property
    def weight(self) -> Tensor:
        """(o, i) the weights as floats again, made anew at each call."""
        return self.codes.to(self.scale.dtype) * self.scale[:, None]

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Some of the outputs.

        Args:
            x: (..., i).
            start: first output.
            stop: one past the last output.

        Returns:
            (..., stop - start).
        """
        return int8_linear(x, self.codes[start:stop], self.scale[start:stop])

    def forward(self, x: Tensor) -> Tensor:
        """Apply: (..., i) to (..., o)."""
        return int8_linear(x, self.codes, self.scale)


def int8_linear(x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """``x @ (codes * scale).T`` without writing the floats down where there is a kernel for that.

    Args:
        x: (..., i) floats.
        codes: (o, i) int8.
        scale: (o,) floats.

    Returns:
        (..., o) of ``x``'s type.
    """
    flat = x.reshape(-1, x.shape[-1])
    if x.device.type == "cpu" and len(flat) <= MOST_ROWS:
        half = torch.bfloat16
        made = torch._weight_int8pack_mm(flat.to(half).contiguous(), codes, scale.to(half)).to(x.dtype)
    else:
        made = F.linear(flat, codes.to(x.dtype)) * scale.to(x.dtype)
    return made.view(*x.shape[:-1], len(codes))
