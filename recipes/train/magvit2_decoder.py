"""Train a MAGVIT-v2 tokenizer's decoder on, behind codes that do not move: the pictures come closer, everything that
speaks the codes stays valid.

The encoder is frozen and the decoder may grow: blocks at its deepest grid, where a step costs little, are added as
identities. The objective is what reconstructions are measured by, the mean over clips of the PSNR.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmtok.metrics.visual import psnr_db
from mmtok.quantize.lfq import signs_from_codes
from mmtok.visual.magvit2 import Magvit2, deepen_decoder
from recipes.corpora.sources import ClipSource, draw_clips
from recipes.figures.sheets import reconstruction_sheet
from recipes.loop.average import Ema
from recipes.loop.run import Run
from recipes.loop.schedule import warmup_cosine
from recipes.runtime.device import Compute
from recipes.runtime.distributed import ALONE, Ranks
from recipes.runtime.seeds import step_generator


@dataclass(frozen=True)
class DecoderTrainConfig:
    """Options of ``train_decoder``; the defaults are a smoke run.

    Attributes:
        seed: decides data and their order.
        steps: optimizer steps.
        num_mid_blocks: the decoder's blocks at the deepest grid from now on, or None to leave them.
        batch_size: clips a step at the first of ``sizes``; other sizes get the same number of pixels.
        num_frames: frames of a clip, 1 + a multiple of the temporal stride.
        sizes: heights (= widths) in pixels; every step draws one.
        learning_rate: peak.
        final_learning_rate: where the cosine ends, as a share of the peak.
        warmup_steps: linear warm-up.
        weight_decay: of the kernels.
        grad_clip: largest gradient norm. A loss in dB has norms around 10.
        ema_decay: of the running average of the weights, which is what is saved.
        log_every: steps between log lines.
        sheet_every_s: seconds between pictures of reconstructions.
        save_every_s: seconds between checkpoints.
    """

    seed: int = 1
    steps: int = 4
    num_mid_blocks: int | None = None
    batch_size: int = 2
    num_frames: int = 17
    sizes: tuple[int, ...] = (64,)
    learning_rate: float = 5e-4
    final_learning_rate: float = 0.02
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    grad_clip: float = 30.0
    ema_decay: float = 0.999
    log_every: int = 20
    sheet_every_s: float = 300.0
    save_every_s: float = 120.0


def decoder_loss(model: Magvit2, video: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The clips' mean PSNR behind codes that receive no gradient.

    Args:
        model: the tokenizer.
        video: (b, 3, t, h, w) in [-1, 1].

    Returns:
        The loss in dB (lower is better), and the terms by log name.
    """
    with torch.no_grad():
        codes = model.codes_of(video)
    reconstruction = model.decode_signs(signs_from_codes(codes[:, 0], model.params.bits))
    loss = -psnr_db(reconstruction, video).clamp_max(99).mean()
    shown = psnr_db(reconstruction.detach().clamp(-1, 1), video).clamp_max(99).mean()
    return loss, {"train/loss": loss.detach(), "train/psnr_db": shown}


def train_decoder(
    config: DecoderTrainConfig,
    folder: Path,
    *,
    tokenizer: Path,
    clip_source: ClipSource,
    compute: Compute,
    ranks: Ranks = ALONE,
) -> Path:
    """Train, or continue a stopped run, and write the tokenizer with its averaged decoder.

    Args:
        config: all options.
        folder: the run's folder; holds the checkpoint, the log, curves.png and reconstructions.png.
        tokenizer: folder of the tokenizer whose decoder is trained.
        clip_source: see ``train_magvit2``.
        compute: device and precision.
        ranks: this process among those that train together; the first one writes.

    Returns:
        The model's folder, ``folder / "model"``.

    Raises:
        ValueError: if the decoder has more blocks than ``num_mid_blocks``.
    """
    torch.manual_seed(config.seed)
    model = Magvit2.from_pretrained(tokenizer)
    if config.num_mid_blocks is not None:
        model = deepen_decoder(model, config.num_mid_blocks)
    model = model.to(compute.device, memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
    model.encoder.requires_grad_(False)
    ema = Ema(model, config.ema_decay)
    weights = list(model.decoder.parameters())
    decayed, kept = [w for w in weights if w.ndim > 1], [w for w in weights if w.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99))
    parts = {"model": model, "ema": ema, "optimizer": optimizer}
    run = Run(
        Path(folder),
        title="decoder",
        total_steps=config.steps,
        config=config,
        save_every_s=config.save_every_s,
        writes=ranks.is_main,
    )
    sheet = Path(folder) / "reconstructions.png"
    held = [
        clip_source(step_generator(config.seed, -1 - i), 2, config.num_frames, s) for i, s in enumerate(config.sizes)
    ]
    held = [video.to(compute.device) for video in held]
    last_sheet = time.monotonic()

    for step in run.steps(run.resume(parts)):
        lr = config.learning_rate * warmup_cosine(
            step, steps=config.steps, warmup=config.warmup_steps, floor=config.final_learning_rate
        )
        for group in optimizer.param_groups:
            group["lr"] = lr
        video = draw_clips(
            clip_source,
            seed=config.seed,
            step=step,
            count=config.batch_size,
            num_frames=config.num_frames,
            sizes=config.sizes,
            ranks=ranks,
        ).to(compute.device)
        with compute.autocast():
            loss, logged = decoder_loss(model, video)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average_gradients(weights)
        norm = torch.nn.utils.clip_grad_norm_(weights, config.grad_clip)
        optimizer.step()
        ema.update(model)

        if step % config.log_every == 0 or step + 1 == config.steps:
            run.log(step, logged | {"train/grad_norm": norm, "train/learning_rate": lr})
        if ranks.is_main and time.monotonic() - last_sheet >= config.sheet_every_s:
            reconstruction_sheet(ema.model, held, sheet)
            last_sheet = time.monotonic()
        run.maybe_save(step, parts)

    run.finish(parts)
    if ranks.is_main:
        reconstruction_sheet(ema.model, held, sheet)
        ema.model.save_pretrained(Path(folder) / "model")
    return Path(folder) / "model"
