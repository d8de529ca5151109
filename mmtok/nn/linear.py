"""A linear map that takes torch's fastest float32 product on a CPU; weights, names and sums are those of ``nn.Linear``.

Few rows: torch gives a product of a large matrix with one to four rows to a single thread, so that sampling reads
weights at 40 % of the memory bandwidth (14 of 35 GB/s on two cores of an AMD EPYC). Cut into four parts the same
product is a batched one, which threads share: 32 GB/s for one row and for two. float16 has such a path in torch.

Many rows: torch's products go to MKL and its convolutions to oneDNN, which is 9 to 15 % faster on that processor
(210 against 188 GFLOP/s for 2,048 rows of 768 to 3,072). A product is a convolution with one tap over rows whose
channels lie last, as they do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PARTS, MOST_ROWS = 4, 4  # of few; eight rows are as fast either way
LEAST_ROWS = 256  # of many


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` by the fastest way there is.

    Args:
        x: (..., in_features).
        weight: (out_features, in_features).
        bias: (out_features,), or None.

    Returns:
        (..., out_features).
    """
    width = weight.shape[1]
    rows = x.numel() // max(1, width)
    if not _is_plain(x, weight):
        return F.linear(x, weight, bias)
    if 0 < rows <= MOST_ROWS and len(weight) % PARTS == 0:
        columns = x.reshape(rows, -1).T.expand(PARTS, -1, -1)
        made = torch.bmm(weight.view(PARTS, -1, width), columns).view(-1, rows).T
        made = made if bias is None else made + bias
    elif rows >= LEAST_ROWS:
        image = x.reshape(1, 1, rows, width).permute(0, 3, 1, 2)  # (1, in_features, 1, rows)
        made = F.conv2d(image, weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    else:
        return F.linear(x, weight, bias)
    return made.reshape(*x.shape[:-1], len(weight))


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Float32 on a CPU, nothing to differentiate or to cast."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and weight.is_contiguous()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class Linear(nn.Linear):
    """``nn.Linear`` by ``linear``."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply: (..., in_features) to (..., out_features)."""
        return linear(input, self.weight, self.bias)
