"""Pretraining of the tiny T5: the vocabulary, the two tasks, the run and what it leaves."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmtok.text.t5 import T5TextEncoder, TextTokenizer
from recipes.corpora.shapes import ShapesCorpus
from recipes.corpora.wording import (
    LabelledCaptions,
    english_lines,
    reword,
    shapes_captions,
    shapes_labelled,
    usual_wording,
)
from recipes.loop.learner import Optim
from recipes.loop.run import Run
from recipes.runtime.config import load_config
from recipes.runtime.device import Compute
from recipes.train.t5 import (
    T5Batch,
    T5TrainConfig,
    build_t5,
    corrupt_spans,
    linear_probe,
    make_batch,
    t5_loss,
    train_t5,
    train_vocabulary,
)

CPU = Compute(torch.device("cpu"), torch.float32, "test")
SMALL = T5TrainConfig(
    steps=6,
    batch_size=8,
    optim=Optim(lr=2e-3, final_lr=0.1, warmup_steps=2, betas=(0.9, 0.98), weight_decay=0.01),
    vocab_size=420,
    vocabulary_lines=200,
    dim=16,
    hidden_dim=24,
    num_heads=2,
    num_layers=1,
    num_decoder_layers=1,
    probe_size=16,
    log_every=1,
)
CAPTIONS = shapes_captions(ShapesCorpus(seed=3))


@pytest.fixture(scope="module")
def lines() -> list[str]:
    generator = torch.Generator().manual_seed(0)
    return CAPTIONS(generator, 200) + english_lines(generator, 200)


@pytest.fixture(scope="module")
def vocabulary(lines: list[str]) -> bytes:
    return train_vocabulary(lines, vocab_size=420, seed=0)


@pytest.fixture(scope="module")
def tokenizer(vocabulary: bytes) -> TextTokenizer:
    return TextTokenizer.from_bytes("spiece.model", vocabulary)


def restore(source: list[int], target: list[int], sentinels: range) -> list[int]:
    """Slow reference: put the spans of the target back where the source has their sentinel."""
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in sentinels:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    out: list[int] = []
    for token in source[:-1]:
        out += spans.pop(token) if token in sentinels else [token]
    assert not spans, f"sentinels {sorted(spans)} are in the target only"
    return out


@pytest.mark.parametrize("length", [2, 3, 5, 17, 63])
@pytest.mark.parametrize("density", [0.15, 0.3, 0.9])
def test_corrupted_spans_put_back_give_the_line(length: int, density: float) -> None:
    ids, sentinels = list(range(10, 10 + length)), range(131, 99, -1)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        source, target = corrupt_spans(ids, generator, noise_density=density, mean_span_length=2.0, sentinels=sentinels)
        assert source[-1] == target[-1] == 1
        used = [t for t in source if t in sentinels]
        assert used == list(sentinels)[: len(used)] == [t for t in target if t in sentinels], "order of sentinels"
        assert restore(source, target, sentinels) == ids
        hidden = len(target) - len(used) - 1
        assert hidden == min(max(round(length * density), 1), length - 1)
        assert source[0] == ids[0] and source[-2] in sentinels, "starts with a kept span, ends with a hidden one"


def test_corruption_of_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="a line of 1 tokens cannot be corrupted"):
        corrupt_spans([5], torch.Generator(), noise_density=0.3, mean_span_length=2.0, sentinels=[9])


def test_vocabulary_is_the_same_each_time(lines: list[str], vocabulary: bytes) -> None:
    assert train_vocabulary(lines, vocab_size=420, seed=0) == vocabulary


def test_vocabulary_reads_any_text_without_unknowns(tokenizer: TextTokenizer) -> None:
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.content)
    assert (pieces.pad_id(), pieces.eos_id(), pieces.unk_id()) == (0, 1, 2)
    for text in ("a zebra juggles 7 quizzes @ half-past {nine}!", "東京 🚀 naïve", "~`|\\^_<>"):
        ids = tokenizer.split(text)
        assert 2 not in ids and pieces.decode(ids).split() == text.split(), text
    assert tokenizer.split("A RED Circle") == tokenizer.split("a red circle")
    assert not any(pieces.is_byte(i) for i in tokenizer.split("The quick, brown fox; (jumps) over: 1234567890?"))


def test_captions_take_few_tokens(tokenizer: TextTokenizer) -> None:
    caption = ShapesCorpus().scene(0).caption
    assert len(tokenizer.split(caption)) <= 2 * len(caption.split())


def test_vocabulary_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match=r"vocab_size \(300\) must be at least 3\d\d: the bytes and printable"):
        train_vocabulary(["a b"], vocab_size=300, seed=0)


def test_usual_wording_turns_rare_verbs() -> None:
    assert usual_wording("a red star sinking over a dark dotted background") == (
        "a red star moving down over a dark dotted background"
    )
    assert usual_wording("a red star bounces up and down") == "a red star bounces"
    assert usual_wording("a red star moves left") == "a red star moves left"


def test_reword_changes_words_but_never_mixes_attributes() -> None:
    dice = random.Random(0)
    seen = {reword("a red circle rises", dice) for _ in range(300)}
    assert {"red circle moves up", "a red circle moves up"} & seen
    assert any("crimson ball" in line for line in seen) and any("ascends" in line for line in seen)
    others = ("blue", "green", "square", "box", "falls", "left", "  ")
    assert not [line for line in seen if any(word in line for word in others)]


def test_english_lines_follow_the_generator() -> None:
    one, two = (english_lines(torch.Generator().manual_seed(4), 20) for _ in range(2))
    assert one == two and len(set(one)) == 20


def test_batch_holds_both_tasks(tokenizer: TextTokenizer) -> None:
    batch = make_batch(SMALL, tokenizer, CAPTIONS, torch.Generator().manual_seed(0))
    inputs, labels = batch.inputs, batch.labels
    assert inputs.shape[0] == labels.shape[0] == 8
    first = tokenizer.vocab_size + SMALL.num_sentinels - 1
    assert (inputs == first).any(1).tolist() == [False] * 4 + [True] * 4
    assert torch.equal(labels[4:, 0], torch.full((4,), first))
    assert ((inputs == 1).sum(1) == 1).all() and ((labels == 1).sum(1) == 1).all(), "one end token a line"
    assert torch.equal(batch.usual.clamp(min=0), labels[:4, : batch.usual.shape[1]].clamp(min=0))
    assert inputs.max() < tokenizer.vocab_size + SMALL.num_sentinels


def test_long_lines_stay_within_the_model(tokenizer: TextTokenizer) -> None:
    endless = lambda generator, count: ["a red circle bounces " * 60] * count  # noqa: E731
    batch = make_batch(replace(SMALL, english_share=0.0), tokenizer, endless, torch.Generator().manual_seed(0))
    assert batch.inputs.shape[1] <= 64 and batch.labels.shape[1] <= 65 and batch.usual.shape[1] == 64


def test_loss_shifts_the_decoder_by_one_and_ignores_padding() -> None:
    model = build_t5(SMALL, 400)
    inputs, labels, none = torch.tensor([[5, 6, 7, 1]]), torch.tensor([[8, 9, 1]]), torch.zeros(0, 0, dtype=torch.long)
    loss, distance = t5_loss(model, T5Batch(inputs, labels, none))
    model.config.decoder_start_token_id = 0
    upstream = model(input_ids=inputs, labels=labels).loss  # transformers shifts the labels itself
    torch.testing.assert_close(loss, upstream)
    assert float(distance) == 0
    padded = T5Batch(torch.tensor([[5, 6, 7, 1, 0, 0]]), torch.tensor([[8, 9, 1, -100]]), none)
    torch.testing.assert_close(t5_loss(model, padded)[0], loss, rtol=1e-5, atol=1e-5)


def test_alignment_is_the_distance_to_the_usual_wording() -> None:
    model = build_t5(SMALL, 400)
    labels = torch.tensor([[8, 9, 1]])
    same = T5Batch(torch.tensor([[5, 6, 7, 1]]), labels, torch.tensor([[5, 6, 7, 1, 0]]))
    other = T5Batch(torch.tensor([[5, 6, 7, 1]]), labels, torch.tensor([[50, 60, 7, 1, 0]]))
    assert float(t5_loss(model, same)[1].detach()) < 1e-9
    distance = t5_loss(model, other)[1]
    assert float(distance.detach()) > 0.1
    distance.backward()
    moved = model.shared.weight.grad.abs().sum(1)
    assert moved[5] > 0 and moved[50] == 0, "the usual wording is the target and does not move"


def test_the_rate_falls_to_a_tenth() -> None:
    assert T5TrainConfig().optim.share(1200, 1200) == pytest.approx(0.1)


def test_probe_reads_what_is_there_and_not_what_is_not(tokenizer: TextTokenizer) -> None:
    class Letters:
        """Two positions, the second a pad: the code of the first and last letters."""

        def encode(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
            rows = torch.zeros(len(texts), 2, 52)
            for row, text in zip(rows, texts, strict=True):
                row[0, ord(text[0]) - 97] = row[0, 26 + ord(text[-1]) - 97] = 1
            return rows, torch.tensor([[True, False]]).expand(len(texts), 2)

    dice = random.Random(0)
    texts = ["".join(dice.choice("abcd") for _ in range(3)) for _ in range(400)]
    labels = {"first": [t[0] for t in texts], "middle": [t[1] for t in texts]}
    half = [LabelledCaptions(texts[p], {k: v[p] for k, v in labels.items()}) for p in (slice(200), slice(200, 400))]
    accuracy = linear_probe(Letters(), half[0], half[1])  # type: ignore[arg-type]
    assert accuracy["first"] == 1.0 and accuracy["middle"] < 0.5, accuracy


def test_labels_say_what_the_caption_says() -> None:
    found = shapes_labelled(ShapesCorpus(), 40)
    for n, caption in enumerate(found.captions):
        for name in ("colour", "shape", "tone", "texture"):
            value = found.labels[name][n]
            assert (value in caption) != (value == "unsaid"), (caption, name, value)
    assert "unsaid" in found.labels["tone"]


def interrupted(monkeypatch: pytest.MonkeyPatch, folder: Path, config: T5TrainConfig, at: int) -> None:
    """Train until the batch of step ``at``, saving after each step, then stop as Ctrl-C would."""
    calls = 0

    def captions(generator: torch.Generator, count: int) -> list[str]:
        nonlocal calls
        calls += 1
        if calls == at + 2:  # the first call makes the vocabulary
            raise KeyboardInterrupt
        return CAPTIONS(generator, count)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "maybe_save", lambda run, step: run.save(step + 1))
        with pytest.raises(KeyboardInterrupt):
            train_t5(config, folder, captions=captions, compute=CPU)


def test_run_resumes_bit_for_bit_and_leaves_a_loadable_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "plot", lambda run: None)  # drawing takes longer than training here
    corpus = ShapesCorpus(seed=3)
    probe = (shapes_labelled(corpus, 16), shapes_labelled(ShapesCorpus(seed=3, split="heldout"), 16))
    drawn: list[list[str]] = []

    def captions(generator: torch.Generator, count: int) -> list[str]:
        drawn.append(CAPTIONS(generator, count))
        return drawn[-1]

    whole = train_t5(SMALL, tmp_path / "whole", captions=captions, compute=CPU, probe=probe)
    assert len(drawn) == 1 + SMALL.steps and len({tuple(lines) for lines in drawn}) == len(drawn), "a batch repeats"
    interrupted(monkeypatch, tmp_path / "parts", SMALL, at=3)
    resumed = train_t5(SMALL, tmp_path / "parts", captions=CAPTIONS, compute=CPU, probe=probe)

    for name in ("model.safetensors", "config.json", "spiece.model"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
    logs = [Run(tmp_path / n, "", SMALL, parts={}).read_log() for n in ("whole", "parts")]
    clockless = [[{k: v for k, v in row.items() if k != "perf/seconds"} for row in log] for log in logs]
    assert clockless[0] == clockless[1] and [row["step"] for row in logs[0]] == list(range(7))
    assert {"probe/colour", "probe/shape", "probe/motion", "probe/colour_reworded"} <= set(logs[0][-1])

    encoder = T5TextEncoder.from_pretrained(whole)
    embeddings, mask = encoder.encode(["A crimson ball", "blue"])
    assert embeddings.shape[-1] == 16
    assert mask.sum(1).tolist() == [len(encoder.tokenize(t).ids) for t in ("A crimson ball", "blue")]


def test_training_lowers_the_loss(tokenizer: TextTokenizer) -> None:
    model = build_t5(replace(SMALL, dim=32, hidden_dim=48), tokenizer.vocab_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batch = make_batch(SMALL, tokenizer, CAPTIONS, torch.Generator().manual_seed(0))
    losses = []
    for _ in range(40):
        cross_entropy, distance = t5_loss(model, batch)
        loss = cross_entropy + distance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0], f"{losses[0]:.2f} to {losses[-1]:.2f}"


def test_weights_follow_the_seed_only() -> None:
    torch.manual_seed(1)
    one = build_t5(SMALL, 400).state_dict()
    state = torch.get_rng_state()
    two = build_t5(SMALL, 400).state_dict()
    assert torch.equal(torch.get_rng_state(), state) and all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(build_t5(replace(SMALL, seed=1), 400).state_dict()["shared.weight"], one["shared.weight"])


def test_shipped_encoder_is_small() -> None:
    config = T5TrainConfig()
    model = build_t5(config, config.vocab_size)
    size = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("decoder."))
    assert size <= 1_500_000, size


def test_faults_of_the_config_are_named() -> None:
    with pytest.raises(ValueError, match=r"dim \(30\) must be a multiple of num_heads \(4\)"):
        load_config(T5TrainConfig, None, ["dim=30"])
    with pytest.raises(ValueError, match=r"free_share \(1\.5\) must lie in \[0, 1\]"):
        load_config(T5TrainConfig, None, ["free_share=1.5"])
    with pytest.raises(ValueError, match=r"noise_density \(0\.0\) must lie in \(0, 1\)"):
        load_config(T5TrainConfig, None, ["noise_density=0"])
    with pytest.raises(ValueError, match="unknown key stepz; did you mean steps"):
        load_config(T5TrainConfig, None, ["stepz=3"])
