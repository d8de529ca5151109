"""Train the MAGVIT-v2 tokenizer: images first, then clips, the saved model being the running average of the weights.

The paper's whole recipe is here: reconstruction, a perceptual term on a frozen network, a discriminator with r1 and
LeCam, the entropy term with its annealed weight. The small default uses neither judge nor perceptual network.

The images are one-frame clips. They train the last temporal slice of every kernel and the half of each time-doubling
convolution that the first frame passes; with that half copied (``finish_images``) the second stage starts from what the
paper gets by inflating an image model (MAGVIT-v2, appendix; see ``mmtok.visual.magvit2.inflate``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mmtok.features.vgg import perceptual_loss
from mmtok.losses.visual import reconstruction_losses
from mmtok.metrics.codebook import CodebookUse
from mmtok.metrics.visual import psnr_db
from mmtok.quantize.lfq import entropy_weight
from mmtok.visual.magvit2 import Magvit2, Magvit2Output, finish_images, inflate, magvit2, magvit2_params
from recipes.corpora.sources import ClipSource, draw_clips, held_clips
from recipes.loop.adversary import Judge
from recipes.loop.learner import Learner, Optim
from recipes.loop.perception import perceptual_network
from recipes.loop.run import Run, TrainConfig
from recipes.runtime.device import Compute
from recipes.runtime.distributed import ALONE, Ranks
from recipes.runtime.seeds import step_generator


@dataclass(frozen=True)
class Magvit2TrainConfig(TrainConfig):
    """Options of ``train_magvit2``; the defaults are a smoke run.

    Attributes:
        preset: size of a new model, a key of ``mmtok.visual.magvit2.PRESETS``.
        init: folder of a tokenizer to start from instead of random weights; an image tokenizer is inflated to
            ``preset``.
        image_steps: steps on one-frame clips, first.
        video_steps: steps on clips of ``num_frames``.
        image_batch_size: images a step, at the first of ``sizes``.
        video_batch_size: clips a step, at the first of ``sizes``; other sizes get the same number of pixels.
        num_frames: frames of a clip, 1 + a multiple of the temporal stride.
        sizes: heights (= widths) in pixels; every step draws one.
        optim: of AdamW; betas are (0.0, 0.99) in the paper, whose game with a judge wants no momentum.
        l1_weight: absolute error.
        l2_weight: squared error.
        edge_weight: error of neighbour differences.
        perceptual_weight: distance of a frozen network's features; 0.1 in MAGVIT.
        perceptual_network: "squeezenet:F.npz", "vgg16:F.pth", "resnet50:FOLDER" (MAGVIT's: logits at 224 pixels, a
            transformers folder or hub id), or "random" for a network of random weights, which is for tests.
        perceptual_frames: frames of each clip that it sees, drawn anew each step; 0 for all.
        adversarial_weight: the judge's say; 0.1 in MAGVIT, 0 for none. It needs one size and whole clips, so it starts
            behind the images at the earliest.
        adversarial_start_step: first step with a judge.
        discriminator_channels: base width of the judge, 128 in the paper.
        discriminator_multipliers: its widths after each halving.
        discriminator_lr_scale: its learning rate as a share of the tokenizer's.
        r1_cost: gradient penalty on real clips, 10 in MAGVIT.
        r1_every: steps between penalties, which are weighted by as much.
        lecam_weight: pull towards the running mean answers, 0.001 in O2-MAGVIT2.
        commitment_weight: distance of latents from their signs.
        entropy_weight: token entropy minus codebook entropy, final value.
        entropy_boost: factor on ``entropy_weight`` at step 0.
        entropy_anneal_steps: until the factor has fallen to 1.
        temperature: of the entropy's affinities.
        use_window: steps over which the use of the codebook is measured.
        sheet_every_s: seconds between pictures of reconstructions.
    """

    preset: str = "tiny"
    init: str | None = None
    image_steps: int = 4
    video_steps: int = 4
    image_batch_size: int = 4
    video_batch_size: int = 2
    num_frames: int = 17
    sizes: tuple[int, ...] = (64,)
    optim: Optim = Optim(
        lr=1e-3, final_lr=0.05, warmup_steps=100, betas=(0.9, 0.99), weight_decay=1e-4, grad_clip=1.0, ema=0.999
    )
    l1_weight: float = 1.0
    l2_weight: float = 5.0
    edge_weight: float = 0.5
    perceptual_weight: float = 0.0
    perceptual_network: str | None = None
    perceptual_frames: int = 4
    adversarial_weight: float = 0.0
    adversarial_start_step: int = 0
    discriminator_channels: int = 128
    discriminator_multipliers: tuple[int, ...] = (2, 4, 4, 4, 4)
    discriminator_lr_scale: float = 1.0
    r1_cost: float = 10.0
    r1_every: int = 16
    lecam_weight: float = 0.001
    commitment_weight: float = 0.25
    entropy_weight: float = 0.1
    entropy_boost: float = 3.0
    entropy_anneal_steps: int = 2000
    temperature: float = 0.01
    use_window: int = 100
    log_every: int = 20
    sheet_every_s: float = 300.0

    def __post_init__(self) -> None:
        if min(self.image_steps, self.video_steps) < 0 or self.steps < 1:
            raise ValueError(
                f"image_steps ({self.image_steps}) + video_steps ({self.video_steps}) must be at least 1, none negative"
            )
        if not self.sizes:
            raise ValueError("sizes must name at least one size")
        if bool(self.perceptual_weight) != (self.perceptual_network is not None):
            raise ValueError("perceptual_weight and perceptual_network go together; give both or neither")
        if self.adversarial_weight and len(set(self.sizes)) > 1:
            raise ValueError(f"the discriminator judges clips of one size, sizes names {sorted(set(self.sizes))}")

    @property
    def steps(self) -> int:
        """All optimizer steps."""
        return self.image_steps + self.video_steps

    @property
    def first_judged_step(self) -> int:
        """The step from which the discriminator takes part; beyond the end when it never does."""
        return max(self.adversarial_start_step, self.image_steps) if self.adversarial_weight else self.steps


def magvit2_loss(
    model: Magvit2, video: Tensor, config: Magvit2TrainConfig, step: int
) -> tuple[Tensor, Magvit2Output, dict[str, Tensor | float]]:
    """The training objective on one batch."""
    output = model(video, temperature=config.temperature)
    terms = reconstruction_losses(output.reconstruction, video)
    entropy = output.losses.token_entropy - output.losses.codebook_entropy
    weight = entropy_weight(
        step, weight=config.entropy_weight, boost=config.entropy_boost, anneal_steps=config.entropy_anneal_steps
    )
    loss = (
        config.l1_weight * terms.l1
        + config.l2_weight * terms.l2
        + config.edge_weight * terms.edge
        + config.commitment_weight * output.losses.commitment
        + weight * entropy
    )
    logged: dict[str, Tensor | float] = {
        "train/loss": loss.detach(),
        "train/psnr_db": psnr_db(output.reconstruction.detach().clamp(-1, 1), video).clamp_max(99).mean(),
        "train/l1": terms.l1.detach(),
        "train/l2": terms.l2.detach(),
        "train/edge": terms.edge.detach(),
        "vq/commitment": output.losses.commitment.detach(),
        "vq/token_entropy": output.losses.token_entropy.detach(),
        "vq/codebook_entropy": output.losses.codebook_entropy.detach(),
        "vq/entropy_weight": weight,
    }
    return loss, output, logged


def draw_batch(config: Magvit2TrainConfig, clip_source: ClipSource, step: int, ranks: Ranks = ALONE) -> Tensor:
    """Images first, then clips.

    Args:
        config: sizes and batch sizes.
        clip_source: draws clips.
        step: optimizer step.
        ranks: this process among others.

    Returns:
        (b, 3, t, size, size).
    """
    image = step < config.image_steps
    return draw_clips(
        clip_source,
        seed=config.seed,
        step=step,
        count=config.image_batch_size if image else config.video_batch_size,
        num_frames=1 if image else config.num_frames,
        sizes=config.sizes,
        ranks=ranks,
    )


def _seen_frames(config: Magvit2TrainConfig, total: int, step: int) -> Tensor:
    """Frames that the perceptual network sees in a step, the same on every rank."""
    count = min(total, config.perceptual_frames or total)
    return torch.randperm(total, generator=step_generator(config.seed + 1, step))[:count].sort().values


def _start(config: Magvit2TrainConfig) -> Magvit2:
    """The model before its first step."""
    if config.init is None:
        return magvit2(config.preset)
    model = Magvit2.from_pretrained(config.init)
    return inflate(model, magvit2_params(config.preset)) if model.params.temporal_kernel == 1 else model


def train_magvit2(
    config: Magvit2TrainConfig,
    folder: Path,
    *,
    clip_source: ClipSource,
    compute: Compute,
    ranks: Ranks = ALONE,
) -> Path:
    """Train, or continue a stopped run, and write the averaged model.

    Args:
        config: all options.
        folder: the run's folder; holds the checkpoint, the log, curves.png and reconstructions.png.
        clip_source: ``(generator, batch_size, num_frames, size) -> (b, 3, t, size, size)`` in [-1, 1], a function of
            its arguments only.
        compute: device and precision.
        ranks: this process among those that train together; the first one writes.

    Returns:
        The model's folder, ``folder / "model"``.
    """
    # what learns
    torch.manual_seed(config.seed)
    model = _start(config).to(compute.device, memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
    learner = Learner(model, config.optim, steps=config.steps)
    use = CodebookUse(model.codebook_size, window=config.use_window)
    network = None if config.perceptual_network is None else perceptual_network(config.perceptual_network)
    network = None if network is None else network.to(compute.device)
    judge = _judge(config, compute, ranks) if config.first_judged_step < config.steps else None

    # run
    parts = {"model": model, **learner.parts, "use": use, **({} if judge is None else judge.parts)}
    run = Run(folder, "magvit2", config, ranks, parts=parts)
    held = held_clips(clip_source, seed=config.seed, num_frames=config.num_frames, sizes=config.sizes)

    # loop
    for step in run.steps():
        if step and step == config.image_steps:  # from here on clips: the half that images never passed is copied
            finish_images(model, learner.optimizers["optimizer"])
            finish_images(learner.average)
        video = draw_batch(config, clip_source, step, ranks).to(compute.device)
        with compute.autocast():
            loss, output, logged = magvit2_loss(model, video, config, step)
            if network is not None:
                frames = _seen_frames(config, video.shape[2], step).to(video.device)
                term = perceptual_loss(network, output.reconstruction, video, frames=frames)
                loss = loss + config.perceptual_weight * term
                logged["train/perceptual"] = term.detach()
        opinion = {} if judge is None else judge(output.reconstruction, video, step)
        if "adversarial" in opinion:
            term = opinion.pop("adversarial")
            loss = loss + config.adversarial_weight * term
            logged["train/adversarial"] = term.detach()
        loss.backward()
        ranks.average_gradients(model.parameters())
        rates = learner.step(step)
        if judge is not None and opinion:
            judge.learner.step(step)
        use.update(ranks.gather(output.codes))

        if run.logs(step):
            share, bits = float(use.share()), float(use.entropy_bits())
            codes = {"vq/use": share, "vq/entropy_bits": bits, "vq/perplexity": 2.0**bits}
            run.log(step, ranks.means({**logged, **opinion}) | codes | rates)
        run.show(learner.average, held, config.sheet_every_s)

    # finish
    finished = run.finish(learner.average)
    run.show(learner.average, held)
    return finished


def _judge(config: Magvit2TrainConfig, compute: Compute, ranks: Ranks) -> Judge:
    """The adversary, whose rate follows the tokenizer's."""
    size, optim = config.sizes[0], config.optim
    rate = optim.lr * config.discriminator_lr_scale
    return Judge(
        (config.num_frames, size, size),
        replace(optim, lr=rate, betas=(0.0, 0.99), weight_decay=0.0, grad_clip=None, ema=0.0),
        steps=config.steps,
        first_step=config.first_judged_step,
        channels=config.discriminator_channels,
        channel_multipliers=config.discriminator_multipliers,
        r1_cost=config.r1_cost,
        r1_every=config.r1_every,
        lecam_weight=config.lecam_weight,
        compute=compute,
        ranks=ranks,
    )
