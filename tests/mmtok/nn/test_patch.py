"""Haar patches."""

import math

import pytest
import torch

from mmtok.nn.patch import HaarPatch, haar_matrix


def slow_haar(x: torch.Tensor, rounds: int) -> torch.Tensor:
    """Cosmos' packet, one stride-2 pass after another: mean and half difference along t, h, w over all channels."""
    for _ in range(rounds):
        for axis in (4, 3, 2):  # the last split ends up outermost in the channels
            even, odd = (x.index_select(axis, torch.arange(i, x.shape[axis], 2)) for i in (0, 1))
            x = torch.cat(((even + odd) / 2, (even - odd) / 2), dim=1)
    return x


@pytest.mark.parametrize(("patch", "rounds"), [((2, 2, 2), 1), ((4, 4, 4), 2)])
def test_matrix_form_equals_rounds_of_filtering(patch, rounds):
    video = torch.randn(2, 3, 1 + patch[0] * 2, 8, 16)
    padded = torch.cat((video[:, :, :1].expand(-1, -1, patch[0] - 1, -1, -1), video), dim=2)
    torch.testing.assert_close(HaarPatch(patch)(video), slow_haar(padded, rounds), rtol=1e-5, atol=1e-6)


def test_upstream_patcher_agrees(shared):
    from safetensors.torch import load_file

    for case, kind, patch in (
        ("cosmos_dv8x16x16_a", "image", (4, 4, 4)),
        ("cosmos_dv4x8x8_b", "image", (2, 2, 2)),
        ("cosmos_dv4x8x8_b", "video", (2, 2, 2)),
    ):
        golden = load_file(shared / "golden" / "magvit" / f"{case}.safetensors")
        got = HaarPatch(patch)(golden[f"input.{kind}"])
        torch.testing.assert_close(got, golden[f"output.{kind}.patched"], rtol=1e-5, atol=1e-5, msg=f"{case} {kind}")


@pytest.mark.parametrize("patch", [(4, 4, 4), (1, 4, 4), (2, 4, 1), (1, 1, 1)])
def test_inverse_restores_the_clip(patch):
    module = HaarPatch(patch)
    video = torch.rand(2, 3, 9, 8, 16) * 2 - 1
    coefficients = module(video)
    assert coefficients.shape == (2, 3 * math.prod(patch), 8 // patch[0] + 1, 8 // patch[1], 16 // patch[2])
    torch.testing.assert_close(module.inverse(coefficients), video, rtol=0, atol=1e-6)


def test_precision_is_kept_under_autocast():
    module, video = HaarPatch((4, 4, 4)), torch.rand(1, 3, 5, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(module.inverse(module(video)), video, rtol=0, atol=1e-6)


def test_slots_hold_frame_zero_alone_and_then_groups():
    video = torch.randn(1, 3, 9, 4, 4)
    module = HaarPatch((4, 4, 4))
    changed = video.clone()
    changed[:, :, 5:] += 1
    assert torch.equal(module(video)[:, :, :2], module(changed)[:, :, :2])
    torch.testing.assert_close(module(video[:, :, :1]), module(video)[:, :, :1])


def test_first_band_is_the_mean_and_rows_are_orthogonal():
    matrix = haar_matrix((2, 4, 2))
    assert torch.equal(matrix[0], torch.full((16,), 1 / 16))
    torch.testing.assert_close(16 * matrix @ matrix.T, torch.eye(16))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must be powers of two"):
        haar_matrix((3, 4, 4))
    with pytest.raises(ValueError, match="a clip of 4 x 8 x 8 does not divide"):
        HaarPatch((4, 4, 4))(torch.zeros(1, 3, 4, 8, 8))
