"""mmtok/conditions/commit_masks.py: what is visible stays, what is hidden never matters."""

import pytest
import torch

from mmtok.conditions.commit_masks import GEOMETRIES, hide, make_condition
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


def _ring(size=32):
    """Hidden: a ring, so that neither part is a box."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    away = ((y - size / 2) ** 2 + (x - size / 2) ** 2).sqrt()
    return (away > 5) & (away < 11)


@pytest.mark.parametrize("fill", ["black", "edges"])
@pytest.mark.parametrize("exact", [False, True])
def test_a_mask_of_ones_own_never_lets_hidden_pixels_through(fill, exact):
    video, hidden = _video(), _ring()
    seen = hide(video, hidden, fill=fill, latent_exact=exact)
    again = hide(torch.where(seen.known, video, _video(seed=1)), hidden, fill=fill, latent_exact=exact)
    assert torch.equal(seen.video, again.video)
    assert torch.equal(seen.video[:, :, seen.known], video[:, :, seen.known])
    assert not (seen.known & hidden).any()


def test_a_mask_of_a_named_form_equals_the_name():
    video = _video()
    for geometry, fill in (("inpaint_central", "black"), ("outpaint_vertical", "edges"), ("outpaint_central", "edges")):
        named = make_condition(video, geometry)
        own = hide(video, ~named.known, fill=fill)
        assert torch.equal(own.video, named.video) and torch.equal(own.latent_known, named.latent_known)


def test_a_mask_grows_to_whole_tokens():
    hidden = torch.zeros(17, 32, 32, dtype=torch.bool)
    hidden[6, 9, 3] = True  # one pixel, in the third slice, second row and first column of tokens
    made = hide(_video(), hidden, latent_exact=True)
    assert made.latent_known.logical_not().nonzero().tolist() == [[2, 1, 0]]
    assert made.known.logical_not().sum() == 4 * 8 * 8 and not made.known[5:9, 8:16, :8].any()


def test_masks_that_hide_nothing_or_everything_are_refused():
    for value, word in ((False, "nothing"), (True, "everything")):
        with pytest.raises(ValueError, match=f"the mask hides {word}"):
            hide(_video(), torch.full((32, 32), value))
    with pytest.raises(ValueError, match="hides everything once it covers whole tokens of 8 x 8"):
        hide(_video(), torch.arange(32).expand(32, 32) % 8 == 0, latent_exact=True)
    with pytest.raises(ValueError, match=r"must be bool of shape \(32, 32\) or \(17, 32, 32\)"):
        hide(_video(), torch.ones(16, 32, dtype=torch.bool))
    with pytest.raises(ValueError, match="unknown fill 'grey'; known: black, edges"):
        hide(_video(), _ring(), fill="grey")
