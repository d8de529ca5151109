"""Norms of video."""

import pytest
import torch
import torch.nn.functional as F

from mmtok.nn.norm import AdaptiveGroupNorm, VideoGroupNorm


def test_frame_scope_normalises_every_frame_by_itself():
    torch.manual_seed(0)
    norm = VideoGroupNorm(2, 6, scope="frame", eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 6, 4, 3, 5) * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 4, 1, 1)
    expected = torch.stack([F.group_norm(f, 2, norm.weight, norm.bias, 1e-6) for f in x.unbind(2)], dim=2)
    torch.testing.assert_close(norm(x), expected)
    torch.testing.assert_close(norm(x[:, :, 2:3]), norm(x)[:, :, 2:3])


def test_clip_scope_is_the_ordinary_group_norm():
    norm = VideoGroupNorm(2, 6, scope="clip", eps=1e-6)
    x = torch.randn(2, 6, 4, 3, 5)
    torch.testing.assert_close(norm(x), F.group_norm(x, 2, eps=1e-6))


def test_channels_last_layout_survives():
    x = torch.randn(2, 6, 4, 3, 5).contiguous(memory_format=torch.channels_last_3d)
    y = VideoGroupNorm(2, 6, scope="frame", eps=1e-6)(x)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)


def test_steering_follows_nearest_copies_of_the_latent():
    torch.manual_seed(0)
    norm = AdaptiveGroupNorm(2, 4, 3, upsample=(4, 2, 2), scope="frame", eps=1e-6)
    latent, x = torch.randn(1, 3, 3, 2, 2), torch.randn(1, 4, 9, 4, 4)
    got = norm(x, latent)
    slices = [0, 1, 1, 1, 1, 2, 2, 2, 2]  # frame 0 alone, then four frames a slice
    for frame, i in enumerate(slices):
        for row in range(4):
            signal = latent[0, :, i, row // 2, 1]
            plain = F.group_norm(x[:, :, frame], 2, eps=1e-6)[0, :, row, 3]
            expected = plain * (1 + norm.gamma(signal)) + norm.beta(signal)
            torch.testing.assert_close(got[0, :, frame, row, 3], expected, rtol=1e-4, atol=1e-5)


def test_clip_steering_uses_deviation_and_mean():
    torch.manual_seed(0)
    norm = AdaptiveGroupNorm(2, 4, 3, upsample=(1, 2, 2), scope="clip", eps=1e-6)
    latent, x = torch.randn(2, 3, 3, 2, 2), torch.randn(2, 4, 3, 4, 4)
    gamma = norm.gamma(latent.std(dim=(2, 3, 4)))[:, :, None, None, None]
    beta = norm.beta(latent.mean(dim=(2, 3, 4)))[:, :, None, None, None]
    torch.testing.assert_close(norm(x, latent), F.group_norm(x, 2, eps=1e-6) * gamma + beta, rtol=1e-4, atol=1e-5)


def test_groups_must_divide():
    with pytest.raises(ValueError, match="divisible"):
        VideoGroupNorm(4, 6, scope="frame", eps=1e-6)
