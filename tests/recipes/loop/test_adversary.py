"""recipes/loop/adversary.py: three judges behind one call; neither side's gradients reach the other."""

import pytest
import torch

from mmtok.losses.audio_discriminators import AudioDiscriminators
from mmtok.losses.audio_discriminators import discriminator_loss as audio_loss
from mmtok.losses.larp_discriminator import TransformerDiscriminator, hinge_discriminator_loss
from recipes.loop.adversary import Critics, Judge, LarpJudge
from recipes.loop.learner import Optim
from recipes.runtime.device import Compute
from recipes.runtime.distributed import ALONE

COMPUTE = Compute(torch.device("cpu"), torch.float32, "tests")
OPTIM = Optim(lr=1e-3, warmup_steps=0, grad_clip=None)
SHARED = {"steps": 10, "compute": COMPUTE, "ranks": ALONE}


def judge(**changes):
    numbers = {"first_step": 1, "r1_cost": 10.0, "r1_every": 2, "lecam_weight": 0.001}
    sizes = {"channels": 4, "channel_multipliers": (2, 2)}
    return Judge((5, 16, 16), OPTIM, **sizes, **{**numbers, **changes}, **SHARED)


def larp_judge(**changes):
    numbers = {"first_step": 1, "every": 2, "loss": "hinge", "lecam_weight": 0.0}
    network = TransformerDiscriminator((8, 16, 16), dim=16, num_heads=2, depth=1)
    return LarpJudge(network, OPTIM, **{**numbers, **changes}, **SHARED)


def critics():
    networks = AudioDiscriminators(waveform_channels=4, max_waveform_channels=8, spectral_channels=2)
    return Critics(networks, OPTIM, first_step=1, **SHARED)


CASES = {
    "judge": (judge, (2, 3, 5, 16, 16)),
    "larp": (larp_judge, (2, 3, 8, 16, 16)),
    "critics": (critics, (2, 1, 2048)),
}


@pytest.mark.parametrize("name", CASES)
def test_each_learns_and_speaks_in_one_call(name):
    make, shape = CASES[name]
    torch.manual_seed(0)
    adversary = make()
    network = adversary.learner.model
    real, fake = torch.rand(shape) * 2 - 1, (torch.rand(shape) * 2 - 1).requires_grad_()
    assert adversary(fake, real, 0) == {}, "silent before the game"
    before = [p.clone() for p in network.parameters()]
    told = adversary(fake, real, 2)
    terms = [value for value in told.values() if value.requires_grad]
    assert len(terms) == (2 if name == "critics" else 1) and "adversarial" in told
    held = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
    torch.stack(terms).sum().backward()
    assert fake.grad.abs().sum() > 0
    for parameter, gradient in zip(network.parameters(), held, strict=True):  # the tokenizer teaches the judge nothing
        assert parameter.grad is gradient is None or torch.equal(parameter.grad, gradient)
    if name == "judge":  # which spoke as it was, so its step waits
        assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
        adversary.learner.step(2)
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(any(part is p for p in adversary.parts.values()) for part in adversary.learner.parts.values())


def test_the_judge_is_punished_for_slopes_in_its_steps_only():
    game = judge()
    real, fake = torch.rand(2, 3, 5, 16, 16), torch.rand(2, 3, 5, 16, 16).requires_grad_()
    assert ["judge/r1" in game(fake, real, step) for step in (1, 2, 3, 4)] == [False, True, False, True]
    assert "judge/lecam" not in judge(lecam_weight=0.0)(fake, real, 1)


def test_larp_s_judge_learns_by_the_loss_it_is_given_and_in_its_steps():
    game = larp_judge()
    real, fake = (torch.rand(2, 3, 8, 16, 16) * 2 - 1 for _ in range(2))
    assert set(game(fake.requires_grad_(), real, 1)) == {"adversarial"}
    with torch.no_grad():
        wanted = hinge_discriminator_loss(game.network(real), game.network(fake))
    torch.testing.assert_close(game(fake, real, 2)["judge/loss"], wanted)
    blurred = [larp_judge(loss="smooth") for _ in range(2)]
    for other in blurred:
        other.network.load_state_dict(game.network.state_dict())
    losses = [float(g(fake, real, 2, generator=torch.Generator().manual_seed(3))["judge/loss"]) for g in blurred]
    assert losses[0] == losses[1] != pytest.approx(float(wanted))


def test_critics_learn_by_the_loss_of_sound():
    game = critics()
    real, fake = torch.rand(1, 1, 2048), torch.rand(1, 1, 2048).requires_grad_()
    with torch.no_grad():
        wanted = audio_loss(game.network(real), game.network(fake))
    torch.testing.assert_close(game(fake, real, 1)["discriminator"], wanted)
