"""The nine invariants of the VideoPoet design that hold across packages; each package's tests prove the finer points."""

import pytest
import torch

from llm.batching import draw_group, group_shares, make_groups
from llm.config import preset as lm_preset
from llm.model import PrefixLM
from llm.sequence import Layout
from llm.tasks import Clip, task_content, task_layout
from mmtok.conditions.commit_masks import GEOMETRIES, make_condition
from mmtok.visual.magvit2 import Magvit2, Magvit2Params
from mmtok.vocabulary import Vocabulary
from superres.config import preset as sr_preset
from superres.model import SuperResTransformer, merge_codes, split_codes
from superres.sample import guided_logits
from superres.windows import WINDOWS, low_size, partition

VIDEOPOET = Vocabulary(2**18, 4, 1024)
CLIP = Clip((5, 16, 16), 106)


@pytest.fixture(scope="module")
def tokenizer() -> Magvit2:
    """The paper's strides and 2^18 codes at a tenth of the width."""
    torch.manual_seed(0)
    return Magvit2(
        Magvit2Params(
            channels=8,
            channel_multipliers=(1, 1, 1, 1),
            num_res_blocks=1,
            num_mid_blocks=1,
            spatial_downsample=(True, True, True),
            temporal_downsample=(False, True, True),
            bits=18,
            norm_groups=2,
        )
    ).eval()


