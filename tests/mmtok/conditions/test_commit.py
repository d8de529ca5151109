"""mmtok/conditions/commit.py: what is visible stays, what is hidden never matters."""

import pytest
import torch

from mmtok.conditions.commit import GEOMETRIES, make_condition
from mmtok.visual.magvit2 import Magvit2, Magvit2Params


def _video(t=17, size=32, seed=0):
    return torch.rand(1, 3, t, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("geometry", list(GEOMETRIES))
def test_changing_hidden_pixels_never_changes_condition_tokens(geometry):
    torch.manual_seed(0)
    tokenizer = Magvit2(
        Magvit2Params(
            channels=8,
            channel_multipliers=(1, 1),
            num_res_blocks=1,
            num_mid_blocks=1,
            spatial_downsample=(True,),
            temporal_downsample=(False,),
            bits=6,
            patch_size=(4, 4, 4),
            norm_groups=2,
        )
    ).eval()
    video = _video()
    condition = make_condition(video, geometry)
    other = torch.where(condition.known, video, _video(seed=1))
    assert not torch.equal(other, video)
    again = make_condition(other, geometry)
    assert torch.equal(again.video, condition.video)
    assert torch.equal(tokenizer.encode(again.video), tokenizer.encode(condition.video))


@pytest.mark.parametrize("geometry", list(GEOMETRIES))
def test_visible_pixels_stay(geometry):
    video = _video()
    condition = make_condition(video, geometry)
    assert torch.equal(condition.video[:, :, condition.known], video[:, :, condition.known])
    assert condition.known.shape == (17, 32, 32) and condition.latent_known.shape == (5, 4, 4)


@pytest.mark.parametrize(
    ("geometry", "share"),
    [
        ("frame_prediction", 1 / 17),
        ("interpolation", 2 / 17),
        ("outpaint_central", 1 / 4),
        ("outpaint_vertical", 1 / 2),
        ("outpaint_horizontal", 1 / 2),
        ("outpaint_dynamic", 1 / 2),
        ("inpaint_central", 3 / 4),
        ("inpaint_dynamic", 3 / 4),
    ],
)
def test_visible_share_of_each_geometry(geometry, share):
    assert float(make_condition(_video(), geometry).known.float().mean()) == pytest.approx(share)


def test_fills():
    video = _video()
    future = make_condition(video, "frame_prediction", frames=5).video
    assert torch.equal(future[:, :, 5:], video[:, :, 4:5].expand(-1, -1, 12, -1, -1))
    middle = make_condition(video, "interpolation").video[:, :, 8]
    torch.testing.assert_close(middle, (video[:, :, 0] + video[:, :, 16]) / 2)
    wide = make_condition(video, "outpaint_central").video
    assert torch.equal(wide[..., 0, 0], video[..., 8, 8]) and torch.equal(wide[..., 31, 20], video[..., 23, 20])
    hole = make_condition(video, "inpaint_central").video
    assert torch.equal(hole[..., 8:24, 8:24], torch.full_like(hole[..., 8:24, 8:24], -1.0))


def test_moving_window_sweeps_from_left_to_right():
    known = make_condition(_video(), "outpaint_dynamic").known
    lefts = [int(frame[0].nonzero().min()) for frame in known]
    assert lefts[0] == 0 and lefts[-1] == 16 and lefts == sorted(lefts)


def test_latent_mask_takes_whole_tokens_only():
    exact = make_condition(_video(), "outpaint_dynamic", latent_exact=True)
    assert {int(frame[0].nonzero().min()) % 8 for frame in exact.known} == {0}
    inside = torch.nn.functional.interpolate(exact.latent_known[None, None].float(), scale_factor=(1, 8, 8))[
        0, 0
    ].bool()
    assert bool((exact.known[0] >= inside[0]).all()) and bool((exact.known[5:9].all(0) >= inside[2]).all())
    prediction = make_condition(_video(), "frame_prediction", frames=5).latent_known
    assert prediction[:2].all() and not prediction[2:].any()


def test_bad_arguments():
    with pytest.raises(ValueError, match="unknown geometry 'blur'; known: frame_prediction"):
        make_condition(_video(), "blur")
    with pytest.raises(ValueError, match="frames=17 hides nothing of 17 frames"):
        make_condition(_video(), "frame_prediction", frames=17)
    with pytest.raises(ValueError, match=r"a clip of 16 x 32 x 32 does not fit the stride \(4, 8, 8\)"):
        make_condition(_video(t=16), "inpaint_central")


@pytest.mark.parametrize("geometry", sorted(GEOMETRIES))
@pytest.mark.parametrize("size", [(17, 40, 56), (9, 24, 40)])
def test_exact_masks_cut_no_token_in_space_or_time(geometry, size):
    t, h, w = size
    stride = (4, 8, 4)
    frames = {"frames": 2} if geometry == "frame_prediction" else {}
    made = make_condition(torch.zeros(1, 3, t, h, w), geometry, stride=stride, latent_exact=True, **frames)
    later = made.known[1:].reshape(-1, stride[0], h // 8, 8, w // 4, 4).permute(0, 2, 4, 1, 3, 5).flatten(3)
    first = made.known[0].reshape(h // 8, 8, w // 4, 4).permute(0, 2, 1, 3).flatten(2)
    for tokens in (first, later):
        assert bool((tokens.all(-1) == tokens.any(-1)).all())


def test_a_number_of_frames_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match="outpaint_central has no number of given frames"):
        make_condition(_video(), "outpaint_central", frames=9)
