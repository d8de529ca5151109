"""Judges of what a tokenizer makes: discriminators with their losses and Learners, behind one call.

    terms = adversary(fake, real, step)

learns to tell the tokenizer's clips from real ones and says what it holds of them: terms that the tokenizer lowers
(they have a graph through ``fake``), and numbers for the log. Before its first step it is silent. No gradient of its
own learning reaches the tokenizer, and none of the tokenizer's reaches it.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmtok.losses.audio_discriminators import AudioDiscriminators, adversarial_loss, feature_loss
from mmtok.losses.audio_discriminators import discriminator_loss as audio_discriminator_loss
from mmtok.losses.larp_discriminator import (
    MeanLeCam,
    TransformerDiscriminator,
    hinge_discriminator_loss,
    smooth_discriminator_loss,
)
from mmtok.losses.visual_discriminators import LeCam, VideoDiscriminator, discriminator_loss, generator_loss, r1_penalty
from recipes.loop.learner import Care, Learner, Optim
from recipes.runtime.device import Compute
from recipes.runtime.distributed import Ranks


class Adversary(Protocol):
    """What the three judges have in common."""

    @property
    def parts(self) -> dict[str, Any]:
        """What belongs into the checkpoint."""

    def __call__(self, fake: Tensor, real: Tensor, step: int) -> dict[str, Tensor]:
        """Terms by name; empty before the first step of the game."""


def all_alike(name: str, weight: nn.Parameter) -> Care:
    """Every weight is learned the same way.

    Args:
        name: of the weight.
        weight: the weight.

    Returns:
        The same for all.
    """
    return Care()


class Judge:
    """MAGVIT's: a video discriminator with r1 and LeCam.

    It speaks as it was before this step's lesson, so its own step must wait until the tokenizer has used what it said:
    ``judge.learner.step(step)`` follows the tokenizer's.

    Args:
        clip: frames, height and width of the clips.
        optim: its rate.
        steps: of the whole run.
        first_step: of the game.
        channels: base width.
        channel_multipliers: widths after each halving.
        r1_cost: gradient penalty on real clips.
        r1_every: steps between penalties, which are weighted by as much.
        lecam_weight: pull towards the running mean answers.
        compute: device and precision.
        ranks: this process among others.
    """

    def __init__(
        self,
        clip: tuple[int, int, int],
        optim: Optim,
        *,
        steps: int,
        first_step: int,
        channels: int,
        channel_multipliers: tuple[int, ...],
        r1_cost: float,
        r1_every: int,
        lecam_weight: float,
        compute: Compute,
        ranks: Ranks,
    ):
        network = VideoDiscriminator(clip, channels=channels, channel_multipliers=channel_multipliers)
        self.network = network.to(compute.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.learner = Learner(self.network, optim, steps=steps, care=all_alike)
        self.lecam = LeCam()
        self.first_step, self.r1_cost, self.r1_every, self.lecam_weight = first_step, r1_cost, r1_every, lecam_weight
        self.compute, self.ranks = compute, ranks

    @property
    def parts(self) -> dict[str, Any]:
        """What belongs into the checkpoint."""
        return {"judge": self.network, "lecam": self.lecam} | _named("judge", self.learner)

    def __call__(self, fake: Tensor, real: Tensor, step: int) -> dict[str, Tensor]:
        """Gradients for the judge's next step, and the tokenizer's term."""
        if step < self.first_step:
            return {}
        with self.compute.autocast():
            genuine, made = self.network(real), self.network(fake.detach())
            loss = discriminator_loss(genuine, made)
        self.lecam.update(self.ranks.mean(genuine.float().mean()), self.ranks.mean(made.float().mean()))
        told = {
            "judge/loss": loss.detach(),
            "judge/real": genuine.detach().float().mean(),
            "judge/fake": made.detach().float().mean(),
        }
        if self.lecam_weight:
            pull = self.lecam(genuine, made)
            told["judge/lecam"] = pull.detach()
            loss = loss + self.lecam_weight * pull
        if self.r1_cost and step % self.r1_every == 0:
            penalty = r1_penalty(self.network, real)
            told["judge/r1"] = penalty.detach()
            loss = loss + self.r1_cost * self.r1_every * penalty
        loss.backward()
        self.ranks.average_gradients(self.network.parameters())
        self.network.requires_grad_(False)
        with self.compute.autocast():
            told["adversarial"] = generator_loss(self.network(fake))
        self.network.requires_grad_(True)
        return told


class LarpJudge:
    """LARP's: a transformer, which learns every few steps and speaks as it is behind the lesson.

    Args:
        network: the discriminator.
        optim: its rate.
        steps: of the whole run.
        first_step: of the game.
        every: steps between its lessons.
        loss: "smooth" blurs its targets; "hinge" does not.
        lecam_weight: pull towards the running mean answers.
        compute: device and precision.
        ranks: this process among others.
    """

    def __init__(
        self,
        network: TransformerDiscriminator,
        optim: Optim,
        *,
        steps: int,
        first_step: int,
        every: int,
        loss: str,
        lecam_weight: float,
        compute: Compute,
        ranks: Ranks,
    ):
        self.network = network.to(compute.device)
        self.learner = Learner(self.network, optim, steps=steps, care=all_alike)
        self.lecam = MeanLeCam()
        self.first_step, self.every, self.loss, self.lecam_weight = first_step, every, loss, lecam_weight
        self.compute, self.ranks = compute, ranks

    @property
    def parts(self) -> dict[str, Any]:
        """What belongs into the checkpoint."""
        return {"judge": self.network, "lecam": self.lecam} | _named("judge", self.learner)

    def __call__(
        self, fake: Tensor, real: Tensor, step: int, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """A lesson where one is due, and the tokenizer's term."""
        if step < self.first_step:
            return {}
        told = self._learn(fake.detach(), real, step, generator) if step % self.every == 0 else {}
        self.network.requires_grad_(False)
        with self.compute.autocast():
            told["adversarial"] = generator_loss(self.network(fake))
        return told

    def _learn(self, fake: Tensor, real: Tensor, step: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        self.network.requires_grad_(True)
        with self.compute.autocast():
            genuine, made = self.network(real), self.network(fake)
        pull = self.lecam(genuine.float(), made.float())
        if self.loss == "hinge":
            loss = hinge_discriminator_loss(genuine.float(), made.float())
        else:
            loss = smooth_discriminator_loss(genuine, made, generator=generator)
        loss = loss + self.lecam_weight * pull
        loss.backward()
        self.ranks.average_gradients(self.network.parameters())
        self.learner.step(step)
        self.lecam.update(self.ranks.mean(genuine.float().mean()), self.ranks.mean(made.float().mean()))
        return {
            "judge/loss": loss.detach(),
            "judge/real": genuine.detach().float().mean(),
            "judge/fake": made.detach().float().mean(),
            "judge/lecam": pull.detach(),
        }


class Critics:
    """SoundStream's: discriminators of waveform and spectrum, which speak as they are behind this step's lesson.

    Args:
        networks: the discriminators.
        optim: their rate.
        steps: of the whole run.
        first_step: of the game.
        compute: device and precision.
        ranks: this process among others.
    """

    def __init__(
        self,
        networks: AudioDiscriminators,
        optim: Optim,
        *,
        steps: int,
        first_step: int,
        compute: Compute,
        ranks: Ranks,
    ):
        self.networks = networks.to(compute.device)
        self.learner = Learner(self.networks, optim, steps=steps, care=all_alike)
        self.first_step, self.compute, self.ranks = first_step, compute, ranks

    @property
    def parts(self) -> dict[str, Any]:
        """What belongs into the checkpoint."""
        return {"critics": self.networks} | _named("critics", self.learner)

    def __call__(self, fake: Tensor, real: Tensor, step: int) -> dict[str, Tensor]:
        """A lesson, and the codec's terms."""
        if step < self.first_step:
            return {}
        self.networks.requires_grad_(True)
        with self.compute.autocast():
            loss = audio_discriminator_loss(self.networks(real), self.networks(fake.detach()))
        loss.backward()
        self.ranks.average_gradients(self.networks.parameters())
        self.learner.step(step)
        self.networks.requires_grad_(False)
        with self.compute.autocast():
            with torch.no_grad():
                genuine = self.networks(real)
            made = self.networks(fake)
            return {
                "discriminator": loss.detach(),
                "adversarial": adversarial_loss(made),
                "feature": feature_loss(genuine, made),
            }


def _named(owner: str, learner: Learner[Any]) -> dict[str, Any]:
    """A Learner's parts under names of their own, beside those of the tokenizer's."""
    return {f"{owner}_{name}": part for name, part in learner.parts.items()}
