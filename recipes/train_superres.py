"""Train the super-resolution transformer on a token cache: masked codes, noisy conditions, AdamW, averaged weights.

The low-resolution codes of the cache come from bicubic halves of the clips (VideoPoet, section 3.3). Each step's rows
and corruption come from a generator that depends on the seed and the step only, so a resumed run draws what it would
have drawn. Optimizer numbers follow MAGVIT (Yu et al. 2022) except for the learning rate, which suits small models and
short runs.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mmtok.contract import TextEncoder
from recipes.device import Compute
from recipes.lm_data import CaptionVectors
from recipes.run import Run, step_generator
from recipes.schedule import follow_weights, warmup_cosine
from recipes.tokens import TokenSet
from superres.config import SuperResConfig, factor_sizes_for, preset
from superres.corrupt import Corruption, corrupt
from superres.loss import SuperResLoss, superres_loss
from superres.model import SuperResTransformer, split_codes
from superres.windows import low_size


@dataclass(frozen=True)
class SuperResTrainConfig:
    """How the super-resolution transformer is trained.

    Attributes:
        size: a preset of superres/config.py; the token cache and the text encoder replace its grid and text width.
        dim: width instead of the preset's, or None.
        num_blocks: blocks instead of the preset's, or None.
        num_heads: heads instead of the preset's, or None.
        hidden_dim: feed-forward width instead of the preset's, or None.
        visual_codes: entries of the visual codebook that made the cache.
        text_slots: places for text.
        steps: optimizer steps.
        batch_size: clips a step.
        lr: peak learning rate.
        final_lr: learning rate at the end, as a part of the peak.
        warmup: steps of linear warm-up.
        weight_decay: of matrices; norms and tables are not decayed.
        clip: largest gradient norm.
        label_smoothing: probability spread over all values of a factor.
        visible_weight: weight of visible positions in the loss, against 1 for hidden ones.
        max_noise: largest share of low-resolution codes replaced by random ones.
        drop_low: share of clips without the low-resolution condition.
        drop_text: share of clips without text.
        ema: decay of the averaged weights that are validated and saved.
        validation_rows: last rows of the cache, kept out of training.
        validate_every: steps between validations.
        log_every: steps between log lines.
        seed: of initialisation and every draw.
    """

    size: str = "tiny"
    dim: int | None = None
    num_blocks: int | None = None
    num_heads: int | None = None
    hidden_dim: int | None = None
    visual_codes: int = 4096
    text_slots: int = 32
    steps: int = 20
    batch_size: int = 8
    lr: float = 1e-3
    final_lr: float = 0.02
    warmup: int = 10
    weight_decay: float = 0.045
    clip: float = 1.0
    label_smoothing: float = 1e-4
    visible_weight: float = 1.0
    max_noise: float = 0.25
    drop_low: float = 0.1
    drop_text: float = 0.1
    ema: float = 0.999
    validation_rows: int = 8
    validate_every: int = 200
    log_every: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """Clips of the cache on the device, and what is hidden of them.

    Attributes:
        high: (b, t, h, w) int64 codes to predict.
        text: (b, n, d) text embeddings.
        text_mask: (b, n) bool, True where a token is.
        corruption: mask, spoiled low-resolution codes and dropped conditions.
    """

    high: Tensor
    text: Tensor
    text_mask: Tensor
    corruption: Corruption


def batch_loss(model: SuperResTransformer, batch: Batch, config: SuperResTrainConfig) -> SuperResLoss:
    """Loss of one batch.

    Args:
        model: the transformer.
        batch: clips and their corruption.
        config: label smoothing and the weight of visible positions.

    Returns:
        Loss and accuracies.
    """
    drawn = batch.corruption
    logits = model(
        batch.high,
        drawn.masked,
        drawn.low,
        batch.text,
        batch.text_mask,
        keep_low=drawn.keep_low,
        keep_text=drawn.keep_text,
    )
    return superres_loss(
        logits,
        batch.high,
        drawn.masked,
        factor_sizes=model.config.factor_sizes,
        label_smoothing=config.label_smoothing,
        visible_weight=config.visible_weight,
    )


def superres_config(config: SuperResTrainConfig, tokens: TokenSet, text_dim: int) -> SuperResConfig:
    """The preset with the sizes of this cache and this text encoder.

    Args:
        config: the run.
        tokens: the cache.
        text_dim: width of the text encoder.

    Returns:
        The model's config.

    Raises:
        ValueError: if the cache has no high-resolution codes, their grid is not twice the low one, or codes lie
            outside the codebook.
    """
    if tokens.high is None:
        raise ValueError("the token cache has no high-resolution codes; encode the corpus with upscale=true")
    grid = (tokens.high.shape[1], tokens.high.shape[2], tokens.high.shape[3])
    if tuple(tokens.low.shape[1:]) != low_size(grid):
        raise ValueError(f"low codes {tuple(tokens.low.shape[1:])} are not half as high and wide as {grid}")
    for name, codes in (("low", tokens.low), ("high", tokens.high)):
        least, most = (int(x) for x in codes.aminmax())
        if least < 0 or most >= config.visual_codes:
            raise ValueError(f"{name} codes lie in [{least}, {most}], but visual_codes is {config.visual_codes}")
    names = ("dim", "num_blocks", "num_heads", "hidden_dim")
    changes = {name: value for name in names if (value := getattr(config, name)) is not None}
    return preset(
        config.size, grid=grid, factor_sizes=factor_sizes_for(config.visual_codes), text_dim=text_dim, **changes
    )


def learning_rate(config: SuperResTrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine down to ``final_lr``.

    Args:
        config: the run.
        step: from 0.

    Returns:
        The rate.
    """
    return config.lr * warmup_cosine(step, steps=config.steps, warmup=config.warmup, floor=config.final_lr)


