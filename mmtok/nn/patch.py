"""Haar patches: a clip as a smaller clip with more channels and back, without weights and without loss.

The wavelet packet of Cosmos' tokenizer (NVIDIA/Cosmos-Tokenizer, Patcher3D): log2(p) rounds of the Haar transform over
*all* bands, scaled so that the first band is the patch's mean. All rounds together are one matrix, used here as such.
Frame 0 is repeated in front, so slot 0 holds frame 0 alone and slot i >= 1 the frames p(i-1)+1 ... p*i: nothing is seen
early. Shape letters: b batch, c channels, t h w time/height/width.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from mmtok.nn.streaming import is_first


def haar_matrix(patch_size: tuple[int, int, int]) -> Tensor:
    """The Haar packet of one patch as a matrix."""
    # Row order is Cosmos': the last round's band is outermost, and within a round LLL, LLH, ... HHH with letters t, h,
    # w (an axis that has fewer rounds than the others lacks its letter in the later ones). Columns go by t, h, w.
    if any(p < 1 or p & (p - 1) for p in patch_size):
        raise ValueError(f"patch_size {patch_size} must be powers of two")
    rounds = [p.bit_length() - 1 for p in patch_size]
    # one binary choice (low, high) per round and axis, outermost first: last round, then time, height, width
    choices = [(r, axis) for r in reversed(range(max(rounds))) for axis in range(3) if r < rounds[axis]]
    rows = []
    voxels = list(itertools.product(*(range(p) for p in patch_size)))
    for band in itertools.product((0, 1), repeat=len(choices)):
        high = [choice for choice, bit in zip(choices, band, strict=True) if bit]
        rows.append([(-1.0) ** sum(voxel[axis] >> r & 1 for r, axis in high) for voxel in voxels])
    return torch.tensor(rows) / len(voxels)


def band_sizes(patch_size: tuple[int, int, int]) -> Tensor:
    """Typical size of each band's coefficients in clips of pictures: smaller the more axes vary, and how often."""
    # Source: ours, a rule close to the root mean squares measured on corpus shapes and real clips at 64 pixels (0.52
    # for the mean, 0.03 to 0.08 for bands of one difference, 0.01 to 0.03 for two, 0.005 to 0.01 for more).
    axes = sum(p.bit_length() - 1 for p in patch_size)
    differences = torch.tensor([sum(band) for band in itertools.product((0, 1), repeat=axes)])
    return torch.where(differences == 0, 0.5, (0.15 * 0.4**differences).clamp(min=0.005))


class HaarPatch(nn.Module):
    """Patches of a clip as Haar coefficients in the channels, and the exact inverse.

    Args:
        patch_size: powers of two, ordered time, height, width; (1, 1, 1) changes nothing.
        channels: channels of the clip.
        normalize: divide every band by ``band_sizes``, so that a network sees and makes numbers of one size. Without it
            the details are 10 to 100 times smaller than the means, and small errors in them add up to large ones.
    """

    matrix: Tensor
    sizes: Tensor

    def __init__(self, patch_size: tuple[int, int, int], channels: int = 3, *, normalize: bool = False):
        super().__init__()
        self.patch_size, self.channels = patch_size, channels
        self.out_channels = channels * math.prod(patch_size)
        self.normalize = normalize
        n = math.prod(patch_size)
        self.register_buffer("matrix", torch.empty(n * channels, n * channels), persistent=False)
        self.register_buffer("sizes", torch.empty(n * channels), persistent=False)
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Fill the constants, also after ``to_empty``."""
        if self.matrix.is_meta:
            return
        # (voxel, channel) to (band, channel): one matrix product on runs that are contiguous in both layouts
        self.matrix.copy_(torch.kron(haar_matrix(self.patch_size), torch.eye(self.channels)))
        sizes = band_sizes(self.patch_size) if self.normalize else torch.ones(math.prod(self.patch_size))
        self.sizes.copy_(sizes.repeat_interleave(self.channels))

    def forward(self, video: Tensor) -> Tensor:
        """Clip to coefficients, in float32 whatever the autocast.

        Args:
            video: (b, c, t, h, w), t = 1 + a multiple of the patch's time, h and w multiples of the patch.

        Returns:
            (b, c * patch, 1 + (t - 1) / pt, h / ph, w / pw); channel = band * c + colour.

        Raises:
            ValueError: if the size does not divide.
        """
        pt, ph, pw = self.patch_size
        b, c, t, h, w = video.shape
        copies = pt - 1 if is_first(self) else 0  # of frame 0, at the start of a clip
        if (t + copies) % pt or h % ph or w % pw:
            raise ValueError(f"a clip of {t} x {h} x {w} does not divide into patches {self.patch_size} after frame 0")
        if self.out_channels == c:
            return video
        video = torch.cat((video[:, :, :1].expand(-1, -1, copies, -1, -1), video), dim=2).float()
        x = video.reshape(b, c, (t + copies) // pt, pt, h // ph, ph, w // pw, pw)
        x = x.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4)  # (b, t, h, w, voxel * c)
        with torch.autocast(video.device.type, enabled=False):
            return (x @ self.matrix.float().T / self.sizes.float()).permute(0, 4, 1, 2, 3)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Coefficients to the clip, in float32 whatever the autocast; the copies of frame 0 are dropped.

        Args:
            coefficients: (b, c * patch, t, h, w) as ``forward`` gives them.

        Returns:
            (b, c, 1 + (t - 1) * pt, h * ph, w * pw).
        """
        pt, ph, pw = self.patch_size
        b, _, t, h, w = coefficients.shape
        if self.out_channels == self.channels:
            return coefficients
        x = coefficients.permute(0, 2, 3, 4, 1).float()
        with torch.autocast(x.device.type, enabled=False):
            x = x * self.sizes.float() @ (self.matrix.float() * math.prod(self.patch_size))
        x = x.reshape(b, t, h, w, pt, ph, pw, self.channels).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.reshape(b, self.channels, t * pt, h * ph, w * pw)[:, :, pt - 1 if is_first(self) else 0 :]
