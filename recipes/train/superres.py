"""Train the super-resolution transformer: masked codes, noisy conditions, AdamW, averaged weights.

    cinepoet train superres --media my_films --out runs/superres

Clips come from a token cache, from films or from made-up scenes (recipes/tokens/superres_pairs.py). Each step draws one
group of clips of one grid, then for every clip its row and what is hidden and spoiled, from generators that depend on
seed, step and place in the batch only: a resumed run draws what it would have drawn, and several processes share the
batch that one would take. Optimizer numbers follow MAGVIT (Yu et al. 2022) except for the learning rate, which suits
small models and short runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from recipes.loop.average import weighted_means
from recipes.loop.learner import Care, Learner, Optim
from recipes.loop.run import Run, TrainConfig
from recipes.runtime.config import given
from recipes.runtime.device import Compute
from recipes.runtime.distributed import ALONE, Ranks
from recipes.runtime.seeds import step_generator
from recipes.tokens.caption_vectors import CaptionLookup
from recipes.tokens.superres_pairs import PairGroup, Pairs
from superres.config import SuperResConfig, factor_sizes_for, preset
from superres.corrupt import Corruption, corrupt
from superres.loss import SuperResLoss, superres_loss
from superres.model import SuperResTransformer, split_codes
from superres.windows import Size, fit_window, windows_for


@dataclass(frozen=True)
class SuperResTrainConfig(TrainConfig):
    """How the super-resolution transformer is trained.

    Attributes:
        size: a preset of superres/config.py; the clips and the text encoder replace its grid and text width.
        dim: width instead of the preset's, or None.
        num_blocks: blocks instead of the preset's, or None.
        num_heads: heads instead of the preset's, or None.
        hidden_dim: feed-forward width instead of the preset's, or None.
        visual_codes: entries of the visual codebook.
        text_slots: places for text.
        steps: optimizer steps.
        batch_size: clips a step of the first group; groups of other grids get about as many tokens.
        micro_batch: clips that go through the model at once, or None for all; gradients are those of the whole batch.
        recompute: compute each layer again for its gradients instead of keeping what is inside it.
        compiled: True compiles each layer with torch.compile.
        optim: of AdamW; the layers' matrices are decayed. The averaged weights are validated and saved.
        label_smoothing: probability spread over all values of a factor.
        visible_weight: weight of visible positions in the loss, against 1 for hidden ones.
        max_noise: largest share of low-resolution codes replaced by random ones.
        drop_low: share of clips without the low-resolution condition.
        drop_text: share of clips without text.
        validation_rows: clips of each group that are kept out of training and validated, as far as there are.
        validate_every: steps between validations.
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
    micro_batch: int | None = None
    recompute: bool = False
    compiled: bool = False
    optim: Optim = Optim(
        lr=1e-3, final_lr=0.02, warmup_steps=10, betas=(0.9, 0.96), weight_decay=0.045, grad_clip=1.0, ema=0.999
    )
    label_smoothing: float = 1e-4
    visible_weight: float = 1.0
    max_noise: float = 0.25
    drop_low: float = 0.1
    drop_text: float = 0.1
    validation_rows: int = 8
    validate_every: int = 200

    def __post_init__(self) -> None:
        values = vars(self)
        counts = ["steps", "batch_size", "text_slots", "validate_every", "log_every"]
        counts += given(self, "micro_batch")
        shares = ("max_noise", "drop_low", "drop_text", "label_smoothing")
        faults = [f"{name} must be at least 1, got {values[name]}" for name in counts if values[name] < 1]
        faults += [f"{name} must lie in [0, 1], got {values[name]}" for name in shares if not 0 <= values[name] <= 1]
        least_0 = ("visible_weight", "validation_rows")
        faults += [f"{name} must not be negative, got {values[name]}" for name in least_0 if values[name] < 0]
        if faults:
            raise ValueError("; ".join(faults))


