import pytest
import torch

from llm.batching import Pool, draw_group, drop_context, drop_slices, fit_text, group_shares, make_groups
from llm.tasks import Clip, task_layout
from mmtok.conditions.commit_masks import GEOMETRIES
from mmtok.conditions.masks import NAMES
from mmtok.vocabulary import Vocabulary

VOCABULARY = Vocabulary(visual_codes=50, audio_levels=2, audio_codes=11)
CLIP = Clip(grid=(5, 4, 4), audio_frames=10)
WEIGHTS = {"text_to_video": 0.6, "text_to_image": 0.2, "continue_video": 0.2, "unconditional": 0.0}


def groups():
    return make_groups(WEIGHTS, VOCABULARY, CLIP, text_slots=4)


def test_continuation_is_one_group_for_each_number_of_given_slices():
    made = groups()
    assert [(g.task, g.given) for g in made] == [
        ("text_to_video", None),
        ("text_to_image", None),
        *(("continue_video", k) for k in (1, 2, 3, 4)),
    ]
    torch.testing.assert_close(sum(g.weight for g in made), 1.0)
    assert [g.given for g in make_groups(WEIGHTS, VOCABULARY, CLIP, text_slots=4, given=(2,))] == [None, None, 2]


def test_steps_hold_about_equal_tokens_and_no_padding():
    for group in groups():
        tokens = group.batch_size(2000) * group.layout.length
        assert 2000 - group.layout.length < tokens <= 2000
        content = [s for s in group.layout.stretches if s.kind in ("visual", "audio")]
        markers = [s for s in group.layout.stretches if s.kind == "special"]
        assert group.layout.length == 4 + len(markers) + sum(s.length for s in content)


