"""Chunk by chunk equals whole, for single layers and for whole networks, with a past of constant size."""

from __future__ import annotations

import pytest
import torch

from mmtok.nn.causal3d import CausalConv3d, DepthToSpaceUpsample
from mmtok.nn.patch import HaarPatch
from mmtok.nn.streaming import Stream, is_first, is_last, streaming
from mmtok.visual.cosmos import CosmosDV, CosmosParams
from mmtok.visual.magvit2 import Magvit2, Magvit2Params
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


def held(stream):
    """Bytes that a stream keeps from chunk to chunk."""
    return sum(tensor.numel() * tensor.element_size() for tensor in stream.kept.values())


def randomised(model):
    """Weights that use every slice of every kernel, unlike those of a fresh model."""
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        if p.ndim > 1:
            p.data = torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5
        elif p.data.unique().numel() > 1:  # biases, drawn when the model was made
            p.data = torch.randn(p.shape, generator=generator) / 10
    return model.eval()


@pytest.mark.parametrize("name", [n for n in MODELS if n != "cosmos"])  # its attention over time reads the whole past
def test_memory_does_not_grow(name):
    model = randomised(MODELS[name]())
    st, sizes = model.stride[0], []
    stream = Stream()
    with torch.inference_mode():
        for number in range(6):
            with streaming(stream):
                model.codes_of(torch.rand(1, 3, 1 if number == 0 else st, 16, 16))
            sizes.append(held(stream))
    assert sizes[1] == sizes[-1] > 0


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("repeat_first", [False, True])
def test_a_convolution_in_chunks(stride, repeat_first):
    torch.manual_seed(0)
    conv = CausalConv3d(2, 3, (3, 3, 3), stride=(stride, 1, 1), repeat_first=repeat_first)
    x = torch.randn(1, 2, 13, 4, 4)
    whole = conv(x)
    assert whole.shape[2] == 12 // stride + 1
    for sizes in ([1, 2, 4, 6], [5, 8], [13]):
        stream, out = Stream(), []
        for part in x.split(sizes, 2):
            with streaming(stream):
                out.append(conv(part))
        torch.testing.assert_close(torch.cat(out, 2), whole)


def test_first_and_last_are_told_once():
    layer, stream = HaarPatch((1, 1, 1)), Stream()
    assert is_first(layer) and is_first(layer) and is_last()
    with streaming(stream):
        assert is_first(layer) and not is_first(layer) and not is_last()
    with streaming(stream, last=True):
        assert not is_first(layer) and is_last()
    assert is_first(layer)


def test_only_the_first_chunk_drops_a_frame():
    torch.manual_seed(0)
    up, stream = DepthToSpaceUpsample(4, (2, 1, 1), (3, 3, 3)), Stream()
    x = torch.randn(1, 4, 4, 2, 2)
    with streaming(stream):
        first = up(x[:, :, :1])
    with streaming(stream):
        rest = up(x[:, :, 1:])
    assert (first.shape[2], rest.shape[2]) == (1, 6)
    torch.testing.assert_close(torch.cat((first, rest), 2), up(x))
