"""ResNet-50 logits as MAGVIT's perceptual term: the class scores of a frozen ImageNet network at 224 pixels.

The network is transformers' ``ResNetForImageClassification`` (for instance microsoft/resnet-50), loaded from a folder
or the hub. Shape letters: b batch, h w height/width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 224


class ResNetLogits(nn.Module):
    """The frozen network behind ``layers``, which gives its logits as the only layer.

    Args:
        network: takes ``pixel_values`` (b, 3, 224, 224), ImageNet-normalised, and answers with ``logits``.
    """

    def __init__(self, network: Any):
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> ResNetLogits:
        """The network by folder or hub id.

        Args:
            name: a transformers folder or id.

        Returns:
            The term's network.

        Raises:
            FileNotFoundError: if neither is there.
        """
        from transformers import ResNetForImageClassification

        import mmtok.compat  # noqa: F401 - transformers beside a CPU torch

        try:
            network = ResNetForImageClassification.from_pretrained(str(name))
        except OSError as fault:
            raise FileNotFoundError(f"no ResNet at {name}: {str(fault).splitlines()[0]}") from fault
        return cls(network)

    def layers(self, images: Tensor) -> list[Tensor]:
        """[(b, classes, 1, 1)] logits of (b, 3, h, w) RGB in [-1, 1], resized bilinearly with antialiasing."""
        assert isinstance(self.mean, Tensor) and isinstance(self.std, Tensor), "registered above"
        x = F.interpolate(images.float(), size=(SIZE, SIZE), mode="bilinear", antialias=True)
        logits: Tensor = self.network(pixel_values=((x + 1) / 2 - self.mean) / self.std).logits
        return [logits[:, :, None, None]]
