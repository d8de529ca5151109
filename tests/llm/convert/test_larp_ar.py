"""LARP's published generators against the golden files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from llm.convert.larp_ar import config_from_upstream, from_upstream, infer_config
from llm.larp_ar import LarpAR, LarpARConfig, larp_ar_config
from recipes.cli import main

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


def test_scores_and_losses(golden):
    model, condition, tensors, _ = golden
    ids = tensors["input.tokens"]
    with torch.no_grad():
        close(model(ids[:, :-1], condition), tensors["output.logits"])
        if "output.logits_uncond" in tensors:
            close(model(ids[:, :-1], torch.full_like(condition, -1)), tensors["output.logits_uncond"])
        close(model.loss(ids, condition)[None], tensors["output.loss"], 1e-5)
        close(model.loss(ids, condition, valid=tensors["input.valid"])[None], tensors["output.loss_valid"], 1e-5)


def test_gradients(golden):
    model, condition, tensors, _ = golden
    model.loss(tensors["input.tokens"], condition).backward()
    ours = dict(model.named_parameters())
    wanted = {n.removeprefix("output.grad."): t for n, t in tensors.items() if n.startswith("output.grad.")}
    assert len(wanted) >= 3
    for name, want in wanted.items():
        torch.testing.assert_close(ours[name].grad, want, atol=1e-5, rtol=1e-3, msg=name)


def test_greedy_codes_are_identical(golden):
    model, condition, tensors, _ = golden
    cases = {n.removeprefix("output.").removesuffix("_tokens") for n in tensors if n.endswith("_tokens")}
    assert "greedy" in cases and (model.config.frame_prediction or len(cases) >= 2)
    for case in cases:
        scale, steps = 1.0, None
        for part in case.split("_")[1:]:
            if part.startswith("cfg"):
                scale = float(part.removeprefix("cfg"))
            else:
                steps = int(part.removeprefix("interval")) + 1
        seen = []
        ids = model.generate(
            condition, cfg_scale=scale, cfg_steps=steps, temperature=0.0, on_step=lambda _, s, kept=seen: kept.append(s)
        )
        assert torch.equal(ids, tensors[f"output.{case}_tokens"].long()), case
        close(torch.stack(seen, 1), tensors[f"output.{case}_step_logits"])


def test_sizes_are_read_off_the_weights(golden):
    model, *_ = golden
    guessed = infer_config(model.state_dict())
    same = ("dim", "num_layers", "hidden_dim", "vocab_size", "num_tokens", "num_classes", "frame_prediction")
    given = dataclasses.replace(model.config, num_classes=101) if model.config.frame_prediction else model.config
    assert all(getattr(guessed, name) == getattr(given, name) for name in same)


@pytest.mark.parametrize(("kind", "count"), [("ar", 631_975_680), ("ar_fp", 633_157_120)])
def test_the_published_models(shared, kind, count):
    listing = json.loads((Path(shared) / "golden" / "larp" / f"larp_{kind}_keys.json").read_text())
    config = config_from_upstream(listing["config"])
    assert config == larp_ar_config("LP", frame_prediction=kind == "ar_fp")
    with torch.device("meta"):
        model = LarpAR(config)
    theirs = {name: facts["shape"] if isinstance(facts, dict) else facts for name, facts in listing["tensors"].items()}
    assert {name: list(t.shape) for name, t in model.state_dict().items()} == theirs
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = LarpAR(SMALL)
    torch.nn.init.normal_(model.output.weight, std=0.2)
    return model.eval()


def test_the_command_converts_generators_too(golden, tmp_path, capsys):
    model, *_ = golden
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, tmp_path / "model.safetensors")
    words = ["convert", str(tmp_path / "model.safetensors"), "--out", str(tmp_path / "ours")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert f"{model.family}, " in shown and f"{model.config.num_tokens} tokens" in shown and "MIT" in shown
    assert LarpAR.from_pretrained(tmp_path / "ours").family == model.family
    assert main([*words, "--family", "larp"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_upstream_condition_brings_its_separator():
    torch.manual_seed(0)
    config = larp_ar_config(
        "S", dim=32, num_layers=1, num_heads=2, hidden_dim=32, vocab_size=20, num_tokens=6, frame_prediction=True
    )
    model = LarpAR(config).eval()
    ids = torch.randint(20, (2, 6))
    separated = torch.cat((ids, torch.full((2, 1), 20)), 1)
    assert torch.equal(model.condition_vectors(separated), model.condition_vectors(ids))
    with pytest.raises(ValueError, match=r"frame prediction needs \(b, 6\)"):
        model.condition_vectors(torch.cat((ids, ids[:, :1]), 1))
