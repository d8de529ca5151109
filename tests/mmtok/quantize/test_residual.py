"""Residual quantizer: against a slow reference, the codebooks' learning, level dropout, saving."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mmtok.quantize.residual import Codebook, CodebookLearning, ResidualVQ, kmeans, nearest_codes, random_rows

STILL = CodebookLearning(decay=0.9, revival_threshold=0.0, kmeans_iterations=0, level_dropout=0.0)


def small(learning: CodebookLearning = STILL, *, dim: int = 3, levels: int = 3, size: int = 8) -> ResidualVQ:
    torch.manual_seed(0)
    return ResidualVQ(dim=dim, num_codebooks=levels, codebook_size=size, learning=learning)


def slow_encode(latents: Tensor, books: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One vector, one level, one code at a time."""
    b, d, t = latents.shape
    codes = torch.zeros(b, len(books), t, dtype=torch.long)
    total = torch.zeros(b, d, t)
    for i in range(b):
        for j in range(t):
            left = latents[i, :, j].clone()
            for k, book in enumerate(books):
                distances = [float((left - code).square().sum()) for code in book]
                best = min(range(len(distances)), key=distances.__getitem__)
                codes[i, k, j] = best
                left -= book[best]
                total[i, :, j] += book[best]
    return codes, total


def test_codes_and_sum_equal_a_slow_reference() -> None:
    quantizer = small().eval()
    latents = torch.randn(2, 3, 5)
    codes, total = slow_encode(latents, [book.codes for book in quantizer.levels])
    assert torch.equal(quantizer.encode(latents), codes)
    assert_close(quantizer.decode(codes), total)
    result = quantizer(latents)
    assert torch.equal(result.codes, codes)
    assert_close(result.quantized, total)


def test_first_levels_alone_are_a_prefix() -> None:
    quantizer = small().eval()
    latents = torch.randn(2, 3, 5)
    codes = quantizer.encode(latents)
    assert torch.equal(quantizer.encode(latents, num_codebooks=2), codes[:, :2])
    expected = quantizer.levels[0].codes[codes[:, 0]] + quantizer.levels[1].codes[codes[:, 1]]
    assert_close(quantizer.decode(codes[:, :2]), expected.transpose(1, 2))


def test_gradient_passes_straight_through_and_commitment_pulls_to_the_codes() -> None:
    quantizer = small().eval()
    latents = torch.randn(2, 3, 5, requires_grad=True)
    weight = torch.randn(2, 3, 5)
    (grad,) = torch.autograd.grad((quantizer(latents).quantized * weight).sum(), latents)
    assert_close(grad, weight)
    (grad,) = torch.autograd.grad(quantizer(latents).commitment_loss, latents)
    moved = (latents - 0.05 * grad / grad.abs().max()).detach()
    assert quantizer(moved).commitment_loss < quantizer(latents).commitment_loss


def test_commitment_is_relative_to_the_latents() -> None:
    """Latents and codes a hundred times as large must not crush the encoder."""
    quantizer, latents = small().eval(), torch.randn(2, 3, 5)
    loss = quantizer(latents).commitment_loss
    for level in quantizer.levels:
        level.codes.mul_(100)
    assert_close(quantizer(100 * latents).commitment_loss, loss)


def test_distances_stay_float32_under_autocast() -> None:
    quantizer = small(size=64, dim=16).eval()
    latents = torch.randn(2, 16, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = quantizer(latents)
    assert result.quantized.dtype == torch.float32
    assert torch.equal(result.codes, quantizer(latents).codes)


def test_codes_are_running_means_of_their_vectors() -> None:
    """Ten hand-made updates against the recurrence of VQ-VAE-2 written out."""
    book = Codebook(4, 2)
    book.codes.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]))
    book.restart_means()
    counts, sums = torch.ones(4), book.codes.clone()
    for _ in range(10):
        vectors = torch.randn(6, 2)
        assigned = nearest_codes(vectors, book.codes)
        for code in range(4):
            mine = [v for v, a in zip(vectors, assigned, strict=True) if a == code]
            counts[code] = 0.9 * counts[code] + 0.1 * len(mine)
            sums[code] = 0.9 * sums[code] + 0.1 * (torch.stack(mine).sum(0) if mine else torch.zeros(2))
        book.learn(vectors, assigned, STILL)
        assert_close(book.codes, sums / counts[:, None])


def test_an_unused_code_stays_where_it_is_without_revival() -> None:
    book = Codebook(2, 1)
    book.codes.copy_(torch.tensor([[0.0], [100.0]]))
    book.restart_means()
    for _ in range(300):
        book.learn(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long), STILL)
    assert_close(book.codes, torch.tensor([[0.0], [100.0]]))


