"""LARP's adversary: a transformer over patches that answers with one number a clip, and its losses.

Wang et al. 2024, arXiv 2410.21264, and the authors' code, whose weights it can hold (they are not published).
Shape letters: b batch, t h w time/height/width, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.losses.visual_discriminators import LeCam
from mmtok.nn.transformer import Transformer, sine_table_3d


class TransformerDiscriminator(nn.Module):
    """Patches with a fixed table, a class token in front of them without one, and a linear answer.

    Args:
        size: (t, h, w) of the clips.
        patch: (t, h, w) of a patch.
        dim: width, 512 in the authors' script.
        num_heads: heads.
        depth: blocks.

    Raises:
        ValueError: if the clip does not divide into patches.
    """

    encoder_pos_embed: Tensor

    def __init__(
        self,
        size: tuple[int, int, int] = (16, 128, 128),
        *,
        patch: tuple[int, int, int] = (4, 8, 8),
        dim: int = 512,
        num_heads: int = 8,
        depth: int = 12,
    ):
        super().__init__()
        if any(n % p for n, p in zip(size, patch, strict=True)):
            raise ValueError(f"clips of {size} do not divide into patches of {patch}")
        t, h, w = (n // p for n, p in zip(size, patch, strict=True))
        self.size = size
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv3d(3, dim, patch, stride=patch)})
        self.register_buffer("encoder_pos_embed", sine_table_3d((t, h, w), dim)[None])
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.transformer_encoder = Transformer(dim, num_heads, depth)
        self.norm_final, self.fc = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, 1)

    def forward(self, video: Tensor) -> Tensor:
        """Judge clips.

        Args:
            video: (b, 3, t, h, w) in [-1, 1]; inside, as upstream, [0, 1].

        Returns:
            (b,) logits, larger is more real.

        Raises:
            ValueError: for another size than it was made for.
        """
        if tuple(video.shape[2:]) != self.size:
            raise ValueError(f"this discriminator judges clips of {self.size}, got {tuple(video.shape[2:])}")
        x = self.x_embedder["proj"]((video + 1) / 2).flatten(2).transpose(1, 2) + self.encoder_pos_embed
        # attention does not mind the order of places, so the class token may stand last, where it is all that is kept
        x = torch.cat((x, self.cls_token.expand(len(x), -1, -1)), 1)
        x = self.transformer_encoder(x, keep=1)[:, 0]
        return self.fc(self.norm_final(x))[:, 0]  # type: ignore[no-any-return]


def smooth_discriminator_loss(
    real: Tensor,
    fake: Tensor,
    *,
    spread: float = 0.15,
    most: float = 0.3,
    generator: torch.Generator | None = None,
    noise: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Non-saturating loss with targets blurred towards the middle, one draw a clip (upstream's "ns_smooth").

    Args:
        real: (b,) logits of real clips.
        fake: (b,) logits of reconstructions.
        spread: deviation of the blur; 0 gives the plain loss.
        most: largest blur.
        generator: of the draws, on the CPU.
        noise: standard normal numbers for both instead of drawn ones.

    Returns:
        Scalar, the sum of both means.
    """
    if noise is None:
        noise = (torch.randn(real.shape, generator=generator), torch.randn(fake.shape, generator=generator))
    blur_real, blur_fake = ((spread * n.to(real.device).abs()).clamp(max=most) for n in noise)
    return F.binary_cross_entropy_with_logits(real.float(), 1 - blur_real) + F.binary_cross_entropy_with_logits(
        fake.float(), blur_fake
    )


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Half the sum of both hinges (upstream's "hinge").

    Args:
        real: (b,) logits of real clips.
        fake: (b,) logits of reconstructions.

    Returns:
        Scalar.
    """
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


class MeanLeCam(LeCam):
    """LeCam on the means of a batch, with running means that start at zero and move after use, as LARP has it."""

    from_zero = True

    def __call__(self, real: Tensor, fake: Tensor) -> Tensor:
        """The regulariser, unweighted."""
        return F.relu(real.mean() - self.fake).square() + F.relu(self.real - fake.mean()).square()
