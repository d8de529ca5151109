"""Cross-entropy behind a linear head, a few rows at a time: the logits of a large vocabulary never exist together.

The caller says beforehand how much every row counts, so that the gradients are made where a piece of logits is at hand
and nothing of the size rows x vocabulary is kept for the way back: three products, as in the plain form, and one
buffer of a few hundred rows. torch 2.13's ``F.linear_cross_entropy`` works alike but knows neither blocks of ids nor
the log-partition, and is no quicker on a CPU (512 rows of 1,024 against 65,536 ids: plain 3.0 s of one core, torch 3.1,
this 2.8); this form needs nothing that older torch lacks.

Shape letters: m rows, d width, v rows of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmtok.vocabulary import Block

LEAST_ROWS = {"cpu": 256, "cuda": 1024}  # of a piece: 0.27 GB and 1.1 GB of float32 logits at 266,496 ids
ENTRIES = {"cpu": 2**22, "cuda": 2**26}  # of a piece where the vocabulary is small
HEAD_ROWS = 2**15  # of the head's gradient made at once where it must be converted


@dataclass(frozen=True)
class RowLosses:
    """What a head makes of some rows.

    Attributes:
        total: weighted sum of losses and z-loss, with gradients.
        nats: (m,) float32 cross-entropy of each row, without gradients.
        log_partition: (m,) float32 logarithm of the summed exponentials of each row, without gradients.
        right: (m,) bool, True where the target has the best score.
    """

    total: Tensor
    nats: Tensor
    log_partition: Tensor
    right: Tensor


def linear_cross_entropy(
    rows: Tensor,
    head: Tensor,
    targets: Tensor,
    *,
    blocks: Sequence[tuple[int, Block]],
    weights: Tensor | None = None,
    z_loss: float = 0.0,
) -> RowLosses:
    """Cross-entropy of rows, each over one block of a head's rows.

    Products run in autocast's type where that is on; sums over ids and the head's gradient are in float32.
    ``total.backward()`` can run once.

    Args:
        rows: (m, d) hidden vectors.
        head: (v, d) weights.
        targets: (m,) numbers of rows of ``head``, inside the block of their row.
        blocks: how many rows in succession are scored over which rows of ``head``; the numbers sum to m.
        weights: (m,) float32, how much each row's cross-entropy counts in ``total``; None counts each once.
        z_loss: how much each row's squared log-partition counts in ``total``.

    Returns:
        The losses.

    Raises:
        ValueError: if the numbers of rows do not agree.
    """
    m = sum(number for number, _ in blocks)
    if not m == len(rows) == len(targets):
        raise ValueError(f"blocks hold {m} rows, there are {len(rows)} rows and {len(targets)} targets")
    if weights is None:
        weights = torch.ones(m, device=rows.device)
    device = rows.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.dtype
    with torch.autocast(device, enabled=False):
        made = _LinearCrossEntropy.apply(
            rows, head, targets, tuple(blocks), weights, z_loss, dtype, torch.is_grad_enabled()
        )
    return RowLosses(*made)


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients are made in ``forward`` and scaled in ``backward``."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        rows: Tensor,
        head: Tensor,
        targets: Tensor,
        blocks: tuple[tuple[int, Block], ...],
        weights: Tensor,
        z_loss: float,
        dtype: torch.dtype,
        learns: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        m = len(rows)
        nats, log_partition = rows.new_empty(2, m, dtype=torch.float32)
        right = torch.empty(m, dtype=torch.bool, device=rows.device)
        row_grad = torch.empty_like(rows) if learns and ctx.needs_input_grad[0] else None
        head_grad = torch.zeros_like(head, dtype=torch.float32) if learns and ctx.needs_input_grad[1] else None
        start = 0
        for number, block in blocks:
            part = head[block.start : block.stop].to(dtype)
            size = _piece_rows(len(block), rows.device.type)
            scores = rows.new_empty(min(size, number), len(block), dtype=torch.float32)
            for first in range(start, start + number, size):
                at = slice(first, min(first + size, start + number))
                x = rows[at].to(dtype)
                logits = scores[: len(x)]
                if dtype == torch.float32:
                    torch.mm(x, part.t(), out=logits)
                else:
                    logits.copy_(torch.mm(x, part.t()))
                inside = (targets[at] - block.start)[:, None]
                best, best_id = logits.max(dim=-1, keepdim=True)
                wanted = logits.gather(1, inside)
                total = logits.sub_(best).exp_().sum(-1, keepdim=True)
                partition = best + total.log()
                nats[at], log_partition[at] = (partition - wanted)[:, 0], partition[:, 0]
                right[at] = (best_id == inside)[:, 0]
                if row_grad is None and head_grad is None:
                    continue
                # d total / d logits = (weight + 2 z_loss partition) softmax - weight at the target
                weight = weights[at, None]
                logits.mul_((weight + 2 * z_loss * partition) / total).scatter_add_(1, inside, -weight)
                slopes = logits.to(dtype)
                if row_grad is not None:
                    row_grad[at] = torch.mm(slopes, part)
                if head_grad is not None:
                    _add_product(head_grad[block.start : block.stop], slopes, x)
            start += number
        ctx.gradients = row_grad, head_grad if head_grad is None else head_grad.to(head.dtype)
        ctx.mark_non_differentiable(nats, log_partition, right)
        return (weights * nats).sum() + z_loss * log_partition.square().sum(), nats, log_partition, right

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        if ctx.gradients is None:
            raise RuntimeError("these gradients were made once and have been used; compute the loss again")
        row_grad, head_grad = ctx.gradients
        ctx.gradients = None
        made = [None if g is None else g.mul_(grad) for g in (row_grad, head_grad)]
        return made[0], made[1], None, None, None, None, None, None


def _piece_rows(block_size: int, device: str) -> int:
    """Rows whose logits exist at the same time."""
    name = device if device in ENTRIES else "cuda"
    return max(LEAST_ROWS[name], ENTRIES[name] // block_size)


def _add_product(total: Tensor, slopes: Tensor, x: Tensor) -> None:
    """``total += slopes.T @ x``, a part of the rows at a time where the product is not float32."""
    if slopes.dtype == torch.float32:
        total.addmm_(slopes.t(), x)
        return
    for first in range(0, len(total), HEAD_ROWS):
        total[first : first + HEAD_ROWS] += torch.mm(slopes[:, first : first + HEAD_ROWS].t(), x)
