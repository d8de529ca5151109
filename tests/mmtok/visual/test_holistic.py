"""Holistic tokens behind the interface of grids."""

import dataclasses

import pytest
import torch

from mmtok.contract import VisualTokenizer, decode_clip
from mmtok.visual.holistic import TokensAsGrid, as_grid, is_holistic
from mmtok.visual.larp import PRESETS, Larp
from mmtok.visual.magvit2 import PRESETS as GRIDS
from mmtok.visual.magvit2 import Magvit2

PARAMS = dataclasses.replace(PRESETS["larp-nano"], encoder_depth=1, decoder_depth=1, prior=None)


def test_tokens_are_slices_of_one():
    torch.manual_seed(0)
    larp = Larp(PARAMS).eval()
    torch.nn.init.normal_(larp.to_pixels.weight, std=0.1)
    grid = as_grid(larp, (12, 32, 32))
    assert isinstance(grid, TokensAsGrid) and isinstance(grid, VisualTokenizer) and is_holistic(grid)
    video = torch.rand(2, 3, 12, 32, 32) * 2 - 1
    codes = grid.encode(video)
    assert codes.shape == (2, 1, *grid.grid(12, 32, 32)) == (2, 1, 64, 1, 1)
    assert torch.equal(codes.flatten(2), larp.encode(video))
    assert torch.equal(grid.decode(codes), decode_clip(larp, codes.flatten(2), (12, 32, 32)))
    assert grid.decode(codes).shape == (2, 3, 12, 32, 32)
    assert (grid.valid_num_frames(17), grid.fps, grid.codebook_size) == (16, 8.0, 1024)
    assert torch.equal(grid.code_vectors(), larp.code_vectors())


def test_grids_stay_as_they_are():
    with torch.device("meta"):
        model = Magvit2(GRIDS["tiny"])
    assert as_grid(model, (17, 64, 64)) is model and not is_holistic(model)


def test_clips_of_another_size_are_refused():
    grid = as_grid(Larp(PARAMS), (16, 32, 32))
    with pytest.raises(ValueError, match="clips here are of"):
        grid.encode(torch.zeros(1, 3, 16, 64, 64))
