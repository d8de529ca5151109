import pytest
import torch

from llm.sequence import Span, build_layout
from llm.tasks import TASKS, Clip, task_content, task_layout
from mmtok.audio.orders import ORDERS
from mmtok.vocabulary import SPECIAL_IDS, Block, Vocabulary

VOCABULARY = Vocabulary(visual_codes=2**18, audio_levels=4, audio_codes=1024)
SILENT = Clip(grid=(5, 16, 16))
SOUNDING = Clip(grid=(5, 16, 16), audio_frames=106)


def names(layout):
    return [s.name for s in layout.stretches]


def test_order_of_everything():
    layout = build_layout(
        VOCABULARY,
        task="stylize",
        text_slots=3,
        visual_in=(Span("visual_in", (1, 2, 2)), Span("condition", (2, 2, 2))),
        audio_in=Span("audio_in", (4, 5)),
        source=0,
        resolution=0,
        duration=1,
        visual_out=Span("visual_out", (2, 2, 2)),
        audio_out=Span("audio_out", (4, 5)),
    )
    prefix = "<bos> <task> <bot_i> text <eot_i> <bov_i> visual_in condition <eov_i> <boa_i> audio_in <eoa_i>"
    output = "<bov_o> visual_out <eov_o> <boa_o> audio_out <eoa_o> <eos>"
    assert names(layout) == [*prefix.split(), "<source>", "<resolution>", "<duration>", *output.split()]
    assert layout.prefix_length == 2 + 5 + 2 + 12 + 2 + 20 + 3
    assert layout.template[layout.prefix_length - 3 : layout.prefix_length + 1].tolist() == [48, 16, 33, 10]
    assert layout.template[0] == SPECIAL_IDS["<bos>"]
    assert layout.template[1] == 67
    assert layout.template[-1] == SPECIAL_IDS["<eos>"]


LONG_PORTRAIT = {"clip": Clip((11, 28, 16)), "resolution": 0, "duration": 0}
SPEC_LENGTHS = [  # VideoPoet's tasks at its sizes; the paper gives no text to the rows with 0 slots
    ("unconditional", {}, 64, 2, 1285),
    ("text_to_image", {}, 64, 68, 325),
    ("text_to_video", {}, 64, 68, 1351),
    ("image_to_video", {}, 64, 326, 1609),
    ("continue_video", {"given": 3}, 0, 772, 1287),
    ("inpaint", {}, 0, 1284, 2567),
    ("outpaint", {}, 0, 1284, 2567),
    ("stylize", {}, 64, 68 + 1282, 2633),
    ("stylize_from_image", {}, 64, 68 + 1282 + 256, 2889),
    ("video_to_audio", {"clip": SOUNDING}, 0, 1284, 1711),
    ("audio_to_video", {"clip": SOUNDING}, 0, 428, 1711),
    ("continue_av", {"clip": SOUNDING, "given": 1}, 0, 286, 1715),
    ("text_to_video", LONG_PORTRAIT, 64, 70, 5001),
    ("text_to_image", LONG_PORTRAIT, 64, 69, 69 + 1 + 28 * 16),  # an image has a shape, and no duration
    ("text_to_video", {"source": 2}, 64, 69, 1352),
]


@pytest.mark.parametrize(("task", "more", "slots", "prefix", "total"), SPEC_LENGTHS)
def test_lengths_are_videopoets(task, more, slots, prefix, total):
    layout = task_layout(task, VOCABULARY, **{"clip": SILENT, **more}, text_slots=slots)
    assert (layout.prefix_length, layout.length) == (prefix, total)


def test_every_task_has_a_length_in_the_table():
    assert {row[0] for row in SPEC_LENGTHS} == set(TASKS)


def test_a_sound_made_for_pictures_has_no_resolution_of_its_own():
    plain, portrait = (
        task_layout("video_to_audio", VOCABULARY, SOUNDING, text_slots=0, resolution=r) for r in (None, 0)
    )
    assert plain.length == portrait.length and plain.prefix_length == portrait.prefix_length


def test_image_sequence_is_a_strict_prefix_of_the_video_sequence():
    visual = torch.randint(2**18, (2, 1, 5, 16, 16))
    audio = torch.randint(1024, (2, 4, 106))
    for clip in (SILENT, SOUNDING):
        sequences = []
        for task in ("text_to_image", "text_to_video"):
            layout = task_layout(task, VOCABULARY, clip, text_slots=64)
            sequences.append(layout.fill(task_content(task, clip, visual=visual, audio=audio), 2)[0])
        image, video = sequences
        assert image.shape[1] < video.shape[1]
        assert torch.equal(video[:, : image.shape[1]], image)


