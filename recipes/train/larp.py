"""Train the LARP tokenizer: reconstruction, perception, an adversary, and a prior that shapes the latents.

Wang et al. 2024, arXiv 2410.21264, and the authors' released program. Three of its habits are options here, each told
where it is set: the prior's larger learning rate (50 in the paper, lost in the released schedule from the first step),
the weight of LeCam (applied twice there) and the start of the adversary (counted in steps here, in epochs there).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmtok
from mmtok.metrics.codebook import CodebookUse
from mmtok.metrics.visual import psnr_db
from mmtok.visual.larp import Larp, LarpOutput, LarpParams, find_larp
from mmtok.visual.larp_start import start_local
from recipes.corpora.sources import ClipSource, draw_clips
from recipes.figures.sheets import reconstruction_sheet
from recipes.loop.adversary import LarpJudge
from recipes.loop.average import Ema
from recipes.loop.perception import LarpPerception
from recipes.loop.run import Run
from recipes.loop.schedule import warmup_cosine
from recipes.runtime.device import Compute
from recipes.runtime.distributed import ALONE, Ranks
from recipes.runtime.seeds import step_generator


@dataclass(frozen=True)
class LarpTrainConfig:
    """Options of ``train_larp``; the defaults are a smoke run, ``configs/larp_l_long.yaml`` the published numbers.

    Attributes:
        preset: size of a new model, a key of ``mmtok.visual.larp.PRESETS``.
        num_tokens: holistic queries of a new model instead of the preset's.
        codebook_size: its codes instead of the preset's.
        adaptive_tokens: fewest tokens of an adaptive training, whose steps use random numbers of them, the first ones.
        init: folder of a tokenizer to start from instead of random weights.
        use_prior: False trains without the prior, the paper's ablation.
        seed: decides weights, data and every draw.
        steps: optimizer steps.
        batch_size: clips a step.
        optimizer: "adam" (published), or "muon" for the matrices of the blocks, which leaves the first plateau in a
            fraction of the steps; Adam keeps the rest.
        learning_rate: peak, of the tokenizer.
        prior_lr_scale: the prior's learning rate as a share of it; 50 in the paper, 1 in effect in the released code.
        discriminator_lr: peak, of the discriminator.
        final_learning_rate: where the cosine ends, as a share of the peak.
        warmup_steps: linear warm-up.
        betas: of both Adams.
        grad_clip: largest gradient norm of the tokenizer, None for no limit (published).
        ema_decay: of a running average of the weights, which is then saved; None saves the weights (published).
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
        log_every: steps between log lines.
        sheet_every_s: seconds between pictures of reconstructions.
        save_every_s: seconds between checkpoints.
    """

    preset: str = "larp-tiny"
    num_tokens: int | None = None
    codebook_size: int | None = None
    adaptive_tokens: int | None = None
    init: str | None = None
    use_prior: bool = True
    seed: int = 0
    steps: int = 4
    batch_size: int = 2
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    prior_lr_scale: float = 50.0
    discriminator_lr: float = 3e-5
    final_learning_rate: float = 0.01
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.5, 0.9)
    grad_clip: float | None = None
    ema_decay: float | None = None
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
    save_every_s: float = 120.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.discriminator_every < 1:
            raise ValueError("steps, batch_size and discriminator_every must be at least 1")
        if self.optimizer not in ("adam", "muon"):
            raise ValueError(f"unknown optimizer {self.optimizer!r}; known: adam, muon")
        if self.discriminator_loss not in ("smooth", "hinge"):
            raise ValueError(f"unknown discriminator_loss {self.discriminator_loss!r}; known: smooth, hinge")
        if bool(self.perceptual_weight) != (self.perceptual_network is not None):
            raise ValueError("perceptual_weight and perceptual_network go together; give both or neither")
        if self.init is not None and any(n is not None for n in (self.num_tokens, self.codebook_size)):
            raise ValueError("num_tokens and codebook_size are a new model's; init brings its own")
        if self.init is not None and self.local_start:
            raise ValueError("local_start is a new model's; init brings its weights")


def learning_rate_share(step: int, config: LarpTrainConfig) -> float:
    """Linear warm-up, then half a cosine; of both optimizers.

    Args:
        step: from 0.
        config: lengths and end.

    Returns:
        Share of the peaks.
    """
    return warmup_cosine(step, steps=config.steps, warmup=config.warmup_steps, floor=config.final_learning_rate)


def larp_params(config: LarpTrainConfig) -> LarpParams:
    """Sizes of the model before its first step.

    Args:
        config: the run.

    Returns:
        Those of ``init`` where it is given, else the preset with the run's changes, its prior included, which takes at
        least as many tokens as there are.

    Raises:
        ValueError: for an unknown preset, or sizes that do not fit.
    """
    if config.init is not None:
        params = _init(config).params
        return replace(params, adaptive_tokens=config.adaptive_tokens)
    params = find_larp(config.preset)
    count = params.num_tokens if config.num_tokens is None else config.num_tokens
    prior = params.prior
    if prior is not None:
        prior = replace(prior, max_tokens=max(count, prior.max_tokens))
    return replace(
        params,
        num_tokens=count,
        codebook_size=params.codebook_size if config.codebook_size is None else config.codebook_size,
        adaptive_tokens=config.adaptive_tokens,
        prior=prior,
    )


def _init(config: LarpTrainConfig) -> Larp:
    """The tokenizer that training starts from."""
    model = mmtok.load(str(config.init))
    if not isinstance(model, Larp):
        raise ValueError(f"init {config.init} is not a LARP tokenizer")
    if config.use_prior and model.prior is None:
        raise ValueError(f"init {config.init} has no prior to train with; set use_prior=false")
    return model


def _start(config: LarpTrainConfig) -> Larp:
    if config.init is None:
        model = Larp(larp_params(config))
        if config.local_start:
            start_local(model, step_generator(config.seed, -2))
        return model if config.use_prior else model.without_prior()  # the other weights are the same either way
    model = _init(config)
    model.params = replace(model.params, adaptive_tokens=config.adaptive_tokens)
    return model if config.use_prior else model.without_prior()


def make_optimizers(model: Larp, config: LarpTrainConfig) -> dict[str, torch.optim.Optimizer]:
    """Adam, and Muon for the tokenizer's block matrices where it is asked for.

    Args:
        model: with or without a prior, which keeps Adam and has its own rate.
        config: the run.

    Returns:
        Name in the checkpoint to optimizer; a group's "scale" is the share of the learning rate that it takes.
    """
    prior = [] if model.prior is None else list(model.prior.parameters())
    halves = (model.encoder, model.decoder) if config.optimizer == "muon" else ()
    matrices = [p for half in halves for p in half.parameters() if p.ndim == 2]
    known = {id(p) for p in (*prior, *matrices)}
    groups = [{"params": [p for p in model.parameters() if id(p) not in known], "scale": 1.0}]
    if prior:
        groups.append({"params": prior, "scale": config.prior_lr_scale})
    rates = {"lr": config.learning_rate, "betas": config.betas}
    made: dict[str, torch.optim.Optimizer] = {"optimizer": torch.optim.Adam(groups, **rates)}  # type: ignore[arg-type]
    if matrices:
        made["muon"] = torch.optim.Muon(
            [{"params": matrices, "scale": 2.0}],
            lr=config.learning_rate,
            weight_decay=0.0,
            adjust_lr_fn="match_rms_adamw",
        )
    return made


def larp_loss(
    out: LarpOutput,
    video: Tensor,
    config: LarpTrainConfig,
    *,
    perception: LarpPerception | None,
    judge: LarpJudge | None,
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The tokenizer's objective.

    Args:
        out: the model's pass.
        video: (b, 3, t, h, w) in [-1, 1].
        config: weights.
        perception: the perceptual term, or None.
        judge: the adversary, or None.

    Returns:
        The loss, and its terms by log name.
    """
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
    if judge is not None:
        term = judge.opinion(out.reconstruction)
        loss = loss + config.adversarial_weight * term
        logged["train/adversarial"] = term.detach()
    if out.prior is not None:
        loss = loss + config.prior_weight * out.prior.loss
        ids = out.codes[:, 0]
        logged["prior/loss"] = out.prior.loss.detach()
        logged["prior/sampled_share"] = out.prior.sampled.float().mean()
        logged |= {f"prior/top{k}": out.prior.accuracy(ids, k) for k in (1, 5)}
    return loss, {"train/loss": loss.detach()} | logged


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
    torch.manual_seed(config.seed)
    model = _start(config).to(compute.device).train()
    params = model.params
    optimizers = make_optimizers(model, config)
    use = CodebookUse(model.codebook_size, window=config.use_window)
    parts: dict[str, Any] = {"model": model, **optimizers, "use": use}
    ema = None if config.ema_decay is None else Ema(model, config.ema_decay)
    if ema is not None:
        parts["ema"] = ema
    judge = LarpJudge(config, model, compute.device) if config.adversarial_weight else None
    if judge is not None:
        parts |= judge.parts()
    name = config.perceptual_network
    perception = None if name is None else LarpPerception(name, compute.device)
    run = Run(
        Path(folder),
        title="larp",
        total_steps=config.steps,
        config=config,
        save_every_s=config.save_every_s,
        writes=ranks.is_main,
    )
    sheet = Path(folder) / "reconstructions.png"
    held = [clip_source(step_generator(config.seed, -1), 2, params.num_frames, params.size).to(compute.device)]
    last_sheet = time.monotonic()

    for step in run.steps(run.resume(parts)):
        share = learning_rate_share(step, config)
        for group in (g for optimizer in optimizers.values() for g in optimizer.param_groups):
            group["lr"] = config.learning_rate * share * group["scale"]
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
        playing = judge if step >= config.adversarial_start_step else None
        with compute.autocast():
            out = model(video, num_tokens=count, progress=step / config.steps, generator=draws)
        logged: dict[str, Tensor | float] = {}
        if playing is not None and step % config.discriminator_every == 0:
            fake = out.reconstruction.detach()
            logged |= playing.learn(video, fake, share=share, generator=draws, compute=compute, ranks=ranks)
        with compute.autocast():
            loss, terms = larp_loss(out, video, config, perception=perception, judge=playing)
        model.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average_gradients(model.parameters())
        most = float("inf") if config.grad_clip is None else config.grad_clip
        norm = nn.utils.clip_grad_norm_(model.parameters(), most)
        for optimizer in optimizers.values():
            optimizer.step()
        if ema is not None:
            ema.update(model)
        use.update(ranks.gather(out.codes))

        if step % config.log_every == 0 or step + 1 == config.steps:
            used, bits = float(use.share()), float(use.entropy_bits())
            rates: dict[str, Tensor | float] = {"vq/use": used, "vq/entropy_bits": bits, "train/grad_norm": norm}
            run.log(step, ranks.means(terms | logged) | rates | {"train/learning_rate": config.learning_rate * share})
        if ranks.is_main and time.monotonic() - last_sheet >= config.sheet_every_s:
            model.eval()
            reconstruction_sheet(model, held, sheet)
            model.train()
            last_sheet = time.monotonic()
        run.maybe_save(step, parts)

    run.finish(parts)
    final = (model if ema is None else ema.model).eval()
    if ranks.is_main:
        reconstruction_sheet(final, held, sheet)
        final.save_pretrained(Path(folder) / "model")
    return Path(folder) / "model"
