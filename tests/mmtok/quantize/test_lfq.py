"""Lookup-free quantisation against slow, obvious versions."""

import math

import pytest
import torch

from mmtok.quantize import lfq
from mmtok.quantize.lfq import codes_from_latents, entropy_weight, lfq_losses, quantize_signs, signs_from_codes


def dense_entropies(z: torch.Tensor, temperature: float, epsilon: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Entropies over all 2^d codes, written out: softmax of 2 z . c / temperature."""
    bits = z.shape[1]
    codebook = signs_from_codes(torch.arange(2**bits)[:, None], bits)[:, :, 0].to(z.dtype)
    log_q = torch.log_softmax(2 * z @ codebook.T / temperature, dim=1)
    average = log_q.exp().mean(dim=0)
    return -(log_q.exp() * log_q).sum(dim=1).mean(), -(average * (average + epsilon).log()).sum()


@pytest.mark.parametrize("bits", [1, 5, 6])
def test_factored_entropies_equal_the_dense_ones_and_so_do_their_gradients(bits):
    z = 0.02 * torch.randn(50, bits, generator=torch.Generator().manual_seed(bits))
    ours, slow = z.clone().requires_grad_(), z.double().requires_grad_()
    losses = lfq_losses(ours, temperature=0.05)
    token, codebook = dense_entropies(slow, 0.05)
    torch.testing.assert_close(losses.token_entropy.double(), token, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses.codebook_entropy.double(), codebook, rtol=1e-5, atol=1e-6)
    (losses.token_entropy - 0.7 * losses.codebook_entropy).backward()
    (token - 0.7 * codebook).backward()
    torch.testing.assert_close(ours.grad.double(), slow.grad, rtol=1e-4, atol=1e-6)


def test_epsilon_inside_the_logarithm_follows_the_peers():
    z = 0.01 * torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    expected = dense_entropies(z.double(), 0.01, epsilon=1e-2)[1]
    got = lfq_losses(z, epsilon=1e-2).codebook_entropy
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    assert abs(float(got - lfq_losses(z).codebook_entropy)) > 0.01


def test_upstream_library_agrees():
    upstream = pytest.importorskip("vector_quantize_pytorch", reason="the peer library is not installed")
    bits, z = 6, 0.1 * torch.randn(2, 6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    peer = upstream.LFQ(codebook_size=2**bits, dim=bits, entropy_loss_weight=1.0, commitment_loss_weight=1.0).train()
    _, breakdown = peer(z, inv_temperature=100.0, return_loss_breakdown=True)
    ours = lfq_losses(z, temperature=0.01, epsilon=1e-5)
    torch.testing.assert_close(ours.token_entropy, breakdown.per_sample_entropy, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.codebook_entropy, breakdown.batch_entropy, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.commitment, breakdown.commitment)


def test_stored_upstream_losses_are_reproduced(shared):
    from safetensors.torch import load_file

    golden = load_file(shared / "golden" / "magvit" / "open_magvit2_video_a.safetensors")
    losses = lfq_losses(golden["output.video.latent"], temperature=0.01, epsilon=1e-5)
    for name, got in (("per_sample_entropy", losses.token_entropy), ("codebook_entropy", losses.codebook_entropy)):
        torch.testing.assert_close(got, golden[f"output.lfq_train.{name}"][0], rtol=1e-3, atol=1e-4, msg=name)
    torch.testing.assert_close(losses.commitment, golden["output.lfq_train.commitment"][0])


def test_decided_and_evenly_spread_tokens_reach_the_ideal_entropies():
    z = signs_from_codes(torch.arange(64).view(1, 64), 6)
    losses = lfq_losses(z)
    assert float(losses.token_entropy) < 1e-6
    assert float(losses.codebook_entropy) == pytest.approx(6 * math.log(2), rel=1e-6)
    assert float(losses.commitment) == 0.0


def test_losses_stay_finite_for_extreme_latents_and_under_autocast():
    z = torch.tensor([[0.0, 1e4], [-1e4, 1e-9]]).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = lfq_losses(z)
    (losses.token_entropy - losses.codebook_entropy + losses.commitment).backward()
    assert losses.codebook_entropy.dtype == torch.float32
    assert bool(torch.isfinite(z.grad).all())


@pytest.mark.parametrize("bits", [3, 6])
def test_average_distribution_is_in_the_order_of_the_codes(bits):
    z = 0.02 * torch.randn(20, bits, generator=torch.Generator().manual_seed(0))
    codebook = signs_from_codes(torch.arange(2**bits)[:, None], bits)[:, :, 0]
    dense = torch.softmax(2 * z @ codebook.T / 0.05, dim=1).mean(dim=0)
    torch.testing.assert_close(lfq.average_distribution(z, temperature=0.05), dense, rtol=1e-4, atol=1e-7)


def test_average_is_taken_over_all_replicas(monkeypatch):
    first, second = (0.01 * torch.randn(30, 5, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    both = lfq.average_distribution(torch.cat((first, second)), temperature=0.01)
    other = lfq.average_distribution(second, temperature=0.01)
    monkeypatch.setattr(lfq.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(lfq.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(lfq.dist_nn, "all_reduce", lambda average: average + other)
    torch.testing.assert_close(lfq.average_distribution(first, temperature=0.01), both)


def test_codes_spell_the_bits_with_channel_zero_least_significant():
    z = torch.tensor([0.3, -0.1, 0.0, 2.0]).view(1, 4, 1)  # zero counts as negative
    assert codes_from_latents(z).tolist() == [[1 + 8]]
    assert signs_from_codes(torch.tensor([[9]]), 4).flatten().tolist() == [1, -1, -1, 1]


def test_codes_and_signs_are_inverse_for_every_code_and_grid():
    codes = torch.arange(2**9).view(2, 8, 8, 4)
    signs = signs_from_codes(codes, 9)
    assert signs.shape == (2, 9, 8, 8, 4)
    assert torch.equal(codes_from_latents(signs), codes)
    assert codes_from_latents(signs).dtype == torch.int64


def test_signs_are_exact_and_their_gradient_is_the_identity():
    z = torch.tensor([[-0.2, 0.0, 3.0]]).requires_grad_()
    signs = quantize_signs(z)
    assert signs.tolist() == [[-1.0, -1.0, 1.0]]
    (signs * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert z.grad.tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("bad", [-1, 16])
def test_codes_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=r"codes must lie in \[0, 16\)"):
        signs_from_codes(torch.tensor([[bad]]), 4)


def test_entropy_weight_falls_from_three_times_to_once():
    assert entropy_weight(0) == pytest.approx(0.3)
    assert entropy_weight(1000) == pytest.approx(0.2)
    assert entropy_weight(2000) == pytest.approx(0.1)
    assert entropy_weight(99999) == pytest.approx(0.1)
    assert entropy_weight(0, anneal_steps=0) == pytest.approx(0.1)
