import torch

from llm.attention import blocked_attention, fused_attention


def prefix_mask(n: int, prefix: int, batch_size: int) -> torch.Tensor:
    places = torch.arange(n)
    mask = (places[None] < prefix) | (places[None] <= places[:, None])
    mask = mask.expand(batch_size, 1, n, n).clone()
    mask[0, :, :, 1:3] = False  # empty text slots of the first sequence
    return mask


def test_blocked_equals_fused_with_gradients():
    torch.manual_seed(0)
    mask = prefix_mask(23, 5, 2)
    results = []
    for attend in (fused_attention(mask), blocked_attention(mask, rows=7)):
        torch.manual_seed(1)
        q, k, v = (torch.randn(2, heads, 23, 8, requires_grad=True) for heads in (4, 2, 2))
        out = attend(q, k, v)
        out.square().sum().backward()
        results.append((out, q.grad, k.grad, v.grad))
    for fused, blocked in zip(*results, strict=True):
        torch.testing.assert_close(blocked, fused, atol=1e-5, rtol=1e-4)


def test_blocked_reads_a_longer_past():
    torch.manual_seed(0)
    mask = prefix_mask(12, 4, 2)[:, :, 9:]  # three new rows behind nine cached places
    q, k, v = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 12, 8), torch.randn(2, 2, 12, 8)
    torch.testing.assert_close(blocked_attention(mask, rows=2)(q, k, v), fused_attention(mask)(q, k, v))
