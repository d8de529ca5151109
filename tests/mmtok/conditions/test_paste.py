import pytest
import torch

from mmtok.conditions.paste import paste_back

KNOWN = torch.ones(2, 8, 8, dtype=torch.bool)
KNOWN[:, 2:6, 2:6] = False
MADE, ORIGINAL = torch.ones(1, 3, 2, 16, 16), -torch.ones(1, 3, 2, 16, 16)


def test_known_pixels_are_the_originals_exactly_and_hidden_ones_are_made():
    original = torch.rand(2, 3, 2, 16, 16)
    out = paste_back(MADE.expand(2, -1, -1, -1, -1), original, KNOWN)
    hidden = torch.zeros(16, 16, dtype=torch.bool)
    hidden[4:12, 4:12] = True
    assert torch.equal(out[..., ~hidden], original[..., ~hidden]) and bool((out[..., hidden] == 1).all())


def test_a_soft_edge_falls_off_outside_the_hidden_part():
    row = paste_back(MADE, ORIGINAL, KNOWN, feather_px=3)[0, 0, 0, 8]
    torch.testing.assert_close(row[:9], torch.tensor([-1, -0.5, 0, 0.5, 1, 1, 1, 1, 1]))
    torch.testing.assert_close(row.flip(0), row)


def test_errors():
    with pytest.raises(ValueError, match="does not fit a clip of"):
        paste_back(MADE, ORIGINAL, KNOWN[:, :7])
    with pytest.raises(ValueError, match="the original is"):
        paste_back(MADE, ORIGINAL[..., :8], KNOWN)
    with pytest.raises(ValueError, match="feather_px must not be negative"):
        paste_back(MADE, ORIGINAL, KNOWN, feather_px=-1)
