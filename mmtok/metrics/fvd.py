"""Fréchet video distance (Unterthiner et al. 2018, arXiv 1812.01717) on the I3D that a user's file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from mmtok.files import named_file
from mmtok.metrics.frechet import Frechet

I3D_FRAMES, I3D_SIZE = 10, 224  # the least the network takes, and its side in pixels


class I3D:
    """A TorchScript I3D as FVD code ships it.

    Args:
        network: (b, 3, t, 224, 224) in [-1, 1] to (b, d).
        source: its file and hash, for protocols.
    """

    def __init__(self, network: Any, source: str = "a network in memory"):
        self.network, self.source = network, source

    @classmethod
    def from_file(cls, path: Path) -> I3D:
        """The network of a file. It is a program and runs: give only one you trust.

        Args:
            path: TorchScript.

        Returns:
            The network.

        Raises:
            FileNotFoundError: if the file is absent.
            ValueError: if it holds something else.
        """
        if not path.is_file():
            raise FileNotFoundError(f"I3D file {path} does not exist")
        try:
            network = torch.jit.load(str(path), map_location="cpu").eval()
        except RuntimeError as fault:
            raise ValueError(f"{path} is no TorchScript: {str(fault).splitlines()[0]}") from fault
        return cls(network, named_file(path))

    def features(self, video: Tensor) -> Tensor:
        """One vector a clip: bilinear to 224, in [-1, 1], the logits of FVD's published I3D.

        Args:
            video: (b, 3, t, h, w) in [-1, 1], t at least 10.

        Returns:
            (b, d).

        Raises:
            ValueError: for shorter clips.
        """
        if video.shape[2] < I3D_FRAMES:
            raise ValueError(f"rFVD needs clips of at least {I3D_FRAMES} frames, got {video.shape[2]}")
        frames = rearrange(video, "b c t h w -> (b t) c h w")
        frames = F.interpolate(frames, size=(I3D_SIZE, I3D_SIZE), mode="bilinear", align_corners=False)
        clips = rearrange(frames, "(b t) c h w -> b c t h w", b=len(video)).contiguous()
        schema = getattr(getattr(self.network, "forward", None), "schema", None)
        options = {argument.name for argument in schema.arguments} if schema is not None else set()
        if {"rescale", "resize", "return_features"} <= options:  # the published file; a bare network has no options
            features = self.network(clips, rescale=False, resize=False, return_features=True)
        else:
            features = self.network(clips)
        result: Tensor = features.flatten(1).float()
        return result


class Fvd(Frechet):
    """Fréchet video distance of clips (b, 3, t, h, w) in [-1, 1]; behind a tokenizer it is called rFVD.

    Args:
        i3d: the network.
    """

    def __init__(self, i3d: I3D):
        super().__init__(f"{i3d.source}, frames resized to {I3D_SIZE} (bilinear)")
        self.network = i3d

    def _features(self, media: Tensor) -> Tensor:
        return self.network.features(media)
