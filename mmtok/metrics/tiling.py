"""What tiles change, against the whole picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmtok.metrics.visual import psnr_db
from mmtok.visual.tiling import TiledTokenizer


@dataclass(frozen=True)
class TilingError:
    """What tiles change.

    Attributes:
        changed_codes: share of codes that differ from those of the whole picture, in [0, 1].
        psnr_db: of the whole codes decoded in tiles against decoded at once; infinite where equal.
        round_trip_db: change of the full round trip's PSNR against the video, tiled minus whole; negative is a loss.
    """

    changed_codes: float
    psnr_db: float
    round_trip_db: float


def tiling_error(tokenizer: Any, video: Tensor, *, tile: int, overlap: int) -> TilingError:
    """How far tiles lead away from the whole picture.

    Args:
        tokenizer: a ``VisualTokenizer`` with ``clamp`` in ``decode``.
        video: (b, 3, t, h, w) in [-1, 1].
        tile: see ``TiledTokenizer``.
        overlap: see ``TiledTokenizer``.

    Returns:
        The three figures, means over the clips.
    """
    tiled = TiledTokenizer(tokenizer, tile=tile, overlap=overlap)
    codes, tiled_codes = tokenizer.encode(video), tiled.encode(video)
    whole, pieces = tokenizer.decode(codes), tiled.decode(codes)
    round_trips = (whole, tiled.decode(tiled_codes))
    now, then = (float(psnr_db(made, video).mean()) for made in round_trips)
    return TilingError(
        changed_codes=float((codes != tiled_codes).float().mean()),
        psnr_db=float(psnr_db(pieces, whole).mean()),
        round_trip_db=then - now,
    )
