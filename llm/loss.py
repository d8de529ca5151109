"""The training loss: cross-entropy of the output half, each place over the ids that may stand there.

VideoPoet trains one flat softmax over the whole vocabulary. Here a visual place is scored against the visual block,
an audio place against its level's block and a marker against the special block. That is the same distribution that
the grammar-constrained sampler uses (the flat softmax renormalised to the block), it needs a fraction of the head's
products, and no capacity goes into learning the grammar, which is known. ``full_softmax=True`` is the paper's form.
Either way no more than a few hundred rows of logits exist at a time (``llm.cross_entropy``).

Shape letters: b batch, n sequence, m places of a run, v ids of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llm.batching import Batch
from llm.cross_entropy import linear_cross_entropy
from llm.model import PrefixLM
from llm.sequence import Run
from mmtok.vocabulary import Block


@dataclass(frozen=True)
class LMLoss:
    """Sums over a batch, so that batches can be pooled.

    Attributes:
        total: mean loss per learned place, with gradients; the z-loss included.
        nats: kind of place ("visual", "audio", "special") to the mean cross-entropy there, detached.
        accuracy: the same kinds to the share of places whose best id is the right one; where visual codes are halved,
            of places whose low half and, given the right low half, whose high half is.
        num_targets: learned places.
    """

    total: Tensor
    nats: dict[str, Tensor]
    accuracy: dict[str, Tensor]
    num_targets: int


@dataclass(frozen=True)
class _Part:
    """Rows of the head's input that are scored over one block of its rows."""

    kind: str
    rows: Tensor  # (b, m, d)
    targets: Tensor  # (b, m) rows of the head
    block: Block  # of the head's rows
    weights: Tensor  # (m,)
    is_second: bool = False  # scores the places of the part before once more: the high halves


def _parts(model: PrefixLM, run: Run, hidden: Tensor, ids: Tensor, weights: Tensor, full_softmax: bool) -> list[_Part]:
    """A run's places, twice where its codes are halved."""
    rows, targets = hidden[:, run.rows], ids[:, run.places]  # the row before a place predicts it
    factors = model.factors
    if full_softmax:
        return [_Part(run.kind, rows, targets, Block(0, len(model.lm_head.weight)), weights)]
    if factors is None:
        return [_Part(run.kind, rows, targets, run.block, weights)]
    if run.kind != "visual":
        return [_Part(run.kind, rows, factors.row(targets), factors.block(run.block), weights)]
    low, high = factors.split(targets)
    given = model.high_given_low(rows, low - factors.low.start)
    return [
        _Part(run.kind, rows, low, factors.low, weights),
        _Part(run.kind, given, high, factors.high, weights, is_second=True),
    ]


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
        z_loss: weight of the squared log-partition, which keeps logits small (PaLM uses 1e-4).
        audio_lead_weight: weight of the first frames of every audio level, against 1 for all other places. A tone's
            first code decides its pitch and all later ones repeat it, so that without a weight a small model learns
            to continue long before it learns to choose.
        audio_lead_frames: how many frames are "first".
        first_slice_weight: the same for the first slice of visual tokens, which decides what is seen.

    Returns:
        The loss and its parts.

    Raises:
        ValueError: if ``full_softmax`` is asked of a model whose visual codes are halved.
    """
    if full_softmax and model.factors is not None:
        raise ValueError("full_softmax needs a row of the head for every id; this model has visual_factors=2")
    layout = batch.layout
    inputs = batch.ids if batch.inputs is None else batch.inputs
    hidden = model(inputs, layout, text=batch.text, text_mask=batch.text_mask)
    visual = layout.find("visual_out")
    slice_places = visual.shape[1] * visual.shape[2] if visual is not None and visual.offset == 0 else 0
    leads = {"visual": (slice_places, first_slice_weight), "audio": (audio_lead_frames, audio_lead_weight)}

    # all learned places behind one another, so that the head's gradient is made once
    parts: list[_Part] = []
    for run in layout.runs:
        weights = hidden.new_ones(len(range(*run.places.indices(layout.length))), dtype=torch.float32)
        leading, weight = leads.get(run.kind, (0, 1.0))
        weights[:leading] = weight
        parts += _parts(model, run, hidden, batch.ids, weights, full_softmax)
    b = len(hidden)
    made = linear_cross_entropy(
        torch.cat([part.rows.flatten(0, 1) for part in parts]),
        model.lm_head.weight,
        torch.cat([part.targets.flatten() for part in parts]),
        blocks=[(part.targets.numel(), part.block) for part in parts],
        weights=torch.cat([part.weights.repeat(b) for part in parts]),
        z_loss=z_loss,
    )

    # what they cost by kind
    sums: dict[str, Tensor] = {}
    hits: dict[str, Tensor] = {}
    places: dict[str, int] = {}
    sizes = [part.targets.numel() for part in parts]
    weight_sum = hidden.new_zeros((), dtype=torch.float32)
    right_before = made.right[:0]
    for part, nats, right in zip(parts, made.nats.split(sizes), made.right.split(sizes), strict=True):
        sums[part.kind] = sums.get(part.kind, 0) + nats.sum()
        if part.is_second:
            hits[part.kind] = hits[part.kind] - right_before.sum() + (right_before & right).sum()
            continue
        hits[part.kind] = hits.get(part.kind, 0) + right.sum()
        places[part.kind] = places.get(part.kind, 0) + len(nats)
        weight_sum = weight_sum + b * part.weights.sum()
        right_before = right
    return LMLoss(
        total=made.total / weight_sum,
        nats={kind: s / places[kind] for kind, s in sums.items()},
        accuracy={kind: h / places[kind] for kind, h in hits.items()},
        num_targets=sum(places.values()),
    )
