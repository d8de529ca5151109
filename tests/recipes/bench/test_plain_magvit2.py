"""The plain MAGVIT-v2 equals ours."""

import dataclasses

import pytest
import torch

from mmtok.quantize.lfq import quantize_signs
from mmtok.visual.magvit2 import PRESETS, Magvit2, Magvit2Params
from recipes.bench.plain_magvit2 import PlainMagvit2

PARAMS = Magvit2Params(
    channels=8,
    channel_multipliers=(1, 2, 2, 4),
    num_res_blocks=2,
    num_mid_blocks=1,
    spatial_downsample=(True, True, True),
    temporal_downsample=(False, True, True),
    bits=10,
    norm_groups=4,
    normalize_latents=True,
)


@pytest.mark.parametrize("dropped_frame", [0, 1])
def test_the_plain_form_is_the_same_network(dropped_frame):
    torch.manual_seed(0)
    model = Magvit2(dataclasses.replace(PARAMS, dropped_frame=dropped_frame)).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)  # a new model ignores the past
    plain = PlainMagvit2(model.params, model.state_dict())
    video = torch.rand(2, 3, 9, 32, 32) * 2 - 1
    with torch.no_grad():
        latents = model.encode_latents(video)
        torch.testing.assert_close(plain.encode_latents(video), latents, atol=1e-4, rtol=1e-4)
        signs = quantize_signs(latents)
        torch.testing.assert_close(plain.decode_signs(signs), model.decode_signs(signs), atol=1e-4, rtol=1e-4)


def test_options_without_a_plain_form_are_refused():
    with pytest.raises(ValueError, match="no patch"):
        PlainMagvit2(PRESETS["tiny"], {})
