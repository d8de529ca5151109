import json
from types import SimpleNamespace

import pytest
import torch

from mmtok.vocabulary import FAMILY_IDS, SPECIAL_IDS, TASK_IDS, Vocabulary

VIDEOPOET = Vocabulary(visual_codes=2**18, audio_levels=4, audio_codes=1024)


def visual(codebook_size=4096, num_codebooks=1):
    return SimpleNamespace(codebook_size=codebook_size, num_codebooks=num_codebooks)


def audio(num_codebooks=4, codebook_size=1024):
    return SimpleNamespace(num_codebooks=num_codebooks, codebook_size=codebook_size)


def test_blocks_at_videopoets_sizes():
    assert (VIDEOPOET.special.start, VIDEOPOET.special.stop) == (0, 256)
    assert (VIDEOPOET.visual.start, VIDEOPOET.visual.stop) == (256, 262_400)
    assert (VIDEOPOET.audio.start, VIDEOPOET.audio.stop) == (262_400, 266_496)
    assert [VIDEOPOET.audio_level(k).start for k in range(4)] == [262_400, 263_424, 264_448, 265_472]
    assert VIDEOPOET.size == 266_496
    assert VIDEOPOET.vocab_size == 266_496


def test_exact_ids_at_videopoets_sizes():
    codes = torch.tensor([0, 5, 262_143]).reshape(1, 1, 3, 1, 1)
    assert VIDEOPOET.visual_to_ids(codes).tolist() == [[256, 261, 262_399]]
    levels = torch.tensor([[0, 1], [0, 1], [0, 1], [7, 1023]])[None]
    expected = [262_400, 262_401, 263_424, 263_425, 264_448, 264_449, 265_479, 266_495]
    assert VIDEOPOET.audio_to_ids(levels).tolist() == [expected]


def test_special_ids_of_the_table_are_distinct_and_inside_their_block():
    ids = [*SPECIAL_IDS.values(), *TASK_IDS.values()]
    ids += [i for name, family in FAMILY_IDS.items() if name != "task" for i in family]
    assert len(ids) == len(set(ids))
    assert all(0 <= i < 256 for i in ids)
    assert all(i in FAMILY_IDS["task"] for i in TASK_IDS.values())
    assert (VIDEOPOET.pad_id, SPECIAL_IDS["<mask>"], VIDEOPOET.bos_id, VIDEOPOET.eos_id) == (0, 1, 2, 3)
    assert VIDEOPOET.special_id("<bov_o>") == 10
    assert VIDEOPOET.family_id("resolution", 0) == 16
    assert VIDEOPOET.task_id("generate_video") == 64


def test_audio_ids_are_level_major():
    frames = 106
    codes = torch.randint(1024, (2, 4, frames))
    ids = VIDEOPOET.audio_to_ids(codes)
    assert ids.shape == (2, 424)
    for place in range(424):
        assert all(int(i) in VIDEOPOET.audio_level(place // frames) for i in ids[:, place])


def test_codes_survive_the_way_to_ids_and_back():
    vocabulary = Vocabulary(visual_codes=50, audio_levels=3, audio_codes=7)
    codes = torch.randint(50, (2, 1, 3, 4, 5))
    ids = vocabulary.visual_to_ids(codes)
    assert ids.shape == (2, 60)
    assert torch.equal(vocabulary.ids_to_visual(ids, (3, 4, 5)), codes)
    sound = torch.randint(7, (2, 3, 9))
    assert torch.equal(vocabulary.ids_to_audio(vocabulary.audio_to_ids(sound)), sound)
    assert vocabulary.vocab_size == 384


def test_first_slice_of_a_clip_has_the_ids_of_the_image():
    codes = torch.randint(2**18, (1, 1, 5, 16, 16))
    ids = VIDEOPOET.visual_to_ids(codes)
    assert ids.shape == (1, 1280)
    assert torch.equal(VIDEOPOET.visual_to_ids(codes[:, :, :1]), ids[:, :256])


def test_json_there_and_back():
    assert Vocabulary.from_json(json.loads(json.dumps(VIDEOPOET.to_json()))) == VIDEOPOET


def test_json_of_another_table_of_special_ids_is_refused():
    values = VIDEOPOET.to_json()
    values["special_ids"]["<bos>"] = 99
    with pytest.raises(ValueError, match="saved special_ids differ"):
        Vocabulary.from_json(values)


def test_tokenizers_of_another_layout_are_refused_with_every_difference():
    vocabulary = Vocabulary.of(visual(), audio())
    vocabulary.require(visual(), audio())
    vocabulary.require(visual())
    with pytest.raises(
        ValueError, match=r"visual_codes is 1024 in the tokenizers, 4096 in the model; audio_levels is 8"
    ):
        vocabulary.require(visual(codebook_size=1024), audio(num_codebooks=8))
    with pytest.raises(ValueError, match="one codebook"):
        Vocabulary.of(visual(num_codebooks=2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: v.visual_to_ids(torch.full((1, 1, 2), 4096)), r"must lie in \[0, 4096\), got \[4096, 4096\]"),
        (lambda v: v.visual_to_ids(torch.zeros(1, 1, 2)), "must be integers"),
        (lambda v: v.visual_to_ids(torch.zeros(1, 2, 2, dtype=torch.long)), r"shape \(b, 1, \*grid\)"),
        (lambda v: v.ids_to_visual(torch.tensor([[3]]), (1,)), "visual codes must lie"),
        (lambda v: v.ids_to_visual(torch.full((1, 3), 256), (2, 2)), "do not fill the grid"),
        (lambda v: v.audio_to_ids(torch.zeros(1, 3, 2, dtype=torch.long)), r"\(b, 4, t\)"),
        (lambda v: v.ids_to_audio(torch.full((1, 8), 4352)), "audio codes must lie"),
        (lambda v: v.ids_to_audio(torch.full((1, 7), 4352)), "4 audio levels of equal length"),
        (lambda v: v.audio_level(4), r"audio level must lie in \[0, 4\)"),
        (lambda v: v.special_id("<end>"), "unknown special token '<end>'; known: <pad>"),
        (lambda v: v.task_id("dance"), "unknown task value 'dance'; known: generate_video"),
        (lambda v: v.family_id("mood", 0), "unknown family 'mood'"),
        (lambda v: v.family_id("source", 16), r"source index must lie in \[0, 16\)"),
        (lambda v: Vocabulary(visual_codes=0), "visual_codes must be positive"),
        (lambda v: Vocabulary(visual_codes=4, audio_levels=2), "must both be positive, or 0"),
    ],
)
def test_errors_name_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call(Vocabulary(visual_codes=4096, audio_levels=4, audio_codes=1024))
