"""Training of the MAGVIT-v2 tokenizer."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

from mmtok.visual import magvit2 as magvit2_module
from mmtok.visual.magvit2 import Magvit2, Magvit2Params, image_params
from recipes.loop.run import Run
from recipes.runtime.config import load_config
from recipes.runtime.device import Compute
from recipes.runtime.distributed import Ranks, join
from recipes.train.magvit2 import (
    Magvit2TrainConfig,
    draw_batch,
    magvit2_loss,
    train_magvit2,
)
from recipes.train.tiny import TinyConfig

CONFIGS = Path(__file__).parents[3] / "recipes" / "configs"
COMPUTE = Compute(torch.device("cpu"), torch.float32, "tests")
PARAMS = Magvit2Params(
    channels=8,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    num_mid_blocks=1,
    spatial_downsample=(True,),
    temporal_downsample=(False,),
    bits=8,
    patch_size=(4, 4, 4),
    norm_groups=4,
    normalize_latents=True,
)
CONFIG = Magvit2TrainConfig(preset="test", image_steps=2, video_steps=4, num_frames=5, sizes=(16, 32), log_every=1)
CONFIG = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, warmup_steps=2))
STILL = dataclasses.replace(CONFIG.optim, lr=0.0)


@pytest.fixture(autouse=True)
def _small_preset(monkeypatch):
    monkeypatch.setitem(magvit2_module.PRESETS, "test", PARAMS)


def gradients(generator: torch.Generator, batch_size: int, num_frames: int, size: int) -> torch.Tensor:
    """Clips of drifting colour ramps."""
    offset = torch.rand(batch_size, 3, 1, 1, 1, generator=generator)
    x = torch.linspace(0, 1, size).view(1, 1, 1, 1, size) + torch.arange(num_frames).view(1, 1, -1, 1, 1) / 8
    return torch.sin(3 * (x + offset)).expand(-1, -1, -1, size, -1).contiguous()


def test_run_writes_model_log_curves_and_sheet(tmp_path):
    folder = train_magvit2(CONFIG, tmp_path, clip_source=gradients, compute=COMPUTE)
    assert folder == tmp_path / "model"
    model = Magvit2.from_pretrained(folder)
    assert model.params == PARAMS
    assert model.encode(gradients(torch.Generator(), 1, 5, 16)).shape == (1, 1, 2, 2, 2)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(6))
    wanted = {"train/loss", "train/psnr_db", "train/l1", "train/l2", "train/edge", "vq/use", "vq/entropy_bits"}
    assert wanted <= set(rows[0])
    assert rows[-1]["train/lr"] < CONFIG.optim.lr and "train/grad_norm" in rows[0]
    assert (tmp_path / "curves.png").is_file()
    assert (tmp_path / "reconstructions.png").is_file()


def test_stopped_and_resumed_run_equals_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "plot", lambda self: None)  # drawing is slow and tested above
    whole = train_magvit2(CONFIG, tmp_path / "whole", clip_source=gradients, compute=COMPUTE)

    class Stopped(Exception):
        pass

    original = Run.maybe_save

    def save_and_stop(self, step):
        if step == 2:
            self.save(step + 1)
            raise Stopped
        original(self, step)

    monkeypatch.setattr(Run, "maybe_save", save_and_stop)
    with pytest.raises(Stopped):
        train_magvit2(CONFIG, tmp_path / "parts", clip_source=gradients, compute=COMPUTE)
    monkeypatch.setattr(Run, "maybe_save", original)
    parts = train_magvit2(CONFIG, tmp_path / "parts", clip_source=gradients, compute=COMPUTE)

    expected, got = Magvit2.from_pretrained(whole).state_dict(), Magvit2.from_pretrained(parts).state_dict()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name
    logs = [(tmp_path / run / "log.jsonl").read_text().splitlines() for run in ("whole", "parts")]
    lines = [[{k: v for k, v in json.loads(line).items() if k != "perf/seconds"} for line in log] for log in logs]
    assert lines[0] == lines[1]


def test_init_continues_from_a_saved_model(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "plot", lambda self: None)
    torch.manual_seed(3)
    Magvit2(PARAMS).save_pretrained(tmp_path / "start")
    config = dataclasses.replace(CONFIG, optim=STILL, init=str(tmp_path / "start"))
    folder = train_magvit2(config, tmp_path / "run", clip_source=gradients, compute=COMPUTE)
    start, end = (Magvit2.from_pretrained(f).state_dict() for f in (tmp_path / "start", folder))
    for name, tensor in start.items():
        torch.testing.assert_close(end[name], tensor, rtol=0, atol=1e-6)


def test_init_with_an_image_tokenizer_inflates_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "plot", lambda self: None)
    torch.manual_seed(3)
    flat = Magvit2(image_params(PARAMS)).eval()
    flat.save_pretrained(tmp_path / "flat")
    config = dataclasses.replace(CONFIG, optim=STILL, init=str(tmp_path / "flat"))
    folder = train_magvit2(config, tmp_path / "run", clip_source=gradients, compute=COMPUTE)
    video_model = Magvit2.from_pretrained(folder)
    picture = gradients(torch.Generator().manual_seed(5), 2, 1, 16)
    codes = flat.encode(picture)
    assert video_model.params == PARAMS and torch.equal(video_model.encode(picture), codes)
    torch.testing.assert_close(video_model.decode(codes), flat.decode(codes), atol=1e-5, rtol=0)


def test_the_recipe_of_the_paper_is_a_config_of_the_same_program():
    config = load_config(TinyConfig, CONFIGS / "magvit2_base.yaml", [])
    visual = config.visual
    assert visual.first_judged_step == visual.image_steps > 0
    assert (visual.num_frames, *visual.sizes) == (config.bundle.num_frames, config.bundle.size) == (17, 128)
    with torch.device("meta"):
        model = magvit2_module.magvit2(visual.preset)
    assert sum(p.numel() for p in model.parameters()) == 370_547_349
    assert draw_shape(visual, 0) == (256, 3, 1) and draw_shape(visual, visual.image_steps) == (128, 3, 17)


def draw_shape(config, step):
    """Clips, channels and frames of a step's batch, with pictures of one pixel."""
    return tuple(draw_batch(dataclasses.replace(config, sizes=(1,)), gradients, step).shape[:3])