def test_all_ranks_draw_the_same_group_and_a_resumed_run_too():
    made = groups()
    shares = group_shares(made, progress=0.0)
    draws = [[draw_group(made, shares, torch.Generator().manual_seed(s)).task for s in range(50)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 3


def test_realized_shares_follow_the_weights():
    made = groups()
    shares = group_shares(made, progress=0.0)
    draws = [draw_group(made, shares, torch.Generator().manual_seed(s)).task for s in range(2000)]
    for task, weight in WEIGHTS.items():
        assert abs(draws.count(task) / 2000 - weight) < 0.04, task


def test_images_first_then_videos():
    made = groups()
    for steps, share in ((range(0, 500), 0.9), (range(500, 2000), 0.1)):
        images = 0
        for step in steps:
            shares = group_shares(made, progress=step / 2000, image_share=(0.9, 0.1))
            images += draw_group(made, shares, torch.Generator().manual_seed(step)).is_image
        assert abs(images / len(steps) - share) < 0.04, f"images were {images / len(steps)} of steps, {share} expected"


def test_text_is_brought_to_the_slots():
    vectors, mask = torch.ones(2, 3, 5), torch.tensor([[True, True, False], [True, False, False]])
    out, out_mask = fit_text(vectors, mask, 4)
    assert out_mask.tolist() == [[True, True, False, False], [True, False, False, False]]
    assert out.sum((1, 2)).tolist() == [10.0, 5.0]
    assert fit_text(vectors, mask, 2)[1].tolist() == [[True, True], [True, False]]


def test_every_mask_that_can_be_prepared_is_read_by_a_task():
    conditions = ("structure", *GEOMETRIES)
    weights = {"inpaint": 1.0, "outpaint": 1.0, "stylize": 1.0}
    made = make_groups(weights, VOCABULARY, [Pool(CLIP, conditions=conditions)], text_slots=4)
    assert sorted(g.condition for g in made) == sorted(conditions)
    for task, names in NAMES.items():  # with the task that shows it to users
        assert {g.condition for g in made if g.task == task} == set(names.values())


def test_errors():
    with pytest.raises(ValueError, match="a text has 3 tokens, the model's sequences have 2 text slots"):
        fit_text(torch.ones(1, 3, 5), torch.ones(1, 3, dtype=torch.bool), 2)
    with pytest.raises(ValueError, match="unknown task 'dance'"):
        make_groups({"dance": 1.0}, VOCABULARY, CLIP, text_slots=4)
    with pytest.raises(ValueError, match="the weight of text_to_video must not be negative"):
        make_groups({"text_to_video": -1.0}, VOCABULARY, CLIP, text_slots=4)
    with pytest.raises(ValueError, match="no task has a positive weight"):
        make_groups({"text_to_video": 0.0}, VOCABULARY, CLIP, text_slots=4)
    for given in ((5,), (1, 9), (0,), ()):  # of 5 slices; pictures are counted by mistake
        with pytest.raises(ValueError, match="continue_video: given counts slices, from 1 to 4 in clips of 5"):
            make_groups(WEIGHTS, VOCABULARY, CLIP, text_slots=4, given=given)
    with pytest.raises(ValueError, match="image_share needs at least one image task and one other"):
        group_shares(
            make_groups({"text_to_video": 1.0}, VOCABULARY, CLIP, text_slots=4), progress=0, image_share=(0.9, 0.1)
        )


def test_silent_groups_write_the_picture_alone():
    made = make_groups(WEIGHTS, VOCABULARY, CLIP, text_slots=4, silent_share=0.25)
    first, second = made[:2]
    assert (first.task, second.task) == ("text_to_video", "text_to_video")
    assert (first.weight, second.weight) == pytest.approx((0.45, 0.15))
    assert first.layout.find("audio_out") is not None
    assert second.layout.find("audio_out") is None
    shared = second.layout.length - 1  # the silent sequence is the beginning of the sounding one, up to <eos>
    assert torch.equal(first.layout.template[:shared], second.layout.template[:shared])
    with pytest.raises(ValueError, match=r"silent_share \(2\) must lie in \[0, 1\]"):
        make_groups(WEIGHTS, VOCABULARY, CLIP, text_slots=4, silent_share=2)


def test_silent_share_moves_weight_to_sequences_without_sound():
    vocabulary, clip = Vocabulary(16, 2, 8), Clip((5, 2, 2), 6)
    weights = {"text_to_video": 0.6, "video_to_audio": 0.3, "text_to_image": 0.1}
    groups = make_groups(weights, vocabulary, clip, text_slots=4, silent_share=0.25)
    shares = {(g.task, g.clip.audio_frames): round(g.weight, 3) for g in groups}
    assert shares == {
        ("text_to_video", 6): 0.45,
        ("text_to_video", 0): 0.15,
        ("video_to_audio", 6): 0.3,
        ("text_to_image", 6): 0.1,
    }
    whole, silent = (next(g for g in groups if g.task == "text_to_video" and g.clip.audio_frames == n) for n in (6, 0))
    same = silent.layout.length - 1  # all but <eos>
    assert torch.equal(silent.layout.template[:same], whole.layout.template[:same])
    with pytest.raises(ValueError, match=r"silent_share \(2\) must lie in \[0, 1\]"):
        make_groups(weights, vocabulary, clip, text_slots=4, silent_share=2)


def test_context_is_dropped_from_half_of_the_sequences_in_the_output_only():
    layout = groups()[0].layout
    generator = torch.Generator().manual_seed(0)
    first, stop = layout.blocks.unbind(1)
    ids = first + (torch.rand(400, layout.length, generator=generator) * (stop - first)).long()
    dropped = drop_context(ids, layout, share=0.8, generator=generator)
    changed = dropped != ids
    assert not changed[:, : layout.prefix_length].any()
    assert not changed[:, stop - first == 1].any()
    assert ((dropped >= first) & (dropped < stop)).all()
    content = changed[:, (torch.arange(layout.length) >= layout.prefix_length) & (stop - first > 1)].float().mean(1)
    assert 0.4 < float((content > 0).float().mean()) < 0.6
    assert 0.6 < float(content.max()) <= 0.95
    assert 0.15 < float(content.mean()) < 0.25  # half of them, 0.4 on average
    assert torch.equal(drop_context(ids, layout, share=0.0, generator=generator), ids)
    with pytest.raises(ValueError, match="context dropout"):
        drop_context(ids, layout, share=1.5, generator=generator)


def test_the_first_slice_of_the_given_pictures_stays_rolled():
    vocabulary = Vocabulary(visual_codes=64, audio_levels=2, audio_codes=16)
    layout = task_layout("video_to_audio", vocabulary, Clip((5, 2, 3), audio_frames=6), text_slots=4)
    at = layout.stretch("visual_in")
    generator = torch.Generator().manual_seed(0)
    picture = torch.arange(6).view(2, 3)
    ids = layout.template.repeat(300, 1)
    ids[:, at.start : at.stop] = vocabulary.visual.start + picture.flatten().repeat(5)
    seen = drop_slices(ids, layout, share=0.5, generator=generator)
    changed = seen != ids
    assert not changed[:, : at.start].any() and not changed[:, at.stop :].any()
    inside = seen[:, at.start : at.stop] - vocabulary.visual.start
    assert ((inside >= 0) & (inside < 64)).all()
    dropped = changed[:, at.start + 6 : at.stop].any(1)
    assert 0.4 < float(dropped.float().mean()) < 0.6
    assert not changed[~dropped].any()
    rolls = {tuple(picture.roll((y, x), (0, 1)).flatten().tolist()) for y in range(2) for x in range(3)}
    assert {tuple(first) for first in inside[dropped, :6].tolist()} == rolls
    assert torch.equal(drop_slices(ids, layout, share=0.0, generator=generator), ids)
    with pytest.raises(ValueError, match="slice dropout"):
        drop_slices(ids, layout, share=1.5, generator=generator)
