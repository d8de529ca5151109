"""Judges of what a tokenizer makes: discriminators with their losses and Learners, behind one call.

    terms = adversary(fake, real, step)

learns to tell the tokenizer's clips from real ones and says what it holds of them: terms that the tokenizer lowers
(they have a graph through ``fake``), and numbers for the log. Before its first step it is silent. No gradient of its
own learning reaches the tokenizer, and none of the tokenizer's reaches it.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

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

N = TypeVar("N", bound=nn.Module)


def all_alike(name: str, weight: nn.Parameter) -> Care:
    """Every weight is learned the same way.

    Args:
        name: of the weight.
        weight: the weight.
    """
    return Care()


class Adversary(Generic[N]):
    """What the three judges have in common: discriminators with their Learner, silent before the game.

    Args:
        network: the discriminators.
        optim: their rate.
        steps: of the whole run.
        first_step: of the game.
        compute: device and precision.
        ranks: this process among others.
    """

    title = "judge"  # under which it is saved
    lecam: Any = None  # the running mean answers of judges that have them

    def __init__(self, network: N, optim: Optim, *, steps: int, first_step: int, compute: Compute, ranks: Ranks):
        self.network = network.to(compute.device)
        self.learner = Learner(self.network, optim, steps=steps, care=all_alike)
        self.first_step, self.compute, self.ranks = first_step, compute, ranks

    @property
    def parts(self) -> dict[str, Any]:
        """What belongs into the checkpoint, under names of its own beside the tokenizer's."""
        own = {f"{self.title}_{name}": part for name, part in self.learner.parts.items()}
        return {self.title: self.network} | own | ({} if self.lecam is None else {"lecam": self.lecam})

    def __call__(
        self, fake: Tensor, real: Tensor, step: int, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """A lesson where one is due, and the tokenizer's terms; empty before the first step of the game."""
        return {} if step < self.first_step else self._play(fake, real, step, generator)

    def _play(self, fake: Tensor, real: Tensor, step: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        raise NotImplementedError

    def _backward(self, loss: Tensor) -> None:
        loss.backward()
        self.ranks.average_gradients(self.network.parameters())

    def _watch(self, genuine: Tensor, made: Tensor) -> None:
        """Move LeCam's running means."""
        self.lecam.update(self.ranks.mean(genuine.float().mean()), self.ranks.mean(made.float().mean()))

    def _verdict(self, fake: Tensor) -> Tensor:
        with self.compute.autocast():
            return generator_loss(self.network(fake))


def _answers(loss: Tensor, genuine: Tensor, made: Tensor) -> dict[str, Tensor]:
    return {
        "judge/loss": loss.detach(),
        "judge/real": genuine.detach().float().mean(),
        "judge/fake": made.detach().float().mean(),
    }


class Judge(Adversary[VideoDiscriminator]):
    """MAGVIT's: a video discriminator with r1 and LeCam.

    It speaks as it was before this step's lesson, so its own step must wait until the tokenizer has used what it said:
    ``judge.learner.step(step)`` follows the tokenizer's.

    Args:
        clip: frames, height and width of the clips.
        optim: its rate.
        channels: base width.
        channel_multipliers: widths after each halving.
        r1_cost: gradient penalty on real clips.
        r1_every: steps between penalties, which are weighted by as much.
        lecam_weight: pull towards the running mean answers.
        shared: as in ``Adversary``.
    """

    def __init__(
        self,
        clip: tuple[int, int, int],
        optim: Optim,
        *,
        channels: int,
        channel_multipliers: tuple[int, ...],
        r1_cost: float,
        r1_every: int,
        lecam_weight: float,
        **shared: Any,
    ):
        network = VideoDiscriminator(clip, channels=channels, channel_multipliers=channel_multipliers)
        super().__init__(network.to(memory_format=torch.channels_last_3d), optim, **shared)  # type: ignore[call-overload]
        self.lecam, self.lecam_weight, self.r1_cost, self.r1_every = LeCam(), lecam_weight, r1_cost, r1_every

    def _play(self, fake: Tensor, real: Tensor, step: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Gradients for the judge's next step, and the tokenizer's term."""
        with self.compute.autocast():
            genuine, made = self.network(real), self.network(fake.detach())
            loss = discriminator_loss(genuine, made)
        self._watch(genuine, made)
        told = _answers(loss, genuine, made)
        if self.lecam_weight:
            pull = self.lecam(genuine, made)
            told["judge/lecam"] = pull.detach()
            loss = loss + self.lecam_weight * pull
        if self.r1_cost and step % self.r1_every == 0:
            penalty = r1_penalty(self.network, real)
            told["judge/r1"] = penalty.detach()
            loss = loss + self.r1_cost * self.r1_every * penalty
        self._backward(loss)
        self.network.requires_grad_(False)
        told["adversarial"] = self._verdict(fake)
        self.network.requires_grad_(True)
        return told


class LarpJudge(Adversary[TransformerDiscriminator]):
    """LARP's: a transformer, which learns every few steps and speaks as it is behind the lesson.

    Args:
        network: the discriminator.
        optim: its rate.
        every: steps between its lessons.
        loss: "smooth" blurs its targets; "hinge" does not.
        lecam_weight: pull towards the running mean answers.
        shared: as in ``Adversary``.
    """

    def __init__(
        self,
        network: TransformerDiscriminator,
        optim: Optim,
        *,
        every: int,
        loss: str,
        lecam_weight: float,
        **shared: Any,
    ):
        super().__init__(network, optim, **shared)
        self.lecam, self.lecam_weight, self.every, self.loss = MeanLeCam(), lecam_weight, every, loss

    def _play(self, fake: Tensor, real: Tensor, step: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        told = self._learn(fake.detach(), real, step, generator) if step % self.every == 0 else {}
        self.network.requires_grad_(False)
        return told | {"adversarial": self._verdict(fake)}

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
        self._backward(loss)
        self.learner.step(step)
        self._watch(genuine, made)
        return _answers(loss, genuine, made) | {"judge/lecam": pull.detach()}


class Critics(Adversary[AudioDiscriminators]):
    """SoundStream's: discriminators of waveform and spectrum, which speak as they are behind this step's lesson."""

    title = "critics"

    def _play(self, fake: Tensor, real: Tensor, step: int, generator: torch.Generator | None) -> dict[str, Tensor]:
        self.network.requires_grad_(True)
        with self.compute.autocast():
            loss = audio_discriminator_loss(self.network(real), self.network(fake.detach()))
        self._backward(loss)
        self.learner.step(step)
        self.network.requires_grad_(False)
        with self.compute.autocast():
            with torch.no_grad():
                genuine = self.network(real)
            made = self.network(fake)
            return {
                "discriminator": loss.detach(),
                "adversarial": adversarial_loss(made),
                "feature": feature_loss(genuine, made),
            }