def used_after(book: Codebook, steps: int, learn: bool) -> int:
    """Codes in use at the end of ``steps`` batches of a two-dimensional cloud."""
    learning = CodebookLearning(decay=0.99, revival_threshold=0.5)
    seen = torch.zeros(len(book.codes))
    for step in range(steps):
        vectors = torch.randn(64, 2)
        assigned = nearest_codes(vectors, book.codes)
        if step >= steps - 50:
            seen[assigned] = 1
        if learn:
            book.learn(vectors, assigned, learning)
        else:
            learn_as_widely_published(book, vectors, assigned, learning)
    return int(seen.sum())


def learn_as_widely_published(book: Codebook, vectors: Tensor, assigned: Tensor, learning: CodebookLearning) -> None:
    """The copied variant: revival writes the code alone, then the update computes it from the old sum again."""
    dead = book.running_count < learning.revival_threshold * book.running_count.mean()
    book.codes[dead] = random_rows(vectors, int(dead.sum()))
    one_hot = nn.functional.one_hot(assigned, len(book.codes)).float()
    book.running_count.mul_(learning.decay).add_(one_hot.sum(0), alpha=1 - learning.decay)
    book.running_sum.mul_(learning.decay).add_(one_hot.T @ vectors, alpha=1 - learning.decay)
    book.codes.copy_(book.running_sum / book.running_count.clamp(min=1e-6)[:, None])


@pytest.mark.parametrize(("learn", "expected"), [(True, range(15, 17)), (False, range(1, 5))])
def test_dead_codes_return_only_when_sum_and_count_are_reset(learn: bool, expected: range) -> None:
    torch.manual_seed(0)
    book = Codebook(16, 2)
    book.codes.fill_(50.0)  # all codes but two lie far from the data
    book.codes[:2] = torch.tensor([[0.5, 0.0], [-0.5, 0.0]])
    book.restart_means()
    assert used_after(book, 300, learn) in expected


def test_every_level_comes_to_use_most_codes_with_few_vectors_a_step() -> None:
    quantizer = small(CodebookLearning(decay=0.95, level_dropout=1.0), dim=4, levels=3, size=64).train()
    for _ in range(250):
        quantizer(torch.randn(2, 4, 16))  # 32 vectors for 64 codes
    codes = quantizer.encode(torch.randn(8, 4, 100))
    use = [len(codes[:, level].unique()) / 64 for level in range(3)]
    assert min(use) > 0.85, use


def test_dropout_draws_every_number_of_levels_alike_and_masks_the_sum() -> None:
    quantizer = small(CodebookLearning(level_dropout=1.0), levels=4)
    result = quantizer(torch.randn(4000, 3, 1))
    share = torch.bincount(result.active_levels, minlength=5) / 4000
    assert share[0] == 0
    assert (share[1:] - 0.25).abs().max() < 0.03, share

    frozen = small(CodebookLearning(decay=0.0, level_dropout=1.0), levels=4)
    latents = torch.randn(8, 3, 6)
    frozen(latents)  # k-means start
    books = [book.codes.clone() for book in frozen.levels]
    result = frozen(latents)
    for example, active in enumerate(result.active_levels.tolist()):
        wanted = sum(books[i][result.codes[example, i]] for i in range(active))
        assert_close(result.quantized[example], wanted.T)


def test_dropout_probability_zero_and_half() -> None:
    latents = torch.randn(4000, 3, 1)
    assert small(CodebookLearning(level_dropout=0.0), levels=4)(latents).active_levels.eq(4).all()
    full = small(CodebookLearning(level_dropout=0.5), levels=4)(latents).active_levels.eq(4).float().mean()
    assert abs(full - 0.625) < 0.03  # half untouched, and a quarter of the rest


def test_dropped_levels_go_on_learning() -> None:
    """With one example whose draw drops level 3, the last codebook moves all the same."""
    quantizer = small(CodebookLearning(decay=0.5, level_dropout=1.0, revival_threshold=0.0))
    quantizer(torch.randn(1, 3, 20))
    for _ in range(20):
        before = quantizer.levels[2].codes.clone()
        if int(quantizer(torch.randn(1, 3, 20)).active_levels) < 3:
            assert not torch.equal(before, quantizer.levels[2].codes)
            return
    pytest.fail("no level was dropped in 20 draws")


def test_kmeans_finds_separate_clusters_and_fills_surplus_codes() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    vectors = (centres[:, None] + 0.1 * torch.randn(4, 50, 2)).reshape(-1, 2)
    found = kmeans(vectors, 8, 20)
    assert torch.cdist(centres, found).min(1).values.max() < 0.5
    few = kmeans(vectors[:3], 8, 5)
    assert few.shape == (8, 2)
    assert torch.isfinite(few).all()


