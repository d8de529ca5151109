"""Gradients of several losses, brought to their shares."""

import pytest
import torch
from torch.testing import assert_close

from mmtok.losses.balancer import LossBalancer


def losses(output: torch.Tensor) -> dict[str, torch.Tensor]:
    """A large one along the first axis and a small one along the second; means over examples."""
    return {"loud": 1000 * output[:, 0].mean(), "soft": 1e-3 * output[:, 1].mean()}


def test_weights_are_the_shares_whatever_the_sizes() -> None:
    balancer = LossBalancer({"loud": 1.0, "soft": 3.0}, decay=0.9, length=2.0)
    for batch in (1, 4):
        output = torch.randn(batch, 3, requires_grad=True)
        gradient = balancer.gradient(losses(output), output)
        assert_close(gradient * batch, torch.tensor([[0.5, 1.5, 0.0]]).expand(batch, 3))


def test_a_loss_that_comes_later_begins_with_its_own_length() -> None:
    balancer = LossBalancer({"loud": 1.0, "soft": 1.0})
    output = torch.randn(2, 3, requires_grad=True)
    for _ in range(5):
        alone = balancer.gradient({"loud": losses(output)["loud"]}, output)
    assert_close(alone * 2, torch.tensor([[1.0, 0.0, 0.0]]).expand(2, 3))
    assert_close(balancer.gradient(losses(output), output) * 2, torch.tensor([[0.5, 0.5, 0.0]]).expand(2, 3))


def test_lengths_follow_slowly_and_are_saved() -> None:
    balancer = LossBalancer({"only": 1.0}, decay=0.5)
    output = torch.randn(1, 2, requires_grad=True)
    balancer.gradient({"only": output[:, 0].mean()}, output)
    again = LossBalancer({"only": 1.0}, decay=0.5)
    again.load_state_dict(balancer.state_dict())
    # the running mean is (0.25 * 1 + 0.5 * 4) / 0.75 = 3
    for one in (balancer, again):
        assert_close(one.gradient({"only": 4 * output[:, 0].mean()}, output), torch.tensor([[4 / 3, 0.0]]))


def test_bad_weights_and_unknown_losses_are_named() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        LossBalancer({"mel": 0.0})
    with pytest.raises(ValueError, match="decay"):
        LossBalancer({"mel": 1.0}, decay=1.0)
    output = torch.randn(1, 2, requires_grad=True)
    with pytest.raises(ValueError, match="without a weight: soft; known: mel"):
        LossBalancer({"mel": 1.0}).gradient({"soft": output.mean()}, output)
