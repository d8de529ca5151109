"""The plain LARP equals ours."""

import dataclasses

import pytest
import torch

from llm.larp_ar import LarpAR, larp_ar_config
from mmtok.visual.larp import PRESETS as LARPS
from mmtok.visual.larp import Larp
from recipes.bench.plain_larp import PlainLarp, PlainLarpAR


def test_the_plain_larp_is_the_same_network():
    params = dataclasses.replace(LARPS["larp-nano"], prior=None, encoder_depth=2, decoder_depth=2)
    torch.manual_seed(0)
    model = Larp(params).eval()
    torch.nn.init.normal_(model.to_pixels.weight, std=0.1)
    plain = PlainLarp(params, model.state_dict())
    video = torch.rand(2, 3, 16, 32, 32) * 2 - 1
    with torch.no_grad():
        codes = plain.encode(video)
        assert torch.equal(codes, model.encode(video))
        torch.testing.assert_close(plain.decode(codes), model.decode(codes), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="published options"):
        PlainLarp(dataclasses.replace(params, token_type=True), {})


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_the_plain_larp_generator_draws_the_same_codes(guidance):
    torch.manual_seed(0)
    config = larp_ar_config("S", dim=32, num_layers=2, num_heads=2, hidden_dim=48, vocab_size=40, num_tokens=12)
    model = LarpAR(config).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    plain = PlainLarpAR(config, model.state_dict())
    labels = torch.tensor([3, 50])
    drawn = [
        subject.generate(
            labels, num_tokens=12, cfg_scale=guidance, generator=torch.Generator().manual_seed(1), **options
        )
        for subject, options in ((plain, {}), (model, {"temperature": 1.0}))
    ]
    assert torch.equal(*drawn)
