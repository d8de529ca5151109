import pytest
import torch

from llm.sampling import guide, keep_top_k, keep_top_p, noise, sample


def test_guidance_formula():
    cond, uncond = torch.randn(2, 5), torch.randn(2, 5)
    torch.testing.assert_close(guide(cond, uncond, 3.0), uncond + 3.0 * (cond - uncond))
    assert torch.equal(guide(cond, uncond, 1.0), cond)


def test_top_k_keeps_the_best():
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0]])
    assert keep_top_k(logits, 2).isfinite().tolist() == [[False, True, True, False]]
    assert torch.equal(keep_top_k(logits, 9), logits)


def test_top_p_keeps_the_smallest_sufficient_set():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for top_p, kept in ((0.05, 1), (0.5, 1), (0.6, 2), (0.8, 2), (0.9, 3), (1.0, 4)):
        assert int(keep_top_p(logits, top_p).isfinite().sum()) == kept, top_p


def test_draws_follow_the_probabilities():
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    draws = sample(probabilities.log().expand(20_000, 3), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(draws.bincount() / 20_000, probabilities, atol=0.015, rtol=0)
    colder = sample(probabilities.log().expand(20_000, 3), temperature=0.5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        colder.bincount(minlength=3) / 20_000, torch.tensor([0.783, 0.196, 0.022]), atol=0.015, rtol=0
    )


def test_dropped_ids_are_never_drawn():
    logits = torch.zeros(2000, 6)
    logits[:, 2:] = -0.01
    assert sample(logits, top_k=2, generator=torch.Generator().manual_seed(0)).max() == 1


def test_zero_temperature_is_greedy_and_seeds_repeat():
    logits = torch.randn(4, 9)
    assert torch.equal(sample(logits, temperature=0.0), logits.argmax(-1))
    a, b = (sample(logits, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["uniform", "exponential"])
def test_a_rows_noise_does_not_depend_on_the_other_rows(kind):
    def draw(*seeds):
        rows = [torch.Generator().manual_seed(s) for s in seeds]
        return noise(kind, (len(seeds), 33), rows, device=torch.device("cpu"))

    together = draw(7, 8, 9)
    assert torch.equal(together[1:2], draw(8)) and torch.equal(together[2], draw(9, 7)[0])
    assert not torch.equal(together[0], together[1])


def test_errors():
    with pytest.raises(ValueError, match="there are 2 rows and 1 generators"):
        sample(torch.zeros(2, 3), generator=[torch.Generator()])
    logits = torch.zeros(1, 3)
    with pytest.raises(ValueError, match="temperature must not be negative, got -1"):
        sample(logits, temperature=-1)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        sample(logits, top_k=0)
    with pytest.raises(ValueError, match=r"top_p must lie in \(0, 1\], got 1.5"):
        sample(logits, top_p=1.5)
