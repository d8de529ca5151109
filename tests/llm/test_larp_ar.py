"""LARP's generators against tensors of the upstream code (``../shared/golden/larp``), and what upstream cannot do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from llm.convert.larp_ar import from_upstream
from llm.larp_ar import SIZES, LarpAR, LarpARConfig, larp_ar_config
from llm.sampling import keep_top_k, keep_top_p
from mmtok.visual.grid import repeat_last_frame

SMALL = LarpARConfig(
    dim=32, num_layers=2, num_heads=4, num_kv_heads=2, hidden_dim=48, vocab_size=50, num_tokens=12, num_classes=5
)


@pytest.fixture(params=["ar_a", "ar_b", "ar_fp_a", "ar_fp_b"])
def golden(request, shared):
    with safe_open(Path(shared) / "golden" / "larp" / f"larp_{request.param}.safetensors", "pt") as file:
        meta = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    weights = {n.removeprefix("state_dict."): t for n, t in tensors.items() if n.startswith("state_dict.")}
    model = from_upstream(weights, json.loads(meta["config"]))
    condition = tensors["input.cond"]
    if model.config.frame_prediction:
        assert (condition[:, -1] == model.config.vocab_size).all()  # ours appends the separator
        condition = condition[:, :-1]
    return model, condition, tensors, json.loads(meta["notes"])


def close(got, want, atol=1e-4):
    torch.testing.assert_close(got, want, atol=atol, rtol=1e-5)


def test_filters(golden):
    *_, tensors, notes = golden
    for number, wish in enumerate(notes["filters"]):
        scores = tensors["input.filter_logits"] / wish["temperature"]
        if wish["top_k"]:
            scores = keep_top_k(scores, wish["top_k"])
        scores = keep_top_p(scores, wish["top_p"])
        close(scores.softmax(-1), tensors[f"output.filter_probs_{number}"], 1e-6)


def test_the_condition_of_frame_prediction_repeats_the_last_frame(golden):
    _, _, tensors, _ = golden
    if "input.clip" in tensors:
        assert torch.equal(repeat_last_frame(tensors["input.clip"], 16), tensors["output.clip_repeated16"])
    with pytest.raises(ValueError, match="do not fit"):
        repeat_last_frame(torch.zeros(1, 3, 5, 2, 2), 4)


@pytest.mark.parametrize(
    ("size", "millions"),
    [("S", 28.0), ("B", 98.4), ("L", 326.3), ("LP", 632.0), ("XL", 753.9), ("XXL", 1390), ("XXXL", 3850)],
)
def test_every_size_has_its_parameters(size, millions):
    with torch.device("meta"):
        model = LarpAR(larp_ar_config(size))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=3e-3)
    assert set(SIZES) == {"S", "B", "L", "LP", "XL", "XXL", "XXXL"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = LarpAR(SMALL)
    torch.nn.init.normal_(model.output.weight, std=0.2)
    return model.eval()


@pytest.mark.parametrize("frame_prediction", [False, True])
def test_cached_equals_whole_with_grouped_heads(frame_prediction):
    torch.manual_seed(0)
    model = LarpAR(dataclasses.replace(SMALL, frame_prediction=frame_prediction)).eval()
    torch.nn.init.normal_(model.output.weight, std=0.2)
    condition = torch.randint(50, (2, 12)) if frame_prediction else torch.tensor([1, 4])
    seen = []
    ids = model.generate(condition, temperature=0.0, on_step=lambda _, scores: seen.append(scores))
    with torch.no_grad():
        torch.testing.assert_close(torch.stack(seen, 1), model(ids[:, :-1], condition), atol=1e-5, rtol=1e-5)


def test_fewer_codes_than_trained_are_the_first_ones(model):
    labels = torch.tensor([0, 3])
    few, all_codes = (
        model.generate(labels, num_tokens=n, temperature=1.0, generator=torch.Generator().manual_seed(1))
        for n in (5, None)
    )
    assert few.shape == (2, 5) and torch.equal(few, all_codes[:, :5])
    again = model.generate(labels, temperature=1.0, generator=torch.Generator().manual_seed(2))
    assert not torch.equal(again, all_codes)


def test_guidance_ends_where_it_is_told(model):
    labels = torch.tensor([0, 3])
    runs = {steps: model.generate(labels, cfg_scale=4.0, cfg_steps=steps, temperature=0.0) for steps in (None, 0, 11)}
    assert torch.equal(runs[None], runs[11])
    only_first = model.generate(labels, cfg_scale=4.0, cfg_steps=0, num_tokens=1, temperature=0.0)
    assert torch.equal(runs[0][:, :1], only_first) and torch.equal(runs[None][:, :1], only_first)


def test_training_drops_labels_and_reaches_every_weight(model):
    model = LarpAR(dataclasses.replace(SMALL, class_dropout=0.5, drop_path=0.2)).train()
    torch.nn.init.normal_(model.output.weight, std=0.2)
    labels, ids = torch.zeros(64, dtype=torch.int64), torch.randint(50, (64, 12))
    rows = model.condition_vectors(labels, generator=torch.Generator().manual_seed(0))[:, 0]
    null = (rows == model.cls_embedding.embedding_table.weight[5]).all(1)
    assert 20 < int(null.sum()) < 44
    model.loss(ids, labels).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_saved_models_know_their_kind(tmp_path, model):
    for frame_prediction in (False, True):
        made = LarpAR(dataclasses.replace(SMALL, frame_prediction=frame_prediction))
        made.save_pretrained(tmp_path / str(frame_prediction))
        again = LarpAR.from_pretrained(tmp_path / str(frame_prediction))
        assert again.config == made.config and again.family == ("larp-ar-fp" if frame_prediction else "larp-ar")
    (tmp_path / "True" / "config.json").write_text('{"family": "prefix-lm", "params": {}}')
    with pytest.raises(ValueError, match="holds a 'prefix-lm' model"):
        LarpAR.from_pretrained(tmp_path / "True")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate(torch.tensor([5])), "class 5 is unknown; known: 0 to 4"),
        (lambda m: m.generate(torch.zeros(1, 12, dtype=torch.int64)), r"shape \(b,\)"),
        (lambda m: m.generate(torch.tensor([0]), num_tokens=13), r"\[1, 12\]"),
        (lambda m: m.generate(torch.tensor([0]), cfg_scale=2.0, cfg_steps=-1), "not be negative"),
        (lambda m: m(torch.full((1, 3), 50), torch.tensor([0])), r"codes must lie in \[0, 50\)"),
        (lambda m: m(torch.zeros(1, 12, dtype=torch.int64), torch.tensor([0])), "leave none to predict"),
        (lambda m: LarpAR(dataclasses.replace(SMALL, num_kv_heads=3)), "multiple of num_kv_heads"),
        (lambda m: larp_ar_config("M"), "known: S, B, L"),
    ],
)
def test_wrong_inputs_are_refused(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_frame_prediction_takes_codes_and_no_guidance():
    model = LarpAR(dataclasses.replace(SMALL, frame_prediction=True)).eval()
    with pytest.raises(ValueError, match=r"use cfg_scale 1\.0"):
        model.generate(torch.zeros(1, 12, dtype=torch.int64), cfg_scale=2.0)
    with pytest.raises(ValueError, match=r"needs \(b, 12\) codes"):
        model.generate(torch.zeros(1, 11, dtype=torch.int64))
    with pytest.raises(ValueError, match="codes of the condition"):
        model.generate(torch.full((1, 12), 50))


@pytest.mark.parametrize(
    ("ids", "condition", "told"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 1]), "codes must be integers"),
        (torch.zeros(3, dtype=torch.long), torch.tensor([0, 1]), "codes have shape"),
        (torch.zeros(3, 3, dtype=torch.long), torch.tensor([0, 1]), "codes have shape"),
        (torch.zeros(2, 3, dtype=torch.long), torch.tensor([0.0, 1.0]), "class labels must be integers"),
        (torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, dtype=torch.long), "class labels have shape"),
    ],
)
def test_what_are_no_codes_or_labels_is_told(model, ids, condition, told):
    with pytest.raises(ValueError, match=told):
        model(ids, condition)


def test_the_last_code_of_a_loss_is_checked_too(model):
    ids = torch.zeros(1, model.config.num_tokens, dtype=torch.long)
    ids[0, -1] = model.config.vocab_size
    with pytest.raises(ValueError, match="codes must lie in"):
        model.loss(ids, torch.tensor([0]))


def test_scores_that_are_no_numbers_end_the_sampling(model):
    with torch.no_grad():
        model.norm.weight.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="sample in float32"):
        model.generate(torch.tensor([0]))
