"""The training loss: cross-entropy of the output half, each place over the ids that may stand there.

VideoPoet trains one flat softmax over the whole vocabulary. Here a visual place is scored against the visual block,
an audio place against its level's block and a marker against the special block. That is the same distribution that
the grammar-constrained sampler uses (the flat softmax renormalised to the block), it needs a fraction of the head's
products, and no capacity goes into learning the grammar, which is known. ``full_softmax=True`` is the paper's form.

Shape letters: b batch, n sequence, m places of a run, v ids of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llm.batching import Batch
from llm.model import PrefixLM


@dataclass(frozen=True)
class LMLoss:
    """Sums over a batch, so that batches can be pooled.

    Attributes:
        total: mean loss per learned place, with gradients; the z-loss included.
        nats: kind of place ("visual", "audio", "special") to the mean cross-entropy there, detached.
        accuracy: the same kinds to the share of places whose best id is the right one; empty under ``full_softmax``.
        num_targets: learned places.
    """

    total: Tensor
    nats: dict[str, Tensor]
    accuracy: dict[str, Tensor]
    num_targets: int


def _flat_losses(model: PrefixLM, hidden: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the whole vocabulary, (b, m), without ever holding all logits where torch can do that."""
    rows, flat = hidden.flatten(0, 1), targets.flatten()
    weight = model.lm_head.weight
    fused = getattr(F, "linear_cross_entropy", None)
    options = getattr(torch.nn, "LinearCrossEntropyOptions", None)
    if fused is not None and options is not None:
        losses = fused(rows.to(weight.dtype), weight, flat, reduction="none", options=options(batch_chunk_size=256))
    else:
        losses = F.cross_entropy(F.linear(rows, weight).float(), flat, reduction="none")
    return losses.view_as(targets)


def prefix_lm_loss(
    model: PrefixLM,
    batch: Batch,
    *,
    full_softmax: bool = False,
    z_loss: float = 0.0,
    audio_lead_weight: float = 1.0,
    audio_lead_frames: int = 4,
    first_slice_weight: float = 1.0,
) -> LMLoss:
    """Loss of a batch; the head is evaluated on the output rows only.

    Args:
        model: the language model.
        batch: sequences of one layout.
        full_softmax: True scores every place against the whole vocabulary.
        z_loss: weight of the squared log-partition, which keeps logits small (PaLM uses 1e-4); block softmax only.
        audio_lead_weight: weight of the first frames of every audio level, against 1 for all other places. A tone's
            first code decides its pitch and all later ones repeat it, so that without a weight a small model learns
            to continue long before it learns to choose.
        audio_lead_frames: how many frames are "first".
        first_slice_weight: the same for the first slice of visual tokens, which decides what is seen.

    Returns:
        The loss and its parts.

    Raises:
        ValueError: if ``z_loss`` is asked for together with ``full_softmax``.
    """
    if full_softmax and z_loss:
        raise ValueError("z_loss needs the partition function, which the fused full softmax does not return")
    layout = batch.layout
    inputs = batch.ids if batch.inputs is None else batch.inputs
    hidden = model(inputs, layout, text=batch.text, text_mask=batch.text_mask)
    sums: dict[str, Tensor] = {}
    hits: dict[str, Tensor] = {}
    places: dict[str, int] = {}
    extra = lead = hidden.new_zeros((), dtype=torch.float32)
    lead_weights = 0.0
    visual = layout.find("visual_out")
    slice_places = visual.shape[1] * visual.shape[2] if visual is not None and visual.offset == 0 else 0
    for run in layout.runs:
        rows = hidden[:, run.rows]  # the row before a place predicts it
        targets = batch.ids[:, run.places]
        if full_softmax:
            losses = _flat_losses(model, rows, targets)
        else:
            logits = model.logits(rows, run.block).float()
            inside = targets - run.block.start
            losses = F.cross_entropy(logits.flatten(0, 1), inside.flatten(), reduction="none").view_as(targets)
            with torch.no_grad():
                hits[run.kind] = hits.get(run.kind, 0) + (logits.argmax(-1) == inside).sum()
            if z_loss:
                extra = extra + logits.logsumexp(-1).square().sum()
        number, weight = {
            "visual": (slice_places, first_slice_weight),
            "audio": (audio_lead_frames, audio_lead_weight),
        }.get(run.kind, (0, 1.0))
        leading = losses[:, :number]
        lead = lead + (weight - 1.0) * leading.sum()
        lead_weights += (weight - 1.0) * leading.numel()
        sums[run.kind] = sums.get(run.kind, 0) + losses.sum()
        places[run.kind] = places.get(run.kind, 0) + targets.numel()
    num_targets = sum(places.values())
    total = torch.stack(list(sums.values())).sum() + z_loss * extra + lead
    total = total / (num_targets + lead_weights)
    return LMLoss(
        total=total,
        nats={kind: s.detach() / places[kind] for kind, s in sums.items()},
        accuracy={kind: h / places[kind] for kind, h in hits.items()},
        num_targets=num_targets,
    )