def test_one_batch_is_learnt():
    torch.manual_seed(0)
    model, video = Magvit2(PARAMS), gradients(torch.Generator().manual_seed(0), 4, 5, 16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.99))
    psnr = []
    for step in range(60):
        loss, _, logged = magvit2_loss(model, video, CONFIG, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        psnr.append(float(logged["train/psnr_db"]))
    assert psnr[-1] > psnr[0] + 8, f"from {psnr[0]:.1f} to {psnr[-1]:.1f} dB"


def test_steps_draw_images_first_and_keep_the_number_of_pixels():
    shapes = [tuple(draw_batch(CONFIG, gradients, step).shape) for step in range(6)]
    assert all(shape[2] == (1 if step < 2 else 5) for step, shape in enumerate(shapes))
    assert {shape[0] for shape in shapes if shape[2] == 5 and shape[-1] == 32} <= {1}
    assert torch.equal(draw_batch(CONFIG, gradients, 3), draw_batch(CONFIG, gradients, 3))
    assert len({shape[-1] for shape in (tuple(draw_batch(CONFIG, gradients, s).shape) for s in range(40))}) == 2


def test_impossible_schedules_are_refused():
    with pytest.raises(ValueError, match="must be at least 1"):
        Magvit2TrainConfig(image_steps=0, video_steps=0)
    with pytest.raises(ValueError, match="at least one size"):
        Magvit2TrainConfig(sizes=())


GAME = dataclasses.replace(
    CONFIG,
    sizes=(16,),
    video_steps=6,
    adversarial_weight=0.1,
    adversarial_start_step=4,
    discriminator_channels=4,
    discriminator_multipliers=(2, 2),
    r1_every=2,
    perceptual_weight=0.1,
    perceptual_network="random",
    perceptual_frames=1,
    optim=dataclasses.replace(CONFIG.optim, betas=(0.0, 0.99)),
)


def test_the_whole_recipe_logs_every_term_and_starts_the_judge_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "plot", lambda self: None)
    train_magvit2(GAME, tmp_path, clip_source=gradients, compute=COMPUTE)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(row["train/perceptual"] > 0 for row in rows)
    judged = [row["step"] for row in rows if "judge/loss" in row]
    assert judged == [4, 5, 6, 7] == [row["step"] for row in rows if "train/adversarial" in row]
    assert [row["step"] for row in rows if "judge/r1" in row] == [4, 6]
    assert all("judge/lecam" in row for row in rows if row["step"] >= 4)


