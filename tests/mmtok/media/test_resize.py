"""Pictures in other sizes: frames one by one, the centre kept."""

import torch
import torch.nn.functional as F

from mmtok.media.resize import cover, half_size, resized


def clip(t=3, h=8, w=12):
    return torch.rand(2, 3, t, h, w, generator=torch.Generator().manual_seed(0)) * 2 - 1


def frame_by_frame(video, size):
    frames = [F.interpolate(video[:, :, i], size=size, mode="bicubic", antialias=True) for i in range(video.shape[2])]
    return torch.stack(frames, 2).clamp(-1, 1)


def test_every_frame_is_resized_by_itself():
    video = clip()
    torch.testing.assert_close(resized(video, (16, 6)), frame_by_frame(video, (16, 6)))
    torch.testing.assert_close(half_size(video), frame_by_frame(video, (4, 6)))
    assert resized(video, (8, 12)) is video and half_size(video).is_contiguous()


def test_sharp_edges_stay_in_range():
    video = torch.full((1, 3, 1, 8, 8), -1.0)
    video[..., 4:] = 1
    for made in (resized(video, (32, 32)), half_size(video)):
        assert made.min() == -1 and made.max() == 1


def test_covering_crops_the_longer_side_in_the_middle():
    video = torch.zeros(1, 3, 1, 4, 12)
    video[..., 4:8] = 1  # the middle third
    assert torch.equal(cover(video, (4, 4)), torch.ones(1, 3, 1, 4, 4))
    assert cover(video, (8, 8)).shape == (1, 3, 1, 8, 8) and float(cover(video, (8, 8)).mean()) > 0.9
    assert cover(clip(h=5, w=7).half(), (6, 4)).dtype == torch.float32
