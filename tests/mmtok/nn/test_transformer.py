"""The transformer that LARP's halves share."""

import pytest
import torch

from mmtok.nn.transformer import Transformer, attend


@pytest.mark.parametrize("keep", [1, 5, 11])
def test_the_last_block_computes_what_is_kept_and_the_same(keep):
    torch.manual_seed(0)
    network, x = Transformer(32, 2, 3).eval(), torch.randn(2, 11, 32)
    torch.testing.assert_close(network(x, keep), network(x)[:, -keep:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("rows", "keys", "causal"), [(5, 40, False), (300, 40, False), (300, 300, True), (7, 7, True)])
def test_attention_in_blocks_is_attention(rows, keys, causal):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 16, dtype=torch.bfloat16, requires_grad=True) for n in (rows, keys, keys))
    ours = attend(q, k, v, causal=causal)
    exact = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=causal)
    torch.testing.assert_close(ours.float(), exact, atol=2e-2, rtol=2e-2)
    for got, want in zip(
        torch.autograd.grad(ours.float().square().sum(), (q, k, v)),
        torch.autograd.grad(exact.square().sum(), (q, k, v)),
        strict=True,
    ):
        assert float((got.float() - want.float()).norm() / want.float().norm()) < 0.03
