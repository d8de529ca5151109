"""The masked-modelling loss and what is reported beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from superres.model import split_codes


@dataclass(frozen=True)
class SuperResLoss:
    """Loss and accuracies of one batch.

    Attributes:
        loss: scalar to minimise.
        factor_accuracy: (k,) share of hidden positions whose factor has the largest logit.
        accuracy: scalar, share of hidden positions where all factors are right.
    """

    loss: Tensor
    factor_accuracy: Tensor
    accuracy: Tensor


def superres_loss(
    logits: tuple[Tensor, ...],
    codes: Tensor,
    masked: Tensor,
    *,
    factor_sizes: tuple[int, ...],
    label_smoothing: float = 1e-4,
    visible_weight: float = 1.0,
) -> SuperResLoss:
    """Cross-entropy of the factors' heads, summed over factors, averaged over positions and then clips, in float32.

    Visible positions count as much as hidden ones by default: MAGVIT (Yu et al. 2022) reports far worse results
    when only hidden ones count. Accuracies look at hidden positions alone.

    Args:
        logits: (b, t, h, w, size), one tensor a factor.
        codes: (b, t, h, w) the right codes.
        masked: (b, t, h, w) bool, True where the model did not see the code.
        factor_sizes: values of each factor.
        label_smoothing: probability spread over all values.
        visible_weight: weight of a visible position; a hidden one has weight 1.

    Returns:
        Loss and accuracies.
    """
    targets = split_codes(codes, factor_sizes)
    nats = torch.zeros(codes.shape, device=codes.device)
    for logit, target in zip(logits, targets, strict=True):
        nats = nats + F.cross_entropy(
            logit.float().flatten(0, -2), target.flatten(), reduction="none", label_smoothing=label_smoothing
        ).view(codes.shape)
    weight = torch.where(masked, 1.0, visible_weight)
    loss = ((weight * nats).flatten(1).sum(1) / weight.flatten(1).sum(1)).mean()  # a batch in parts means the same

    right = torch.stack([logit.argmax(-1) == target for logit, target in zip(logits, targets, strict=True)])
    hidden = masked.sum().clamp(min=1)
    return SuperResLoss(
        loss=loss,
        factor_accuracy=(right & masked).flatten(1).sum(1) / hidden,
        accuracy=(right.all(0) & masked).sum() / hidden,
    )
