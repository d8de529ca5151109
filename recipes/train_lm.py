"""Train the prefix language model on a token cache: AdamW or Muon, length groups, text dropout, block softmax.

Each step draws one task (llm/batching.py), rows of the cache and which captions to drop from generators that depend
on the seed, the rank and the step only, so a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from llm.batching import Batch, Group, draw_group, drop_context, fit_text, group_shares, make_groups
from llm.code_init import start_from_code_vectors
from llm.config import LMConfig, preset
from llm.loss import LMLoss, prefix_lm_loss
from llm.model import PrefixLM
from llm.tasks import Clip, task_content
from mmtok.contract import TextEncoder
from recipes.device import Compute
from recipes.run import Run, step_generator
from recipes.schedule import follow_weights, warmup_cosine
from recipes.tokens import TokenSet

OPTIMIZERS = ("adamw", "muon")


def _default_weights() -> dict[str, float]:
    return {
        "text_to_video": 0.55,
        "text_to_image": 0.05,
        "unconditional": 0.05,
        "image_to_video": 0.1,
        "continue_video": 0.1,
        "video_to_audio": 0.1,
        "audio_to_video": 0.05,
    }


@dataclass(frozen=True)
class LMTrainConfig:
    """How the language model is trained.

    Attributes:
        size: a preset of llm/config.py; the token cache and the text encoder replace its grid, frames and text width.
        visual_codes: entries of the visual codebook that made the cache.
        audio_codes: entries of one audio level.
        audio_order: in which audio codes stand in a sequence: "level", "time" or "delay", see mmtok/audio/orders.py.
        text_slots: places for text in a sequence.
        steps: optimizer steps.
        tokens_per_step: places in a batch, over which the batch size of each task follows.
        optimizer: "adamw", or "muon" for the layers' matrices, see ``make_optimizers``.
        lr: peak learning rate.
        final_lr: learning rate at the end, as a part of the peak.
        warmup: steps of linear warm-up.
        weight_decay: of matrices; norms and positions are not decayed.
        clip: largest gradient norm.
        task_weights: task to share of steps.
        image_share: share of image steps in the first quarter and afterwards; None follows ``task_weights``.
        silent_share: part of the steps of tasks that write picture and sound which write the picture alone.
        text_dropout: share of captions hidden, which trains the null branch of guidance.
        context_dropout: largest share of a sequence's own tokens hidden from it, see ``llm.batching.drop_context``.
        full_softmax: True trains over the whole vocabulary instead of the valid block.
        z_loss: weight of the squared log-partition.
        audio_lead_weight: weight of the first frames of every audio level, see llm/loss.py.
        audio_lead_frames: how many frames are first.
        first_slice_weight: weight of the first slice of visual tokens.
        ema: decay of the averaged weights that are saved; 0 saves the weights themselves.
        validation_rows: last rows of the cache, kept out of training.
        validate_every: steps between validations.
        log_every: steps between log lines.
        seed: of initialisation and every draw.
    """

    size: str = "tiny"
    visual_codes: int = 4096
    audio_codes: int = 1024
    audio_order: str = "level"
    text_slots: int = 32
    steps: int = 20
    tokens_per_step: int = 4096
    optimizer: str = "adamw"
    lr: float = 1e-3
    final_lr: float = 0.02
    warmup: int = 10
    weight_decay: float = 0.05
    clip: float = 1.0
    task_weights: dict[str, float] = field(default_factory=_default_weights)
    image_share: tuple[float, float] | None = None
    silent_share: float = 0.0
    text_dropout: float = 0.1
    context_dropout: float = 0.0
    full_softmax: bool = False
    z_loss: float = 0.0
    audio_lead_weight: float = 1.0
    audio_lead_frames: int = 4
    first_slice_weight: float = 1.0
    ema: float = 0.0
    validation_rows: int = 8
    validate_every: int = 200
    log_every: int = 10
    seed: int = 0


class CaptionVectors:
    """Embeddings of a corpus' captions, computed once per distinct text and kept unpadded in bfloat16.

    Args:
        captions: all texts, repetitions allowed.
        encoder: the frozen text encoder.
        slots: places for text in a sequence.
        batch_size: texts a call of the encoder.
    """

    def __init__(self, captions: list[str], encoder: TextEncoder, *, slots: int, batch_size: int = 128):
        self.slots, self.dim = slots, encoder.dim
        number: dict[str, int] = {}
        self.text_of_row = torch.tensor([number.setdefault(text, len(number)) for text in captions])
        texts, lengths, vectors = list(number), [], []
        with torch.inference_mode():
            for start in range(0, len(texts), batch_size):
                embedded, mask = encoder.encode(texts[start : start + batch_size])
                fit_text(embedded, mask, slots)  # raises for a caption that does not fit
                lengths.append(mask.sum(1).cpu())
                vectors.append(embedded[mask].to("cpu", torch.bfloat16))
        self.lengths = torch.cat(lengths).clone()
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.vectors = torch.cat(vectors).clone()

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of some rows' captions.

        Args:
            rows: (b,) row numbers.

        Returns:
            (b, slots, dim) float32, zero behind a text's end, and the mask (b, slots).
        """
        texts = self.text_of_row[rows]
        places = torch.arange(self.slots)[None]
        mask = places < self.lengths[texts][:, None]
        source = (self.starts[texts][:, None] + places).clamp(max=len(self.vectors) - 1)
        return self.vectors[source].float() * mask[..., None], mask


