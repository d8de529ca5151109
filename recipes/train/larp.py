"""Train the LARP tokenizer: reconstruction, perception, an adversary, and a prior that shapes the latents.

Wang et al. 2024, arXiv 2410.21264, and the authors' released program. Three of its habits are options here, each told
where it is set: the prior's larger learning rate (50 in the paper, lost in the released schedule from the first step),
the weight of LeCam (applied twice there) and the start of the adversary (counted in steps here, in epochs there).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmtok
from mmtok.losses.larp_discriminator import TransformerDiscriminator
from mmtok.metrics.codebook import CodebookUse
from mmtok.metrics.visual import psnr_db
from mmtok.visual.larp import Larp, LarpOutput, LarpParams, find_larp
from mmtok.visual.larp_start import start_local
from recipes.corpora.sources import ClipSource, draw_clips, held_clips
from recipes.loop.adversary import LarpJudge
from recipes.loop.learner import Care, Learner, Optim, matrices_decay
from recipes.loop.perception import LarpPerception
from recipes.loop.run import Run, TrainConfig
from recipes.runtime.config import given
from recipes.runtime.device import Compute
from recipes.runtime.distributed import ALONE, Ranks
from recipes.runtime.seeds import step_generator


@dataclass(frozen=True)
class LarpTrainConfig(TrainConfig):
    """Options of ``train_larp``; the defaults are a smoke run, ``configs/larp_l_long.yaml`` the published numbers.

    Attributes:
        preset: size of a new model, a key of ``mmtok.visual.larp.PRESETS``.
        num_tokens: holistic queries of a new model instead of the preset's.
        codebook_size: its codes instead of the preset's.
        adaptive_tokens: fewest tokens of an adaptive training, whose steps use random numbers of them, the first ones.
        init: folder of a tokenizer to start from instead of random weights.
        use_prior: False trains without the prior, the paper's ablation.
        steps: optimizer steps.
        batch_size: clips a step.
        optim: of the tokenizer. As published there is no decay, no limit and no average.
        optimizer: "adam" (published), or "muon" for the matrices of the blocks, which leaves the first plateau in a
            fraction of the steps; Adam keeps the rest. Its rate is twice Adam's.
        prior_lr_scale: the prior's learning rate as a share of the tokenizer's; 50 in the paper, 1 in effect in the
            released code.
        discriminator_lr: peak, of the discriminator.
        local_start: begin as an autoencoder of patches, see ``mmtok.visual.larp_start``; False as published.
        pixel_weight: absolute error on [0, 1].
        squared_weight: mean squared error on [-1, 1]; 0 as published. Absolute error alone is content with the
            background for long.
        perceptual_weight: distance of a frozen network's features; LPIPS and 1.0 as published.
        perceptual_network: "lpips:VGG:LINEAR" (two files), or a name of ``Magvit2TrainConfig.perceptual_network``.
        adversarial_weight: the judge's say; 0 for none.
        adversarial_start_step: first step with a judge.
        discriminator_every: steps between the judge's updates.
        discriminator_loss: "smooth" (published) blurs its targets; "hinge" does not.
        discriminator_dim: its width.
        discriminator_heads: its heads.
        discriminator_depth: its blocks.
        lecam_weight: pull towards the running mean answers; 1e-6 is what the released code comes to.
        quantization_weight: commitment and codebook terms.
        prior_weight: the prior's cross entropy.
        use_window: steps over which the use of the codebook is measured.
        sheet_every_s: seconds between pictures of reconstructions.
    """

    preset: str = "larp-tiny"
    num_tokens: int | None = None
    codebook_size: int | None = None
    adaptive_tokens: int | None = None
    init: str | None = None
    use_prior: bool = True
    steps: int = 4
    batch_size: int = 2
    optimizer: str = "adam"
    optim: Optim = Optim(lr=1e-4, final_lr=0.01, warmup_steps=100, betas=(0.5, 0.9), grad_clip=None)
    prior_lr_scale: float = 50.0
    discriminator_lr: float = 3e-5
    local_start: bool = False
    pixel_weight: float = 1.0
    squared_weight: float = 0.0
    perceptual_weight: float = 0.0
    perceptual_network: str | None = None
    adversarial_weight: float = 0.0
    adversarial_start_step: int = 0
    discriminator_every: int = 5
    discriminator_loss: str = "smooth"
    discriminator_dim: int = 512
    discriminator_heads: int = 8
    discriminator_depth: int = 12
    lecam_weight: float = 1e-6
    quantization_weight: float = 0.1
    prior_weight: float = 0.06
    use_window: int = 100
    log_every: int = 20
    sheet_every_s: float = 300.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.discriminator_every < 1:
            raise ValueError("steps, batch_size and discriminator_every must be at least 1")
        for name, known in (("optimizer", ("adam", "muon")), ("discriminator_loss", ("smooth", "hinge"))):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        if bool(self.perceptual_weight) != (self.perceptual_network is not None):
            raise ValueError("perceptual_weight and perceptual_network go together; give both or neither")
        if self.init is not None and any(n is not None for n in (self.num_tokens, self.codebook_size)):
            raise ValueError("num_tokens and codebook_size are a new model's; init brings its own")
        if self.init is not None and self.local_start:
            raise ValueError("local_start is a new model's; init brings its weights")


def larp_params(config: LarpTrainConfig) -> LarpParams:
    """Sizes of the model before its first step: those of ``init`` if given, else the preset with the run's changes."""
    if config.init is not None:
        return replace(_init(config).params, adaptive_tokens=config.adaptive_tokens)
    params, changes = find_larp(config.preset), given(config, "num_tokens", "codebook_size", "adaptive_tokens")
    if params.prior is not None:  # it takes at least as many tokens as there are
        most = max(changes.get("num_tokens", params.num_tokens), params.prior.max_tokens)
        changes["prior"] = replace(params.prior, max_tokens=most)
    return replace(params, **{"adaptive_tokens": None} | changes)


