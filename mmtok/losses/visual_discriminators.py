"""The judge of MAGVIT-v2's training and its losses.

The network is the figure of the appendix of Yu et al. 2023 (arXiv 2310.05737): plain 3-D residual blocks that blur
before they halve (Zhang 2019, arXiv 1904.11486), no norms. Losses: non-saturating logistic, gradient penalty on real
clips (r1, Mescheder et al. 2018), and LeCam's pull towards the running mean answers (Tseng et al. 2021, arXiv
2104.03310).

Shape letters: b batch, c channels, t h w time/height/width.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def blur_pool(x: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Smooth with (1, 2, 1) / 4 along every axis, then keep every ``stride``-th value."""
    for axis, step in zip((2, 3, 4), stride, strict=True):
        length = x.shape[axis]
        if length == 1:
            continue
        inner = torch.cat((x.narrow(axis, 1, 1), x, x.narrow(axis, length - 2, 1)), axis)
        before, here, after = (inner.narrow(axis, i, length) for i in range(3))
        kept = torch.arange(0, length, step, device=x.device)
        x = ((before + after) / 4 + here / 2).index_select(axis, kept) if step > 1 else (before + after) / 4 + here / 2
    return x


class ResBlockDown(nn.Module):
    """Two convolutions with a blurred halving between them, beside a blurred pointwise shortcut; sum over sqrt 2."""

    def __init__(self, in_channels: int, out_channels: int, *, slope: float = 0.2):
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, in_channels, 3, padding=1)
        self.conv2 = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv3d(in_channels, out_channels, 1, bias=False)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Judge at half the resolution: (b, c_in, t, h, w) to (b, c_out, t / 2, h / 2, w / 2), rounded up."""
        y = blur_pool(F.leaky_relu(self.conv1(x), self.slope), (2, 2, 2))
        y = F.leaky_relu(self.conv2(y), self.slope)
        return (y + self.shortcut(blur_pool(x, (2, 2, 2)))) / 2**0.5


class VideoDiscriminator(nn.Module):
    """One logit a clip.

    Args:
        size: (t, h, w) of the clips; the last layer reads a grid of fixed size.
        channels: base width, 128 in the paper.
        channel_multipliers: width after each halving.
        slope: of the leaky rectifiers.
    """

    def __init__(
        self,
        size: tuple[int, int, int],
        *,
        channels: int = 128,
        channel_multipliers: tuple[int, ...] = (2, 4, 4, 4, 4),
        slope: float = 0.2,
    ):
        super().__init__()
        widths = [channels, *(channels * m for m in channel_multipliers)]
        self.size, self.slope = size, slope
        self.conv_in = nn.Conv3d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList(ResBlockDown(a, b, slope=slope) for a, b in itertools.pairwise(widths))
        self.conv_out = nn.Conv3d(widths[-1], widths[-1], 3, padding=1)
        grid = 1
        for length in size:
            for _ in channel_multipliers:
                length = -(-length // 2)
            grid *= length
        self.hidden = nn.Linear(widths[-1] * grid, widths[-1])
        self.logit = nn.Linear(widths[-1], 1)

    def forward(self, video: Tensor) -> Tensor:
        """Judge clips.

        Args:
            video: (b, 3, t, h, w) in [-1, 1].

        Returns:
            (b,) logits, positive for "real".

        Raises:
            ValueError: for another size than the network was built for.
        """
        if tuple(video.shape[2:]) != tuple(self.size):
            raise ValueError(f"the discriminator judges clips of {self.size}, got {tuple(video.shape[2:])}")
        x = F.leaky_relu(self.conv_in(video), self.slope)
        for block in self.blocks:
            x = block(x)
        x = F.leaky_relu(self.conv_out(x), self.slope)
        x = F.leaky_relu(self.hidden(x.flatten(1)), self.slope)
        return self.logit(x)[:, 0]


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Non-saturating logistic loss of the judge.

    Args:
        real: (b,) logits of real clips.
        fake: (b,) logits of reconstructions.

    Returns:
        Scalar, 2 ln 2 for a judge that cannot tell.
    """
    return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating logistic loss of the tokenizer, a scalar, from (b,) logits of reconstructions."""
    return F.softplus(-fake.float()).mean()


def r1_penalty(discriminator: nn.Module, video: Tensor) -> Tensor:
    """Half the squared gradient of the judge's answer at real clips.

    Args:
        discriminator: gives (b,) logits.
        video: (b, 3, t, h, w) real clips.

    Returns:
        Scalar with a graph to the judge's weights; weigh it with the cost (10 in MAGVIT).
    """
    with torch.enable_grad(), torch.autocast(video.device.type, enabled=False):
        x = video.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
        return gradient.square().flatten(1).sum(1).mean() / 2


class LeCam:
    """Running means of the judge's answers, and the pull towards the other side's mean.

    Args:
        decay: share of the means that a step keeps.
    """

    from_zero = False  # else the first step's answers are the first means

    def __init__(self, decay: float = 0.999):
        self.decay = decay
        self.real = self.fake = 0.0
        self.steps = 0

    def update(self, real: Tensor, fake: Tensor) -> None:
        """Take in one step's answers.

        Args:
            real: (b,) logits of real clips, on all ranks the same ones (gather before).
            fake: (b,) logits of reconstructions.
        """
        decay = self.decay if self.steps or self.from_zero else 0.0
        self.real = decay * self.real + (1 - decay) * float(real.detach().float().mean())
        self.fake = decay * self.fake + (1 - decay) * float(fake.detach().float().mean())
        self.steps += 1

    def __call__(self, real: Tensor, fake: Tensor) -> Tensor:
        """The regulariser; call ``update`` first."""
        return F.relu(real.float() - self.fake).square().mean() + F.relu(self.real - fake.float()).square().mean()

    def state_dict(self) -> dict[str, Any]:
        """Means and count, for the checkpoint."""
        return {"real": self.real, "fake": self.fake, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self.real, self.fake, self.steps = state["real"], state["fake"], state["steps"]
