"""A linear map that is as fast for one row as memory allows.

On a CPU, torch gives a product of a large float32 matrix with one to four rows to a single thread: sampling then reads
weights at 40 % of the memory bandwidth (14 of 35 GB/s on two cores of an AMD EPYC). Cut into four parts the same
product is a batched one, which threads share: 32 GB/s for one row and for two. float16 has such a path in torch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PARTS, MOST_ROWS = 4, 4  # measured; eight rows are as fast either way


class Linear(nn.Linear):
    """``nn.Linear`` with threads for few rows; the weights and their names are the same."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply.

        Args:
            input: (..., in_features).

        Returns:
            (..., out_features).
        """
        rows = input.numel() // max(1, self.in_features)
        if not self._shares(input, rows):
            return super().forward(input)
        columns = input.reshape(rows, -1).T.expand(PARTS, -1, -1)
        made = torch.bmm(self.weight.view(PARTS, -1, self.in_features), columns).view(self.out_features, rows).T
        made = made if self.bias is None else made + self.bias
        return made.reshape(*input.shape[:-1], self.out_features)

    def _shares(self, input: Tensor, rows: int) -> bool:
        return (
            0 < rows <= MOST_ROWS
            and input.device.type == "cpu"
            and input.dtype == self.weight.dtype == torch.float32
            and self.out_features % PARTS == 0
            and self.weight.is_contiguous()
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        )