def test_random_rows_do_not_repeat_while_there_are_enough() -> None:
    vectors = torch.arange(10.0)[:, None]
    assert len(random_rows(vectors, 10).unique()) == 10
    assert sorted(random_rows(vectors, 20).flatten().tolist()) == sorted([*range(10), *range(10)])
    assert random_rows(vectors, 0).shape == (0, 1)


def test_saved_state_holds_codes_only_and_training_state_the_rest() -> None:
    quantizer = small(CodebookLearning()).train()
    for _ in range(5):
        quantizer(torch.randn(2, 3, 10))
    assert set(quantizer.state_dict()) == {f"levels.{i}.codes" for i in range(3)}

    other = small(CodebookLearning()).train()
    other.load_state_dict(quantizer.state_dict())
    other.load_training_state(quantizer.training_state())
    latents = torch.randn(2, 3, 10)
    random_state = torch.get_rng_state()
    first = quantizer(latents)
    torch.set_rng_state(random_state)
    second = other(latents)
    assert torch.equal(first.quantized, second.quantized)
    for one, two in zip(quantizer.levels, other.levels, strict=True):
        assert torch.equal(one.codes, two.codes)


def test_loaded_codes_are_not_thrown_away_by_a_new_start() -> None:
    quantizer, other = small().train(), small().train()
    quantizer(torch.randn(2, 3, 10))
    other.load_state_dict(quantizer.state_dict())
    other(1e-3 * torch.randn(2, 3, 10))
    moved = (other.levels[0].codes - quantizer.levels[0].codes).norm() / quantizer.levels[0].codes.norm()
    assert moved < 0.8, moved  # one step at decay 0.9 cannot; k-means on this batch would make all codes tiny
    assert bool(other.levels[0].started)


def test_evaluation_and_encode_leave_the_codebooks_alone() -> None:
    quantizer = small(CodebookLearning())
    before = [book.codes.clone() for book in quantizer.levels]
    quantizer.encode(torch.randn(1, 3, 9))
    quantizer.eval()(torch.randn(1, 3, 9))
    assert all(torch.equal(a, b.codes) for a, b in zip(before, quantizer.levels, strict=True))


def test_kmeans_waits_until_enough_vectors_were_gathered() -> None:
    torch.manual_seed(0)
    learning = CodebookLearning(start_vectors=40, level_dropout=0.0, revival_threshold=0.0)
    quantizer = ResidualVQ(dim=4, num_codebooks=2, codebook_size=8, learning=learning).train()
    centres = 5 * torch.randn(8, 4)
    batches = [(centres[torch.arange(15) % 8] + 0.01 * torch.randn(15, 4)).T[None] for _ in range(4)]
    for batch in batches[:2]:
        out = quantizer(batch.requires_grad_())
        assert torch.equal(out.quantized, batch) and out.commitment_loss == 0 and out.codes.eq(0).all()
    saved = quantizer.training_state()
    assert saved["gathered"].shape == (30, 4)
    again = ResidualVQ(dim=4, num_codebooks=2, codebook_size=8, learning=learning).train()
    again.load_state_dict(quantizer.state_dict())
    again.load_training_state(saved)
    torch.manual_seed(1)
    out = quantizer(batches[2])
    torch.manual_seed(1)
    assert torch.equal(again(batches[2]).codes, out.codes)  # a stopped run goes on where it was
    assert "gathered" not in quantizer.training_state()
    assert out.codes[:, 0].unique().numel() >= 6 and float(out.commitment_loss) < 1


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), got 1"):
        CodebookLearning(decay=1.0)
    with pytest.raises(ValueError, match=r"relative to the mean use.*got 2"):
        CodebookLearning(revival_threshold=2.0)
    with pytest.raises(ValueError, match=r"level_dropout is a probability, got 1.5"):
        CodebookLearning(level_dropout=1.5)
    with pytest.raises(ValueError, match="kmeans_iterations must not be negative"):
        CodebookLearning(kmeans_iterations=-1)
    with pytest.raises(ValueError, match="must be positive"):
        ResidualVQ(dim=0, num_codebooks=1, codebook_size=1)
    quantizer = small()
    with pytest.raises(ValueError, match=r"num_codebooks must lie in 1\.\.3, got 4"):
        quantizer.encode(torch.randn(1, 3, 2), num_codebooks=4)
    with pytest.raises(ValueError, match=r"codes must lie in 0\.\.7, got 0\.\.8"):
        quantizer.decode(torch.tensor([[[0, 8]]]))
    with pytest.raises(ValueError, match=r"integers \(b, k, t\) with k in 1\.\.3"):
        quantizer.decode(torch.zeros(1, 4, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="training state does not fit"):
        quantizer.load_training_state({})
