"""The numbers that define one super-resolution transformer, and its named sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mmtok.find import find
from superres.windows import Size, Windows, fit_window, low_size, windows_for


@dataclass(frozen=True)
class SuperResConfig:
    """Sizes of a token transformer that doubles height and width.

    Attributes:
        grid: (t, h, w) high-resolution tokens; the largest grid the model takes.
        windows: the vertical, horizontal and temporal window, each (t, h, w) tokens that tile ``grid``.
        factor_sizes: sizes of the factors of one code, least significant first; their product is the codebook size.
        dim: width of the transformer.
        num_blocks: multi-axis blocks of three layers.
        num_heads: attention heads.
        hidden_dim: width inside the gated feed-forward layers.
        text_dim: width of the text embeddings.
        norm_eps: added to mean squares in RMSNorm.
        low_residual: also add the embedding of the low-resolution code underneath to every high-resolution position.
            The paper has cross-attention alone, which first has to find out where "underneath" is.
    """

    grid: Size
    windows: Windows
    factor_sizes: tuple[int, ...]
    dim: int
    num_blocks: int
    num_heads: int
    hidden_dim: int
    text_dim: int
    norm_eps: float = 1e-6
    low_residual: bool = False

    def __post_init__(self) -> None:
        for name in ("dim", "num_blocks", "num_heads", "hidden_dim", "text_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.dim % self.num_heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of num_heads ({self.num_heads})")
        if not self.factor_sizes or any(size < 2 for size in self.factor_sizes):
            raise ValueError(f"factor_sizes must name factors of at least 2 values, got {self.factor_sizes}")
        if len(self.windows) != 3:
            raise ValueError(f"windows must be vertical, horizontal and temporal, got {self.windows}")
        low_size(self.grid)
        for window in self.windows:
            if fit_window(window, self.grid) != window:
                raise ValueError(f"the window {window} is larger than the grid {self.grid}")
            low_size(window)

    @property
    def codebook_size(self) -> int:
        """Values of one whole code."""
        return math.prod(self.factor_sizes)

    @property
    def low_grid(self) -> Size:
        """(t, h, w) low-resolution tokens under ``grid``."""
        return low_size(self.grid)


def factor_sizes_for(codebook_size: int) -> tuple[int, int]:
    """Two factors of about the same size, the larger first: (512, 512) for 2**18, (256, 250) for 64000.

    Args:
        codebook_size: values of one code.

    Returns:
        Sizes whose product is ``codebook_size``.

    Raises:
        ValueError: if it is not a product of two numbers above 1.
    """
    for high in range(math.isqrt(codebook_size), 1, -1):
        if codebook_size % high == 0:
            return codebook_size // high, high
    raise ValueError(f"codebook_size ({codebook_size}) is not a product of two numbers above 1")


# "sr1-1b" and "sr2-500m" have the published grids, windows and totals of the two stages; their width and depth are
# unpublished and ours. "tiny" belongs to the model shipped with the package; "nano" is for tests.
SIZES = ("grid", "factor_sizes", "dim", "num_blocks", "num_heads", "hidden_dim", "text_dim")
_2_12, _2_18 = factor_sizes_for(2**12), factor_sizes_for(2**18)
PRESETS: dict[str, dict[str, Any]] = {
    "nano": dict(zip(SIZES, ((5, 16, 16), _2_12, 32, 1, 2, 64, 16), strict=True)),
    "tiny": dict(zip(SIZES, ((5, 16, 16), _2_12, 128, 2, 2, 320, 128), strict=True)) | {"low_residual": True},
    "sr1-1b": dict(zip(SIZES, ((5, 56, 32), _2_18, 1536, 7, 24, 4096, 2048), strict=True)),
    "sr2-500m": dict(zip(SIZES, ((5, 112, 64), _2_18, 1024, 8, 16, 2816, 2048), strict=True)),
}


def preset(name: str, **changes: Any) -> SuperResConfig:
    """A named size, with some numbers replaced.

    Args:
        name: a key of ``PRESETS``.
        changes: fields of ``SuperResConfig`` that differ, such as the grid; without ``windows`` those of
            ``windows_for(grid)`` are taken.

    Returns:
        The config.

    Raises:
        ValueError: for an unknown name, with the known ones.
    """
    values = {**find(PRESETS, name, "super-resolution size"), **changes}
    values.setdefault("windows", windows_for(values["grid"]))
    return SuperResConfig(**values)