def make_optimizer(model: nn.Module, config: SuperResTrainConfig) -> torch.optim.AdamW:
    """AdamW (0.9, 0.96) that decays the layers' matrices and leaves norms and tables alone.

    Args:
        model: the transformer.
        config: the run.

    Returns:
        The optimizer.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        table = name.startswith(("embed.", "low_embed."))
        (kept if weight.ndim < 2 or table else decayed).append(weight)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.96), fused=True)


def copy_accuracy(low: Tensor, high: Tensor, factor_sizes: tuple[int, ...]) -> tuple[list[float], float]:
    """What is right when every high-resolution code is taken from the low-resolution code under it.

    Args:
        low: (b, t, h, w) codes.
        high: (b, t, 2h, 2w) codes.
        factor_sizes: values of each factor.

    Returns:
        The share of right factors, one number a factor, and the share of right codes.
    """
    copied = low.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    pairs = zip(split_codes(copied, factor_sizes), split_codes(high, factor_sizes), strict=True)
    return [float((a == b).float().mean()) for a, b in pairs], float((copied == high).float().mean())


class SuperResData:
    """Batches from a token cache.

    Args:
        tokens: the cache, with high-resolution codes.
        text_encoder: frozen; embeds every distinct caption once.
        config: the run.
        codebook_size: values of one code.
        device: where batches go.
    """

    def __init__(
        self,
        tokens: TokenSet,
        text_encoder: TextEncoder,
        config: SuperResTrainConfig,
        *,
        codebook_size: int,
        device: torch.device,
    ):
        assert tokens.high is not None, "superres_config checks this"
        self.low, self.high = tokens.low, tokens.high
        self.texts = tokens.captions
        self.captions = CaptionVectors(tokens.captions, text_encoder, slots=config.text_slots)
        self.config, self.codebook_size, self.device = config, codebook_size, device

    def training(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """Rows with everything that training spoils.

        Args:
            rows: (b,) row numbers.
            generator: draws the corruption.

        Returns:
            The batch.
        """
        config = self.config
        rates = {"max_noise": config.max_noise, "drop_low": config.drop_low, "drop_text": config.drop_text}
        return self._batch(rows, generator, rates)

    def clean(self, rows: Tensor, generator: torch.Generator, *, hide_all: bool) -> Batch:
        """Rows with both conditions whole.

        Args:
            rows: (b,) row numbers.
            generator: draws the mask.
            hide_all: True hides every high-resolution code, as when sampling starts.

        Returns:
            The batch.
        """
        batch = self._batch(rows, generator, {"max_noise": 0.0, "drop_low": 0.0, "drop_text": 0.0})
        if hide_all:
            batch.corruption.masked.fill_(True)
        return batch

    def _batch(self, rows: Tensor, generator: torch.Generator, rates: dict[str, float]) -> Batch:
        low, high = self.low[rows].long(), self.high[rows].long()
        drawn = corrupt(low, tuple(high.shape), self.codebook_size, generator, **rates)
        text, mask = self.captions([self.texts[int(row)] for row in rows])
        moved = Corruption(*(getattr(drawn, name).to(self.device) for name in Corruption.__dataclass_fields__))
        return Batch(high.to(self.device), text.to(self.device), mask.to(self.device), moved)


@torch.no_grad()
def validate(
    model: SuperResTransformer, data: SuperResData, rows: Tensor, config: SuperResTrainConfig, compute: Compute
) -> dict[str, float | Tensor]:
    """Loss and accuracies on held-out rows with whole conditions and always the same masks, and the copy baseline.

    Args:
        model: the transformer.
        data: the cache.
        rows: (n,) held-out row numbers.
        config: the run.
        compute: device and precision.

    Returns:
        ``val/...`` to value; ``first_step`` names predictions with every code hidden.
    """
    sums: dict[str, float] = {}
    generator = step_generator(config.seed, config.steps)
    for start in range(0, len(rows), config.batch_size):
        part = rows[start : start + config.batch_size]
        values: dict[str, float | Tensor] = {}
        for hide_all in (False, True):
            with compute.autocast():
                loss = batch_loss(model, data.clean(part, generator, hide_all=hide_all), config)
            values.update(_values("val/first_step_" if hide_all else "val/", loss))
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(part)
    factors, codes = copy_accuracy(data.low[rows].long(), data.high[rows].long(), model.config.factor_sizes)
    baseline = {f"val/copy_accuracy_factor{i}": value for i, value in enumerate(factors)}
    return {**{name: total / len(rows) for name, total in sums.items()}, **baseline, "val/copy_accuracy": codes}


def _values(prefix: str, loss: SuperResLoss) -> dict[str, float | Tensor]:
    values: dict[str, float | Tensor] = {f"{prefix}loss": loss.loss.detach(), f"{prefix}accuracy": loss.accuracy}
    for i, accuracy in enumerate(loss.factor_accuracy):
        values[f"{prefix}accuracy_factor{i}"] = accuracy
    return values


def train_superres(
    config: SuperResTrainConfig, folder: Path, *, tokens: TokenSet, text_encoder: TextEncoder, compute: Compute
) -> Path:
    """Train, and write the averaged model to ``folder/model``.

    Args:
        config: the run.
        folder: receives log, curves, checkpoint and the model; a stopped run continues.
        tokens: the cache; its last ``validation_rows`` rows are not trained on.
        text_encoder: frozen.
        compute: device and precision.

    Returns:
        ``folder / "model"``.

    Raises:
        ValueError: if no row is left for training or the cache does not fit the config.
    """
    num_train = len(tokens) - config.validation_rows
    if num_train < 1:
        raise ValueError(
            f"validation_rows ({config.validation_rows}) must be less than the {len(tokens)} rows of the cache"
        )

    # model and data
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = SuperResTransformer(superres_config(config, tokens, text_encoder.dim))
    model.to(compute.device).train()
    averaged = copy.deepcopy(model).requires_grad_(False)
    data = SuperResData(tokens, text_encoder, config, codebook_size=model.config.codebook_size, device=compute.device)
    held_out = torch.arange(num_train, len(tokens))

    # optimizer and resume
    optimizer = make_optimizer(model, config)
    parts = {"model": model, "averaged": averaged, "optimizer": optimizer}
    run = Run(folder, title="super-resolution", total_steps=config.steps, config=config)
    first = run.resume(parts)

    # loop
    clock, clips = time.monotonic(), 0
    for step in run.steps(first):
        generator = step_generator(config.seed, step)
        rows = torch.randint(num_train, (config.batch_size,), generator=generator)
        with compute.autocast():
            loss = batch_loss(model, data.training(rows, generator), config)
        loss.loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        rate = learning_rate(config, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        follow_weights(averaged, model, decay=config.ema, step=step)

        clips += config.batch_size
        last = step == config.steps - 1
        if step % config.log_every == 0 or last:
            speed = clips / (time.monotonic() - clock)
            run.log(
                step, {**_values("train/", loss), "train/grad_norm": norm, "train/lr": rate, "perf/clips_per_s": speed}
            )
            clock, clips = time.monotonic(), 0
        if len(held_out) and ((step + 1) % config.validate_every == 0 or last):
            run.log(step, validate(averaged, data, held_out, config, compute))
            clock, clips = time.monotonic(), 0
        run.maybe_save(step, parts)

    # finish
    run.finish(parts)
    averaged.save_pretrained(Path(folder) / "model")
    return Path(folder) / "model"
