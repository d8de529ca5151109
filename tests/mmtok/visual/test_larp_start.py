"""The local start: before any training, tokens are about places and pixels about tokens."""

import dataclasses

import pytest
import torch

from mmtok.visual.larp import PRESETS, Larp
from mmtok.visual.larp_start import start_local

PARAMS = dataclasses.replace(PRESETS["larp-nano"], prior=None)


def started(**changes):
    torch.manual_seed(0)
    model = Larp(dataclasses.replace(PARAMS, **changes))
    start_local(model, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.to_pixels.weight, std=0.1)
    return model.eval()


def clip():
    return torch.rand(1, 3, 16, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("patch", [(0, 0, 0), (1, 2, 3), (3, 3, 1)])
def test_a_patch_moves_its_own_token(patch):
    model, video = started(), clip()
    t, h, w = patch
    other = video.clone()
    other[:, :, 4 * t : 4 * t + 4, 8 * h : 8 * h + 8, 8 * w : 8 * w + 8] *= -1
    with torch.no_grad():
        moved = (model.to_latents(model.encode_queries(other)) - model.to_latents(model.encode_queries(video))).norm(
            dim=-1
        )[0]
    number = (t * 4 + h) * 4 + w
    assert int(moved.argmax()) == number
    assert float(moved[number]) > 5 * float(moved.median())


@pytest.mark.parametrize("number", [0, 27, 63])
def test_a_code_paints_its_own_patch(number):
    model = started()
    codes = torch.zeros(1, 1, 64, dtype=torch.int64)
    other = codes.clone()
    other[..., number] = 500
    change = (model.decode(other, clamp=False) - model.decode(codes, clamp=False)).abs()
    patches = change.view(1, 3, 4, 4, 4, 8, 4, 8).mean((0, 1, 3, 5, 7)).flatten()
    assert int(patches.argmax()) == number
    assert float(patches[number]) > 5 * float(patches.median())


@pytest.mark.parametrize("count", [16, 100])
def test_other_numbers_of_tokens_share_the_places(count):
    model = started(num_tokens=count)
    assert model.encode(clip()).shape == (1, 1, count)


def test_tables_that_are_trained_from_the_start_are_refused():
    with pytest.raises(ValueError, match="fixed patch tables"):
        start_local(Larp(dataclasses.replace(PARAMS, learned_patch_table=True)), torch.Generator())
