import dataclasses

import pytest
import torch

from llm.code_init import projected_rows, start_from_code_vectors
from llm.model import PrefixLM


def signs(bits):
    return ((torch.arange(2**bits)[:, None] >> torch.arange(bits)) & 1) * 2.0 - 1


def test_alike_codes_start_alike():
    rows = projected_rows(signs(6), 256, std=0.02, noise=0.2, generator=torch.Generator().manual_seed(0))
    assert rows.shape == (64, 256)
    assert rows.std() == pytest.approx(0.02, rel=0.15)
    similar = torch.nn.functional.cosine_similarity(rows[:1], rows[[1, 63]])
    assert similar[0] > 0.4 > -0.4 > similar[1]  # one bit apart, then all six


@pytest.mark.parametrize("tied", [True, False])
def test_only_the_rows_of_codes_change_and_the_head_follows(config, tied):
    model = PrefixLM(dataclasses.replace(config, tie_embeddings=tied))
    before = model.model.embed_tokens.weight.detach().clone()
    start_from_code_vectors(model, torch.randn(50, 6), [torch.randn(11, 4), torch.randn(11, 4)])
    after, vocabulary = model.model.embed_tokens.weight, model.vocabulary
    changed = (before != after).any(1)
    assert changed[vocabulary.visual.start : vocabulary.audio.stop].all()
    assert not changed[:256].any()
    assert not changed[vocabulary.size :].any()
    codes = slice(vocabulary.visual.start, vocabulary.audio.stop)
    assert torch.equal(model.lm_head.weight[codes], after[codes])


def test_errors(config):
    model = PrefixLM(config)
    with pytest.raises(ValueError, match=r"noise \(2\) must lie in \[0, 1\]"):
        projected_rows(signs(2), 4, std=1.0, noise=2, generator=torch.Generator())
    with pytest.raises(ValueError, match="49 vectors for a block of 50 codes"):
        start_from_code_vectors(model, torch.randn(49, 6), None)
    with pytest.raises(ValueError, match="audio has 1 levels of vectors, the vocabulary 2"):
        start_from_code_vectors(model, None, [torch.randn(11, 4)])
