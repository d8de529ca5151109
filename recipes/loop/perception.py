"""Frozen networks whose features tell how alike two pictures look."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmtok.features.resnet import ResNetLogits
from mmtok.features.squeezenet import SqueezeNet
from mmtok.features.vgg import LPIPS, VGG16, perceptual_loss


def perceptual_network(name: str) -> torch.nn.Module:
    """A frozen network with ``layers``, by its name in ``Magvit2TrainConfig.perceptual_network``."""
    kind, _, path = name.partition(":")
    if kind == "random" and not path:
        return SqueezeNet()
    read: dict[str, Callable[[str], nn.Module]] = {
        "squeezenet": SqueezeNet.from_npz,
        "vgg16": VGG16.from_file,
        "resnet50": ResNetLogits.from_pretrained,
    }
    if kind in read and path:
        return read[kind](path)
    raise ValueError(f"unknown perceptual_network {name!r}; known: squeezenet:F, vgg16:F, resnet50:FOLDER, random")


class LarpPerception:
    """The perceptual term: LPIPS on all frames, or plain feature distances.

    Args:
        name: see ``LarpTrainConfig.perceptual_network``.
        device: where the network lives.
    """

    def __init__(self, name: str, device: torch.device):
        kind, *files = name.split(":")
        network: nn.Module = (
            LPIPS.from_files(*files) if kind == "lpips" and len(files) == 2 else perceptual_network(name)
        )
        self.network = network.to(device).eval().requires_grad_(False)

    def __call__(self, reconstruction: Tensor, video: Tensor) -> Tensor:
        """The term."""
        if isinstance(self.network, LPIPS):
            a, b = (v.transpose(1, 2).flatten(0, 1) for v in (reconstruction, video))
            return self.network(a, b).mean()  # type: ignore[no-any-return]
        return perceptual_loss(self.network, reconstruction, video)