@pytest.mark.parametrize(("order", "places"), [("level", 424), ("time", 424), ("delay", 436)])
def test_audio_places_lie_in_the_block_of_the_level_that_stands_there(order, places):
    layout = task_layout("video_to_audio", VOCABULARY, SOUNDING, text_slots=64, audio_order=order)
    audio = layout.stretch("audio_out")
    assert audio.length == places
    for place in range(places):
        step, level = divmod(place, 4)  # of the two orders that go along time
        if order == "level":
            level = place // 106
        empty = order == "delay" and not 0 <= step - level < 106
        block = Block(VOCABULARY.pad_id, VOCABULARY.pad_id + 1) if empty else VOCABULARY.audio_level(level)
        assert layout.blocks[audio.start + place].tolist() == [block.start, block.stop]


def test_mask_is_full_in_the_prefix_and_causal_behind_it():
    layout = task_layout("continue_av", Vocabulary(9, 2, 3), Clip((3, 1, 2), 6), text_slots=2, given=1)
    mask, p = layout.attention_mask()[0, 0], layout.prefix_length
    for i in range(layout.length):
        for j in range(layout.length):
            assert bool(mask[i, j]) == (j < p or j <= i)
    assert torch.equal(mask[:p, :p], mask[:p, :p].T)


def test_empty_text_slots_are_read_by_nobody():
    layout = task_layout("text_to_video", Vocabulary(9), Clip((2, 1, 2)), text_slots=3)
    text = layout.stretch("text")
    mask = layout.attention_mask(torch.tensor([[True, True, False], [False, False, False]]))
    assert mask.shape == (2, 1, layout.length, layout.length)
    assert not mask[0, :, :, text.stop - 1].any()
    assert not mask[1, :, :, text.start : text.stop].any()
    assert torch.equal(
        mask[0, :, :, : text.stop - 1], layout.attention_mask().expand(2, 1, -1, -1)[0, :, :, : text.stop - 1]
    )
    with pytest.raises(ValueError, match="text_mask has 2 slots, the layout 3"):
        layout.attention_mask(torch.ones(1, 2, dtype=torch.bool))


def learned(layout):
    """(n,) bool: True at the places whose next id is learned."""
    mask = torch.zeros(layout.length, dtype=torch.bool)
    for run in layout.runs:
        mask[run.rows] = True
    return mask


def test_loss_is_on_the_last_prefix_place_and_the_output():
    layout = task_layout("text_to_video", VOCABULARY, SOUNDING, text_slots=64)
    mask = learned(layout)
    assert not mask[: layout.prefix_length - 1].any()
    assert mask[layout.prefix_length - 1 : -1].all()
    assert not mask[-1]
    assert layout.stretches[[s.start for s in layout.stretches].index(layout.prefix_length)].name == "<bov_o>"
    places = torch.zeros_like(mask)
    for run in layout.runs:
        places[run.start - 1 : run.stop - 1] = True
    assert torch.equal(places, mask)


@pytest.mark.parametrize("order", ORDERS)
def test_fill_then_read_gives_the_codes_back(order):
    visual = torch.randint(2**18, (2, 1, 5, 16, 16))
    audio = torch.randint(1024, (2, 4, 106))
    layout = task_layout("continue_av", VOCABULARY, SOUNDING, text_slots=64, given=2, audio_order=order)
    ids, known = layout.fill(task_content("continue_av", SOUNDING, visual=visual, audio=audio, given=2), 2)
    assert known.all()
    assert torch.equal(layout.read(ids, "visual_in"), visual[:, :, :2])
    assert torch.equal(layout.read(ids, "visual_out"), visual[:, :, 2:])
    assert torch.equal(layout.read(ids, "audio_in"), audio[:, :, :31])
    assert torch.equal(layout.read(ids, "audio_out"), audio[:, :, 31:])