@dataclass(frozen=True)
class PixelTrainConfig(SuperResTrainConfig):
    """A training on films and scenes, tokenized as it runs.

    Attributes:
        sizes: height and width of the high-resolution clips, pixels; films go to the size of the nearest form.
        num_frames: pictures of a clip.
        clips_per_film: most clips of one film, spread over it.
        views: times that each of these clips is shown: as it is, then at other times of its film, parts of it and
            mirrored. Few films are learned by heart with 1.
        kept_clips: clips of a group whose codes stay in memory (25 kB each at 256x256); others are made again.
        scenes_share: share of the steps on made-up scenes of corpus shapes; without films all are.
        scenes: how many of them.
    """

    sizes: tuple[tuple[int, int], ...] = ((128, 128),)
    num_frames: int = 17
    clips_per_film: int = 8
    views: int = 1
    kept_clips: int = 20_000
    scenes_share: float = 0.0
    scenes: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sizes or len(set(self.sizes)) < len(self.sizes):
            raise ValueError(f"sizes must name at least one height and width, none twice, got {self.sizes}")
        if any(side < 1 for size in self.sizes for side in size):
            raise ValueError(f"sizes must be positive, got {self.sizes}")
        if not 0 <= self.scenes_share <= 1:
            raise ValueError(f"scenes_share must lie in [0, 1], got {self.scenes_share}")
        if min(self.num_frames, self.clips_per_film, self.views, self.scenes) < 1 or self.kept_clips < 0:
            raise ValueError("num_frames, clips_per_film, views and scenes must be positive, kept_clips not negative")


@dataclass(frozen=True)
class Batch:
    """Clips on the device, and what is hidden of them.

    Attributes:
        high: (b, t, h, w) int64 codes to predict.
        text: (b, n, d) text embeddings, or None without a text encoder.
        text_mask: (b, n) bool, True where a token is, or None.
        corruption: mask, spoiled low-resolution codes and dropped conditions.
    """

    high: Tensor
    text: Tensor | None
    text_mask: Tensor | None
    corruption: Corruption


def batch_loss(model: SuperResTransformer, batch: Batch, config: SuperResTrainConfig) -> SuperResLoss:
    """Loss of one batch."""
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


def superres_config(config: SuperResTrainConfig, grids: Sequence[Size], text_dim: int | None) -> SuperResConfig:
    """The preset with the sizes of these clips and this text encoder.

    Args:
        config: the run.
        grids: high-resolution grids of all groups; the model's is as large as all of them.
        text_dim: width of the text encoder, or None for the preset's.

    Returns:
        The model's config.

    Raises:
        ValueError: for an unknown preset, a codebook that does not factor, or grids whose windows do not tile.
    """
    changes = given(config, "dim", "num_blocks", "num_heads", "hidden_dim")
    changes |= {} if text_dim is None else {"text_dim": text_dim}
    return preset(config.size, grid=whole_grid(grids), factor_sizes=factor_sizes_for(config.visual_codes), **changes)


def whole_grid(grids: Sequence[Size]) -> Size:
    """The smallest grid that holds others, whose windows must tile them all."""
    whole: Size = (max(g[0] for g in grids), max(g[1] for g in grids), max(g[2] for g in grids))
    for grid in grids:
        for window in windows_for(whole):
            try:
                fit_window(window, grid)
            except ValueError as fault:
                raise ValueError(
                    f"one model cannot take grids of {' and '.join(map(str, grids))} tokens: {fault}; choose other "
                    "sizes, or train a model for each"
                ) from None
    return whole


def layers_decay(name: str, weight: nn.Parameter) -> Care:
    """The layers' matrices are decayed, norms and tables are not."""
    return Care(decayed=weight.ndim > 1 and not name.startswith(("embed.", "low_embed.")))


