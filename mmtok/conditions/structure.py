"""Structure conditions: optical flow and depth of a clip as one three-channel clip, for stylization.

VideoPoet, section 3.3: the two flow components and the depth map stand beside each other as channels, so that the RGB
tokenizer reads them untouched. The paper only says "normalize"; here the flow of a clip is divided by its longest
vector and the inverse depth is brought to [-1, 1] over the clip. The last flow field stands twice, as 17 frames have 16
flows.

Estimators are plain functions, so that any network can take their place: flow takes (t, 3, h, w) in [-1, 1] and gives
(t - 1, 2, h, w), the way in pixels (x to the right, y down) from each frame to the next; depth takes the same and gives
(t, h, w) inverse depth, larger is nearer, in any unit.
Shape letters: b batch, t h w time/height/width.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.contract import require_video
from mmtok.find import require_known

FlowEstimator = Callable[[Tensor], Tensor]
DepthEstimator = Callable[[Tensor], Tensor]
EXTRA = 'pip install "cinepoet[structure]"'
FLOW_METHODS = ("dis", "farneback")
SATURATION = "saturation"
_FINEST = 1e-6


def structure_video(flow: Tensor, inverse_depth: Tensor) -> Tensor:
    """Flow and depth as a clip that a visual tokenizer takes.

    Args:
        flow: (b, t - 1, 2, h, w) pixels from each frame to the next.
        inverse_depth: (b, t, h, w), larger is nearer.

    Returns:
        (b, 3, t, h, w) in [-1, 1]: flow to the right, flow down, nearness. A clip that stands still has flow 0, a flat
        one nearness 0.

    Raises:
        ValueError: if the two do not belong to one clip of at least one frame, or are not finite.
    """
    b, t, h, w = inverse_depth.shape
    if tuple(flow.shape) != (b, t - 1, 2, h, w):
        raise ValueError(
            f"depth {tuple(inverse_depth.shape)} needs flow {(b, t - 1, 2, h, w)}, got {tuple(flow.shape)}"
        )
    if not (bool(flow.isfinite().all()) and bool(inverse_depth.isfinite().all())):
        raise ValueError("flow and inverse depth must be finite")
    if t == 1:
        motion = flow.new_zeros(b, 1, 2, h, w)
    else:
        longest = flow.square().sum(2).amax((1, 2, 3)).sqrt().clamp_min(_FINEST)
        motion = torch.cat((flow, flow[:, -1:]), 1) / longest.view(b, 1, 1, 1, 1)
    least, most = inverse_depth.amin((1, 2, 3)), inverse_depth.amax((1, 2, 3))
    middle, half = (least + most).view(b, 1, 1, 1) / 2, ((most - least) / 2).clamp_min(_FINEST).view(b, 1, 1, 1)
    nearness = ((inverse_depth - middle) / half).clamp(-1, 1)
    return torch.cat((motion.float(), nearness[:, :, None].float()), 2).transpose(1, 2).contiguous()


def make_structure(video: Tensor, *, flow: FlowEstimator, depth: DepthEstimator) -> Tensor:
    """The structure of a clip.

    Args:
        video: (b, 3, t, h, w) in [-1, 1].
        flow: see the module.
        depth: see the module.

    Returns:
        (b, 3, t, h, w), see ``structure_video``.

    Raises:
        ValueError: if the clip or what an estimator made of it has another shape.
    """
    require_video(video)
    t, h, w = video.shape[2:]
    frames = video.transpose(1, 2)
    ways = torch.stack([flow(clip) if t > 1 else clip.new_zeros(0, 2, h, w) for clip in frames])
    return structure_video(ways, torch.stack([depth(clip) for clip in frames]))


class OpenCVFlow:
    """Dense inverse search (Kroeger et al. 2016), or Farneback's, both of OpenCV; a ``FlowEstimator``.

    Args:
        method: "dis", or "farneback", which is better on weak texture.

    Raises:
        ImportError: if opencv-python-headless is not installed.
        ValueError: for an unknown method.
    """

    def __init__(self, method: str = "dis"):
        require_known(method, FLOW_METHODS, "flow method")
        try:
            cv2: Any = importlib.import_module("cv2")
        except ImportError as fault:
            raise ImportError(f"optical flow needs OpenCV: {EXTRA}, or pass your own function") from fault
        self._cv2 = cv2
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM) if method == "dis" else None

    def __call__(self, frames: Tensor) -> Tensor:
        """Flow of each frame to the next."""
        weights = frames.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # BT.601 luma
        grey = ((frames * weights).sum(1) + 1).mul(127.5).round().clamp(0, 255).byte().cpu().numpy()
        ways = []
        for now, after in itertools.pairwise(grey):
            if self._dis is not None:
                way = self._dis.calc(now, after, None)
            else:
                way = self._cv2.calcOpticalFlowFarneback(now, after, None, 0.5, 4, 15, 3, 7, 1.5, 0)
            ways.append(torch.from_numpy(way).permute(2, 0, 1))
        empty = torch.zeros(0, 2, *frames.shape[2:])
        return (torch.stack(ways) if ways else empty).to(frames.device)


class DepthAnything:
    """Depth Anything (Yang et al. 2024) of transformers; a ``DepthEstimator``.

    Args:
        network: takes ``pixel_values`` (b, 3, h, w), ImageNet-normalised, sides multiples of 14, and answers with
            ``predicted_depth`` (b, h', w').
        side: the shorter side that it sees, pixels; 518 in the published models.
    """

    def __init__(self, network: Any, *, side: int = 518):
        self.network, self.side = network.eval().requires_grad_(False), side

    @classmethod
    def from_pretrained(cls, name: str, *, device: str | torch.device = "cpu") -> DepthAnything:
        """Load by folder or hub id.

        Args:
            name: such as "depth-anything/Depth-Anything-V2-Small-hf".
            device: where it runs.

        Returns:
            The estimator.

        Raises:
            FileNotFoundError: if neither is there.
        """
        from transformers import DepthAnythingForDepthEstimation

        import mmtok.compat  # noqa: F401 - transformers beside a CPU torch

        try:
            network: Any = DepthAnythingForDepthEstimation.from_pretrained(name)
        except OSError as fault:
            raise FileNotFoundError(f"no Depth Anything at {name}: {str(fault).splitlines()[0]}") from fault
        return cls(network.to(device))

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> Tensor:
        """Inverse depth of every frame."""
        h, w = frames.shape[2:]
        patch, scale = 14, self.side / min(h, w)
        size = [max(patch, round(n * scale / patch) * patch) for n in (h, w)]
        mean, std = (frames.new_tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        device = next(self.network.parameters()).device
        depths = []
        for frame in frames.float().split(1):
            seen = F.interpolate(frame, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
            answer = self.network(pixel_values=((seen + 1) / 2 - mean).div(std).to(device)).predicted_depth
            depths.append(F.interpolate(answer[:, None].float(), size=(h, w), mode="bilinear")[:, 0].to(frames.device))
        return torch.cat(depths)


def depth_estimator(name: str, *, device: str | torch.device = "cpu") -> DepthEstimator:
    """An estimator by name.

    Args:
        name: ``SATURATION``, which needs no weights, or a Depth Anything by folder or hub id.
        device: where it runs.

    Returns:
        The estimator.

    Raises:
        FileNotFoundError: if its weights are not there.
    """
    return saturation_depth if name == SATURATION else DepthAnything.from_pretrained(name, device=device)


def saturation_depth(frames: Tensor) -> Tensor:
    """Nearness by colour alone: the more saturated, the nearer; a ``DepthEstimator`` without weights.

    For made-up pictures of coloured things over grey grounds, such as corpus ``shapes``; it says nothing about photos.

    Args:
        frames: (t, 3, h, w) in [-1, 1].

    Returns:
        (t, h, w) in [0, 2], larger is nearer.
    """
    return frames.amax(1) - frames.amin(1)
