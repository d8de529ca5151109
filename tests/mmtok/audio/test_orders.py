"""mmtok/audio/orders.py: every order is a reading of the same codes that can be undone."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtok.audio.orders import ORDERS, PAD, filled, flatten, level_places, num_places, unflatten

unhurried = settings(deadline=None)  # a busy machine is no fault of an order
SIZES = {"levels": st.integers(1, 6), "frames": st.integers(1, 12)}


def numbered(levels: int, frames: int, batch: int = 1) -> torch.Tensor:
    """Every code another number, so that places cannot be mistaken for each other."""
    return torch.arange(batch * levels * frames).reshape(batch, levels, frames)


def slow(codes: torch.Tensor, order: str) -> list[int]:
    """One place after the other, from the words of the definition."""
    levels, frames = codes.shape
    if order == "level":
        return [int(codes[q, t]) for q in range(levels) for t in range(frames)]
    if order == "time":
        return [int(codes[q, t]) for t in range(frames) for q in range(levels)]
    steps = range(frames + levels - 1)
    return [int(codes[q, s - q]) if 0 <= s - q < frames else PAD for s in steps for q in range(levels)]


@unhurried
@given(order=st.sampled_from(ORDERS), batch=st.integers(1, 3), **SIZES)
def test_unflatten_undoes_flatten(order, batch, levels, frames):
    codes = numbered(levels, frames, batch)
    flat = flatten(codes, order)
    assert flat.shape == (batch, num_places(order, levels, frames)) and flat.dtype == codes.dtype
    assert torch.equal(unflatten(flat, order, levels), codes)


@unhurried
@given(order=st.sampled_from(ORDERS), **SIZES)
def test_flatten_is_the_definition_read_slowly(order, levels, frames):
    codes = numbered(levels, frames)
    assert flatten(codes, order)[0].tolist() == slow(codes[0], order)


@unhurried
@given(order=st.sampled_from(ORDERS), **SIZES)
def test_places_of_levels_are_apart_and_leave_only_the_empty_ones(order, levels, frames):
    taken = torch.zeros(num_places(order, levels, frames), dtype=torch.int64)
    for level in range(levels):
        places = taken[level_places(order, level, levels, frames)]
        assert len(places) == frames
        places += 1
    assert taken.max() == 1
    assert torch.equal(taken > 0, filled(order, levels, frames))
    assert int((taken == 0).sum()) == (levels * (levels - 1) if order == "delay" else 0)


@unhurried
@given(order=st.sampled_from(["time", "delay"]), longer=st.integers(1, 4), **SIZES)
def test_later_frames_do_not_move_what_is_complete(order, longer, levels, frames):
    """These two can be written as the sound goes on; level by level cannot."""
    codes = numbered(levels, frames + longer)
    whole, start = flatten(codes, order)[0], flatten(codes[:, :, :frames], order)[0]
    complete = levels * frames  # steps at which no level of the shorter clip has ended
    assert torch.equal(whole[:complete], start[:complete])


@unhurried
@given(**SIZES)
def test_within_a_level_frames_stay_in_order_and_coarse_goes_before_fine(levels, frames):
    for order in ORDERS:
        flat = flatten(numbered(levels, frames), order)[0].tolist()
        for t in range(frames):
            places = [flat.index(q * frames + t) for q in range(levels)]
            assert places == sorted(places), order
        for q in range(levels):
            places = [flat.index(q * frames + t) for t in range(frames)]
            assert places == sorted(places), order


def test_delay_is_the_pattern_of_transformers_musicgen():
    musicgen = pytest.importorskip("transformers.models.musicgen.modeling_musicgen").MusicgenForCausalLM
    levels, frames, card = 4, 7, 100
    codes = numbered(levels, frames)
    stand_in = SimpleNamespace(
        num_codebooks=levels, config=SimpleNamespace(audio_channels=1), generation_config=SimpleNamespace(max_length=99)
    )
    # what it is asked to complete: the codes behind its start column, and the columns in which levels run out
    given_codes = torch.cat([torch.full((levels, 1), card), codes[0]], 1)
    _, pattern = musicgen.build_delay_pattern_mask(stand_in, given_codes, card, max_length=1 + frames + levels - 1)
    ours = flatten(codes, "delay", pad=card).reshape(-1, levels).T
    theirs = pattern[:, 1:]
    assert torch.equal(torch.where(theirs < 0, card, theirs)[:, : ours.shape[1]], ours)


def test_two_levels_of_three_frames_by_eye():
    codes = torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    assert flatten(codes, "level").tolist() == [[1, 2, 3, 4, 5, 6]]
    assert flatten(codes, "time").tolist() == [[1, 4, 2, 5, 3, 6]]
    assert flatten(codes, "delay", pad=9).tolist() == [[1, 9, 2, 4, 3, 5, 9, 6]]


def test_videopoets_clip():
    assert [num_places(order, 4, 106) for order in ORDERS] == [424, 424, 436]


def test_no_frames_are_no_places():
    for order in ORDERS:
        assert unflatten(flatten(torch.zeros(2, 3, 0), order), order, 3).shape == (2, 3, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: num_places("random", 2, 3), "unknown order of audio codes 'random'; known: level, time, delay"),
        (lambda: flatten(torch.zeros(2, 3), "time"), r"codes must have shape \(b, k, t\), got \(2, 3\)"),
        (lambda: unflatten(torch.zeros(1, 7), "time", 2), r"\(1, 7\) is not a batch of 2 audio levels"),
        (lambda: unflatten(torch.zeros(1, 6), "delay", 3), "6 places are too few for 3 delayed levels, which take 9"),
        (lambda: unflatten(torch.zeros(1, 8), "delay", 2), "the empty places of delayed levels must hold -1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
