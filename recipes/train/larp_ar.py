"""Train LARP's generators on the codes of a frozen tokenizer: class-conditional, or frame prediction.

Wang et al. 2024, arXiv 2410.21264, section 4, and the authors' program: AdamW (0.9, 0.95) at 6e-4, decay 0.05 on the
linear maps only, cosine to a hundredth, no averaged weights. Codes are made before (nearest ones), so that a step sees
no pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from llm.larp_ar import LarpAR, LarpARConfig, larp_ar_config
from recipes.loop.average import evaluating
from recipes.loop.learner import Care, Learner, Optim
from recipes.loop.run import Run, TrainConfig
from recipes.runtime.config import given
from recipes.runtime.device import Compute
from recipes.runtime.seeds import step_generator
from recipes.tokens.larp_codes import LarpCodes


@dataclass(frozen=True)
class LarpARTrainConfig(TrainConfig):
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
        steps: optimizer steps.
        batch_size: clips a step.
        optim: of AdamW.
        validation_rows: last clips, kept out of training.
        validate_every: steps between validations.
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
    steps: int = 4
    batch_size: int = 4
    optim: Optim = Optim(lr=6e-4, final_lr=0.01, warmup_steps=100, betas=(0.9, 0.95), weight_decay=0.05, grad_clip=None)
    validation_rows: int = 8
    validate_every: int = 200


def larp_ar_model_config(config: LarpARTrainConfig, data: LarpCodes) -> LarpARConfig:
    """The size with the vocabulary and length of these codes."""
    return larp_ar_config(
        config.size,
        vocab_size=data.codebook_size,
        num_tokens=data.codes.shape[1],
        num_classes=data.num_classes or 101,
        frame_prediction=not data.num_classes,
        **given(config, "dim", "num_layers", "num_heads", "hidden_dim"),
    )


def linear_decay(model: LarpAR) -> Callable[[str, nn.Parameter], Care]:
    """Linear maps are decayed, tables and norms are not."""
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    return lambda name, weight: Care(decayed=id(weight) in linear)


def validation_loss(model: LarpAR, data: LarpCodes, rows: Tensor, config: LarpARTrainConfig, compute: Compute) -> float:
    """Nats a code on clips kept out."""
    total = 0.0
    with evaluating(model):
        for part in rows.split(config.batch_size):
            with compute.autocast():
                loss = model.loss(data.codes[part].to(compute.device), data.condition[part].to(compute.device))
            total += float(loss) * len(part)
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
    held_out = torch.arange(num_train, len(data.codes))

    # what learns
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = LarpAR(larp_ar_model_config(config, data)).to(compute.device).train()
    learner = Learner(model, config.optim, steps=config.steps, care=linear_decay(model))
    run = Run(folder, model.family, config, parts={"model": model, **learner.parts})

    # loop
    clock, clips = time.monotonic(), 0
    for step in run.steps():
        generator = step_generator(config.seed, step)
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))  # dropouts; a resumed run has the same
        rows = torch.randint(num_train, (config.batch_size,), generator=generator)
        codes, condition = data.codes[rows].to(compute.device), data.condition[rows].to(compute.device)
        with compute.autocast():
            loss = model.loss(codes, condition, generator=generator)
        loss.backward()
        rates = learner.step(step)
        clips += config.batch_size
        if run.logs(step):
            speed = clips / (time.monotonic() - clock)
            run.log(step, {"train/loss": loss.detach(), "perf/clips_per_s": speed, **rates})
            clock, clips = time.monotonic(), 0
        if len(held_out) and run.validates(step, config.validate_every):
            run.log(step, {"val/loss": validation_loss(learner.average, data, held_out, config, compute)})
            clock, clips = time.monotonic(), 0

    # finish
    learner.average.classes, learner.average.given_frames = data.classes, config.given_frames
    return run.finish(learner.average)
