"""Every grid tokenizer works with bfloat16 weights, and says nearly the same."""

import dataclasses

import pytest
import torch

from mmtok.metrics.visual import psnr_db
from mmtok.visual.cosmos import CosmosDV, CosmosParams
from mmtok.visual.magvit2 import PRESETS, Magvit2
from mmtok.visual.vidtok import VidTokFSQ, VidTokParams

COSMOS = CosmosParams(stride=(4, 4, 4), patch_size=2, z_channels=4, channels=32, num_res_blocks=1, levels=(4, 4))
VIDTOK = VidTokParams(channels=32, channel_multipliers=(1, 1, 1, 1), num_res_blocks=1, levels=(4, 4))
MODELS = {
    "magvit2": lambda: Magvit2(PRESETS["tiny"]),
    "magvit2 of clip norms": lambda: Magvit2(dataclasses.replace(PRESETS["tiny"], norm_scope="clip")),
    "cosmos": lambda: CosmosDV(COSMOS),
    "vidtok": lambda: VidTokFSQ(VIDTOK),
    "vidtok 1.1": lambda: VidTokFSQ(dataclasses.replace(VIDTOK, version="v1_1")),
}


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_weights(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    codes = model.encode(video)
    whole = model.decode(codes, clamp=False)
    model.bfloat16()
    again = model.encode(video)
    made = model.decode(codes, clamp=False)
    assert again.dtype == torch.int64 and made.dtype == torch.float32
    assert float((again != codes).float().mean()) < 0.3
    # error against the signal: bfloat16 keeps 8 bits
    assert float(psnr_db(made, whole)) - 10 * float(torch.log10(4 / whole.square().mean())) > 25
    if model.is_causal:
        first = list(model.encode_stream([video[:, :, :1], video[:, :, 1:]]))
        assert float((torch.cat(first, 2) != again).float().mean()) < 0.05