def test_1_token_counts_and_the_image_as_first_slice(tokenizer):
    video = torch.rand(1, 3, 41, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ids = {t: VIDEOPOET.visual_to_ids(tokenizer.encode(video[:, :, :t])) for t in (1, 17, 41)}
    assert {t: i.shape[1] for t, i in ids.items()} == {1: 256, 17: 1280, 41: 2816}
    assert all(int(i.min()) >= 256 and int(i.max()) < 262_400 for i in ids.values())
    assert torch.equal(ids[1], ids[17][:, :256]) and torch.equal(ids[17], ids[41][:, :1280])


def test_2_audio_ids_lie_in_the_level_of_their_place():
    ids = VIDEOPOET.audio_to_ids(torch.randint(1024, (2, 4, 106), generator=torch.Generator().manual_seed(0)))
    levels = (ids - 262_400) // 1024
    assert torch.equal(levels, (torch.arange(424) // 106).expand(2, -1))


def _small_lm() -> PrefixLM:
    sizes = {"dim": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "hidden_dim": 48}
    torch.manual_seed(0)
    return PrefixLM(lm_preset("tiny", visual_codes=64, audio_codes=16, text_dim=8, text_slots=4, **sizes)).eval()


def test_3_prefix_is_open_output_is_causal():
    clip = Clip((2, 4, 4), 6)
    model = _small_lm()
    layout = task_layout("image_to_video", model.vocabulary, clip, text_slots=4)
    allowed, p = layout.attention_mask()[0, 0], layout.prefix_length
    assert bool(allowed[:p, :p].all()) and bool(allowed[p:, :p].all())
    assert torch.equal(allowed[p:, p:], torch.ones_like(allowed[p:, p:]).tril()) and not bool(allowed[:p, p:].any())

    generator = torch.Generator().manual_seed(0)
    visual = torch.randint(64, (1, 1, *clip.grid), generator=generator)
    audio = torch.randint(16, (1, 4, 6), generator=generator)
    ids, _ = layout.fill(task_content("image_to_video", clip, visual=visual, audio=audio), 1)
    text, mask = torch.randn(1, 4, 8, generator=generator), torch.ones(1, 4, dtype=torch.bool)
    place = layout.stretch("visual_out").start + 5
    changed = ids.clone()
    changed[0, place] = VIDEOPOET.visual.start + (ids[0, place] - VIDEOPOET.visual.start + 1) % 64
    with torch.no_grad():
        before, after = (model(i, layout, text=text, text_mask=mask) for i in (ids, changed))
    assert torch.equal(before[:, :place], after[:, :place]) and not torch.equal(before[:, place:], after[:, place:])


def _sequence(task: str, visual: torch.Tensor) -> tuple[Layout, list[int]]:
    clip = Clip((5, 16, 16))
    layout = task_layout(task, VIDEOPOET, clip, text_slots=64)
    return layout, layout.fill(task_content(task, clip, visual=visual), 1)[0][0].tolist()


def test_4_image_sequence_begins_the_video_sequence():
    visual = torch.randint(2**18, (1, 1, 5, 16, 16), generator=torch.Generator().manual_seed(0))
    _, image = _sequence("text_to_image", visual[:, :, :1])
    _, video = _sequence("text_to_video", visual)
    assert len(image) == 325 and len(video) == 1351 and video[: len(image)] == image


def test_5_loss_starts_at_the_last_prefix_place():
    for task, given in (
        ("text_to_video", None),
        ("continue_video", 3),
        ("video_to_audio", None),
        ("audio_to_video", None),
    ):
        layout = task_layout(task, VIDEOPOET, CLIP, text_slots=64, given=given)
        learned = [place for run in layout.runs for place in range(layout.length)[run.rows]]
        assert sorted(learned) == list(range(layout.prefix_length - 1, layout.length - 1))


@pytest.mark.parametrize("geometry", list(GEOMETRIES))
def test_6_hidden_pixels_never_change_condition_tokens(tokenizer, geometry):
    video, other = (torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(s)) * 2 - 1 for s in (0, 1))
    seen = make_condition(video, geometry)
    again = make_condition(torch.where(seen.known, video, other), geometry)
    assert torch.equal(tokenizer.encode(seen.video), tokenizer.encode(again.video))


def test_7_windows_tile_their_grids_over_the_same_pixels():
    for grid, windows in WINDOWS.items():
        places = torch.arange(torch.Size(grid).numel()).view(1, *grid, 1)
        low = low_size(grid)
        below = torch.arange(torch.Size(low).numel()).view(1, *low, 1)
        for window in windows:
            high_sets, low_sets = partition(places, window)[0, ..., 0], partition(below, low_size(window))[0, ..., 0]
            assert high_sets.flatten().sort().values.equal(places.flatten())
            t, h, w = high_sets // (grid[1] * grid[2]), high_sets // grid[2] % grid[1], high_sets % grid[2]
            under = (t * low[1] + h // 2) * low[2] + w // 2
            for high_window, low_window in zip(under, low_sets, strict=True):
                assert high_window.unique().equal(low_window.sort().values)


def test_8_factors_join_to_the_code_and_neutral_guidance_is_plain():
    codes = torch.arange(2**18)
    low, high = split_codes(codes, (512, 512))
    assert torch.equal(low, codes % 512) and torch.equal(high, codes // 512)
    assert torch.equal(merge_codes((low, high), (512, 512)), codes)

    torch.manual_seed(0)
    model = SuperResTransformer(sr_preset("nano")).eval()
    size = model.config.codebook_size
    high_codes, low_codes = torch.randint(size, (1, 5, 16, 16)), torch.randint(size, (1, 5, 8, 8))
    masked, text = torch.rand(1, 5, 16, 16) < 0.5, torch.randn(1, 6, model.config.text_dim)
    with torch.no_grad():
        plain = model(high_codes, masked, low_codes, text)
        guided = guided_logits(model, low_codes, text, text_scale=1.0, low_scale=1.0)(high_codes, masked)
    for a, b in zip(plain, guided, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_9_ranks_agree_padding_is_nothing_and_the_image_share_turns_over():
    weights = {"text_to_video": 0.5, "text_to_image": 0.1, "video_to_audio": 0.4}
    groups = make_groups(weights, VIDEOPOET, CLIP, text_slots=64)
    drawn = [
        [
            draw_group(
                groups,
                group_shares(groups, progress=step / 4000, image_share=(0.9, 0.1)),
                torch.Generator().manual_seed(step),
            )
            for step in range(4000)
        ]
        for _rank in range(2)
    ]
    assert drawn[0] == drawn[1]
    images = [g.is_image for g in drawn[0]]
    assert abs(sum(images[:1000]) / 1000 - 0.9) < 0.03 and abs(sum(images[1000:]) / 3000 - 0.1) < 0.02
    for group in groups:  # every sequence of a group has the same places; pads stand only where contents go
        batch = group.batch_size(8192)
        assert batch * group.layout.length <= max(8192, group.layout.length)
        pads = int((group.layout.template == VIDEOPOET.pad_id).sum())
        assert pads == sum(s.length for s in group.layout.stretches if s.kind != "special")
