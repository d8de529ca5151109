import pytest
import torch

from llm.tasks import TASKS, Clip, Task, audio_frames_of_slices, find_task, slices_of_frames, task_content, task_layout
from mmtok.vocabulary import Vocabulary

VOCABULARY = Vocabulary(visual_codes=50, audio_levels=2, audio_codes=11)
CLIP = Clip(grid=(3, 2, 3), audio_frames=6)


def given_for(name):
    return 1 if find_task(name).visual_in == "past" else None


@pytest.mark.parametrize("name", TASKS)
def test_every_task_lays_out_and_fills(name):
    visual = torch.randint(50, (2, 1, *CLIP.grid))
    audio = torch.randint(11, (2, 2, 6))
    given = given_for(name)
    layout = task_layout(name, VOCABULARY, CLIP, text_slots=4, given=given)
    content = task_content(name, CLIP, visual=visual, audio=audio, condition=visual, given=given)
    _, known = layout.fill(content, 2)
    assert known.all()
    inputs = task_content(name, CLIP, visual=visual, audio=audio, condition=visual, given=given, outputs=False)
    _, known = layout.fill(inputs, 2)
    assert known[: layout.prefix_length].all()
    assert not known.all()
    # markers of the output are always known, its content never
    for stretch in layout.stretches:
        if stretch.start >= layout.prefix_length:
            assert bool(known[stretch.start : stretch.stop].all()) == (stretch.kind == "special")


@pytest.mark.parametrize("name", TASKS)
def test_a_clip_without_sound_loses_the_sound_or_the_task(name):
    silent = Clip(grid=CLIP.grid)
    if TASKS[name].needs_audio:
        with pytest.raises(ValueError, match=f"{name} needs a clip with sound"):
            task_layout(name, VOCABULARY, silent, text_slots=4, given=given_for(name))
    else:
        layout = task_layout(name, VOCABULARY, silent, text_slots=4, given=given_for(name))
        assert all(stretch.kind != "audio" for stretch in layout.stretches)


def test_tasks_with_the_same_kind_of_output_share_their_value():
    shared = ("unconditional", "text_to_image", "text_to_video", "image_to_video", "audio_to_video")
    assert {TASKS[name].value for name in shared} == {"generate_video"}
    assert len({task.value for task in TASKS.values()}) == 6


def test_past_and_future_share_the_clips_positions():
    layout = task_layout("continue_video", VOCABULARY, CLIP, text_slots=4, given=2)
    assert (layout.stretch("visual_in").offset, layout.stretch("visual_in").shape) == (0, (2, 2, 3))
    assert (layout.stretch("visual_out").offset, layout.stretch("visual_out").shape) == (2, (1, 2, 3))


def test_slices_and_audio_frames_of_videopoets_clip():
    assert [slices_of_frames(k, 4) for k in (1, 5, 9, 13, 17)] == [1, 2, 3, 4, 5]
    clip = Clip(grid=(5, 16, 16), audio_frames=106)
    assert [audio_frames_of_slices(clip, given) for given in (1, 3, 5)] == [6, 56, 106]


def test_errors():
    with pytest.raises(ValueError, match="unknown task 'dream'; known: text_to_video, text_to_image"):
        find_task("dream")
    with pytest.raises(ValueError, match=r"continue_video needs given slices in \[1, 2\], got given=None"):
        task_layout("continue_video", VOCABULARY, CLIP, text_slots=4)
    with pytest.raises(ValueError, match=r"got given=3"):
        task_layout("continue_video", VOCABULARY, CLIP, text_slots=4, given=3)
    with pytest.raises(ValueError, match="text_to_video takes no given slices"):
        task_layout("text_to_video", VOCABULARY, CLIP, text_slots=4, given=1)
    with pytest.raises(ValueError, match="image_to_video needs visual up to 1 along time, got nothing"):
        task_content("image_to_video", CLIP, outputs=False)
    with pytest.raises(
        ValueError, match=r"continue_video needs visual up to 2 along time, got codes \(1, 1, 1, 2, 3\)"
    ):
        task_content("continue_video", CLIP, visual=torch.zeros(1, 1, 1, 2, 3), given=2, outputs=False)
    with pytest.raises(ValueError, match="a clip of 6 frames does not fill whole slices"):
        slices_of_frames(6, 4)


def test_a_row_says_only_what_can_be_laid_out():
    with pytest.raises(ValueError, match="visual_out must be one of none, first, future, whole, got 'past'"):
        Task("generate_video", visual_in="past", visual_out="past")
    with pytest.raises(ValueError, match="a task reads prompt, image, video, audio, mask, not smell"):
        Task("generate_video", ("smell",))
