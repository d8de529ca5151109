"""Training of LARP's generators."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from llm.larp_ar import LarpAR, LarpARConfig
from recipes.loop.learner import Learner
from recipes.loop.run import Run
from recipes.runtime.config import load_config
from recipes.runtime.device import Compute
from recipes.tokens.larp_codes import LarpCodes
from recipes.train.larp_ar import (
    LarpARTrainConfig,
    larp_ar_model_config,
    linear_decay,
    train_larp_ar,
    validation_loss,
)

CONFIGS = Path(__file__).parents[3] / "recipes" / "configs"
COMPUTE = Compute(torch.device("cpu"), torch.float32, "tests")
OPTIM = dataclasses.replace(LarpARTrainConfig().optim, warmup_steps=2)
CONFIG = LarpARTrainConfig(
    dim=32, num_layers=2, num_heads=2, hidden_dim=48, steps=6, optim=OPTIM, log_every=1, validate_every=3
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(Run, "plot", lambda self: None)


def classes(rows=40):
    """Clips whose codes count up from their class."""
    labels = torch.arange(rows) % 4
    return LarpCodes((labels[:, None] * 3 + torch.arange(10)) % 16, labels, 16, 4)


def frames(rows=40):
    """Clips that repeat their condition, shifted."""
    first = torch.randint(16, (rows, 1), generator=torch.Generator().manual_seed(0)).expand(-1, 10)
    return LarpCodes((first + 1) % 16, first, 16, 0)


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("data", [classes(), frames()], ids=["class", "frames"])
def test_learns_what_the_condition_says(tmp_path, data):
    config = dataclasses.replace(CONFIG, steps=120, optim=dataclasses.replace(OPTIM, lr=5e-3), batch_size=16)
    model = LarpAR.from_pretrained(train_larp_ar(config, tmp_path, data=data, compute=COMPUTE))
    assert model.config.frame_prediction == (data.num_classes == 0)
    made = model.generate(data.condition[-4:], temperature=0.0)
    assert float((made == data.codes[-4:]).float().mean()) > 0.9
    log = rows(tmp_path)
    losses = [row["val/loss"] for row in log if "val/loss" in row]
    assert losses[-1] < 0.5 * losses[0]


def test_stopped_and_resumed_equals_one_that_was_not(tmp_path, monkeypatch):
    whole = LarpAR.from_pretrained(train_larp_ar(CONFIG, tmp_path / "whole", data=classes(), compute=COMPUTE))

    def stop(run, step):
        run.save(step + 1)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "maybe_save", stop)
        train_larp_ar(CONFIG, tmp_path / "parts", data=classes(), compute=COMPUTE)
    parts = LarpAR.from_pretrained(train_larp_ar(CONFIG, tmp_path / "parts", data=classes(), compute=COMPUTE))
    ours, theirs = whole.state_dict(), parts.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_only_linear_maps_decay():
    model = LarpAR(larp_ar_model_config(CONFIG, classes()))
    groups = Learner(model, OPTIM, steps=6, care=linear_decay(model)).optimizers["optimizer"].param_groups
    kept, decayed = sorted(groups, key=lambda group: group["weight_decay"])
    assert decayed["weight_decay"] == 0.05 and kept["weight_decay"] == 0
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)].split(".")[-2] for p in decayed["params"]} == {"wqkv", "wo", "w1", "w2", "w3", "output"}
    assert "abs_pe" in {names[id(p)] for p in kept["params"]}


def test_validation_leaves_the_model_as_it_was():
    model = LarpAR(larp_ar_model_config(CONFIG, classes())).train()
    data = classes()
    losses = {validation_loss(model, data, torch.arange(8), CONFIG, COMPUTE) for _ in range(2)}
    assert len(losses) == 1 and model.training


def test_codes_on_disk(tmp_path):
    for data in (classes(), frames()):
        data.save(tmp_path / "codes.safetensors")
        again = LarpCodes.load(tmp_path / "codes.safetensors")
        assert torch.equal(again.codes, data.codes) and torch.equal(again.condition, data.condition)
        assert (again.codebook_size, again.num_classes) == (data.codebook_size, data.num_classes)
    with pytest.raises(FileNotFoundError, match="do not exist"):
        LarpCodes.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("codes", "condition", "size", "classes", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(2), 5, 2, "3 clips have 2 conditions"),
        (torch.zeros(3, 4), torch.zeros(3), 5, 0, "class labels have one axis"),
        (torch.full((3, 4), 5), torch.zeros(3), 5, 2, "do not fit a codebook of 5"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes, condition, size, classes, message):
    with pytest.raises(ValueError, match=message):
        LarpCodes(codes.long(), condition.long(), size, classes)


def test_the_published_numbers_are_a_config(tmp_path):
    config = load_config(LarpARTrainConfig, CONFIGS / "larp_ar_lp.yaml", [])
    codes = torch.zeros(1, 1024, dtype=torch.int64)
    assert larp_ar_model_config(config, LarpCodes(codes, torch.zeros(1), 8192, 101)) == LarpARConfig()
    with pytest.raises(ValueError, match="must be less than the 4 clips"):
        train_larp_ar(CONFIG, tmp_path, data=classes(4), compute=COMPUTE)
