"""Training of a decoder behind codes that do not move."""

import dataclasses

import pytest
import torch

from mmtok.visual.magvit2 import Magvit2, Magvit2Params
from recipes.loop.learner import Optim
from recipes.loop.run import Run
from recipes.runtime.device import Compute
from recipes.train.magvit2_decoder import DecoderTrainConfig, decoder_loss, train_decoder

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
CONFIG = DecoderTrainConfig(
    steps=40,
    num_mid_blocks=3,
    num_frames=5,
    sizes=(16, 32),
    optim=Optim(lr=3e-3, warmup_steps=2, weight_decay=1e-4, grad_clip=30.0, ema=0.5),
)


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "plot", lambda self: None)
    torch.manual_seed(3)
    model = Magvit2(PARAMS).eval()
    model.save_pretrained(tmp_path / "start")
    return model


def gradients(generator: torch.Generator, batch_size: int, num_frames: int, size: int) -> torch.Tensor:
    """Clips of drifting colour ramps."""
    offset = torch.rand(batch_size, 3, 1, 1, 1, generator=generator)
    x = torch.linspace(0, 1, size).view(1, 1, 1, 1, size) + torch.arange(num_frames).view(1, 1, -1, 1, 1) / 8
    return torch.sin(3 * (x + offset)).expand(-1, -1, -1, size, -1).contiguous()


def train(tmp_path, name="run", **changes):
    config = dataclasses.replace(CONFIG, **changes)
    return train_decoder(config, tmp_path / name, tokenizer=tmp_path / "start", clip_source=gradients, compute=COMPUTE)


def test_the_codes_stay_and_the_pictures_come_closer(tmp_path, start):
    end = Magvit2.from_pretrained(train(tmp_path))
    assert len(end.decoder.mid) == 3
    video = gradients(torch.Generator().manual_seed(5), 4, 5, 16)
    codes = start.encode(video)
    assert torch.equal(end.encode(video), codes)
    errors = [float((m.decode(codes) - video).square().mean()) for m in (start, end)]
    assert errors[1] < 0.8 * errors[0]


def test_the_encoder_does_not_move_by_a_bit(tmp_path, start):
    end = Magvit2.from_pretrained(train(tmp_path, steps=5)).state_dict()
    before = start.state_dict()
    encoder = [name for name in before if name.startswith("encoder.")]
    assert encoder and all(torch.equal(before[name], end[name]) for name in encoder)
    assert not torch.equal(before["decoder.conv_out.weight"], end["decoder.conv_out.weight"])


def test_a_stopped_and_resumed_run_equals_one_that_was_not(tmp_path, start, monkeypatch):
    whole = Magvit2.from_pretrained(train(tmp_path, "whole", steps=6)).state_dict()
    keep = Run.maybe_save

    def stop(run, step):
        keep(run, step)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "maybe_save", stop)
        train(tmp_path, "parts", steps=6, save_every_s=0.0)
    with pytest.raises(ValueError, match="another config"):
        train(tmp_path, "parts", steps=6, seed=7)
    parts = Magvit2.from_pretrained(train(tmp_path, "parts", steps=6, save_every_s=0.0)).state_dict()
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_loss_is_the_mean_psnr(start):
    video = gradients(torch.Generator().manual_seed(5), 2, 5, 16)
    loss, logged = decoder_loss(start, video)
    error = (start.decode_signs(_signs(start, video)) - video).square().mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(loss, -(10 * torch.log10(4 / error)).mean())
    assert set(logged) == {"train/loss", "train/psnr_db"}
    loss.backward()
    assert all(p.grad is None for p in start.encoder.parameters())
    assert all(p.grad is not None for p in start.decoder.parameters())


def _signs(model: Magvit2, video: torch.Tensor) -> torch.Tensor:
    """The codes' bits as signs, least significant bit first."""
    codes = model.encode(video)[:, 0]
    bits = codes[:, None] >> torch.arange(model.params.bits).view(1, -1, 1, 1, 1) & 1
    return bits.float() * 2 - 1


def test_a_decoder_is_not_made_shallower(tmp_path, start):
    with pytest.raises(ValueError, match="has 1 blocks at its deepest grid, cannot make them 0"):
        train(tmp_path, num_mid_blocks=0)