def test_the_game_resumes_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "plot", lambda self: None)
    whole = train_magvit2(GAME, tmp_path / "whole", clip_source=gradients, compute=COMPUTE)

    class Stopped(Exception):
        pass

    def save_and_stop(self, step):
        if step == 5:
            self.save(step + 1)
            raise Stopped

    original = Run.maybe_save
    monkeypatch.setattr(Run, "maybe_save", save_and_stop)
    with pytest.raises(Stopped):
        train_magvit2(GAME, tmp_path / "parts", clip_source=gradients, compute=COMPUTE)
    monkeypatch.setattr(Run, "maybe_save", original)
    parts = train_magvit2(GAME, tmp_path / "parts", clip_source=gradients, compute=COMPUTE)
    expected, got = Magvit2.from_pretrained(whole).state_dict(), Magvit2.from_pretrained(parts).state_dict()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    last = [json.loads((tmp_path / run / "log.jsonl").read_text().splitlines()[-1]) for run in ("whole", "parts")]
    assert all(last[0][k] == last[1][k] for k in last[0] if k != "perf/seconds")


def test_options_that_do_not_fit_together():
    for change, told in (
        ({"adversarial_weight": 0.1, "sizes": (16, 32)}, "judges clips of one size"),
        ({"perceptual_weight": 0.1}, "go together"),
        ({"perceptual_network": "random"}, "go together"),
        ({"video_steps": 0, "image_steps": 0}, "must be at least 1"),
    ):
        with pytest.raises(ValueError, match=told):
            dataclasses.replace(CONFIG, **change)


TOGETHER = dataclasses.replace(GAME, entropy_weight=0.5, temperature=1.0)


def test_two_processes_are_one_with_the_whole_batch(two_processes, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "plot", lambda self: None)
    alone = train_magvit2(TOGETHER, tmp_path / "one", clip_source=gradients, compute=COMPUTE)
    two_processes(__file__, tmp_path / "two")
    one, two = (
        Magvit2.from_pretrained(alone).state_dict(),
        Magvit2.from_pretrained(tmp_path / "two" / "model").state_dict(),
    )
    torch.manual_seed(TOGETHER.seed)
    start = Magvit2(PARAMS).state_dict()
    # Adam's first steps are signs, so rounding flips a few weights whose gradient is almost nothing
    apart = torch.cat([(two[name] - one[name]).abs().flatten() for name in one]).mean()
    moved = torch.cat([(one[name] - start[name]).abs().flatten() for name in one]).mean()
    assert moved > 1e-4 and apart < 0.02 * moved, f"{apart:.2e} apart after moving {moved:.2e}"
    first, second = (json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[0]) for name in ("one", "two"))
    for name in ("train/loss", "train/l1", "vq/use", "vq/perplexity"):
        assert second[name] == pytest.approx(first[name], rel=1e-3), name
    with pytest.raises(ValueError, match="cannot be shared by 2 processes"):
        Ranks(0, 2).share(3)


if __name__ == "__main__":  # one of the two processes
    torch.set_num_threads(1)
    magvit2_module.PRESETS["test"] = PARAMS
    Run.plot = lambda self: None
    ranks = join(torch.device("cpu"))
    train_magvit2(TOGETHER, Path(sys.argv[1]), clip_source=gradients, compute=COMPUTE, ranks=ranks)
    torch.distributed.destroy_process_group()