class SuperResData:
    """Batches from groups of clips.

    Args:
        groups: of clips.
        captions: vectors of the texts, or None to train without text.
        config: the run.
        codebook_size: values of one code.
        device: where batches go.
        ranks: this process among others.

    Raises:
        ValueError: if a batch cannot be shared by the processes.
    """

    def __init__(
        self,
        groups: Sequence[PairGroup],
        captions: CaptionLookup | None,
        config: SuperResTrainConfig,
        *,
        codebook_size: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ):
        self.groups, self.captions, self.config = groups, captions, config
        self.codebook_size, self.device, self.ranks = codebook_size, device, ranks
        self._weights = torch.tensor([group.weight for group in groups], dtype=torch.float64)
        first = torch.Size(groups[0].grid).numel()
        self.counts = [max(1, round(config.batch_size * first / torch.Size(g.grid).numel())) for g in groups]
        for group, count in zip(groups, self.counts, strict=True):
            if count % ranks.world:
                raise ValueError(
                    f"a batch of {count} clips of {group.name} cannot be shared by {ranks.world} processes; change "
                    "batch_size"
                )

    def draw(self, step: int) -> tuple[int, list[int], list[torch.Generator]]:
        """A step's group, the same for all processes, this one's rows of it, and a generator to spoil each with."""
        number = int(torch.multinomial(self._weights, 1, generator=step_generator(self.config.seed, step)))
        share = self.ranks.share(self.counts[number])
        generators = [step_generator(self.config.seed, step, place) for place in share]
        most = self.groups[number].num_train
        return number, [int(torch.randint(most, (1,), generator=g)) for g in generators], generators

    def training(self, step: int) -> Iterator[tuple[Batch, float]]:
        """This process' clips of a step with everything that training spoils; the next step's are read meanwhile.

        Args:
            step: optimizer step.

        Yields:
            A batch of at most ``micro_batch`` clips, and its share of the process' clips.
        """
        number, rows, generators = self.draw(step)
        if step + 1 < self.config.steps:
            coming, expected, _ = self.draw(step + 1)
            self.groups[coming].expect(expected)
        size = self.config.micro_batch or len(rows)
        config = self.config
        rates = {"max_noise": config.max_noise, "drop_low": config.drop_low, "drop_text": config.drop_text}
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            batch = self._batch(self.groups[number].read(part), generators[start : start + size], **rates)
            yield batch, len(part) / len(rows)

    def clean(self, pairs: Pairs, generators: list[torch.Generator], *, hide_all: bool) -> Batch:
        """Clips with both conditions whole."""
        batch = self._batch(pairs, generators, max_noise=0.0, drop_low=0.0, drop_text=0.0)
        if hide_all:
            batch.corruption.masked.fill_(True)
        return batch

    def _batch(self, pairs: Pairs, generators: list[torch.Generator], **rates: float) -> Batch:
        shape = (1, *pairs.high.shape[1:])
        drawn = [
            corrupt(low, shape, self.codebook_size, generator, **rates)
            for low, generator in zip(pairs.low.split(1), generators, strict=True)
        ]
        joined = {name: torch.cat([getattr(d, name) for d in drawn]) for name in Corruption.__dataclass_fields__}
        moved = Corruption(**{name: value.to(self.device) for name, value in joined.items()})
        text, mask = (None, None) if self.captions is None else self.captions(pairs.captions)
        if text is not None and mask is not None:
            text, mask = text.to(self.device), mask.to(self.device)
        return Batch(pairs.high.to(self.device), text, mask, moved)


@torch.no_grad()
def _validate(
    model: SuperResTransformer, data: SuperResData, config: SuperResTrainConfig, compute: Compute
) -> dict[str, float | Tensor]:
    """Loss and accuracies on held-out clips with whole conditions and always the same masks, and the copy baseline.

    ``first_step`` names predictions with every code hidden; with several groups ``val/loss GROUP`` is that of one.
    """
    parts: list[tuple[float, dict[str, float | Tensor]]] = []
    for number, group in enumerate(data.groups):
        rows = range(group.num_train, group.num_train + group.num_held_out)
        size = min(config.micro_batch or config.batch_size, data.counts[number])
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            pairs = group.read(part)
            generators = [step_generator(config.seed, config.steps + number, row) for row in part]
            values: dict[str, float | Tensor] = copy_accuracy(pairs.low, pairs.high, model.config.factor_sizes)
            for hide_all in (False, True):
                with compute.autocast():
                    loss = batch_loss(model, data.clean(pairs, generators, hide_all=hide_all), config)
                values |= _values("val/first_step_" if hide_all else "val/", loss)
            if len(data.groups) > 1:
                values[f"val/loss {group.name}"] = values["val/loss"]
            parts.append((len(part), {name: float(value) for name, value in values.items()}))
    return weighted_means(parts)


