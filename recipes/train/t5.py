"""Pretrain a tiny T5 and its vocabulary on captions, and keep the encoder as a frozen text encoder.

A T5 v1.1 (Raffel et al. 2020; gated GELU, no dropout) small enough to ship. Two text-to-text tasks share every batch:
span corruption, and turning a freely worded line (synonyms, lost articles) back into the usual wording. The mean vector
of a freely worded line is also drawn to that of the usual wording, so that "A crimson ball jumps" lands near "a red
circle bounces", which is what the language model is trained on. A linear probe on captions never trained on says what
the vectors tell.

The vocabulary is ours: unigram sentencepiece over captions and plain English lines, lower case, with every printable
ASCII character and byte fallback, so that any prompt can be read. Ids: pad 0, end 1, unknown 2, pieces, then the
sentinels, the first sentinel last, as in T5.

Shape letters: b batch, f freely worded lines of it, n input tokens, m target tokens, d width.
"""

from __future__ import annotations

import copy
import io
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmtok.files import write_atomically
from mmtok.text.t5 import EOS_ID, PAD_ID, T5TextEncoder, TextTokenizer
from recipes.corpora.wording import Captions, LabelledCaptions, _dice, english_lines, reword, usual_wording
from recipes.loop.learner import Learner, Optim
from recipes.loop.run import Run, TrainConfig
from recipes.runtime.device import Compute
from recipes.runtime.seeds import step_generator

_IGNORED = -100  # label of a padded target position
_VOCABULARY_FILE = "spiece.model"


@dataclass(frozen=True)
class T5TrainConfig(TrainConfig):
    """Numbers of the run.

    Attributes:
        steps: optimizer steps.
        batch_size: lines a step.
        optim: of AdamW.
        free_share: share of a batch that is freely worded captions; the rest is span corruption.
        align_weight: weight of the distance between a freely worded line's mean vector and the usual wording's.
        english_share: share of the span corruption lines that are plain English rather than captions.
        noise_density: share of tokens hidden by span corruption.
        mean_span_length: mean tokens of a hidden span.
        num_sentinels: sentinel ids, the most spans a line can have.
        vocab_size: sentencepiece pieces, the 256 bytes included.
        vocabulary_lines: lines that the vocabulary is made from.
        dim: width.
        hidden_dim: width of the feed-forward layers.
        num_heads: heads of width dim / num_heads.
        num_layers: of the encoder, which is kept.
        num_decoder_layers: of the decoder, which is thrown away.
        max_length: most tokens of a prompt, the end included.
        probe_size: captions that the linear probe is fitted on, and as many held-out ones that it is measured on.
    """

    steps: int = 1200
    batch_size: int = 64
    optim: Optim = Optim(lr=2e-3, final_lr=0.1, warmup_steps=100, betas=(0.9, 0.98), weight_decay=0.01, grad_clip=1.0)
    free_share: float = 0.5
    align_weight: float = 1.0
    english_share: float = 0.3
    noise_density: float = 0.3
    mean_span_length: float = 2.0
    num_sentinels: int = 32
    vocab_size: int = 1000
    vocabulary_lines: int = 12000
    dim: int = 128
    hidden_dim: int = 320
    num_heads: int = 4
    num_layers: int = 4
    num_decoder_layers: int = 2
    max_length: int = 64
    probe_size: int = 512
    log_every: int = 20

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of num_heads ({self.num_heads})")
        for name in ("free_share", "english_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must lie in [0, 1]")
        if not 0 < self.noise_density < 1 or self.mean_span_length < 1:
            raise ValueError(
                f"noise_density ({self.noise_density}) must lie in (0, 1) and "
                f"mean_span_length ({self.mean_span_length}) be at least 1"
            )


def train_vocabulary(lines: list[str], *, vocab_size: int, seed: int) -> bytes:
    """A sentencepiece unigram model with T5's special ids, the same for the same lines."""
    import sentencepiece

    printable = "".join(c for c in string.printable if c.strip() and c not in string.ascii_uppercase)
    least = 256 + 3 + len(printable) + 1
    if vocab_size < least:
        raise ValueError(f"vocab_size ({vocab_size}) must be at least {least}: the bytes and printable characters")
    sentencepiece.set_random_generator_seed(seed)
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,  # few lines give fewer pieces
        pad_id=PAD_ID,
        eos_id=EOS_ID,
        unk_id=2,
        bos_id=-1,
        byte_fallback=True,
        character_coverage=1.0,
        required_chars=printable,
        normalization_rule_name="nmt_nfkc_cf",  # lower case
        num_threads=1,
        minloglevel=2,
    )
    return out.getvalue()


