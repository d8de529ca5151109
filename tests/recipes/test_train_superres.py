"""recipes/train_superres.py: it learns, logs, refuses what does not fit, and resumes exactly."""

import json

import pytest
import torch

import recipes.train_superres as recipe
from recipes.device import choose_compute
from recipes.tokens import TokenSet
from recipes.train_superres import SuperResTrainConfig, copy_accuracy, superres_config, train_superres
from superres.model import SuperResTransformer

COMPUTE = choose_compute("cpu", "float32")
CAPTIONS = ["a red ball", "a blue box", "a green star"]


@pytest.fixture(autouse=True)
def no_curves(request, monkeypatch):
    """Drawing takes most of a short run's time; one test keeps it."""
    if "curves" not in request.node.name:
        monkeypatch.setattr(recipe.Run, "plot", lambda self: None)


class WordVectors:
    """A text encoder of six letters a text; counts how often it is asked."""

    dim, max_length = 16, 8

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked += texts
        letters = torch.tensor([[ord(c) % 16 for c in text[-6:]] for text in texts])
        return torch.nn.functional.one_hot(letters, 16).float(), torch.ones(letters.shape, dtype=torch.bool)


def make_tokens(count=12, grid=(2, 4, 4), seed=0):
    """High codes are the low code below, moved by a fixed pattern: learnable, and never a mere copy."""
    low = torch.randint(200, (count, *grid), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    high = low.repeat_interleave(2, 2).repeat_interleave(2, 3)
    high = high + torch.arange(4, dtype=torch.int32).view(2, 2).repeat(grid[1], grid[2]) * 13 + 1
    return TokenSet(low, [CAPTIONS[i % 3] for i in range(count)], high=high)


def make_config(**changes):
    values = {"size": "nano", "visual_codes": 256, "text_slots": 8, "steps": 6, "batch_size": 4, "log_every": 1}
    values |= {"validation_rows": 4, "validate_every": 3}
    return SuperResTrainConfig(**{**values, **changes})


def run(folder, config, tokens=None, encoder=None):
    encoder = encoder or WordVectors()
    return train_superres(config, folder, tokens=tokens or make_tokens(), text_encoder=encoder, compute=COMPUTE)


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_writes_a_model_and_its_curves(tmp_path):
    encoder = WordVectors()
    model = SuperResTransformer.from_pretrained(run(tmp_path, make_config(), encoder=encoder))
    assert model.config.grid == (2, 8, 8) and model.config.factor_sizes == (16, 16) and model.config.text_dim == 16
    assert sorted(encoder.asked) == sorted(CAPTIONS), "every distinct caption is embedded once"
    assert (tmp_path / "curves.png").exists()
    lines = read_log(tmp_path)
    train = [line for line in lines if "train/loss" in line]
    val = [line for line in lines if "val/loss" in line]
    assert [line["step"] for line in train] == list(range(6)) and [line["step"] for line in val] == [2, 5]
    for name in ("train/accuracy", "train/accuracy_factor0", "train/accuracy_factor1", "perf/clips_per_s"):
        assert name in train[0]
    for name in ("val/accuracy_factor1", "val/first_step_accuracy", "val/copy_accuracy", "val/copy_accuracy_factor0"):
        assert name in val[0]


def test_the_loss_falls_well_below_that_of_guessing(tmp_path):
    run(tmp_path, make_config(steps=50, lr=1e-2, validate_every=50, drop_low=0.0, max_noise=0.0))
    losses = [line["train/loss"] for line in read_log(tmp_path) if "train/loss" in line]
    assert losses[0] == pytest.approx(2 * 2.7726, rel=0.02)  # two factors of 16
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0], losses


def test_resuming_equals_not_stopping(tmp_path, monkeypatch):
    config = make_config(ema=0.5)
    straight = run(tmp_path / "straight", config)

    loss, calls = recipe.batch_loss, []

    def stops(model, batch, config):
        calls.append(model.training and torch.is_grad_enabled())
        if sum(calls) == 5:
            raise KeyboardInterrupt
        return loss(model, batch, config)

    monkeypatch.setattr(recipe, "batch_loss", stops)
    monkeypatch.setattr(recipe.Run, "maybe_save", lambda self, step, parts: self.save(step + 1, parts))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", config)
    monkeypatch.setattr(recipe, "batch_loss", loss)
    resumed = run(tmp_path / "stopped", config)

    first, second = SuperResTransformer.from_pretrained(straight), SuperResTransformer.from_pretrained(resumed)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert a.equal(b), f"{name} differs after resuming"
    for a, b in zip(read_log(tmp_path / "straight"), read_log(tmp_path / "stopped"), strict=True):
        assert {k: v for k, v in a.items() if "perf" not in k} == {k: v for k, v in b.items() if "perf" not in k}


def test_held_out_rows_are_never_trained_on(tmp_path):
    tokens = make_tokens()
    spoiled = make_tokens()
    spoiled.high[-4:] = 255 - spoiled.high[-4:]
    first, second = run(tmp_path / "a", make_config(), tokens), run(tmp_path / "b", make_config(), spoiled)
    a, b = (SuperResTransformer.from_pretrained(path).state_dict() for path in (first, second))
    assert all(a[name].equal(b[name]) for name in a)
    val_a, val_b = ([x["val/loss"] for x in read_log(tmp_path / f) if "val/loss" in x] for f in "ab")
    assert val_a != val_b


def test_copy_baseline_takes_the_code_below():
    low = torch.tensor([[[[1, 18]]]])
    high = torch.tensor([[[[1, 1, 18, 2], [17, 1, 18, 19]]]])
    factors, codes = copy_accuracy(low, high, (16, 16))
    assert factors == [7 / 8, 6 / 8] and codes == 5 / 8


def test_sizes_of_the_preset_can_be_replaced():
    config = superres_config(make_config(dim=48, num_heads=3, num_blocks=2, hidden_dim=96), make_tokens(), 16)
    assert (config.dim, config.num_heads, config.num_blocks, config.hidden_dim) == (48, 3, 2, 96)


def test_caches_that_do_not_fit_raise(tmp_path):
    tokens = make_tokens()
    with pytest.raises(ValueError, match="no high-resolution codes; encode the corpus with upscale=true"):
        run(tmp_path, make_config(), TokenSet(tokens.low, tokens.captions))
    with pytest.raises(ValueError, match="visual_codes is 16"):
        run(tmp_path, make_config(visual_codes=16))
    with pytest.raises(ValueError, match="not half as high and wide"):
        run(tmp_path, make_config(), TokenSet(tokens.high, tokens.captions, high=tokens.high))
    with pytest.raises(ValueError, match=r"validation_rows \(12\) must be less than the 12 rows"):
        run(tmp_path, make_config(validation_rows=12))
