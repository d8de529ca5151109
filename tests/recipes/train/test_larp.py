"""Training of the LARP tokenizer."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

from mmtok.visual import larp as larp_module
from mmtok.visual.larp import Larp, LarpParams
from mmtok.visual.larp_prior import LarpPriorParams
from recipes.loop.learner import Optim
from recipes.loop.run import Run
from recipes.runtime.config import load_config
from recipes.runtime.device import Compute
from recipes.runtime.distributed import join
from recipes.train.larp import LarpTrainConfig, train_larp

CONFIGS = Path(__file__).parents[3] / "recipes" / "configs"
COMPUTE = Compute(torch.device("cpu"), torch.float32, "tests")
PARAMS = LarpParams(
    num_tokens=12,
    size=16,
    num_frames=8,
    encoder_dim=32,
    encoder_heads=2,
    encoder_depth=2,
    decoder_dim=32,
    decoder_heads=2,
    decoder_depth=2,
    codebook_size=64,
    prior=LarpPriorParams(num_layers=1, num_heads=2, dim=16, max_tokens=12),
)
OPTIM = Optim(lr=1e-3, final_lr=0.01, warmup_steps=2, betas=(0.5, 0.9), grad_clip=None)
CONFIG = LarpTrainConfig(preset="test", steps=6, optim=OPTIM, log_every=1)
GAME = dataclasses.replace(
    CONFIG,
    adversarial_weight=0.3,
    adversarial_start_step=1,
    discriminator_every=2,
    discriminator_dim=16,
    discriminator_heads=2,
    discriminator_depth=1,
    perceptual_weight=0.1,
    perceptual_network="random",
    optim=dataclasses.replace(OPTIM, grad_clip=1.0, ema=0.9),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setitem(larp_module.PRESETS, "test", PARAMS)
    monkeypatch.setattr(Run, "plot", lambda self: None)


def gradients(generator: torch.Generator, batch_size: int, num_frames: int, size: int) -> torch.Tensor:
    """Clips of drifting colour ramps."""
    offset = torch.rand(batch_size, 3, 1, 1, 1, generator=generator)
    x = torch.linspace(0, 1, size).view(1, 1, 1, 1, size) + torch.arange(num_frames).view(1, 1, -1, 1, 1) / 8
    return torch.sin(3 * (x + offset)).expand(-1, -1, -1, size, -1).contiguous()


def train(folder, config=CONFIG, **changes):
    return train_larp(dataclasses.replace(config, **changes), folder, clip_source=gradients, compute=COMPUTE)


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_whole_recipe_logs_every_term(tmp_path):
    model = Larp.from_pretrained(train(tmp_path, GAME))
    assert model.prior is not None and (tmp_path / "reconstructions.png").stat().st_size > 500
    log = rows(tmp_path)
    always = {
        "train/loss",
        "train/l1",
        "train/psnr_db",
        "train/perceptual",
        "prior/loss",
        "prior/top1",
        "prior/top5",
        "vq/use",
    }
    assert all(always <= set(row) for row in log)
    assert [row["step"] for row in log if "judge/loss" in row] == [2, 4]
    assert [row["step"] for row in log if "train/adversarial" in row] == [1, 2, 3, 4, 5]
    shares = [row["prior/sampled_share"] for row in log]
    assert shares[0] == 0 and max(shares[2:]) > 0.2


def test_stopped_and_resumed_equals_one_that_was_not(tmp_path, monkeypatch):
    whole = Larp.from_pretrained(train(tmp_path / "whole", GAME)).state_dict()
    keep = Run.maybe_save

    def stop(run, step):
        keep(run, step)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "maybe_save", stop)
        train(tmp_path / "parts", GAME, save_every_s=0.0)
    parts = Larp.from_pretrained(train(tmp_path / "parts", GAME, save_every_s=0.0)).state_dict()
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_one_batch_is_learnt(tmp_path):
    def one(generator, batch_size, num_frames, size):
        return gradients(torch.Generator().manual_seed(0), batch_size, num_frames, size)

    config = dataclasses.replace(
        CONFIG,
        steps=150,
        optim=dataclasses.replace(OPTIM, lr=3e-3, betas=(0.9, 0.99), warmup_steps=10),
        prior_lr_scale=1.0,
    )
    train_larp(config, tmp_path, clip_source=one, compute=COMPUTE)
    log = rows(tmp_path)
    assert log[-1]["train/psnr_db"] > log[0]["train/psnr_db"] + 6, (log[0], log[-1])


def test_the_prior_s_learning_rate_is_its_own(tmp_path):
    start = {}
    moved = {}
    for scale in (0.0, 1.0):
        torch.manual_seed(CONFIG.seed)
        start = Larp(PARAMS).state_dict()
        end = Larp.from_pretrained(train(tmp_path / str(scale), prior_lr_scale=scale)).state_dict()
        moved[scale] = {n: not torch.equal(end[n], start[n]) for n in start}
    assert not any(m for n, m in moved[0.0].items() if n.startswith("prior."))
    assert moved[1.0]["prior.head.weight"] and moved[0.0]["to_code.weight"]


def test_without_the_prior(tmp_path):
    model = Larp.from_pretrained(train(tmp_path, use_prior=False))
    assert model.prior is None and not any("prior" in name for name in rows(tmp_path)[0])


def test_the_published_numbers_are_a_config():
    config = load_config(LarpTrainConfig, CONFIGS / "larp_l_long.yaml", [])
    assert config.preset in larp_module.PRESETS and config.prior_lr_scale == 50
    with pytest.raises(ValueError, match="go together"):
        dataclasses.replace(CONFIG, perceptual_weight=1.0)
    with pytest.raises(ValueError, match="at least 1"):
        dataclasses.replace(CONFIG, steps=0)
    with pytest.raises(ValueError, match="smooth, hinge"):
        dataclasses.replace(CONFIG, discriminator_loss="wasserstein")


def test_training_goes_on_from_a_finished_tokenizer(tmp_path):
    first = train(tmp_path / "first")
    still = dataclasses.replace(OPTIM, lr=0.0)
    same = Larp.from_pretrained(train(tmp_path / "same", init=str(first), optim=still, adaptive_tokens=4))
    assert same.params.adaptive_tokens == 4
    start = Larp.from_pretrained(first).state_dict()
    assert all(torch.equal(weight, start[name]) for name, weight in same.state_dict().items())
    bare = Larp.from_pretrained(train(tmp_path / "bare", init=str(first), use_prior=False))
    assert bare.prior is None and not torch.equal(bare.state_dict()["to_code.weight"], start["to_code.weight"])
    with pytest.raises(ValueError, match="no prior to train with"):
        train(tmp_path / "none", init=str(tmp_path / "bare" / "model"))


def test_an_adaptive_training_uses_first_parts_of_the_queries(tmp_path, monkeypatch):
    counts = []
    forward = Larp.forward
    monkeypatch.setattr(Larp, "forward", lambda *a, **k: (counts.append(k["num_tokens"]), forward(*a, **k))[1])
    model = Larp.from_pretrained(train(tmp_path, adaptive_tokens=3))
    assert model.params.adaptive_tokens == 3
    assert len(set(counts)) > 2 and min(counts) >= 3 and max(counts) <= 12


# the prior's scheduled sampling, codes and blurred targets are drawn anew in each process, so there is nothing to draw
DECIDED = dataclasses.replace(PARAMS, temperature=1e-6, adaptive_tokens=6)
TOGETHER = dataclasses.replace(GAME, preset="decided", adaptive_tokens=6, use_prior=False, discriminator_loss="hinge")


def test_two_processes_are_one_with_the_whole_batch(two_processes, tmp_path, monkeypatch):
    monkeypatch.setitem(larp_module.PRESETS, "decided", DECIDED)
    alone = train(tmp_path / "one", TOGETHER)
    two_processes(__file__, tmp_path / "two")
    one, two = (Larp.from_pretrained(f).state_dict() for f in (alone, tmp_path / "two" / "model"))
    torch.manual_seed(TOGETHER.seed)
    start = Larp(DECIDED).without_prior().state_dict()
    # Adam's first steps are signs, so rounding flips a few weights whose gradient is almost nothing
    apart = torch.cat([(two[name] - one[name]).abs().flatten() for name in one]).mean()
    moved = torch.cat([(one[name] - start[name]).abs().flatten() for name in one]).mean()
    assert moved > 1e-4 and apart < 0.02 * moved, f"{apart:.2e} apart after moving {moved:.2e}"
    first, second = (rows(tmp_path / name) for name in ("one", "two"))
    assert len(first) == len(second) == TOGETHER.steps  # the second process writes no log
    for name in ("train/loss", "train/l1", "train/perceptual", "vq/use", "vq/entropy_bits"):
        assert second[0][name] == pytest.approx(first[0][name], rel=1e-3), name


if __name__ == "__main__":  # one of the two processes
    torch.set_num_threads(1)
    larp_module.PRESETS["decided"] = DECIDED
    Run.plot = lambda self: None
    ranks = join(torch.device("cpu"))
    train_larp(TOGETHER, Path(sys.argv[1]), clip_source=gradients, compute=COMPUTE, ranks=ranks)
    torch.distributed.destroy_process_group()