def test_empty_places_of_delayed_levels_are_known_and_not_learned():
    layout = task_layout("video_to_audio", VOCABULARY, SOUNDING, text_slots=0, audio_order="delay")
    ids, known = layout.fill({"visual_in": torch.zeros(1, 1, 5, 16, 16, dtype=torch.long)}, 1)
    audio = layout.stretch("audio_out")
    steps = known[audio.start : audio.stop].view(109, 4)
    assert steps[:4].tolist() == [
        [False, True, True, True],
        [False] * 2 + [True] * 2,
        [False] * 3 + [True],
        [False] * 4,
    ]
    assert torch.equal(steps, steps.flip(0, 1))  # the levels end as they began
    assert ids[0, audio.start : audio.stop][known[audio.start : audio.stop]].eq(VOCABULARY.pad_id).all()
    assert torch.equal(learned(layout)[audio.start - 1 : audio.stop - 1], ~known[audio.start : audio.stop])
    wrong = ids.clone()
    wrong[0, audio.start + 1] = VOCABULARY.eos_id
    with pytest.raises(ValueError, match="the empty places of delayed levels must hold 0"):
        layout.read(wrong, "audio_out")


def test_fill_marks_what_is_given():
    layout = task_layout("image_to_video", VOCABULARY, SOUNDING, text_slots=64)
    image = torch.randint(2**18, (1, 1, 1, 16, 16))
    ids, known = layout.fill({"visual_in": image, "visual_out": image}, 1)
    out, sound = layout.stretch("visual_out"), layout.stretch("audio_out")
    assert known[: out.start + 256].all()
    assert not known[out.start + 256 : out.stop].any()
    assert not known[sound.start : sound.stop].any()
    assert known[[out.stop, sound.start - 1, sound.stop, layout.length - 1]].all()
    assert torch.equal(ids[:, out.start : out.start + 256], VOCABULARY.visual_to_ids(image))


@pytest.mark.parametrize("order", ORDERS)
def test_a_sound_may_be_given_in_part(order):
    layout = task_layout("video_to_audio", VOCABULARY, SOUNDING, text_slots=0, audio_order=order)
    visual, audio = torch.zeros(2, 1, 5, 16, 16, dtype=torch.long), torch.randint(1024, (2, 4, 106))
    whole, _ = layout.fill({"visual_in": visual, "audio_out": audio}, 2)
    part, known = layout.fill({"visual_in": visual, "audio_out": audio[:, :, :56]}, 2)
    out = layout.stretch("audio_out")
    for level in range(4):
        at = torch.arange(layout.length)[out.level(level)]
        assert known[at].tolist() == [True] * 56 + [False] * 50
        assert torch.equal(part[:, at[:56]], whole[:, at[:56]])


def test_errors():
    layout = task_layout("image_to_video", VOCABULARY, SILENT, text_slots=64)
    image = torch.zeros(1, 1, 1, 16, 16, dtype=torch.long)
    with pytest.raises(ValueError, match=r"missing \['visual_in'\]"):
        layout.fill({}, 1)
    with pytest.raises(ValueError, match=r"unknown \['audio_in'\]"):
        layout.fill({"visual_in": image, "audio_in": image}, 1)
    with pytest.raises(
        ValueError, match=r"visual_in must be codes of shape \(1, 1, 1, 16, 16\), got \(1, 1, 2, 16, 16\)"
    ):
        layout.fill({"visual_in": image.expand(1, 1, 2, 16, 16)}, 1)
    with pytest.raises(
        ValueError, match=r"visual_out must be codes of shape \(1, 1, 5, 16, 16\), got \(1, 1, 6, 16, 16\)"
    ):
        layout.fill({"visual_in": image, "visual_out": image.expand(1, 1, 6, 16, 16)}, 1)
    with pytest.raises(ValueError, match="this layout has no 'audio_out'; it has: text, visual_in, visual_out"):
        layout.stretch("audio_out")
    with pytest.raises(ValueError, match="unknown order of audio codes 'random'; known: level, time, delay"):
        task_layout("text_to_video", VOCABULARY, SILENT, text_slots=64, audio_order="random")
    with pytest.raises(ValueError, match="holds no media"):
        layout.read(layout.template[None], "text")
    with pytest.raises(ValueError, match="needs visual_out or audio_out"):
        build_layout(VOCABULARY, task="paint")
    with pytest.raises(ValueError, match="without end markers"):
        build_layout(
            VOCABULARY, task="paint", visual_out=Span("visual_out", (1, 1, 1)), audio_out=Span("a", (4, 1)), ends=False
        )