def _init(config: LarpTrainConfig) -> Larp:
    """The tokenizer that training starts from."""
    model = mmtok.load(str(config.init))
    if not isinstance(model, Larp):
        raise ValueError(f"init {config.init} is not a LARP tokenizer")
    if config.use_prior and model.prior is None:
        raise ValueError(f"init {config.init} has no prior to train with; set use_prior=false")
    return model


def _start(config: LarpTrainConfig) -> Larp:
    if config.init is not None:
        model = _init(config)
        model.params = replace(model.params, adaptive_tokens=config.adaptive_tokens)
    else:
        model = Larp(larp_params(config))
        if config.local_start:
            start_local(model, step_generator(config.seed, -2))
    return model if config.use_prior else model.without_prior()  # the other weights are the same either way


def larp_care(config: LarpTrainConfig) -> Callable[[str, nn.Parameter], Care]:
    """The prior has a rate of its own; Muon takes the tokenizer's block matrices where it is asked for."""

    def care(name: str, weight: nn.Parameter) -> Care:
        if name.startswith("prior."):
            return Care(decayed=weight.ndim > 1, scale=config.prior_lr_scale)
        inside = name.startswith(("encoder.", "decoder.")) and weight.ndim == 2
        if config.optimizer == "muon" and inside:
            return Care(muon=True, scale=2.0)
        return matrices_decay(name, weight)

    return care


