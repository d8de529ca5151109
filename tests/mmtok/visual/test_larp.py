"""The LARP tokenizer beyond its published use: other sizes, fewer tokens, training, refusals."""

import dataclasses

import pytest
import torch

import mmtok
from mmtok.visual.larp import Larp, LarpParams, PatchTable
from mmtok.visual.larp_prior import LarpPriorParams

PARAMS = LarpParams(
    num_tokens=12,
    size=32,
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


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Larp(PARAMS)
    torch.nn.init.normal_(model.to_pixels.weight, std=0.1)  # a new model is black
    return model.eval()


def clip(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_new_model_gives_the_middle_of_its_own_range(model):
    assert torch.equal(
        Larp(PARAMS).eval().decode(torch.zeros(1, 1, 12, dtype=torch.int64)), torch.full((1, 3, 8, 32, 32), -1.0)
    )


@pytest.mark.parametrize("learned", [False, True])
def test_tables_are_cut_in_time_and_interpolated_otherwise(learned):
    table = PatchTable((4, 3, 3), 8, learned=learned)
    whole = table((4, 3, 3)).view(4, 3, 3, 8)
    assert torch.equal(table((2, 3, 3)).view(2, 3, 3, 8), whole[:2])
    larger = table((4, 6, 6)).view(4, 6, 6, 8)
    torch.testing.assert_close(larger[:, 1:-1, 1:-1].mean((1, 2)), whole.mean((1, 2)), atol=0.2, rtol=0)
    assert table((8, 3, 5)).shape == (1, 120, 8)


@pytest.mark.parametrize("size", [(8, 32, 32), (4, 32, 32), (16, 32, 32), (8, 48, 32), (8, 16, 16)])
def test_other_lengths_and_sizes(model, size):
    codes = model.encode(clip(2, 3, *size))
    assert codes.shape == (2, 1, 12) and codes.dtype == torch.int64
    assert model.decode(codes, size=size).shape == (2, 3, *size)
    assert mmtok.contract.decode_clip(model, codes, size).shape == (2, 3, *size)


@pytest.mark.parametrize("count", [1, 5, 12])
def test_any_number_of_tokens(model, count):
    codes = model.encode(clip(1, 3, 8, 32, 32), num_tokens=count)
    assert codes.shape == (1, 1, count) and model.decode(codes).shape == (1, 3, 8, 32, 32)


def test_training_draws_codes_and_reaches_every_weight(model):
    model.train()
    video = clip(2, 3, 8, 32, 32)
    runs = [model(video, progress=0.5, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(runs[0].codes, runs[1].codes) and not torch.equal(runs[0].codes, runs[2].codes)
    out = runs[0]
    (out.reconstruction.square().mean() + out.quantization_loss + out.prior.loss).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without or without == ["prior.head.bias"], without


def test_adaptive_training_uses_random_prefixes():
    torch.manual_seed(0)
    model = Larp(dataclasses.replace(PARAMS, adaptive_tokens=3)).train()
    generator = torch.Generator().manual_seed(0)
    counts = {model.draw_num_tokens(generator) for _ in range(60)}
    assert counts == set(range(3, 13))
    out = model(clip(1, 3, 8, 32, 32), num_tokens=5)
    assert out.codes.shape[2] == 5 and out.reconstruction.shape == (1, 3, 8, 32, 32) and out.prior is not None
    assert Larp(PARAMS).draw_num_tokens() == 12


def test_bfloat16_weights(model):
    video = clip(1, 3, 8, 32, 32)
    codes = model.encode(video)
    made = model.decode(codes)
    model.bfloat16()
    assert float((model.encode(video) != codes).float().mean()) <= 0.5
    again = model.decode(codes)
    assert again.dtype == torch.float32 and float((again - made).abs().max()) < 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode(clip(1, 3, 6, 32, 32)), "multiple of 4: use 4 or 8"),
        (lambda m: m.encode(clip(1, 3, 8, 30, 32)), "multiples of 8"),
        (lambda m: m.encode(clip(1, 3, 8, 32, 32), num_tokens=13), r"\[1, 12\]"),
        (lambda m: m.encode(clip(1, 3, 8, 32, 32) * 9), r"must lie in \[-1, 1\]"),
        (lambda m: m.decode(torch.full((1, 1, 12), 64)), r"codes must lie in \[0, 64\)"),
        (lambda m: m.decode(torch.zeros(1, 1, 3, 2, 2, dtype=torch.int64)), r"\(b, 1, n\)"),
        (lambda m: m.decode(torch.zeros(1, 1, 13, dtype=torch.int64)), r"\[1, 12\]"),
        (lambda m: m.valid_num_frames(3), "at least 4"),
    ],
)
def test_wrong_inputs_are_refused(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 30}, "do not divide into patches"),
        ({"temperature": 0.0}, "positive temperature"),
        ({"normalized": False}, "positive temperature and normalized"),
        ({"adaptive_tokens": 13}, r"\[2, 12\]"),
        ({"num_tokens": 13}, "the prior takes 12 tokens"),
        ({"encoder_heads": 5}, "multiple of the heads"),
    ],
)
def test_impossible_params_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Larp(dataclasses.replace(PARAMS, **change))


def test_codes_are_not_drawn_without_angles():
    model = Larp(dataclasses.replace(PARAMS, normalized=False, temperature=None)).eval()
    with pytest.raises(ValueError, match="does not normalise"):
        model.encode(clip(1, 3, 8, 32, 32), temperature=0.1)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_codes_are_drawn_at_a_positive_temperature(model, temperature):
    with pytest.raises(ValueError, match="temperature must be positive"):
        model.encode(clip(1, 3, 8, 32, 32), temperature=temperature)
