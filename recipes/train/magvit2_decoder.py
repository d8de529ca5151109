"""Train a MAGVIT-v2 tokenizer's decoder on, behind codes that do not move: the pictures come closer, everything that
speaks the codes stays valid.

The encoder is frozen and the decoder may grow: blocks at its deepest grid, where a step costs little, are added as
identities. The objective is what reconstructions are measured by, the mean over clips of the PSNR.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmtok.metrics.visual import psnr_db
from mmtok.quantize.lfq import signs_from_codes
from mmtok.visual.magvit2 import Magvit2, deepen_decoder
from recipes.corpora.sources import ClipSource, draw_clips, held_clips
from recipes.loop.learner import Learner, Optim
from recipes.loop.run import Run, TrainConfig
from recipes.runtime.device import Compute
from recipes.runtime.distributed import ALONE, Ranks


@dataclass(frozen=True)
class DecoderTrainConfig(TrainConfig):
    """Options of ``train_decoder``; the defaults are a smoke run.

    Attributes:
        steps: optimizer steps.
        num_mid_blocks: the decoder's blocks at the deepest grid from now on, or None to leave them.
        batch_size: clips a step at the first of ``sizes``; other sizes get the same number of pixels.
        num_frames: frames of a clip, 1 + a multiple of the temporal stride.
        sizes: heights (= widths) in pixels; every step draws one.
        optim: of AdamW; a loss in dB has gradient norms around 10. The averaged weights are what is saved.
        sheet_every_s: seconds between pictures of reconstructions.
    """

    seed: int = 1
    steps: int = 4
    num_mid_blocks: int | None = None
    batch_size: int = 2
    num_frames: int = 17
    sizes: tuple[int, ...] = (64,)
    optim: Optim = Optim(
        lr=5e-4, final_lr=0.02, warmup_steps=100, betas=(0.9, 0.99), weight_decay=1e-4, grad_clip=30.0, ema=0.999
    )
    log_every: int = 20
    sheet_every_s: float = 300.0


def decoder_loss(model: Magvit2, video: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The clips' mean PSNR behind codes that receive no gradient."""
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
    # what learns
    torch.manual_seed(config.seed)
    model = Magvit2.from_pretrained(tokenizer)
    if config.num_mid_blocks is not None:
        model = deepen_decoder(model, config.num_mid_blocks)
    model = model.to(compute.device, memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
    model.encoder.requires_grad_(False)  # the codes stay valid
    learner = Learner(model, config.optim, steps=config.steps)

    # run
    run = Run(folder, "decoder", config, ranks, parts={"model": model, **learner.parts})
    held = held_clips(clip_source, seed=config.seed, num_frames=config.num_frames, sizes=config.sizes)

    # loop
    for step in run.steps():
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
        loss.backward()
        ranks.average_gradients(model.parameters())
        rates = learner.step(step)
        if run.logs(step):
            run.log(step, logged | rates)
        run.show(learner.average, held, config.sheet_every_s)

    # finish
    finished = run.finish(learner.average)
    run.show(learner.average, held)
    return finished