def make_batch(
    group: Group,
    rows: Tensor,
    *,
    tokens: TokenSet,
    captions: CaptionVectors,
    text_dropout: float,
    context_dropout: float = 0.0,
    generator: torch.Generator,
    device: torch.device,
) -> Batch:
    """Sequences of one task from rows of the cache.

    Args:
        group: the task.
        rows: (b,) row numbers.
        tokens: the cache.
        captions: vectors of its captions.
        text_dropout: probability that a caption is hidden.
        context_dropout: largest share of a sequence's own tokens that is hidden from it.
        generator: draws which.
        device: where the batch goes.

    Returns:
        The batch.
    """
    visual = tokens.low[rows].long().unsqueeze(1)
    audio = tokens.audio[rows].long() if tokens.audio is not None else None
    content = task_content(group.task, group.clip, visual=visual, audio=audio, given=group.given)
    ids, _ = group.layout.fill(content, len(rows))
    dropped = torch.rand(len(rows), generator=generator) < text_dropout
    inputs = None
    if context_dropout:
        inputs = drop_context(ids, group.layout, share=context_dropout, generator=generator).to(device)
    if not group.layout.text_slots:
        return Batch(group.layout, ids.to(device), inputs=inputs)
    text, mask = captions(rows)
    return Batch(group.layout, ids.to(device), text.to(device), (mask & ~dropped[:, None]).to(device), inputs)


