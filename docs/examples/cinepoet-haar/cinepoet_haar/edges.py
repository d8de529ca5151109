"""A metric: how far the edges of what was made are from those of the original.

Shape letters: b batch, c channels, t h w time/height/width.
"""

from __future__ import annotations

from torch import Tensor

from mmtok.metrics.mean import Mean


class Edges(Mean):
    """Mean absolute difference of the steps between neighbouring pixels, of each clip."""

    protocol = "steps to the right and down on [-1, 1], mean over places, frames and colours, then clips"

    def _compare(self, real: Tensor, again: Tensor) -> Tensor:
        """(b,) differences."""
        return sum((real.diff(dim=d) - again.diff(dim=d)).abs().flatten(1).mean(1) for d in (3, 4)) / 2
