"""superres/loss.py: the sum over factors, and accuracies of hidden positions."""

import math

import torch

from superres.loss import superres_loss
from superres.model import merge_codes

SIZES = (4, 8)


def confident(factors, right):
    """Logits that are sure of ``factors`` where ``right``, of the next value elsewhere."""
    out = []
    for factor, size, good in zip(factors, SIZES, right, strict=True):
        out.append(torch.nn.functional.one_hot(torch.where(good, factor, (factor + 1) % size), size) * 50.0)
    return tuple(out)


def test_flat_logits_cost_the_sum_of_both_entropies():
    codes = torch.randint(32, (2, 1, 4, 4))
    flat = tuple(torch.zeros(2, 1, 4, 4, size) for size in SIZES)
    loss = superres_loss(flat, codes, torch.ones_like(codes, dtype=torch.bool), factor_sizes=SIZES)
    torch.testing.assert_close(loss.loss, torch.tensor(math.log(4) + math.log(8)))


def test_hidden_and_visible_positions_weigh_the_same_unless_told():
    codes = torch.zeros(1, 1, 1, 4, dtype=torch.int64)
    logits = tuple(torch.zeros(1, 1, 1, 4, size) for size in SIZES)
    for logit in logits:
        logit[..., 0, 0] = 100.0  # position 0 is certain and right
    visible_right = torch.tensor([[[[False, True, True, True]]]])
    nats = math.log(4) + math.log(8)
    for weight, expected in ((1.0, 0.75), (0.0, 1.0), (3.0, 0.5)):
        loss = superres_loss(
            logits, codes, visible_right, factor_sizes=SIZES, label_smoothing=0.0, visible_weight=weight
        )
        torch.testing.assert_close(loss.loss, torch.tensor(expected * nats))


def test_label_smoothing_charges_certainty():
    factors = (torch.zeros(1, 1, 1, 1, dtype=torch.int64),) * 2
    logits = confident(factors, (torch.tensor(True), torch.tensor(True)))
    masked = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    codes = merge_codes(factors, SIZES)
    certain = superres_loss(logits, codes, masked, factor_sizes=SIZES, label_smoothing=0.0).loss
    smooth = superres_loss(logits, codes, masked, factor_sizes=SIZES, label_smoothing=1e-2).loss
    assert certain < 1e-6
    # each wrong value gets 1e-2 / size and costs 50 nats
    torch.testing.assert_close(smooth, torch.tensor(1e-2 * 50 * (3 / 4 + 7 / 8)), atol=1e-4, rtol=1e-4)


def test_accuracies_count_hidden_positions_and_whole_codes():
    factors = tuple(torch.randint(size, (1, 1, 2, 4)) for size in SIZES)
    masked = torch.tensor([[[[1, 1, 1, 1], [0, 0, 0, 0]]]]).bool()
    right = (torch.tensor([[[[1, 1, 1, 0], [0] * 4]]]).bool(), torch.tensor([[[[1, 0, 1, 1], [0] * 4]]]).bool())
    loss = superres_loss(confident(factors, right), merge_codes(factors, SIZES), masked, factor_sizes=SIZES)
    torch.testing.assert_close(loss.factor_accuracy, torch.tensor([0.75, 0.75]))
    torch.testing.assert_close(loss.accuracy, torch.tensor(0.5))


def test_low_precision_logits_are_summed_in_float32():
    codes = torch.randint(32, (2, 1, 8, 8))
    logits = tuple(torch.randn(2, 1, 8, 8, size).bfloat16() for size in SIZES)
    masked = torch.ones_like(codes, dtype=torch.bool)
    low = superres_loss(logits, codes, masked, factor_sizes=SIZES).loss
    full = superres_loss(tuple(x.float() for x in logits), codes, masked, factor_sizes=SIZES).loss
    assert low.dtype == torch.float32 and low == full
