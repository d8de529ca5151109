"""Masks of a user, brought to the clip."""

from __future__ import annotations

import pytest
import torch

from mmtok.conditions.commit_masks import GEOMETRIES, make_condition
from mmtok.conditions.masks import NAMES, make_mask

STRIDE = (4, 8, 8)
VIDEO = torch.rand(1, 3, 17, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def made(mask, task="inpaint", given_size=(32, 32), fit=None, **more):
    return make_mask(mask, task, VIDEO, given_size=given_size, fit=fit, stride=STRIDE, **more)


def test_all_geometries_have_a_name() -> None:
    assert {geometry for names in NAMES.values() for geometry in names.values()} == set(GEOMETRIES)


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, names in NAMES.items() for name in names])
def test_names_are_commits_geometries(task: str, name: str) -> None:
    expected = make_condition(VIDEO, NAMES[task][name], stride=STRIDE)
    for spelling in (name, NAMES[task][name]):
        assert torch.equal(made(spelling, task).video, expected.video)


def test_a_mask_along_time_takes_a_number_of_frames() -> None:
    assert made("frame_prediction", given_frames=9).known[:, 0, 0].tolist() == [True] * 9 + [False] * 8


def test_box_and_pictures_mean_the_same() -> None:
    box = made((0.25, 0.0, 0.5, 0.5)).known
    assert not box[:, 8:16, :16].any() and int((~box).sum()) == 17 * 8 * 16
    picture = torch.zeros(32, 32)
    picture[8:16, :16] = 1.0
    assert torch.equal(made(picture).known, box)
    assert torch.equal(made(picture.expand(17, -1, -1) > 0).known, box)
    moving = torch.zeros(3, 32, 32, dtype=torch.bool)
    moving[0, :8, :8] = moving[1:, 8:16, :8] = True  # the last one is held, as in a short film
    known = made(moving).known
    assert not known[0, :8, :8].any() and known[0, 8:].all() and not known[1:, 8:16, :8].any()


def test_a_mask_of_the_films_size_is_cut_as_the_film() -> None:
    def fit(video: torch.Tensor) -> torch.Tensor:
        assert tuple(video.shape) == (3, 1, 64, 96)
        return torch.nn.functional.interpolate(video[None, :, 0, :, 16:80], (32, 32))[:, :, None]

    wide = torch.zeros(64, 96)
    wide[:16, 16:32] = 1.0
    assert made(wide, given_size=(64, 96), fit=fit).known.logical_not()[0].nonzero().amax(0).tolist() == [7, 7]
    with pytest.raises(ValueError, match=r"the mask has \(64, 96\) pixels \(h, w\), the film \(48, 96\)"):
        made(wide, given_size=(48, 96))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("centre", "task inpaint has no mask 'centre'; it has: central, dynamic"),
        ((0.1, 0.2, 0.3), "a box has four shares"),
        ((0.0, 0.0, 1.0, 1.5), "a box is top < bottom"),
        (torch.full((32, 32), float("nan")), "must be bool or lie in"),
        (torch.zeros(1, 1, 32, 32), r"shape \(h, w\) or \(t, h, w\)"),
        (torch.zeros(32, 32), "hides nothing"),
        ((0.1, 0.1, 0.9, 0.9), "hides everything once it covers whole tokens"),
    ],
)
def test_errors(mask, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(mask)
