"""mmtok/metrics/codebook.py: shares and entropies by hand, windows, and counts that go on after a stop."""

import pytest
import torch
from torch.testing import assert_close

from mmtok.metrics.codebook import CodebookUse, codebook_use


def test_use_and_entropy_of_known_codes():
    share, bits = codebook_use(torch.tensor([[0, 1], [2, 3]]), 8)
    assert share == 0.5
    assert bits == pytest.approx(2.0)
    assert codebook_use(torch.zeros(5, dtype=torch.long), 8) == (0.125, 0.0)


def test_window_forgets_old_batches_and_its_state_survives():
    use = CodebookUse(4, window=2)
    for code in (0, 1, 2):
        use.update(torch.tensor([[[code]]]))
    assert float(use.share()) == 0.5 and float(use.entropy_bits()) == pytest.approx(1.0)
    again = CodebookUse(4, window=2)
    again.load_state_dict(use.state_dict())
    again.update(torch.tensor([[[2]]]))
    assert float(again.share()) == 0.25 and float(again.entropy_bits()) == 0.0


def test_codebook_use_and_perplexity_by_hand() -> None:
    use = CodebookUse(4, num_codebooks=2)
    use.update(torch.tensor([[[0, 1, 2, 3], [0, 0, 0, 0]]]))
    assert_close(use.share(), torch.tensor([1.0, 0.25]).double())
    assert_close(use.perplexity(), torch.tensor([4.0, 1.0]).double())
    use.update(torch.tensor([[[0, 0, 0, 0], [1, 1, 1, 1]]]))
    assert_close(use.share(), torch.tensor([1.0, 0.5]).double())
    assert_close(use.perplexity()[1], torch.tensor(2.0).double())


def test_codes_are_forgotten_after_the_window() -> None:
    use = CodebookUse(4, window=2)
    for code, expected in ((0, 0.25), (1, 0.5), (2, 0.5), (2, 0.25)):
        use.update(torch.tensor([[[code]]]))
        assert float(use.share()) == expected, code


def test_nothing_counted_is_no_use() -> None:
    assert CodebookUse(4, num_codebooks=2).share().eq(0).all()


def test_saved_counts_go_on_exactly() -> None:
    use, other = (CodebookUse(8, window=3) for _ in range(2))
    use.update(torch.tensor([[[1, 2]]]))
    other.load_state_dict(use.state_dict())
    for counter in (use, other):
        counter.update(torch.tensor([[[5, 5]]]))
    assert torch.equal(use.share(), other.share())
    assert torch.equal(use.perplexity(), other.perplexity())