def copy_accuracy(low: Tensor, high: Tensor, factor_sizes: tuple[int, ...]) -> dict[str, float | Tensor]:
    """What is right when every high-resolution code is taken from the low-resolution code under it."""
    copied = low.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    pairs = zip(split_codes(copied, factor_sizes), split_codes(high, factor_sizes), strict=True)
    values: dict[str, float | Tensor] = {"val/copy_accuracy": (copied == high).float().mean()}
    return values | {f"val/copy_accuracy_factor{i}": (a == b).float().mean() for i, (a, b) in enumerate(pairs)}


def _values(prefix: str, loss: SuperResLoss) -> dict[str, float | Tensor]:
    values: dict[str, float | Tensor] = {f"{prefix}loss": loss.loss.detach(), f"{prefix}accuracy": loss.accuracy}
    return values | {f"{prefix}accuracy_factor{i}": value for i, value in enumerate(loss.factor_accuracy)}


def start_from(given: SuperResTransformer, wanted: SuperResConfig, *, text_dim: int | None) -> SuperResTransformer:
    """Trained weights that go on with other clips; positions of another grid are interpolated.

    Args:
        given: the trained transformer.
        wanted: of ``superres_config``: its grid is taken, and its codebook must be the weights'.
        text_dim: width of the text encoder, or None without text.

    Returns:
        The transformer to train.

    Raises:
        ValueError: if the weights speak another codebook or another text.
    """
    own = given.config
    if own.factor_sizes != wanted.factor_sizes:
        raise ValueError(
            f"the weights to start from speak {own.codebook_size} codes (factors {own.factor_sizes}), the tokenizer "
            f"has {wanted.codebook_size}; use the tokenizer that they were trained with"
        )
    if text_dim is not None and own.text_dim != text_dim:
        raise ValueError(
            f"the weights to start from read text vectors of width {own.text_dim}, the text encoder gives {text_dim}"
        )
    same = (own.grid, own.windows) == (wanted.grid, wanted.windows)
    return given if same else given.with_grid(wanted.grid, wanted.windows)


def train_superres(
    config: SuperResTrainConfig,
    folder: Path,
    *,
    groups: Sequence[PairGroup],
    captions: CaptionLookup | None,
    text_dim: int | None,
    compute: Compute,
    start: SuperResTransformer | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """Train, and write the averaged model to ``folder/model``.

    Args:
        config: the run.
        folder: receives log, curves, checkpoint and the model; a stopped run continues.
        groups: clips to train on, at least one group.
        captions: vectors of the groups' texts, or None to train without text.
        text_dim: width of these vectors, or None for the preset's.
        compute: device and precision.
        start: trained weights to go on with, or None for random ones; their sizes replace the config's.
        ranks: this process among those that train together; the first one writes.

    Returns:
        ``folder / "model"``.

    Raises:
        ValueError: if a grid has no windows, the codebook does not factor, weights to start from do not fit, or a batch
            cannot be shared.
    """
    # what learns
    wanted = superres_config(config, [group.grid for group in groups], text_dim)
    if start is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = SuperResTransformer(wanted)
    else:
        model = start_from(start, wanted, text_dim=text_dim)
    model.to(compute.device).train()
    learner = Learner(model, config.optim, steps=config.steps, care=layers_decay, fused=True)
    model.recompute = config.recompute
    if config.compiled:
        model.compile_layers()
    size = model.config.codebook_size
    data = SuperResData(groups, captions, config, codebook_size=size, device=compute.device, ranks=ranks)
    run = Run(folder, "super-resolution", config, ranks, parts={"model": model, **learner.parts})

    # loop
    clock, clips = time.monotonic(), 0
    for step in run.steps():
        values: dict[str, float | Tensor] = {}
        for batch, share in data.training(step):
            with compute.autocast():
                loss = batch_loss(model, batch, config)
            (share * loss.loss).backward()
            for name, value in _values("train/", loss).items():
                values[name] = values.get(name, 0.0) + share * value
            clips += len(batch.high) * ranks.world
        ranks.average_gradients(model.parameters())
        rates = learner.step(step)

        if run.logs(step):
            rates["perf/clips_per_s"] = clips / (time.monotonic() - clock)
            run.log(step, ranks.means(values) | rates)
            clock, clips = time.monotonic(), 0
        if run.validates(step, config.validate_every) and ranks.is_main:
            if validated := _validate(learner.average, data, config, compute):
                run.log(step, validated)
            clock, clips = time.monotonic(), 0

    # finish
    return run.finish(learner.average)