def learning_rate(config: LMTrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine down to ``final_lr``.

    Args:
        config: the run.
        step: from 0.

    Returns:
        The rate.
    """
    return config.lr * warmup_cosine(step, steps=config.steps, warmup=config.warmup, floor=config.final_lr)


def make_optimizers(model: PrefixLM, config: LMTrainConfig) -> dict[str, torch.optim.Optimizer]:
    """One AdamW (0.9, 0.98), or Muon for the layers' matrices beside an AdamW for the rest.

    Matrices are decayed, norms and tables are not. Muon (Jordan et al. 2024) makes all directions of a matrix' step
    equally long, which serves what the loss rarely asks for, such as reading the caption's shape. Its steps have the
    root mean square of AdamW's (arXiv 2502.16982), so that both follow one learning rate.

    Args:
        model: the language model.
        config: the run.

    Returns:
        Name in the checkpoint to optimizer.

    Raises:
        ValueError: for an unknown optimizer.
    """
    if config.optimizer not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {config.optimizer!r}; known: {', '.join(OPTIMIZERS)}")
    matrices: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        table = name.startswith("positions.") or "embed_tokens" in name
        inside = ".layers." in name and weight.ndim == 2 and config.optimizer == "muon"
        (matrices if inside else kept if weight.ndim < 2 or table else decayed).append(weight)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    made: dict[str, torch.optim.Optimizer] = {
        "optimizer": torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)
    }
    if matrices:
        made["muon"] = torch.optim.Muon(
            matrices, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
    return made


def lm_config(config: LMTrainConfig, tokens: TokenSet, text_dim: int) -> LMConfig:
    """The preset with the sizes of this cache and this text encoder.

    Args:
        config: the run.
        tokens: the cache.
        text_dim: width of the text encoder.

    Returns:
        The model's config.
    """
    levels, frames = (tokens.audio.shape[1], tokens.audio.shape[2]) if tokens.audio is not None else (0, 0)
    _, t, h, w = tokens.low.shape
    return preset(
        config.size,
        visual_codes=config.visual_codes,
        audio_levels=levels,
        audio_codes=config.audio_codes if levels else 0,
        text_dim=text_dim,
        text_slots=config.text_slots,
        max_grid=(t, h, w),
        max_audio_frames=frames,
        audio_order=config.audio_order,
    )


def _loss_values(prefix: str, task: str, loss: LMLoss) -> dict[str, float | Tensor]:
    values: dict[str, float | Tensor] = {
        f"{prefix}/loss": loss.total.detach(),
        f"{prefix}/loss_{task}": loss.total.detach(),
    }
    for kind in ("visual", "audio"):
        if kind in loss.nats:
            values[f"{prefix}/{kind}_loss"] = loss.nats[kind]
        if kind in loss.accuracy:
            values[f"{prefix}/{kind}_accuracy"] = loss.accuracy[kind]
    return values


@torch.no_grad()
def validate(
    model: PrefixLM,
    groups: list[Group],
    rows: Tensor,
    *,
    config: LMTrainConfig,
    tokens: TokenSet,
    captions: CaptionVectors,
    compute: Compute,
) -> dict[str, float | Tensor]:
    """Losses of held-out rows with their captions, each task alone, and their mean under the tasks' weights.

    Args:
        model: the language model.
        groups: the mixture.
        rows: (n,) held-out row numbers.
        config: the run.
        tokens: the cache.
        captions: vectors of its captions.
        compute: device and precision.

    Returns:
        Names such as ``val/loss`` and ``val/loss_text_to_video`` to values.
    """
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for group in groups:
        size = group.batch_size(config.tokens_per_step)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            batch = make_batch(
                group,
                part,
                tokens=tokens,
                captions=captions,
                text_dropout=0.0,
                generator=step_generator(config.seed, 0),
                device=compute.device,
            )
            with compute.autocast():
                loss = prefix_lm_loss(model, batch, full_softmax=config.full_softmax)
            for name, value in _loss_values("val", group.task, loss).items():
                weight = group.weight * len(part)
                sums[name] = sums.get(name, 0.0) + weight * float(value)
                weights[name] = weights.get(name, 0.0) + weight
    return {name: sums[name] / weights[name] for name in sums}


def train_lm(
    config: LMTrainConfig,
    folder: Path,
    *,
    tokens: TokenSet,
    text_encoder: TextEncoder,
    compute: Compute,
    code_vectors: tuple[Tensor | None, list[Tensor] | None] = (None, None),
    rank: int = 0,
) -> Path:
    """Train, and write the model to ``folder/model``.

    Args:
        config: the run.
        folder: receives log, curves, checkpoint and the model; a stopped run continues.
        tokens: the cache; its last ``validation_rows`` rows are not trained on.
        text_encoder: frozen.
        compute: device and precision.
        code_vectors: visual (v, m) and audio (one (v, m) a level) vectors that the embedding rows start from; None
            starts from noise.
        rank: this process among those that train together; it changes the rows drawn, never the tasks.

    Returns:
        ``folder / "model"``.

    Raises:
        ValueError: if no row is left for training, or a caption does not fit into the text slots.
    """
    num_train = len(tokens) - config.validation_rows
    if num_train < 1:
        raise ValueError(
            f"validation_rows ({config.validation_rows}) must be less than the {len(tokens)} rows of the cache"
        )

    # data
    captions = CaptionVectors(tokens.captions, text_encoder, slots=config.text_slots)
    frames = tokens.audio.shape[2] if tokens.audio is not None else 0
    clip = Clip((tokens.low.shape[1], tokens.low.shape[2], tokens.low.shape[3]), frames)
    held_out = torch.arange(num_train, len(tokens))

    # model and optimizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = PrefixLM(lm_config(config, tokens, text_encoder.dim))
        start_from_code_vectors(model, *code_vectors, generator=torch.Generator().manual_seed(config.seed))
    model.to(compute.device).train()
    groups = make_groups(
        config.task_weights,
        model.vocabulary,
        clip,
        text_slots=config.text_slots,
        silent_share=config.silent_share,
        audio_order=config.audio_order,
    )
    optimizers = make_optimizers(model, config)
    parts: dict[str, nn.Module | torch.optim.Optimizer] = {"model": model, **optimizers}
    averaged = copy.deepcopy(model).requires_grad_(False) if config.ema else model
    if config.ema:
        parts["ema"] = averaged

    # resume
    run = Run(folder, title="language model", total_steps=config.steps, config=config)
    first = run.resume(parts)

    # loop
    clock, places = time.monotonic(), 0
    for step in run.steps(first):
        generator = step_generator(config.seed, step)
        shares = group_shares(groups, progress=step / config.steps, image_share=config.image_share)
        group = draw_group(groups, shares, generator)
        own = step_generator(config.seed + 7919 * (rank + 1), step)
        rows = torch.randint(num_train, (group.batch_size(config.tokens_per_step),), generator=own)
        batch = make_batch(
            group,
            rows,
            tokens=tokens,
            captions=captions,
            text_dropout=config.text_dropout,
            context_dropout=config.context_dropout,
            generator=own,
            device=compute.device,
        )
        with compute.autocast():
            loss = prefix_lm_loss(
                model,
                batch,
                full_softmax=config.full_softmax,
                z_loss=config.z_loss,
                audio_lead_weight=config.audio_lead_weight,
                audio_lead_frames=config.audio_lead_frames,
                first_slice_weight=config.first_slice_weight,
            )
        loss.total.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        for optimizer in optimizers.values():
            for table in optimizer.param_groups:
                table["lr"] = learning_rate(config, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if config.ema:
            follow_weights(averaged, model, decay=config.ema, step=step)

        places += batch.ids.numel()
        if step % config.log_every == 0 or step == config.steps - 1:
            values = _loss_values("train", group.task, loss)
            values["train/grad_norm"] = norm
            values["perf/tokens_per_s"] = places / (time.monotonic() - clock)
            clock, places = time.monotonic(), 0
            run.log(step, values)
        if len(held_out) and ((step + 1) % config.validate_every == 0 or step == config.steps - 1):
            averaged.eval()
            run.log(
                step,
                validate(
                    averaged,
                    groups,
                    held_out,
                    config=config,
                    tokens=tokens,
                    captions=captions,
                    compute=compute,
                ),
            )
            averaged.train()
            clock, places = time.monotonic(), 0
        run.maybe_save(step, parts)

    # finish
    run.finish(parts)
    averaged.eval().save_pretrained(Path(folder) / "model")
    return Path(folder) / "model"
