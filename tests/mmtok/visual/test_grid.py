"""Whole clips and streams of the tokenizers on a grid."""

from __future__ import annotations

import itertools

import pytest
import torch

from mmtok.nn.causal3d import CausalConv3d
from mmtok.visual.cosmos import CosmosDV, CosmosParams
from mmtok.visual.magvit2 import (
    Magvit2,
    Magvit2Params,
)
from mmtok.visual.vidtok import VidTokFSQ, VidTokParams

MODELS = {
    "magvit2": lambda: Magvit2(
        Magvit2Params(
            channels=8,
            channel_multipliers=(1, 2, 2),
            num_res_blocks=1,
            num_mid_blocks=1,
            spatial_downsample=(True, True),
            temporal_downsample=(True, True),
            bits=6,
            norm_groups=4,
        )
    ),
    "magvit2 behind a patch": lambda: Magvit2(
        Magvit2Params(
            channels=8,
            channel_multipliers=(1, 2),
            num_res_blocks=1,
            num_mid_blocks=0,
            spatial_downsample=(True,),
            temporal_downsample=(True,),
            bits=6,
            patch_size=(2, 2, 2),
            norm_groups=4,
        )
    ),
    "cosmos": lambda: CosmosDV(
        CosmosParams(stride=(4, 4, 4), patch_size=2, z_channels=4, channels=8, num_res_blocks=1, levels=(4, 4))
    ),
    "vidtok": lambda: VidTokFSQ(
        VidTokParams(version="v1_1", channels=8, channel_multipliers=(1, 1, 1, 1), num_res_blocks=1, levels=(4, 4))
    ),
}


def randomised(model):
    """Weights that use every slice of every kernel, unlike those of a fresh model."""
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        if p.ndim > 1:
            p.data = torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5
        elif p.data.unique().numel() > 1:  # biases, drawn when the model was made
            p.data = torch.randn(p.shape, generator=generator) / 10
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_networks(name):
    model = randomised(MODELS[name]())
    st = model.stride[0]
    video = torch.rand(1, 3, 1 + 4 * st, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    whole = model.encode(video)
    pictures = model.decode(whole, clamp=False)
    assert whole.unique().numel() > 2
    for sizes in ([1, st, st, st, st], [1 + st, 2 * st, st], [1 + 4 * st]):
        chunks = video.split(sizes, 2)
        assert torch.equal(torch.cat(list(model.encode_stream(chunks)), 2), whole)
        slices = [1 + (sizes[0] - 1) // st, *(n // st for n in sizes[1:])]
        again = torch.cat(list(model.decode_stream(whole.split(slices, 2), clamp=False)), 2)
        torch.testing.assert_close(again, pictures, atol=1e-4, rtol=1e-4)


def test_one_picture_is_the_short_way_of_the_long_one():
    torch.manual_seed(0)
    for repeat_first, factor in itertools.product((False, True), (1, 2)):
        conv = CausalConv3d(2, 3, (3, 3, 3), stride=(factor, 1, 1), repeat_first=repeat_first)
        x = torch.randn(1, 2, 1, 4, 4)
        past = (x if repeat_first else torch.zeros_like(x)).expand(-1, -1, 2, -1, -1)
        expected = torch.nn.Conv3d.forward(conv, torch.cat((past, x), 2))
        torch.testing.assert_close(conv(x), expected)


def test_wrong_chunks_are_told():
    model = MODELS["magvit2"]()
    with pytest.raises(ValueError, match=r"chunk 0 has 4 frames, expected 1 \+ a multiple of 4"):
        list(model.encode_stream([torch.zeros(1, 3, 4, 16, 16)]))
    with pytest.raises(ValueError, match="chunk 1 has 3 frames, expected a multiple of 4"):
        list(model.encode_stream([torch.zeros(1, 3, 5, 16, 16), torch.zeros(1, 3, 3, 16, 16)]))
    with pytest.raises(ValueError, match="must be positive multiples"):
        list(model.encode_stream([torch.zeros(1, 3, 1, 15, 16)]))
    with pytest.raises(ValueError, match="codes must lie in"):
        list(model.decode_stream([torch.full((1, 1, 1, 4, 4), 64)]))


PATCHED = Magvit2Params(
    channels=8,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    num_mid_blocks=1,
    spatial_downsample=(True,),
    temporal_downsample=(False,),
    bits=6,
    patch_size=(4, 4, 4),
    norm_groups=4,
    normalize_latents=True,
)


def test_valid_lengths():
    model = Magvit2(PATCHED)
    assert [model.valid_num_frames(n) for n in (1, 4, 5, 8, 17, 20)] == [1, 1, 5, 5, 17, 17]
    with pytest.raises(ValueError, match=r"num_frames \(0\) must be at least 1"):
        model.valid_num_frames(0)


def test_padding_repeats_the_last_frame_up_to_the_next_length():
    torch.manual_seed(0)
    model = Magvit2(PATCHED).eval()
    st = model.stride[0]
    video = torch.rand(1, 3, 2, 32, 32) * 2 - 1
    filled = torch.cat((video, video[:, :, -1:].expand(-1, -1, st - 1, -1, -1)), 2)
    assert torch.equal(model.encode(video, pad=True), model.encode(filled))
    assert torch.equal(model.encode(filled, pad=True), model.encode(filled))
    assert torch.equal(model.encode(video[:, :, :1], pad=True), model.encode(video[:, :, :1]))
    with pytest.raises(ValueError, match=f"pad=True, which repeats the last frame up to {1 + st}"):
        model.encode(video)
