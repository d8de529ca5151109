"""Videos of any length: clip by clip, or as one stream."""

import pytest
import torch

from mmtok.visual.cosmos import CosmosDV, CosmosParams
from mmtok.visual.larp import PRESETS, Larp
from mmtok.visual.long_video import decode_video, encode_video, reconstruct_video
from mmtok.visual.tiling import TiledTokenizer

COSMOS = CosmosParams(stride=(4, 4, 4), patch_size=2, z_channels=4, channels=8, num_res_blocks=1, levels=(4, 4))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return CosmosDV(COSMOS).eval()


def video(t):
    return torch.rand(1, 3, t, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_stream_is_the_whole_video_in_chunks(model):
    long = video(27)
    padded = torch.cat((long, long[:, :, -1:].expand(-1, -1, 2, -1, -1)), 2)  # 29 = 1 + 7 * 4
    calls = []
    made, codes = reconstruct_video(model, long, clip=9, stream=True, between=lambda: calls.append(1))
    assert torch.equal(torch.cat(codes, 2), model.encode(padded)) and calls == [1]
    torch.testing.assert_close(made, model.decode(torch.cat(codes, 2))[:, :, :27], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("length", [1, 6, 9, 10, 20])
def test_clips_stand_alone_and_the_last_one_is_filled(model, length):
    long = video(length)
    codes = encode_video(model, long, clip=9)
    for number, part in enumerate(codes):
        own = long[:, :, 9 * number : 9 * number + 9]
        missing = -(own.shape[2] - 1) % 4
        assert torch.equal(part, model.encode(torch.cat((own, own[:, :, -1:].expand(-1, -1, missing, -1, -1)), 2)))
    assert decode_video(model, codes, size=(length, 8, 8), clip=9).shape == long.shape


def test_tokens_about_a_whole_clip_are_told_its_size():
    import dataclasses

    larp = Larp(dataclasses.replace(PRESETS["larp-nano"], encoder_depth=1, decoder_depth=1, prior=None)).eval()
    long = torch.rand(1, 3, 22, 32, 32) * 2 - 1  # 16 and 6, filled to 8
    made, codes = reconstruct_video(larp, long, clip=16)
    assert made.shape == long.shape and len(codes) == 2


def test_who_cannot_stream_says_so(model):
    for other in (TiledTokenizer(model, tile=8, overlap=0), Larp.empty(PRESETS["larp-nano"])):
        with pytest.raises(ValueError, match="cannot carry its state from clip to clip"):
            encode_video(other, video(9), clip=9, stream=True)
