"""Judges of what a tokenizer makes: discriminators with their losses and optimizers, behind one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmtok.losses.audio_discriminators import AudioDiscriminators, adversarial_loss, feature_loss
from mmtok.losses.larp_discriminator import (
    MeanLeCam,
    TransformerDiscriminator,
    hinge_discriminator_loss,
    smooth_discriminator_loss,
)
from mmtok.losses.visual_discriminators import LeCam, VideoDiscriminator, discriminator_loss, generator_loss, r1_penalty
from mmtok.visual.larp import Larp
from recipes.runtime.device import Compute
from recipes.runtime.distributed import Ranks

if TYPE_CHECKING:
    from recipes.train.larp import LarpTrainConfig
    from recipes.train.magvit2 import Magvit2TrainConfig
    from recipes.train.soundstream import SoundStreamTrainConfig


class Judge:
    """The discriminator's side of the game.

    Args:
        config: the run.
        device: where it lives.
    """

    def __init__(self, config: Magvit2TrainConfig, device: torch.device):
        size = config.sizes[0]
        self.config = config
        self.network = VideoDiscriminator(
            (config.num_frames, size, size),
            channels=config.discriminator_channels,
            channel_multipliers=config.discriminator_multipliers,
        ).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate, betas=(0.0, 0.99))
        self.lecam = LeCam()

    def parts(self) -> dict[str, Any]:
        """What belongs into the checkpoint.

        Returns:
            Name to object.
        """
        return {"judge": self.network, "judge_optimizer": self.optimizer, "lecam": self.lecam}

    def opinion(self, reconstruction: Tensor) -> Tensor:
        """The tokenizer's adversarial term; no gradient reaches the judge.

        Args:
            reconstruction: (b, 3, t, h, w) with a graph.

        Returns:
            Scalar.
        """
        self.network.requires_grad_(False)
        term = generator_loss(self.network(reconstruction))
        self.network.requires_grad_(True)
        return term

    def learn(
        self, video: Tensor, reconstruction: Tensor, *, step: int, lr: float, compute: Compute, ranks: Ranks
    ) -> dict[str, Tensor | float]:
        """One step of the judge.

        Args:
            video: (b, 3, t, h, w) real clips.
            reconstruction: what the tokenizer made of them; detached here.
            step: optimizer step.
            lr: the tokenizer's learning rate of this step.
            compute: device and precision.
            ranks: this process among others.

        Returns:
            Terms by log name.
        """
        config = self.config
        with compute.autocast():
            real, fake = self.network(video), self.network(reconstruction.detach())
            loss = discriminator_loss(real, fake)
        self.lecam.update(ranks.mean(real.float().mean()), ranks.mean(fake.float().mean()))
        logged: dict[str, Tensor | float] = {
            "judge/loss": loss.detach(),
            "judge/real": real.detach().float().mean(),
            "judge/fake": fake.detach().float().mean(),
        }
        if config.lecam_weight:
            pull = self.lecam(real, fake)
            logged["judge/lecam"] = pull.detach()
            loss = loss + config.lecam_weight * pull
        if config.r1_cost and step % config.r1_every == 0:
            penalty = r1_penalty(self.network, video)
            logged["judge/r1"] = penalty.detach()
            loss = loss + config.r1_cost * config.r1_every * penalty
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average_gradients(self.network.parameters())
        for group in self.optimizer.param_groups:
            group["lr"] = lr * config.discriminator_lr_scale
        self.optimizer.step()
        return logged


class LarpJudge:
    """The discriminator's side.

    Args:
        config: the run.
        model: gives the clip's size.
        device: where it lives.
    """

    def __init__(self, config: LarpTrainConfig, model: Larp, device: torch.device):
        params = model.params
        self.config = config
        self.network = TransformerDiscriminator(
            (params.num_frames, params.size, params.size),
            patch=model.stride,
            dim=config.discriminator_dim,
            num_heads=config.discriminator_heads,
            depth=config.discriminator_depth,
        ).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.discriminator_lr, betas=config.betas)
        self.lecam = MeanLeCam()

    def parts(self) -> dict[str, Any]:
        """What belongs into the checkpoint.

        Returns:
            Name to object.
        """
        return {"judge": self.network, "judge_optimizer": self.optimizer, "lecam": self.lecam}

    def learn(
        self, video: Tensor, fake: Tensor, *, share: float, generator: torch.Generator, compute: Compute, ranks: Ranks
    ) -> dict[str, Tensor | float]:
        """One step of the judge.

        Args:
            video: (b, 3, t, h, w) real clips.
            fake: what the tokenizer made of them, detached.
            share: of the peak learning rate.
            generator: of the targets' blur.
            compute: device and precision.
            ranks: this process among others.

        Returns:
            Terms by log name.
        """
        self.network.requires_grad_(True)
        with compute.autocast():
            real, made = self.network(video), self.network(fake)
        pull = self.lecam(real.float(), made.float())
        if self.config.discriminator_loss == "hinge":
            loss = hinge_discriminator_loss(real.float(), made.float())
        else:
            loss = smooth_discriminator_loss(real, made, generator=generator)
        loss = loss + self.config.lecam_weight * pull
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average_gradients(self.network.parameters())
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.discriminator_lr * share
        self.optimizer.step()
        self.lecam.update(ranks.mean(real.float().mean()), ranks.mean(made.float().mean()))
        return {
            "judge/loss": loss.detach(),
            "judge/real": real.detach().float().mean(),
            "judge/fake": made.detach().float().mean(),
            "judge/lecam": pull.detach(),
        }

    def opinion(self, reconstruction: Tensor) -> Tensor:
        """The tokenizer's adversarial term; no gradient reaches the judge.

        Args:
            reconstruction: (b, 3, t, h, w) with a graph.

        Returns:
            Scalar.
        """
        self.network.requires_grad_(False)
        return generator_loss(self.network(reconstruction))


class Critics:
    """The discriminators' side.

    Args:
        config: the run.
        device: where they live.
    """

    def __init__(self, config: SoundStreamTrainConfig, device: torch.device):
        self.config = config
        self.networks = AudioDiscriminators(
            waveform_channels=config.waveform_channels,
            max_waveform_channels=config.max_waveform_channels,
            spectral_channels=config.spectral_channels,
        ).to(device)
        self.optimizer = torch.optim.AdamW(self.networks.parameters(), lr=config.discriminator_lr, betas=(0.5, 0.9))

    def parts(self) -> dict[str, Any]:
        """What belongs into the checkpoint.

        Returns:
            Name to object.
        """
        return {"critics": self.networks, "critics_optimizer": self.optimizer}

    def learn(self, audio: Tensor, restored: Tensor, *, compute: Compute, ranks: Ranks) -> Tensor:
        """One step of the discriminators.

        Args:
            audio: (b, 1, n) originals.
            restored: what the codec made of them, detached.
            compute: device and precision.
            ranks: this process among others.

        Returns:
            Their loss.
        """
        self.networks.requires_grad_(True)
        with compute.autocast():
            loss = discriminator_loss(self.networks(audio), self.networks(restored))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average_gradients(self.networks.parameters())
        torch.nn.utils.clip_grad_norm_(self.networks.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        return loss.detach()

    def opinion(self, audio: Tensor, restored: Tensor) -> dict[str, Tensor]:
        """The codec's adversarial and feature terms; no gradient reaches the discriminators.

        Args:
            audio: (b, 1, n) originals.
            restored: reconstructions with a graph.

        Returns:
            Scalars by name.
        """
        self.networks.requires_grad_(False)
        with torch.no_grad():
            real = self.networks(audio)
        fake = self.networks(restored)
        return {"adversarial": adversarial_loss(fake), "feature": feature_loss(real, fake)}
