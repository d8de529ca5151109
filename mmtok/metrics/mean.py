"""The simplest metric: each clip or sound has a figure of its own, and a set's figure is their mean."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self


class Mean:
    """Mean of the figures that there are.

    Subclasses say ``protocol``, and ``compare`` or, where a function of two media does not do, ``_compare``. The single
    figures stay in ``values``, so that who wants to know how sure a mean is can draw from them.

    Attributes:
        compare: function of what was made and of the originals, with a figure for each.
    """

    protocol = ""
    compare: Callable[[Tensor, Tensor], Tensor]

    def __init__(self) -> None:
        self.values: list[float] = []  # NaN where a clip has no figure

    def _compare(self, real: Tensor, again: Tensor) -> Tensor:
        """(b,) figures of a batch."""
        return self.compare(again, real).flatten()

    def update(self, real: Tensor, again: Tensor) -> None:
        """Take a batch in.

        Args:
            real: originals, (b, ...).
            again: what was made of them, of the same shape.
        """
        self.values += self._compare(real, again).tolist()

    @property
    def valid(self) -> list[float]:
        """The figures that there are."""
        return [value for value in self.values if not math.isnan(value)]

    def value(self) -> float:
        """The mean; NaN where nothing has a figure."""
        return sum(self.valid) / len(self.valid) if self.valid else math.nan

    def another(self) -> Self:
        """An empty one of the same kind, for something else that was made of the same originals."""
        other = copy.copy(self)
        other.values = []
        return other
