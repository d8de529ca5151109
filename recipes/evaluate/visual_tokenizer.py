"""What a visual tokenizer keeps, by every metric of pictures in ``mmtok.metrics.table``, each with its protocol.

PSNR and SSIM need nothing. LPIPS takes a user's VGG16 and linear layers, rFVD a user's I3D as TorchScript. Without an
I3D there is a Fréchet distance on SqueezeNet features of frames and of frame differences; it is named as such and is
not comparable with rFVD.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.contract import decode_clip
from mmtok.media.image import write_png
from mmtok.metrics.codebook import CodebookUse
from mmtok.metrics.table import make_metrics
from recipes.evaluate.contract import Material, Result, Subject, evaluate
from recipes.evaluate.held_out import Clips
from recipes.figures.sheets import film_strip

CLIPS_SHOWN = 4  # clips on the sheet


def evaluate_visual(
    subject: Subject,
    tokenizer: Any,
    clips: Clips,
    *,
    networks: dict[str, Any] | None = None,
    batch_size: int = 4,
    sheet: Path | None = None,
    device: str | torch.device = "cpu",
) -> Result:
    """Measure a tokenizer on clips.

    Args:
        subject: who it is.
        tokenizer: a ``VisualTokenizer``.
        clips: of a length and size that it takes.
        networks: of ``load_backbones``, for further metrics.
        batch_size: clips a call.
        sheet: PNG that receives originals above reconstructions, or None.
        device: where the tokenizer is.

    Returns:
        Figures by name.

    Raises:
        ValueError: if there are no clips or their size does not suit.
    """
    grid = tokenizer.grid(*clips.pixels.shape[2:])
    use = CodebookUse(tokenizer.codebook_size)
    shown: list[Tensor] = []

    def again(item: tuple[Tensor, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        video = item[0]
        codes = tokenizer.encode(video.to(device))
        use.update(codes.reshape(1, 1, -1))
        made = decode_clip(tokenizer, codes, tuple(video.shape[2:])).float().cpu()  # type: ignore[arg-type]
        if len(shown) < CLIPS_SHOWN:  # the first clip of a batch
            shown.append(torch.cat([film_strip(film[0]) for film in (video, made)], 1))
        return video, {"again": made}

    measured = evaluate(
        "visual_tokenizer",
        dataclasses.replace(subject, again=again),
        Material(clips.told, clips.batches(batch_size, "clips")),
        make_metrics("pictures", without=("sharpness",), **networks or {}),
    )
    if sheet is not None:
        write_png(sheet, torch.cat(shown, 1))
    tokens, bits = math.prod(grid), math.log2(tokenizer.codebook_size)
    figures = measured.figures["again"] | {
        "codes_used": round(float(use.share()), 4),
        "entropy_bits": round(float(use.entropy_bits()), 3),
        "codebook_size": tokenizer.codebook_size,
        "tokens_per_clip": tokens,
        "bits_per_pixel": round(tokens * bits / math.prod(clips.pixels.shape[2:]), 5),
    }
    return dataclasses.replace(measured, figures=figures)
