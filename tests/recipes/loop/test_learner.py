"""recipes/loop/learner.py: numbers that cannot be are told, each weight is learned as its program says, the average follows."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from recipes.loop.learner import Care, Learner, Optim

OPTIM = Optim(lr=0.1, final_lr=0.5, warmup_steps=2, weight_decay=0.3, grad_clip=1.0, ema=0.5)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def gradients(net):
    net(torch.ones(4, 2)).sum().backward()


def test_a_step_is_that_of_a_plain_loop():
    ours, plain = model(), model()
    learner = Learner(ours, OPTIM, steps=4)
    groups = [[p for p in plain.parameters() if (p.ndim > 1) == matrix] for matrix in (True, False)]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.3}, {"params": groups[1], "weight_decay": 0.0}], betas=(0.9, 0.99)
    )
    for step, rate in enumerate((0.05, 0.1, 0.1, 0.075)):
        for net in (ours, plain):
            gradients(net)
        for group in optimizer.param_groups:
            group["lr"] = rate
        norm = nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        told = learner.step(step)
        assert told["train/lr"] == pytest.approx(rate) and float(told["train/grad_norm"]) == float(norm) > 1
        assert all(p.grad is None for p in ours.parameters())
    assert all(torch.allclose(a, b) for a, b in zip(ours.parameters(), plain.parameters(), strict=True))


def test_a_program_says_how_each_weight_is_learned():
    net = model()
    net[0].bias.requires_grad_(False)

    def care(name, weight):
        return Care(muon=True, scale=2.0) if name == "0.weight" else Care(decayed=False, scale=0.0)

    learner = Learner(net, replace(OPTIM, warmup_steps=0), steps=4, care=care)
    before = [p.clone() for p in net.parameters()]
    (matrix,) = learner.optimizers["muon"].param_groups
    (rest,) = learner.optimizers["optimizer"].param_groups
    assert matrix["params"] == [net[0].weight] and matrix["weight_decay"] == 0.3 and rest["weight_decay"] == 0
    assert len(rest["params"]) == 2, "a frozen weight is left alone"
    gradients(net)
    learner.step(0)
    assert matrix["lr"] == 0.2 and rest["lr"] == 0
    moved = [not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
    assert moved == [True, False, False, False]


def test_the_average_follows_and_is_the_model_where_it_is_off():
    net = model()
    learner = Learner(net, OPTIM, steps=4)
    start = learner.average[0].weight.clone()
    gradients(net)
    learner.step(0)
    torch.testing.assert_close(learner.average[0].weight, 0.1 * start + 0.9 * net[0].weight)
    assert set(learner.parts) == {"optimizer", "average"} and not learner.average[0].weight.requires_grad
    off = Learner(net, replace(OPTIM, ema=0.0), steps=4)
    assert off.average is net and set(off.parts) == {"optimizer"} and net[0].weight.requires_grad


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lr": -1.0, "ema": 2.0}, r"optim.lr must not be negative, got -1.0; optim.ema must lie in \[0, 1\], got 2.0"),
        ({"lr": float("nan")}, "optim.lr must not be negative, got nan"),
        ({"warmup_steps": -1}, "optim.warmup_steps must not be negative"),
        ({"final_lr": 1.5}, r"optim.final_lr must lie in \[0, 1\]"),
        ({"betas": (0.9, 1.0)}, r"optim.betas must lie in \[0, 1\)"),
        ({"grad_clip": 0.0}, "optim.grad_clip must be positive, got 0.0; null is no limit"),
    ],
)
def test_numbers_that_cannot_be_are_told_together(changes, told):
    with pytest.raises(ValueError, match=told):
        replace(OPTIM, **changes)


def test_without_a_limit_gradients_stay_as_they_are():
    net = model()
    learner = Learner(net, replace(OPTIM, grad_clip=None), steps=4)
    gradients(net)
    weights = [p.grad.clone() for p in net.parameters()]
    whole = torch.cat([g.flatten() for g in weights]).norm()
    assert float(learner.step(0)["train/grad_norm"]) == pytest.approx(float(whole))


def test_the_rate_rises_then_falls_to_the_floor():
    shares = [Optim(warmup_steps=10, final_lr=0.1).share(step, 101) for step in range(102)]
    assert shares[0] == 0.1 and shares[9] == shares[10] == 1
    assert all(a < b for a, b in itertools.pairwise(shares[:10])) and all(
        a >= b for a, b in itertools.pairwise(shares[10:])
    )
    assert shares[101] == pytest.approx(0.1)
