"""Train a SoundStream: reconstruction first, discriminators later if asked for.

    cinepoet train soundstream --media my_sounds --out runs/soundstream

What kills small codecs is not seen in the loss: at a few hundred steps a codec that uses one code scores like a healthy
one. So the use of every level is logged from the first step, and a run whose level stays nearly unused late is stopped.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from mmtok.audio.soundstream import PRESETS, SoundStream, build_soundstream
from mmtok.losses.audio import MultiScaleMelLoss, waveform_loss
from mmtok.losses.audio_discriminators import AudioDiscriminators
from mmtok.losses.balancer import LossBalancer
from mmtok.metrics.audio import LogMelDistance
from mmtok.metrics.codebook import CodebookUse
from mmtok.quantize.residual import CodebookLearning
from recipes.corpora.shapes import ShapesCorpus
from recipes.corpora.sources import MixedSounds, SoundSource
from recipes.loop.adversary import Critics, all_alike
from recipes.loop.average import evaluating
from recipes.loop.learner import Learner, Optim
from recipes.loop.run import Run, TrainConfig
from recipes.runtime.config import given
from recipes.runtime.device import Compute
from recipes.runtime.distributed import ALONE, Ranks
from recipes.runtime.seeds import step_generator


@dataclass(frozen=True)
class SoundStreamTrainConfig(TrainConfig):
    """Numbers of the run.

    Attributes:
        preset: size of the model, a key of ``mmtok.audio.soundstream.PRESETS``.
        steps: optimizer steps.
        batch_size: crops a step.
        num_samples: length of a crop; a multiple of the hop.
        recording_s: so many seconds of every file are kept in memory (230 MB an hour).
        gain_db: a crop of a recording is made quieter by up to so many dB; what a codec never heard so quiet it codes
            badly.
        optim: of AdamW, which decays every weight.
        mel_weight: weight of the multi-scale mel loss.
        mel_as_published: the paper's sum over windows instead of a mean that does not depend on their number.
        mel_windows: window lengths in samples; the paper's are 64, 128, ... 2048.
        num_mels: bands.
        mel_linear_weight: factor on the paper's weight of the linear term against the logarithmic one.
        waveform_weight: weight of the waveform L1.
        commitment_weight: weight of the distance between latents and codes.
        codebook_decay: share of the running means that a step keeps.
        revival_threshold: codes used less than this share of the mean are replaced.
        kmeans_iterations: rounds of k-means on the first vectors.
        start_vectors: vectors gathered before k-means, see ``CodebookLearning``.
        quantize_from_step: steps before this one train encoder and decoder without codebooks between them.
        level_dropout: probability that an example uses only its first levels.
        use_window: steps over which the use of codes is counted.
        min_use: a level below this share of codes in use, late in the run, stops it.
        min_use_from_step: quantized steps from which that is checked; early batches look all alike.
        evaluate_every: steps between evaluations on fixed crops.
        evaluation_size: crops of the evaluation.
        adversarial_start_step: first step with discriminators, or None for never.
        adversarial_examples: at most so many crops of a batch are judged by discriminators, which may cost far more
            than the codec; None judges all.
        adversarial_weight: weight of the adversarial term; ratios to mel and features are DAC's (arXiv 2306.06546).
        feature_weight: weight of the feature term.
        balanced: let EnCodec's balancer scale the terms' gradients, so that weights are shares of the whole.
        balancer_decay: of its running means.
        discriminator_lr: learning rate of the discriminators, constant.
        waveform_channels: first width of the waveform discriminators.
        max_waveform_channels: their widest layer.
        spectral_channels: first width of the spectral discriminator.
    """

    preset: str = "tiny"
    steps: int = 4000
    batch_size: int = 8
    num_samples: int = 10_240
    recording_s: float = 20.0
    gain_db: float = 15.0
    optim: Optim = Optim(lr=1e-3, final_lr=0.02, warmup_steps=100, betas=(0.9, 0.99), weight_decay=0.01, grad_clip=1.0)
    mel_weight: float = 1.0
    mel_as_published: bool = False
    mel_windows: tuple[int, ...] = (128, 512, 2048)
    num_mels: int = 64
    mel_linear_weight: float = 1.0
    waveform_weight: float = 1.0
    commitment_weight: float = 0.25
    codebook_decay: float = 0.99
    revival_threshold: float = 0.5
    kmeans_iterations: int = 10
    start_vectors: int = 0
    quantize_from_step: int = 0
    level_dropout: float = 0.5
    use_window: int = 100
    min_use: float = 0.1
    min_use_from_step: int = 1000
    evaluate_every: int = 200
    evaluation_size: int = 8
    adversarial_start_step: int | None = None
    adversarial_examples: int | None = None
    adversarial_weight: float = 0.067
    feature_weight: float = 0.133
    balanced: bool = False
    balancer_decay: float = 0.999
    discriminator_lr: float = 3e-4
    waveform_channels: int = 16
    max_waveform_channels: int = 1024
    spectral_channels: int = 32

    def __post_init__(self) -> None:
        values = vars(self)
        counts = [
            *("steps", "batch_size", "num_samples", "num_mels", "use_window", "log_every", "evaluate_every"),
            *("evaluation_size", "waveform_channels", "max_waveform_channels", "spectral_channels"),
            *given(self, "adversarial_examples"),
        ]
        weights = [
            *("mel_weight", "mel_linear_weight", "waveform_weight", "commitment_weight", "adversarial_weight"),
            *("gain_db", "feature_weight", "quantize_from_step"),
        ]
        faults = [f"{name} must be at least 1, got {values[name]}" for name in counts if values[name] < 1]
        faults += [f"{name} must not be negative, got {values[name]}" for name in weights if values[name] < 0]
        if self.recording_s <= 0:
            faults.append(f"recording_s must be positive, got {self.recording_s}")
        critics_first = self.adversarial_start_step == 0 and self.adversarial_weight + self.feature_weight > 0
        if not self.mel_weight + self.waveform_weight > 0 and not critics_first:
            faults.append(
                "mel_weight and waveform_weight are both 0: nothing teaches the codec before discriminators do"
            )
        if faults:
            raise ValueError("; ".join(faults))


def sample_rate_of(config: SoundStreamTrainConfig) -> int:
    """The rate in Hz that the sound of a run must have; ValueError for an unknown preset, with the known ones."""
    if config.preset not in PRESETS:
        raise ValueError(f"unknown SoundStream preset {config.preset!r}; known: {', '.join(sorted(PRESETS))}")
    return PRESETS[config.preset].sample_rate


def weights_of(config: SoundStreamTrainConfig) -> dict[str, float]:
    """Weights of the terms that are computed from the sound."""
    weights = {"mel": config.mel_weight, "waveform": config.waveform_weight}
    if config.adversarial_start_step is not None:
        weights |= {"adversarial": config.adversarial_weight, "feature": config.feature_weight}
    return {name: weight for name, weight in weights.items() if weight}


def _backward(
    terms: dict[str, Tensor],
    restored: Tensor,
    *,
    config: SoundStreamTrainConfig,
    balancer: LossBalancer | None,
    ranks: Ranks,
) -> Tensor:
    """Send the gradients of the weighted terms, or of the balanced ones, through the codec; gives the weighted sum."""
    weights = weights_of(config)
    heard = {name: terms[name] for name in weights if name in terms}
    commitment = config.commitment_weight * terms["commitment"]
    loss = torch.stack([weights[name] * term for name, term in heard.items()]).sum() + commitment
    if balancer is None:
        loss.backward()
        return loss.detach()
    gradient = balancer.gradient(heard, restored, mean=ranks.mean)
    if commitment.requires_grad:  # not while the codebooks wait for their start
        torch.autograd.backward([restored, commitment], [gradient, torch.ones_like(commitment)])
    else:
        restored.backward(gradient)
    return loss.detach()


def _evaluate(model: SoundStream, audio: Tensor, distance: LogMelDistance) -> dict[str, float]:
    """Log-mel distance of encode-then-decode, alone and relative to that of silence."""
    with evaluating(model):
        restored = model.decode(model.encode(audio), audio.shape[-1])
    own = float(distance(restored, audio).mean())
    silence = float(distance(torch.zeros_like(audio), audio).mean())
    return {"val/log_mel": own, "val/log_mel_vs_silence": own / max(silence, 1e-9)}


def train_soundstream(
    config: SoundStreamTrainConfig,
    folder: Path,
    *,
    sound_source: SoundSource | None = None,
    compute: Compute,
    start: SoundStream | None = None,
    ranks: Ranks = ALONE,
) -> Path:
    """Run the training, or go on with it.

    Args:
        config: numbers of the run.
        folder: run folder; the model is written to ``folder / "model"``.
        sound_source: gives (b, 1, n) for (generator, batch_size, num_samples); None plays the shapes corpus.
        compute: device and precision.
        start: a trained codec of the preset's sizes that goes on, codebooks too; None starts from noise.
        ranks: this process among those that train together; the first one writes.

    Returns:
        The model's folder.

    Raises:
        ValueError: for a crop length that the model cannot take, or a batch that cannot be shared.
        RuntimeError: if a level of codes stays nearly unused late in the run.
    """
    # data
    if sound_source is None:
        sound_source = MixedSounds(ShapesCorpus(config.seed), None, sample_rate=sample_rate_of(config))
    device = compute.device

    # what learns
    torch.manual_seed(config.seed)
    learning = CodebookLearning(
        decay=config.codebook_decay,
        revival_threshold=config.revival_threshold,
        kmeans_iterations=config.kmeans_iterations,
        start_vectors=config.start_vectors,
        level_dropout=config.level_dropout,
    )
    model = build_soundstream(config.preset, learning=learning)
    if start is not None:
        model.load_state_dict(start.state_dict())
    model.to(device).train()
    if config.num_samples % model.hop_length:
        raise ValueError(f"num_samples ({config.num_samples}) must be a multiple of the hop of {model.hop_length}")
    mel_loss = MultiScaleMelLoss(
        sample_rate=model.sample_rate,
        windows=config.mel_windows,
        num_mels=config.num_mels,
        linear_weight=config.mel_linear_weight,
        as_published=config.mel_as_published,
    ).to(device)
    distance = LogMelDistance(sample_rate=model.sample_rate).to(device)
    use = CodebookUse(model.codebook_size, num_codebooks=model.num_codebooks, window=config.use_window)

    learner = Learner(model, config.optim, steps=config.steps, care=all_alike)
    critics = None if config.adversarial_start_step is None else _critics(config, compute, ranks)
    balancer = LossBalancer(weights_of(config), decay=config.balancer_decay) if config.balanced else None

    # run
    means = model.quantizer  # whose running means the model's own weights leave out
    codebooks = SimpleNamespace(state_dict=means.training_state, load_state_dict=means.load_training_state)
    parts: dict[str, Any] = {"model": model, "codebooks": codebooks, "use": use}
    parts |= learner.parts | ({} if critics is None else critics.parts)
    parts |= {} if balancer is None else {"balancer": balancer}
    run = Run(folder, "soundstream", config, ranks, parts=parts)
    judged = min(config.adversarial_examples or config.batch_size, config.batch_size)
    num_judged = len(ranks.share(judged))  # the first of this process' examples, since these are shared in turn
    held = sound_source(step_generator(config.seed + 1, 0), config.evaluation_size, config.num_samples).to(device)

    # loop
    clock, done = time.monotonic(), 0
    for step in run.steps():
        model.quantizer.learning = replace(learning, waits=step < config.quantize_from_step)
        whole = sound_source(step_generator(config.seed, step), config.batch_size, config.num_samples)
        audio = whole[list(ranks.share(config.batch_size))].to(device)

        with compute.autocast():
            result = model(audio)
            restored = result.audio
            terms = {
                "mel": mel_loss(restored, audio),
                "waveform": waveform_loss(restored, audio),
                "commitment": result.commitment_loss,
            }
        if critics is not None:
            terms |= critics(restored[:num_judged], audio[:num_judged], step)
        loss = _backward(terms, restored, config=config, balancer=balancer, ranks=ranks)
        ranks.average_gradients(model.parameters())
        rates = learner.step(step)
        done += 1
        if result.commitment_loss.requires_grad:  # codes of codebooks that wait for their start say nothing
            use.update(ranks.gather(result.codes))

        if run.logs(step):
            told = {"train/loss": loss} | {f"train/{name}": value.detach() for name, value in terms.items()}
            values: dict[str, float | Tensor] = ranks.means({**told}) | rates
            for level, (used, perplexity) in enumerate(zip(use.share(), use.perplexity(), strict=True)):
                values[f"vq/use_level_{level}"] = used
                values[f"vq/perplexity_level_{level}"] = perplexity
                values[f"vq/revived_level_{level}"] = float(model.quantizer.revived[level])
            values["perf/steps_per_s"] = done / max(time.monotonic() - clock, 1e-9)
            clock, done = time.monotonic(), 0
            if step % config.evaluate_every < config.log_every or step + 1 == config.steps:
                values |= _evaluate(learner.average, held, distance)
            run.log(step, values)
            if step >= config.quantize_from_step + config.min_use_from_step:
                _refuse_collapse(use, step, config)

    # finish
    return run.finish(learner.average)


def _critics(config: SoundStreamTrainConfig, compute: Compute, ranks: Ranks) -> Critics:
    """The discriminators, whose rate is constant."""
    rates = {"final_lr": 1.0, "warmup_steps": 0, "betas": (0.5, 0.9), "weight_decay": 0.01}
    return Critics(
        AudioDiscriminators(
            waveform_channels=config.waveform_channels,
            max_waveform_channels=config.max_waveform_channels,
            spectral_channels=config.spectral_channels,
        ),
        Optim(lr=config.discriminator_lr, grad_clip=config.optim.grad_clip, **rates),  # type: ignore[arg-type]
        steps=config.steps,
        first_step=config.adversarial_start_step or 0,
        compute=compute,
        ranks=ranks,
    )


def _refuse_collapse(use: CodebookUse, step: int, config: SoundStreamTrainConfig) -> None:
    """Stop where a level of codes stays nearly unused: the loss would not tell, and the codec would be useless."""
    share, level = float(use.share().min()), int(use.share().argmin())
    if share < config.min_use:
        raise RuntimeError(
            f"level {level} uses {share:.1%} of its codes at step {step} of {config.steps}, less than min_use "
            f"({config.min_use:.0%}): the codebook collapsed; raise revival_threshold, lower optim.lr, or give more "
            "varied sound"
        )
