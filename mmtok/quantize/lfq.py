"""Lookup-free quantisation: every latent channel becomes its sign, the code is the number these bits spell.

MAGVIT-v2 (Yu et al. 2023, arXiv 2310.05737), section 3.1: no codebook, a straight-through gradient, and an entropy
term that asks for decided tokens and an evenly used vocabulary. The affinity of a token to code c is ``2 z . c`` over
a temperature (0.01 in MAGVIT's released configs), hence a token's distribution over the 2^K codes is a product of K
independent bits with ``p_i = sigmoid(4 z_i / temperature)``. That gives the entropies exactly and cheaply (ours): a
token's entropy is the sum of K binary ones, and the batch average over all codes is ``A^T B / n`` of two half tables.
Shape letters: b batch, d bits, t h w time/height/width, n tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
import torch.nn.functional as F
from torch import Tensor

from mmtok.contract import require_range


@dataclass(frozen=True)
class LfqLosses:
    """Terms of the LFQ objective, scalars in float32; entropies in nats.

    Attributes:
        commitment: mean squared distance between latents and their signs.
        token_entropy: mean entropy of a token's distribution; training makes it small.
        codebook_entropy: entropy of the distribution averaged over all tokens (and replicas); training makes it large.
    """

    commitment: Tensor
    token_entropy: Tensor
    codebook_entropy: Tensor


def quantize_signs(latents: Tensor) -> Tensor:
    """The sign of every channel in float32, +1 where positive and -1 elsewhere, with the gradient of the identity."""
    latents = latents.float()
    return _StraightThroughSign.apply(latents)  # type: ignore[no-any-return]


class _StraightThroughSign(torch.autograd.Function):
    """Sign forward, identity backward; unlike z + (q - z) the values carry no rounding."""

    @staticmethod
    def forward(ctx: object, z: Tensor) -> Tensor:  # type: ignore[override]
        return torch.where(z > 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad


def codes_from_latents(latents: Tensor) -> Tensor:
    """Code of every position: the sum of 2^i over the channels i that are positive (channel 0 least significant).

    Args:
        latents: (b, d, *grid); signs or the latents before them.

    Returns:
        (b, *grid) int64.
    """
    weights = 2 ** torch.arange(latents.shape[1], device=latents.device)
    return torch.einsum("bd...,d->b...", (latents > 0).long(), weights)


def signs_from_codes(codes: Tensor, bits: int) -> Tensor:
    """The quantised latents that spell ``codes``.

    Args:
        codes: (b, *grid) integers below 2^bits.
        bits: channels of the result.

    Returns:
        (b, bits, *grid) float32, exactly +-1.

    Raises:
        ValueError: if a code is out of range.
    """
    require_range(codes, 2**bits)
    shifts = torch.arange(bits, device=codes.device).view(1, bits, *([1] * (codes.ndim - 1)))
    return (codes[:, None] >> shifts & 1).float() * 2 - 1


def _bit_table(p: Tensor) -> Tensor:
    """(n, k) probabilities of set bits to (n, 2^k) probabilities of the numbers they spell, bit 0 least significant."""
    table = p.new_ones(p.shape[0], 1)
    for bit in p.unbind(1):
        table = torch.cat((table * (1 - bit)[:, None], table * bit[:, None]), dim=1)
    return table


def average_distribution(latents: Tensor, *, temperature: float) -> Tensor:
    """How the soft assignments of all tokens, averaged, spread over the codes."""
    n, bits = latents.shape
    p = torch.sigmoid(latents * (4 / temperature))
    low, high = _bit_table(p[:, : bits // 2]), _bit_table(p[:, bits // 2 :])
    average = (high.T @ low).flatten() / n  # code = low + high * 2^(bits // 2)
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        average = dist_nn.all_reduce(average) / dist.get_world_size()
    return average


def lfq_losses(latents: Tensor, *, temperature: float = 0.01, epsilon: float = 0.0) -> LfqLosses:
    """The commitment and entropy terms, in float32 whatever the autocast.

    Args:
        latents: (b, d, *grid) before the sign.
        temperature: of the affinities ``2 z . c``.
        epsilon: added inside the logarithm of the average; 1e-5 reproduces the numbers of vector-quantize-pytorch and
            its kin, which can then not exceed 11.19 nats for 2^18 codes.

    Returns:
        Unweighted terms.
    """
    with torch.autocast(latents.device.type, enabled=False):
        z = latents.float().movedim(1, -1).flatten(0, -2)  # (n, d)
        commitment = F.mse_loss(z, torch.where(z > 0, 1.0, -1.0))
        logits = (z * (4 / temperature)).abs()  # the entropy of a bit is even in its logit
        token_entropy = (F.softplus(-logits) + logits * torch.sigmoid(-logits)).sum(dim=1).mean()
        average = average_distribution(z, temperature=temperature)
        codebook_entropy = -(average * (average + epsilon).clamp_min(1e-30).log()).sum()
        return LfqLosses(commitment, token_entropy, codebook_entropy)


def entropy_weight(step: int, *, weight: float = 0.1, boost: float = 3.0, anneal_steps: int = 2000) -> float:
    """Weight of the entropy term, falling linearly from ``boost * weight`` to ``weight``.

    Args:
        step: optimizer step, from 0.
        weight: final value.
        boost: factor at step 0.
        anneal_steps: length of the fall; 0 starts at ``weight``.

    Returns:
        The weight at ``step``.

    Source: the schedule's numbers are those of O2-MAGVIT2 and VidTok.
    """
    left = max(0.0, 1 - step / anneal_steps) if anneal_steps else 0.0
    return weight * (1 + (boost - 1) * left)
