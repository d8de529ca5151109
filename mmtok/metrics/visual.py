"""How close a reconstruction is, and how evenly a vocabulary is used.

Shape letters: b batch, c channels, t h w time/height/width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from mmtok.metrics.mean import Mean

if TYPE_CHECKING:
    from mmtok.features.vgg import LPIPS

SSIM_WINDOW = 11  # pixels


def psnr_db(reconstruction: Tensor, video: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each clip for data in [-1, 1] (peak to peak 2).

    Args:
        reconstruction: (b, c, t, h, w) or (b, c, h, w).
        video: the same shape.

    Returns:
        (b,) decibels; infinite where the two are equal. A set's figure is the mean over its clips.

    Raises:
        ValueError: if the shapes differ.
    """
    _same_shape(reconstruction, video)
    error = (reconstruction.float() - video.float()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(4 / error)


def ssim(reconstruction: Tensor, video: Tensor) -> Tensor:
    """Structural similarity of each clip, the mean over frames and colours (Wang et al. 2004).

    The reference setting: an 11 x 11 Gaussian window of deviation 1.5, constants 0.01 and 0.03 of the range, positions
    where the window fits.

    Args:
        reconstruction: (b, c, t, h, w) in [-1, 1], h and w at least 11.
        video: the same shape.

    Returns:
        (b,) in [-1, 1].

    Raises:
        ValueError: if the shapes differ or the pictures are smaller than the window.
    """
    _same_shape(reconstruction, video)
    if min(video.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"ssim needs pictures of at least 11 x 11, got {tuple(video.shape[-2:])}")
    b = video.shape[0]
    x, y = (v.float().transpose(1, 2).reshape(-1, 1, *v.shape[-2:]) for v in (reconstruction, video))
    offsets = torch.arange(11, device=x.device) - 5.0
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = window / window.sum()

    def blur(z: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(z, window.view(1, 1, 11, 1)), window.view(1, 1, 1, 11))

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return similarity.reshape(b, -1).mean(dim=1)


def gradient_energy(video: Tensor) -> Tensor:
    """(b, t, h, w) squared differences of (b, c, t, h, w) to the right and lower neighbour, means over c: sharpness."""
    video = video.float()
    across = F.pad(video.diff(dim=-1), (0, 1)).square()
    down = F.pad(video.diff(dim=-2), (0, 0, 0, 1)).square()
    return (across + down).mean(1)


def seam_ratio(video: Tensor, joints: Sequence[int], *, dim: int = 2) -> Tensor:
    """Change over the joints of a film or picture that was made piece by piece, over the change elsewhere.

    1.0 is no seam. What is shown may change by itself at a joint: compare with the ratio of the original there.

    Args:
        video: (b, c, t, h, w).
        joints: first places of new pieces along ``dim``, each at least 1.
        dim: 2 for pictures of a film, 3 for rows, 4 for columns.

    Returns:
        (b,) mean absolute difference to the place before, at joints over elsewhere; NaN where nothing changes.

    Raises:
        ValueError: if there is no joint, none lies elsewhere, or one is out of range.
    """
    changes = video.float().diff(dim=dim).abs().transpose(1, dim).flatten(2).mean(2)  # (b, places - 1)
    places = sorted(set(joints))
    if not places or places[0] < 1 or places[-1] > changes.shape[1] or len(places) == changes.shape[1]:
        raise ValueError(f"joints must be some of the places 1 to {changes.shape[1]}, got {places}")
    at = torch.zeros(changes.shape[1], dtype=torch.bool, device=video.device)
    at[torch.tensor(places, device=video.device) - 1] = True
    return changes[:, at].mean(1) / changes[:, ~at].mean(1)


def _same_shape(reconstruction: Tensor, video: Tensor) -> None:
    if reconstruction.shape != video.shape:
        raise ValueError(f"reconstruction {tuple(reconstruction.shape)} and video {tuple(video.shape)} differ in shape")


class Psnr(Mean):
    """Mean ``psnr_db`` of clips; infinite where one is equal to its original."""

    protocol = "of each clip's mean squared error on [-1, 1] (peak 2), mean over clips"
    compare = staticmethod(psnr_db)


class Ssim(Mean):
    """Mean ``ssim`` of clips; none where pictures are smaller than its window."""

    def _compare(self, real: Tensor, again: Tensor) -> Tensor:
        small = min(real.shape[-2:]) < SSIM_WINDOW
        return torch.full((len(real),), torch.nan) if small else ssim(again, real)

    @property
    def protocol(self) -> str:  # type: ignore[override]  # what was left out is known at the end only
        """How it is measured, or why not."""
        if self.values and not self.valid:
            return f"left out: the window of {SSIM_WINDOW} pixels is larger than the picture"
        return "11x11 Gaussian of 1.5, mean over places, frames and colours, then clips"


class Lpips(Mean):
    """Mean learned distance of pictures.

    Args:
        lpips: the network, with ``source``.
    """

    def __init__(self, lpips: LPIPS):
        super().__init__()
        self.network = lpips
        self.protocol = f"LPIPS 0.1, {lpips.source}, mean over frames"

    def _compare(self, real: Tensor, again: Tensor) -> Tensor:
        pairs = (rearrange(v, "b c t h w -> (b t) c h w").split(16) for v in (again, real))  # 16 bound the memory
        return torch.cat([self.network(a, b) for a, b in zip(*pairs, strict=True)]).view(len(real), -1).mean(1)


class Sharpness:
    """Gradient energy of all clips over that of their originals; 1 is as sharp."""

    protocol = "gradient energy (squared differences to the right and lower neighbour) over the originals'"

    def __init__(self) -> None:
        self.real = self.again = 0.0

    def update(self, real: Tensor, again: Tensor) -> None:
        """Take a batch in.

        Args:
            real: originals, (b, 3, t, h, w) in [-1, 1].
            again: what was made of them, of the same shape.
        """
        self.real += float(gradient_energy(real).sum())
        self.again += float(gradient_energy(again).sum())

    def value(self) -> float:
        """The ratio; NaN where the originals have no edges."""
        return self.again / self.real if self.real else math.nan

    def another(self) -> Sharpness:
        """An empty one."""
        return Sharpness()