def corrupt_spans(
    ids: list[int],
    generator: torch.Generator,
    *,
    noise_density: float,
    mean_span_length: float,
    sentinels: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Hide spans of a line behind sentinels; the target lists what was hidden.

    ``a b c d e`` with ``b c`` and ``e`` hidden gives ``a <0> d <1>`` and ``<0> b c <1> e``, each with the end token.

    Args:
        ids: tokens of the line without the end token, at least two.
        generator: of the places.
        noise_density: share of tokens hidden; at least one is hidden and one stays.
        mean_span_length: mean tokens of a span.
        sentinels: sentinel ids in order of use; their number limits the spans.

    Returns:
        Input ids and target ids.

    Raises:
        ValueError: if the line is shorter than two tokens.

    Source: Raffel et al. 2020, section 3.1.4; random segmentation as in their ``random_spans_noise_mask``.
    """
    length = len(ids)
    if length < 2:
        raise ValueError(f"a line of {length} tokens cannot be corrupted; two are needed")
    hidden = min(max(round(length * noise_density), 1), length - 1)
    spans = min(max(round(hidden / mean_span_length), 1), hidden, length - hidden, len(sentinels))

    def pieces(total: int) -> list[int]:
        """``spans`` positive lengths that sum to ``total``, every way equally likely."""
        cuts = (torch.randperm(total - 1, generator=generator)[: spans - 1] + 1).sort().values.tolist()
        return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]

    source: list[int] = []
    target: list[int] = []
    at = 0
    for kept, gone, sentinel in zip(pieces(length - hidden), pieces(hidden), sentinels, strict=False):
        source += [*ids[at : at + kept], sentinel]
        target += [sentinel, *ids[at + kept : at + kept + gone]]
        at += kept + gone
    return [*source, EOS_ID], [*target, EOS_ID]


@dataclass(frozen=True)
class T5Batch:
    """Lines of both tasks; the first f are freely worded.

    Attributes:
        inputs: (b, n) ids, 0 where padded.
        labels: (b, m) ids, -100 where padded.
        usual: (f, n') ids of the first lines in the usual wording, 0 where padded.
    """

    inputs: Tensor
    labels: Tensor
    usual: Tensor

    def to(self, device: torch.device) -> T5Batch:
        """The batch on another device."""
        return T5Batch(self.inputs.to(device), self.labels.to(device), self.usual.to(device))


def make_batch(
    config: T5TrainConfig, tokenizer: TextTokenizer, captions: Captions, generator: torch.Generator
) -> T5Batch:
    """One batch of both tasks.

    Args:
        config: shares and sizes.
        tokenizer: our vocabulary.
        captions: caption source.
        generator: of everything random.

    Returns:
        The batch.
    """
    num_free = round(config.batch_size * config.free_share)
    num_english = round((config.batch_size - num_free) * config.english_share)
    lines = captions(generator, config.batch_size - num_english)
    dice = _dice(generator)
    room = config.max_length - 1

    # Freely worded to usual wording.
    pairs = []
    for line in lines[:num_free]:
        source, target = (tokenizer.split(text)[:room] for text in (reword(line, dice), usual_wording(line)))
        pairs.append(([*source, EOS_ID], [*target, EOS_ID]))

    # Span corruption; the corrupted line is never longer than the line.
    first, count = tokenizer.vocab_size, config.num_sentinels
    for line in lines[num_free:] + english_lines(generator, num_english):
        pairs.append(
            corrupt_spans(
                tokenizer.split(line)[:room],
                generator,
                noise_density=config.noise_density,
                mean_span_length=config.mean_span_length,
                sentinels=range(first + count - 1, first - 1, -1),
            )
        )

    def padded(rows: list[list[int]], value: int) -> Tensor:
        longest = max((len(row) for row in rows), default=0)
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows], dtype=torch.long)

    inputs, labels = padded([p[0] for p in pairs], PAD_ID), padded([p[1] for p in pairs], _IGNORED)
    return T5Batch(inputs, labels, padded([p[1] for p in pairs[:num_free]], PAD_ID))


def _mean_vector(vectors: Tensor, mask: Tensor) -> Tensor:
    """(b, n, d) to (b, d): the mean over positions where the (b, n) mask is True."""
    return (vectors * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def build_t5(config: T5TrainConfig, pieces: int) -> Any:
    """A fresh T5 v1.1 with encoder and decoder; the seed decides its weights."""
    from transformers.models.t5.configuration_t5 import T5Config
    from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return T5ForConditionalGeneration(
            T5Config(
                vocab_size=pieces + config.num_sentinels,
                d_model=config.dim,
                d_kv=config.dim // config.num_heads,
                d_ff=config.hidden_dim,
                num_layers=config.num_layers,
                num_decoder_layers=config.num_decoder_layers,
                num_heads=config.num_heads,
                feed_forward_proj="gated-gelu",
                dropout_rate=0.0,
            )
        )


def t5_loss(model: Any, batch: T5Batch) -> tuple[Tensor, Tensor]:
    """The two terms of the loss, in float32."""
    attended = batch.inputs != PAD_ID
    # the decoder sees the token before
    before = nn.functional.pad(batch.labels, (1, -1), value=PAD_ID).clamp(min=PAD_ID)
    out = model(input_ids=batch.inputs, attention_mask=attended.long(), decoder_input_ids=before, use_cache=False)
    cross_entropy = nn.functional.cross_entropy(
        out.logits.float().flatten(0, 1), batch.labels.flatten(), ignore_index=_IGNORED
    )
    num_free = len(batch.usual)
    if num_free == 0:
        return cross_entropy, cross_entropy.new_zeros(())
    with torch.no_grad():
        usual_mask = batch.usual != PAD_ID
        hidden = model.encoder(input_ids=batch.usual, attention_mask=usual_mask.long()).last_hidden_state
        usual = _mean_vector(hidden.float(), usual_mask)
    free = _mean_vector(out.encoder_last_hidden_state[:num_free].float(), attended[:num_free])
    return cross_entropy, nn.functional.mse_loss(free, usual) / usual.square().mean()


def keep_encoder(model: Any, tokenizer: TextTokenizer, max_length: int) -> T5TextEncoder:
    """The frozen encoder with a copy of the model's encoder weights."""
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    encoder = T5EncoderModel(copy.deepcopy(model.config))
    own = encoder.state_dict()
    encoder.load_state_dict({k: v for k, v in model.state_dict().items() if k in own})
    return T5TextEncoder(encoder, tokenizer, max_length=max_length)


def linear_probe(
    encoder: T5TextEncoder, fit: LabelledCaptions, held_out: LabelledCaptions, *, ridge: float = 1e-2
) -> dict[str, float]:
    """Accuracy of a linear read-out of each attribute from the mean vector of a caption."""

    def features(captions: list[str]) -> Tensor:
        """(number of captions, dim + 1) float64: masked mean and a one."""
        means = []
        for at in range(0, len(captions), 64):
            embeddings, mask = encoder.encode(captions[at : at + 64])
            means.append(_mean_vector(embeddings, mask))
        mean = torch.cat(means).double().cpu()
        return torch.cat([mean, torch.ones(len(mean), 1, dtype=torch.float64)], 1)

    seen, unseen = features(fit.captions), features(held_out.captions)
    gram = seen.T @ seen
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    accuracy = {}
    for name, values in fit.labels.items():
        classes = sorted(set(values))
        wanted = nn.functional.one_hot(torch.tensor([classes.index(v) for v in values]), len(classes)).double()
        guess = (unseen @ torch.linalg.solve(gram, seen.T @ wanted)).argmax(1).tolist()
        hits = sum(classes[g] == v for g, v in zip(guess, held_out.labels[name], strict=True))
        accuracy[name] = hits / len(guess)
    return accuracy


def train_t5(
    config: T5TrainConfig,
    folder: Path,
    *,
    captions: Captions,
    compute: Compute,
    probe: tuple[LabelledCaptions, LabelledCaptions] | None = None,
) -> Path:
    """Make the vocabulary, pretrain, measure, and save the encoder in bfloat16.

    Args:
        config: numbers of the run.
        folder: run folder; holds the vocabulary, checkpoint, log and curves.
        captions: caption source, such as ``shapes_captions(ShapesCorpus())``.
        compute: device and precision.
        probe: captions to fit the linear probe on, and held-out ones; their accuracies are logged as
            ``probe/...``, and as ``probe/..._reworded`` for the held-out ones in other words.

    Returns:
        ``folder / "model"``, for ``T5TextEncoder.from_pretrained``.
    """
    # data: the vocabulary is made once, from lines of its own stream
    folder = Path(folder)
    vocabulary = folder / _VOCABULARY_FILE
    if not vocabulary.exists():
        generator = step_generator(config.seed, -1)
        lines = captions(generator, config.vocabulary_lines)
        dice = _dice(generator)
        lines = lines + [reword(line, dice) for line in lines] + english_lines(generator, config.vocabulary_lines)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(vocabulary, train_vocabulary(lines, vocab_size=config.vocab_size, seed=config.seed))
    tokenizer = TextTokenizer.from_folder(folder)

    # what learns
    model = build_t5(config, tokenizer.vocab_size).to(compute.device)
    learner = Learner(model, config.optim, steps=config.steps)
    run = Run(folder, "tiny T5", config, parts={"model": model, **learner.parts})

    # loop
    for step in run.steps():
        batch = make_batch(config, tokenizer, captions, step_generator(config.seed, step))
        with compute.autocast():
            cross_entropy, distance = t5_loss(model, batch.to(compute.device))
        loss = cross_entropy + config.align_weight * distance
        loss.backward()
        rates = learner.step(step)
        if run.logs(step):
            run.log(step, {"train/loss": loss.detach(), **rates})

    # finish: the encoder as it will be used, in bfloat16 on disk, is what the probe reads
    kept = keep_encoder(learner.average, tokenizer, config.max_length)
    kept.save_pretrained(folder / "model", dtype=torch.bfloat16)
    if probe is not None:
        encoder = T5TextEncoder.from_pretrained(folder / "model", device=compute.device, max_length=config.max_length)
        fit, held_out = probe
        dice = random.Random(config.seed)
        reworded = LabelledCaptions([reword(line, dice) for line in held_out.captions], held_out.labels)
        found: dict[str, float | Tensor] = {}
        for ending, lines_read in (("", held_out), ("_reworded", reworded)):
            for name, accuracy in linear_probe(encoder, fit, lines_read).items():
                found[f"probe/{name}{ending}"] = accuracy
        run.log(config.steps, found)
    return run.finish()
