"""What a visual tokenizer keeps, in the field's metrics, each with its protocol.

PSNR and SSIM need nothing. LPIPS takes a user's VGG16 and linear layers, rFVD a user's I3D as TorchScript. Without an
I3D there is a Fréchet distance on SqueezeNet features of frames and of frame differences; it is named as such and is
not comparable with rFVD.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.contract import decode_clip
from mmtok.media.image import write_png
from mmtok.metrics.codebook import codebook_use
from mmtok.metrics.frechet import frechet_distance
from mmtok.metrics.visual import psnr_db, ssim
from recipes.evaluate.backbones import Backbones, clip_features, frechet_protocol, lpips_of_frames
from recipes.runtime.progress import track


@torch.inference_mode()
def evaluate_tokenizer(
    tokenizer: Any,
    clips: Tensor,
    *,
    protocol: str,
    backbones: Backbones | None = None,
    batch_size: int = 4,
    sheet: Path | None = None,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """Measure a tokenizer on clips.

    Args:
        tokenizer: a ``VisualTokenizer``.
        clips: (n, 3, t, h, w) uint8, of a length and size that it takes.
        protocol: how the clips were made: files, frames, rate, resize filter and crop.
        backbones: networks for further metrics.
        batch_size: clips a call.
        sheet: PNG that receives originals above reconstructions, or None.
        device: where the tokenizer is.

    Returns:
        Figures by name, and the protocol of each.

    Raises:
        ValueError: if there are no clips or their size does not suit.
    """
    if not len(clips):
        raise ValueError("there are no clips to measure")
    backbones = backbones or Backbones()
    grid = tokenizer.grid(*clips.shape[2:])
    codes: list[Tensor] = []
    rows: dict[str, list[float]] = {}
    features: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    shown: list[Tensor] = []
    for video, again, made in _passes(tokenizer, clips, batch_size, device):
        codes.append(made.flatten().cpu())
        rows.setdefault("psnr_db", []).extend(psnr_db(again, video).tolist())
        if min(video.shape[-2:]) >= 11:
            rows.setdefault("ssim", []).extend(ssim(again, video).tolist())
        if backbones.lpips is not None:
            rows.setdefault("lpips", []).extend(lpips_of_frames(backbones, again, video))
        for side, clip in enumerate((video, again)):
            for name, vectors in clip_features(backbones, clip).items():
                features.setdefault(name, ([], []))[side].append(vectors)
        if len(shown) < 4:
            picked = torch.linspace(0, video.shape[2] - 1, min(5, video.shape[2])).round().long()
            shown += [torch.cat([torch.cat(list(v[0][:, picked].unbind(1)), -1) for v in (video, again)], 1)]
    used, bits = codebook_use(torch.cat(codes), tokenizer.codebook_size)
    n, _, t, h, w = clips.shape
    result: dict[str, Any] = {"protocol": f"{n} clips of {t} frames of {h}x{w}; {protocol}"}
    result |= {name: round(sum(values) / len(values), 4) for name, values in rows.items()}
    result |= {
        "psnr_protocol": "of each clip's mean squared error on [-1, 1] (peak 2), mean over clips",
        "ssim_protocol": "11x11 Gaussian of 1.5, mean over places, frames and colours, then clips",
        "codes_used": round(used, 4),
        "entropy_bits": round(bits, 3),
        "codebook_size": tokenizer.codebook_size,
        "tokens_per_clip": math.prod(grid),
        "bits_per_pixel": round(math.prod(grid) * math.log2(tokenizer.codebook_size) / (t * h * w), 5),
    }
    if "ssim" not in result:
        result["ssim_protocol"] = "left out: the window of 11 pixels is larger than the picture"
    if backbones.lpips is not None:
        result["lpips_protocol"] = f"LPIPS 0.1, {backbones.lpips_source}, mean over frames"
    for name, (real, fake) in features.items():
        a, b = torch.cat(real), torch.cat(fake)
        result[name] = round(frechet_distance(a, b), 4) if len(a) > 1 else math.nan
        source = frechet_protocol(backbones, name)
        result[f"{name}_protocol"] = f"Frechet distance of {len(a)} + {len(b)} vectors of width {a.shape[1]}, {source}"
    if sheet is not None:
        write_png(sheet, torch.cat(shown, 1))
    return result


def _passes(tokenizer: Any, clips: Tensor, batch_size: int, device: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of (clip, reconstruction, codes), pictures in [-1, 1] on the CPU."""
    size = (clips.shape[2], clips.shape[3], clips.shape[4])
    for start in track(range(0, len(clips), batch_size), title="clips"):
        video = clips[start : start + batch_size].float() / 127.5 - 1
        codes = tokenizer.encode(video.to(device))
        yield video, decode_clip(tokenizer, codes, size).float().cpu(), codes
