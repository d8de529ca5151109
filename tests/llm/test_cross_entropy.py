import pytest
import torch
import torch.nn.functional as F

import llm.cross_entropy as module
from llm.cross_entropy import linear_cross_entropy
from mmtok.vocabulary import Block

BLOCKS = ((11, Block(0, 40)), (1, Block(40, 47)), (8, Block(35, 60)))


def problem(dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(20, 16, generator=draw).to(dtype).requires_grad_()
    head = torch.randn(64, 16, generator=draw).to(dtype).requires_grad_()
    targets = torch.cat([torch.randint(b.start, b.stop, (n,), generator=draw) for n, b in BLOCKS])
    return rows, head, targets, torch.rand(20, generator=draw)


def plain(rows, head, targets, weights, z_loss):
    total, start = 0.0, 0
    for number, block in BLOCKS:
        at = slice(start, start + number)
        logits = F.linear(rows[at], head[block.start : block.stop]).float()
        nats = F.cross_entropy(logits, targets[at] - block.start, reduction="none")
        total = total + (weights[at] * nats).sum() + z_loss * logits.logsumexp(-1).square().sum()
        start += number
    return total


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Three rows a piece, seven rows of the head at once."""
    monkeypatch.setattr(module, "LEAST_ROWS", {"cpu": 3})
    monkeypatch.setattr(module, "ENTRIES", {"cpu": 1})
    monkeypatch.setattr(module, "HEAD_ROWS", 7)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_pieces_equal_the_whole(dtype, tolerance):
    rows, head, targets, weights = problem(dtype)
    made = linear_cross_entropy(rows, head, targets, blocks=BLOCKS, weights=weights, z_loss=0.1)
    (made.total / 7).backward()
    mine, rows.grad, head.grad = (rows.grad, head.grad), None, None
    expected = plain(rows, head, targets, weights, 0.1)
    (expected / 7).backward()
    torch.testing.assert_close(made.total, expected, rtol=tolerance, atol=tolerance)
    for got, wanted in zip(mine, (rows.grad, head.grad), strict=True):
        assert got.dtype == dtype
        assert float((got - wanted).norm() / wanted.norm()) < tolerance
    assert not mine[1][60:].any()


def test_each_rows_values():
    rows, head, targets, _ = problem()
    made = linear_cross_entropy(rows, head, targets, blocks=BLOCKS)
    logits = F.linear(rows, head).detach()
    torch.testing.assert_close(made.total.detach(), made.nats.sum())
    torch.testing.assert_close(made.log_partition[:11], logits[:11, :40].logsumexp(-1))
    torch.testing.assert_close(made.nats[12:], F.cross_entropy(logits[12:, 35:60], targets[12:] - 35, reduction="none"))
    assert torch.equal(made.right[:11], logits[:11, :40].argmax(-1) == targets[:11])
    assert not made.nats.requires_grad and not made.log_partition.requires_grad


def test_only_what_learns_has_gradients():
    rows, head, targets, _ = problem()
    made = linear_cross_entropy(rows, head.detach(), targets, blocks=BLOCKS)
    made.total.backward()
    assert rows.grad is not None and head.grad is None
    with torch.no_grad():
        assert not linear_cross_entropy(rows, head, targets, blocks=BLOCKS).total.requires_grad


def test_no_more_than_a_piece_of_logits_exists(monkeypatch):
    rows, head, targets, _ = problem()
    largest, new_empty = [], torch.Tensor.new_empty

    def spied(self, *size, **options):
        out = new_empty(self, *size, **options)
        largest.append(out.numel())
        return out

    monkeypatch.setattr(torch.Tensor, "new_empty", spied)
    linear_cross_entropy(rows, head, targets, blocks=((20, Block(0, 64)),))
    assert max(largest) == 3 * 64


def test_errors():
    rows, head, targets, _ = problem()
    with pytest.raises(ValueError, match="blocks hold 19 rows, there are 20 rows and 20 targets"):
        linear_cross_entropy(rows, head, targets, blocks=((19, Block(0, 64)),))
    total = linear_cross_entropy(rows, head, targets, blocks=BLOCKS).total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="made once and have been used"):
        total.backward()
