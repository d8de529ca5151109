"""VGG16's convolutions (Simonyan and Zisserman 2014, arXiv 1409.1556) and LPIPS on them (Zhang et al. 2018).

Weights are the user's: a torchvision state dict of vgg16 (``features.0.weight`` ...; a classifier in it is left out)
and LPIPS's linear layers (``lin0.model.1.weight`` ..., version 0.1). Shape letters: b batch, c channels, h w
height/width.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.convert.checkpoints import read_checkpoint
from mmtok.convert.names import fill
from mmtok.files import named_file

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
WIDTHS = tuple(stage[-1] for stage in _STAGES)


class VGG16(nn.Module):
    """The thirteen convolutions, frozen; ``layers`` gives the last activation of each of the five stages."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        channels = 3
        for stage in _STAGES:
            for width in stage:
                parts += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            parts.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*parts)
        # ImageNet's mean and deviation, for pictures in [-1, 1] (LPIPS's own constants)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @classmethod
    def from_file(cls, path: str | Path) -> VGG16:
        """The network with a user's weights.

        Args:
            path: torchvision's vgg16 as .pth or .safetensors.

        Returns:
            The network.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds something else.
        """
        model = cls()
        tensors = {k: v for k, v in read_checkpoint(path).items() if not k.startswith("classifier.")}
        fill(model, tensors, {name: name for name in model.state_dict()}, family="VGG16")
        return model

    def layers(self, images: Tensor) -> list[Tensor]:
        """The last activation of each stage.

        Args:
            images: (b, 3, h, w) RGB in [-1, 1], sides at least 16.

        Returns:
            Five tensors (b, c, h / 2^i, w / 2^i).
        """
        assert isinstance(self.shift, Tensor) and isinstance(self.scale, Tensor), "registered above"
        x = (images.float() - self.shift) / self.scale
        kept = []
        for part in self.features:
            if isinstance(part, nn.MaxPool2d):
                kept.append(x)
                if len(kept) == len(WIDTHS):
                    break
            x = part(x)
        return kept


class LPIPS(nn.Module):
    """Learned perceptual distance: weighted squared differences of unit-length features, summed over layers.

    Args:
        network: gives ``layers``.
        widths: channels of each layer.
    """

    def __init__(self, network: nn.Module, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        self.network = network
        self.weights = nn.ParameterList(nn.Parameter(torch.rand(w), requires_grad=False) for w in widths)
        self.source = "random weights"  # for protocols

    @classmethod
    def from_files(cls, vgg: str | Path, linear: str | Path) -> LPIPS:
        """LPIPS 0.1 with VGG16.

        Args:
            vgg: torchvision's vgg16.
            linear: LPIPS's linear layers for it.

        Returns:
            The metric.

        Raises:
            FileNotFoundError: if a file is absent.
            ValueError: if one holds something else.
        """
        metric = cls(VGG16.from_file(vgg))
        tensors = read_checkpoint(linear)
        names = [f"lin{i}.model.1.weight" for i in range(len(WIDTHS))]
        if sorted(tensors) != sorted(names) or any(tensors[n].numel() != w for n, w in zip(names, WIDTHS, strict=True)):
            raise ValueError(f"{linear} does not hold LPIPS's five layers for VGG16")
        for weight, name in zip(metric.weights, names, strict=True):
            weight.data = tensors[name].float().flatten()
        metric.source = f"VGG16 {named_file(vgg)}, linear {named_file(linear)}"
        return metric

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Distances.

        Args:
            images: (b, 3, h, w) RGB in [-1, 1].
            others: the same shape.

        Returns:
            (b,) not negative, 0 for equal pictures.
        """
        total = images.new_zeros(images.shape[0], dtype=torch.float32)
        pairs = zip(self.network.layers(images), self.network.layers(others), strict=True)  # type: ignore[operator]
        for weight, (a, b) in zip(self.weights, pairs, strict=True):
            a, b = (x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b))
            total = total + ((a - b).square() * weight.view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return total


def perceptual_loss(
    network: nn.Module, reconstruction: Tensor, video: Tensor, *, frames: Tensor | None = None
) -> Tensor:
    """Mean squared difference of a network's unit-length features, over its layers and some frames.

    Args:
        network: frozen; its ``layers`` takes pictures and gives activations.
        reconstruction: (b, 3, t, h, w) in [-1, 1]; gradients flow here.
        video: the same shape.
        frames: indices of the frames compared, all when None.

    Returns:
        Scalar.
    """
    picked = [v if frames is None else v[:, :, frames] for v in (reconstruction, video)]
    a, b = (v.transpose(1, 2).flatten(0, 1) for v in picked)
    with torch.no_grad():
        wanted = network.layers(b)  # type: ignore[operator]
    got = network.layers(a)  # type: ignore[operator]
    terms = [
        F.mse_loss(x, y)  # a classifier's scores, whose size matters (MAGVIT)
        if x.shape[2:] == (1, 1)
        else F.mse_loss(F.normalize(x, dim=1), F.normalize(y, dim=1)) * x.shape[1]
        for x, y in zip(got, wanted, strict=True)
    ]
    return torch.stack(terms).mean()
