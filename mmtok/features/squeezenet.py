"""SqueezeNet v1.0 (Iandola et al. 2016, arXiv 1602.07360): ImageNet features of 1.2 M weights, for losses and metrics.

Read from an .npz of plain arrays (conv1, fire2.squeeze, fire2.expand1x1, ... conv10, each .weight and .bias, OIHW) in
the Caffe convention: 227 x 227 pixels, BGR, 0 to 255, minus (104, 117, 123). Shape letters: b batch, h w height/width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.features.arrays import FrozenNetwork

SIZE = 227
_SQUEEZE = (16, 16, 32, 32, 48, 48, 64, 64)
_WIDTHS = {f"fire{number}": (width, 4 * width) for number, width in enumerate(_SQUEEZE, 2)}  # squeeze, expand
_POOL_AFTER = ("fire4", "fire8")


class _Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 ones side by side."""

    def __init__(self, in_channels: int, squeeze: int, expand: int):
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat((F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))), 1)


class SqueezeNet(FrozenNetwork):
    """The network, frozen, in evaluation mode."""

    title = "SqueezeNet v1.0"

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        channels = 96
        for name, (squeeze, expand) in _WIDTHS.items():
            self.add_module(name, _Fire(channels, squeeze, expand))
            channels = 2 * expand
        self.conv10 = nn.Conv2d(channels, 1000, 1)
        self.register_buffer("mean", torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1), persistent=False)
        self.source = f"{self.title}, random weights"
        self.requires_grad_(False).eval()

    def prepare(self, images: Tensor) -> Tensor:
        """(b, 3, 227, 227) BGR, 0 to 255, minus the mean, of (b, 3, h, w) RGB in [-1, 1]: bicubic with antialiasing."""
        x = images.float()
        if x.shape[-2:] != (SIZE, SIZE):
            x = F.interpolate(x, size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(-1, 1)
        assert isinstance(self.mean, Tensor), "registered above"
        return (x.flip(1) + 1) * 127.5 - self.mean

    def layers(self, images: Tensor) -> list[Tensor]:
        """Four (b, c, h', w') outputs, of conv1, fire4, fire8 and fire9, for (b, 3, h, w) RGB in [-1, 1]."""
        x = F.relu(self.conv1(self.prepare(images)))
        kept = [x]
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for name in _WIDTHS:
            x = getattr(self, name)(x)
            if name in (*_POOL_AFTER, "fire9"):
                kept.append(x)
            if name in _POOL_AFTER:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return kept

    def features(self, images: Tensor) -> Tensor:
        """(b, 512) means over places of the last layer before the classifier, of (b, 3, h, w) RGB in [-1, 1]."""
        return self.layers(images)[-1].mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """(b, 1000) class scores before the softmax, of (b, 3, h, w) RGB in [-1, 1]."""
        return F.relu(self.conv10(self.layers(images)[-1])).mean((2, 3))
