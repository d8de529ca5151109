"""Train LARP's generators on the codes of a frozen tokenizer: class-conditional, or frame prediction.

Wang et al. 2024, arXiv 2410.21264, section 4, and the authors' program: AdamW (0.9, 0.95) at 6e-4, decay 0.05 on the
linear maps only, cosine to a hundredth, no averaged weights. Codes are made before (nearest ones), so that a step sees
no pixels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from llm.larp_ar import LarpAR, LarpARConfig, larp_ar_config
from recipes.loop.run import Run
from recipes.loop.schedule import warmup_cosine
from recipes.runtime.device import Compute
from recipes.runtime.seeds import step_generator
from recipes.tokens.larp_codes import LarpCodes


@dataclass(frozen=True)
class LarpARTrainConfig:
    """Options of ``train_larp_ar``; the defaults are a smoke run, ``configs/larp_ar_lp.yaml`` the published numbers.

    Attributes:
        frame_prediction: condition on the first frames instead of a class.
        given_frames: how many are known then.
        clips: clips encoded before the training: scenes of the corpus, or at most so many windows of films; None takes
            all windows of the films.
        windows: most windows a film.
        size: a key of ``llm.larp_ar.SIZES``.
        dim: width instead of the size's, or None.
        num_layers: layers instead of the size's, or None.
        num_heads: heads instead of the size's, or None.
        hidden_dim: inner width instead of the size's, or None.
        seed: decides weights, order and dropouts.
        steps: optimizer steps.
        batch_size: clips a step.
        lr: peak learning rate.
        final_lr: where the cosine ends, as a share of the peak.
        warmup: steps of linear warm-up.
        weight_decay: of the linear maps.
        validation_rows: last clips, kept out of training.
        validate_every: steps between validations.
        log_every: steps between log lines.
    """

    frame_prediction: bool = False
    given_frames: int = 5
    clips: int | None = 64
    windows: int = 4
    size: str = "S"
    dim: int | None = None
    num_layers: int | None = None
    num_heads: int | None = None
    hidden_dim: int | None = None
    seed: int = 0
    steps: int = 4
    batch_size: int = 4
    lr: float = 6e-4
    final_lr: float = 0.01
    warmup: int = 100
    weight_decay: float = 0.05
    validation_rows: int = 8
    validate_every: int = 200
    log_every: int = 10


def larp_ar_model_config(config: LarpARTrainConfig, data: LarpCodes) -> LarpARConfig:
    """The size with the vocabulary and length of these codes.

    Args:
        config: the run.
        data: the codes.

    Returns:
        The model's config.
    """
    names = ("dim", "num_layers", "num_heads", "hidden_dim")
    changes = {name: value for name in names if (value := getattr(config, name)) is not None}
    return larp_ar_config(
        config.size,
        vocab_size=data.codebook_size,
        num_tokens=data.codes.shape[1],
        num_classes=data.num_classes or 101,
        frame_prediction=not data.num_classes,
        **changes,
    )


def make_optimizer(model: LarpAR, config: LarpARTrainConfig) -> torch.optim.AdamW:
    """AdamW that decays linear maps and leaves tables and norms alone.

    Args:
        model: the generator.
        config: the run.

    Returns:
        The optimizer.
    """
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    decayed = [p for p in model.parameters() if id(p) in linear]
    kept = [p for p in model.parameters() if id(p) not in linear]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95))


@torch.no_grad()
def validation_loss(model: LarpAR, data: LarpCodes, rows: Tensor, config: LarpARTrainConfig, compute: Compute) -> float:
    """Nats a code on clips kept out.

    Args:
        model: the generator.
        data: the codes.
        rows: their numbers.
        config: batch size.
        compute: device and precision.

    Returns:
        The mean.
    """
    model.eval()
    total = 0.0
    for part in rows.split(config.batch_size):
        with compute.autocast():
            loss = model.loss(data.codes[part].to(compute.device), data.condition[part].to(compute.device))
        total += float(loss) * len(part)
    model.train()
    return total / len(rows)


def train_larp_ar(config: LarpARTrainConfig, folder: Path, *, data: LarpCodes, compute: Compute) -> Path:
    """Train, or continue a stopped run, and write the generator.

    Args:
        config: all options.
        folder: receives log, curves, checkpoint and the model.
        data: codes; the last ``validation_rows`` are not trained on.
        compute: device and precision.

    Returns:
        ``folder / "model"``.

    Raises:
        ValueError: if no row is left for training.
    """
    num_train = len(data.codes) - config.validation_rows
    if num_train < 1:
        raise ValueError(f"validation_rows ({config.validation_rows}) must be less than the {len(data.codes)} clips")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = LarpAR(larp_ar_model_config(config, data)).to(compute.device).train()
    held_out = torch.arange(num_train, len(data.codes))
    optimizer = make_optimizer(model, config)
    parts = {"model": model, "optimizer": optimizer}
    run = Run(folder, title=model.family, total_steps=config.steps, config=config)
    first = run.resume(parts)
    clock, clips = time.monotonic(), 0
    for step in run.steps(first):
        generator = step_generator(config.seed, step)
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))  # dropouts; a resumed run has the same
        rows = torch.randint(num_train, (config.batch_size,), generator=generator)
        share = warmup_cosine(step, steps=config.steps, warmup=config.warmup, floor=config.final_lr)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * share
        codes, condition = data.codes[rows].to(compute.device), data.condition[rows].to(compute.device)
        with compute.autocast():
            loss = model.loss(codes, condition, generator=generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        clips += config.batch_size
        last = step == config.steps - 1
        if step % config.log_every == 0 or last:
            speed = clips / (time.monotonic() - clock)
            run.log(step, {"train/loss": loss.detach(), "train/lr": config.lr * share, "perf/clips_per_s": speed})
            clock, clips = time.monotonic(), 0
        if len(held_out) and ((step + 1) % config.validate_every == 0 or last):
            run.log(step, {"val/loss": validation_loss(model, data, held_out, config, compute)})
            clock, clips = time.monotonic(), 0
        run.maybe_save(step, parts)
    run.finish(parts)
    model.classes, model.given_frames = data.classes, config.given_frames
    model.eval().save_pretrained(Path(folder) / "model")
    return Path(folder) / "model"
