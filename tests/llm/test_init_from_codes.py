"""llm/init_from_codes.py: like codes start with like rows."""

import pytest
import torch

from llm.config import preset
from llm.init_from_codes import projected_rows, start_from_code_vectors
from llm.model import PrefixLM

SMALL = {"dim": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "hidden_dim": 48, "text_dim": 8}


def _bits(number: int) -> torch.Tensor:
    codes = torch.arange(2**number)
    return (codes[:, None] >> torch.arange(number) & 1).float() * 2 - 1


def test_rows_have_the_asked_spread_and_keep_distances():
    rows = projected_rows(_bits(8), 512, std=0.02, noise=0.0, generator=torch.Generator().manual_seed(0))
    assert abs(float(rows.std()) / 0.02 - 1) < 0.1
    one_bit = (rows[0] - rows[1]).norm()
    all_bits = (rows[0] - rows[255]).norm()
    assert abs(float(all_bits / one_bit) - 8**0.5) < 0.6


def test_noise_keeps_equal_vectors_apart():
    same = torch.cat([torch.ones(2, 4), -torch.ones(2, 4)])
    clean = projected_rows(same, 16, std=1.0, noise=0.0, generator=torch.Generator().manual_seed(0))
    noisy = projected_rows(same, 16, std=1.0, noise=0.2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(clean[0], clean[1]) and not torch.equal(noisy[0], noisy[1])
    with pytest.raises(ValueError, match=r"noise \(1.5\) must lie in \[0, 1\]"):
        projected_rows(same, 16, std=1.0, noise=1.5, generator=torch.Generator())


def test_only_the_named_rows_change():
    config = preset("tiny", visual_codes=64, audio_levels=2, audio_codes=8, **SMALL)
    torch.manual_seed(0)
    model = PrefixLM(config)
    before = model.model.embed_tokens.weight.detach().clone()
    start_from_code_vectors(model, _bits(6), None)
    after, block = model.model.embed_tokens.weight.detach().clone(), config.vocabulary.visual
    inside = torch.zeros(len(before), dtype=torch.bool)
    inside[block.start : block.stop] = True
    assert torch.equal(before[~inside], after[~inside]) and not torch.equal(before[inside], after[inside])
    start_from_code_vectors(model, None, [torch.randn(8, 5), torch.randn(8, 5)])
    changed = (model.model.embed_tokens.weight.detach() != after).any(1).nonzero().flatten()
    assert changed.tolist() == list(
        range(config.vocabulary.audio_level(0).start, config.vocabulary.audio_level(1).stop)
    )


def test_wrong_sizes_are_named():
    model = PrefixLM(preset("tiny", visual_codes=64, audio_levels=2, audio_codes=8, **SMALL))
    with pytest.raises(ValueError, match="32 vectors for a block of 64 codes"):
        start_from_code_vectors(model, _bits(5), None)
    with pytest.raises(ValueError, match="audio has 1 levels of vectors, the vocabulary 2"):
        start_from_code_vectors(model, None, [torch.randn(8, 5)])