def larp_loss(
    out: LarpOutput, video: Tensor, config: LarpTrainConfig, *, perception: LarpPerception | None
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The tokenizer's objective, but for what judge and prior say of it."""
    pixel = (out.reconstruction - video).abs().mean() / 2  # of [0, 1], as published
    squared = F.mse_loss(out.reconstruction, video) if config.squared_weight else pixel.new_zeros(())
    loss = (
        config.pixel_weight * pixel
        + config.squared_weight * squared
        + config.quantization_weight * out.quantization_loss
    )
    logged: dict[str, Tensor | float] = {
        "train/l1": pixel.detach(),
        "train/psnr_db": psnr_db(out.reconstruction.detach().clamp(-1, 1), video).clamp_max(99).mean(),
        "vq/commitment": out.commitment.detach(),
    }
    if perception is not None:
        term = perception(out.reconstruction, video)
        loss = loss + config.perceptual_weight * term
        logged["train/perceptual"] = term.detach()
    return loss, logged


def prior_values(out: LarpOutput) -> dict[str, Tensor | float]:
    """What the prior makes of the codes, by log name; empty without one."""
    if out.prior is None:
        return {}
    told: dict[str, Tensor | float] = {f"prior/top{k}": out.prior.accuracy(out.codes[:, 0], k) for k in (1, 5)}
    return told | {"prior/loss": out.prior.loss.detach(), "prior/sampled_share": out.prior.sampled.float().mean()}


def train_larp(
    config: LarpTrainConfig,
    folder: Path,
    *,
    clip_source: ClipSource,
    compute: Compute,
    ranks: Ranks = ALONE,
) -> Path:
    """Train, or continue a stopped run, and write the model, its prior included.

    Args:
        config: all options.
        folder: the run's folder; holds the checkpoint, the log, curves.png and reconstructions.png.
        clip_source: see ``train_magvit2``.
        compute: device and precision.
        ranks: this process among those that train together; the first one writes.

    Returns:
        The model's folder, ``folder / "model"``.
    """
    # what learns
    torch.manual_seed(config.seed)
    model = _start(config).to(compute.device).train()
    params = model.params
    learner = Learner(model, config.optim, steps=config.steps, care=larp_care(config))
    use = CodebookUse(model.codebook_size, window=config.use_window)
    judge = _judge(config, model, compute, ranks) if config.adversarial_weight else None
    name = config.perceptual_network
    perception = None if name is None else LarpPerception(name, compute.device)

    # run
    parts = {"model": model, **learner.parts, "use": use, **({} if judge is None else judge.parts)}
    run = Run(folder, "larp", config, ranks, parts=parts)
    held = held_clips(clip_source, seed=config.seed, num_frames=params.num_frames, sizes=(params.size,))

    # loop
    for step in run.steps():
        video = draw_clips(
            clip_source,
            seed=config.seed,
            step=step,
            count=config.batch_size,
            num_frames=params.num_frames,
            sizes=(params.size,),
            ranks=ranks,
        ).to(compute.device)
        draws = step_generator(config.seed + 1, step, ranks.rank)
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=draws)))  # dropouts, the same when resumed
        count = model.draw_num_tokens(step_generator(config.seed + 2, step))  # the same in every process
        with compute.autocast():
            out = model(video, num_tokens=count, progress=step / config.steps, generator=draws)
            loss, logged = larp_loss(out, video, config, perception=perception)
        opinion = {} if judge is None else judge(out.reconstruction, video, step, generator=draws)
        if "adversarial" in opinion:
            term = opinion.pop("adversarial")
            loss = loss + config.adversarial_weight * term
            logged["train/adversarial"] = term.detach()
        if out.prior is not None:
            loss = loss + config.prior_weight * out.prior.loss
            logged |= prior_values(out)
        logged = {"train/loss": loss.detach(), **logged}
        loss.backward()
        ranks.average_gradients(model.parameters())
        rates = learner.step(step)
        use.update(ranks.gather(out.codes))

        if run.logs(step):
            codes = {"vq/use": float(use.share()), "vq/entropy_bits": float(use.entropy_bits())}
            run.log(step, ranks.means({**logged, **opinion}) | codes | rates)
        run.show(learner.average, held, config.sheet_every_s)

    # finish
    finished = run.finish(learner.average)
    run.show(learner.average, held)
    return finished


def _judge(config: LarpTrainConfig, model: Larp, compute: Compute, ranks: Ranks) -> LarpJudge:
    """The adversary for clips of the model's size, whose rate runs the tokenizer's course."""
    size = model.params.size
    network = TransformerDiscriminator(
        (model.params.num_frames, size, size),
        patch=model.stride,
        dim=config.discriminator_dim,
        num_heads=config.discriminator_heads,
        depth=config.discriminator_depth,
    )
    return LarpJudge(
        network,
        replace(config.optim, lr=config.discriminator_lr, weight_decay=0.0, grad_clip=None, ema=0.0),
        steps=config.steps,
        first_step=config.adversarial_start_step,
        every=config.discriminator_every,
        loss=config.discriminator_loss,
        lecam_weight=config.lecam_weight,
        compute=compute,
        ranks=ranks,
    )
