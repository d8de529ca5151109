"""Super-resolution of a bundle: passes, windows, two stages, and films of any form and length."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mmtok.visual.magvit2 import Magvit2
from recipes.bundle.folder import BUNDLE_FILE, open_bundle
from recipes.corpora.shapes import ShapesCorpus, render_video
from recipes.pipeline.cinepoet import CinePoetPipeline
from recipes.pipeline.sharpen import blocks_of, describe_passes
from superres.config import SuperResConfig
from superres.model import SuperResTransformer
from superres.windows import windows_for

PROMPT = "a red circle moves left on a dark plain background"


def film(frames: int = 30, size: int = 32) -> torch.Tensor:
    return render_video(ShapesCorpus(0).scene(4), size=size, num_frames=frames)[None]


def seeded(seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed)]


@pytest.fixture(scope="module")
def pipe(bundle: Path) -> CinePoetPipeline:
    return CinePoetPipeline.from_pretrained(bundle, device="cpu")


def second_stage(bundle: Path, folder: Path, *, factor_sizes: tuple[int, ...] = (8, 8)) -> Path:
    """The bundle with a stage for 64 to 128 pixels."""
    shutil.copytree(bundle, folder)
    stored = json.loads((folder / BUNDLE_FILE).read_text())
    stored["config"] |= {"upscaled_size": 128, "sr2_steps": 3, "sr2_text_scale": 8.0, "sr2_low_scale": 2.0}
    (folder / BUNDLE_FILE).write_text(json.dumps(stored))
    torch.manual_seed(1)
    grid = (5, 16, 16)
    sizes = {"dim": 16, "num_blocks": 1, "num_heads": 2, "hidden_dim": 16, "text_dim": 16}
    config = SuperResConfig(grid=grid, windows=windows_for(grid), factor_sizes=factor_sizes, **sizes)
    SuperResTransformer(config).save_pretrained(folder / "superres2")
    return folder


@pytest.fixture(scope="module")
def cascade(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> CinePoetPipeline:
    folder = second_stage(bundle, tmp_path_factory.mktemp("cascade") / "two")
    return CinePoetPipeline.from_pretrained(folder, device="cpu")


# Plans.


def test_a_film_keeps_as_much_of_itself_as_it_can(pipe: CinePoetPipeline) -> None:
    def way(size: tuple[int, int], **options: object) -> str:
        return describe_passes(pipe.plan_film(size, **options))  # type: ignore[arg-type]

    assert way((32, 32)) == way((500, 500)) == "32x32 -> 64x64 (superres, 2 steps)"
    assert way((50, 50), to=128) == "32x32 -> 64x64 (superres, 2 steps) -> 128x128 (superres in 9 tiles, 2 steps)"
    assert way((70, 70), to=128) == "64x64 -> 128x128 (superres in 9 tiles, 2 steps)"
    assert way((90, 160)) == "56x32 -> 112x64 (superres in 2 tiles, 2 steps)"
    assert way((160, 90)) == "32x56 -> 64x112 (superres in 2 tiles, 2 steps)"
    assert way((160, 90), aspect="square") == "32x32 -> 64x64 (superres, 2 steps)"
    assert way((50, 50), aspect="portrait", changes={"num_steps": 7}).endswith("64x112 (superres in 2 tiles, 7 steps)")
    for options, message in (
        ({"to": 100}, "100 pixels cannot be reached: this model doubles 32 to one of 64, 128, 256, 512"),
        ({"to": 32}, "32 pixels cannot be reached"),
        ({"aspect": "wide"}, "unknown aspect 'wide'; known: own, square, portrait"),
        ({"changes": {"num_steps": 0}}, "num_steps must be positive, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            way((50, 50), **options)


def test_stages_take_turns_and_the_last_one_goes_on(cascade: CinePoetPipeline) -> None:
    passes = cascade.plan_film((40, 40), to=256)
    assert [step.part for step in passes] == ["superres", "superres2", "superres2"]
    assert [step.tiles for step in passes] == [1, 1, 9]
    assert [step.decoding.text_scale for step in passes] == [1.0, 8.0, 8.0]
    assert [step.part for step in cascade.plan_film((64, 64))] == ["superres2"]  # large enough to begin there
    assert [step.part for step in cascade.plan_film((64, 64), to=64)] == ["superres"]


# Windows.


@pytest.mark.parametrize(
    ("length", "pieces"), [(1, [1]), (17, [8, 9]), (18, [8, 10]), (25, [8, 8, 9]), (41, [8, 8, 8, 8, 9])]
)
def test_windows_cover_a_film(pipe: CinePoetPipeline, length: int, pieces: list[int]) -> None:
    joints = pipe.joints(length)
    assert joints == [17, 25, 33][: len(joints)] and pipe.num_windows(length) == 1 + len(joints)
    steps: list[tuple[str, int, int]] = []
    passes = pipe.plan_film((32, 32))
    made = pipe.sharpen_stream([film(length)], None, seeded(), lambda *s: steps.append(s), passes=passes)
    assert [piece.shape[2] for piece in made] == pieces, "nine pictures wait for the next window, which shows them too"
    assert steps == [("super-resolution", done, 2) for done in range(3)] * pipe.num_windows(length)


@pytest.mark.parametrize("given", [0, 9])
def test_what_two_windows_show_fades_from_one_to_the_other(
    pipe: CinePoetPipeline, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    windows = iter([0.0, 0.5, 1.0])  # each window's pictures are of one brightness
    monkeypatch.setattr(
        pipe, "decode_sharp", lambda codes, num_frames: torch.full((1, 3, num_frames, 64, 64), next(windows))
    )
    before = torch.zeros(1, 3, given, 64, 64) if given else None
    made = pipe.sharpen_stream([film(30)], None, seeded(), passes=pipe.plan_film((32, 32)), before=before)
    shown = torch.cat(list(made), 2)
    assert shown.amax((1, 3, 4)).equal(shown.amin((1, 3, 4)))
    levels = shown[0, 0, :, 0, 0]
    fade = torch.arange(1, 10) / 10
    expected = torch.cat([torch.zeros(8), 0.5 * fade, torch.full((13,), 1.0)])
    expected[16:25] = torch.lerp(expected[16:25].clamp(max=0.5), torch.ones(9), fade)
    if given:  # what has been shown stays, so that only eight pictures are left to fade
        expected[9:17] = 0.5 * torch.arange(1, 9) / 9
        expected[16] = torch.lerp(expected[16], torch.tensor(1.0), torch.tensor(0.1))
    torch.testing.assert_close(levels, expected[given:])


def test_blocks_of_any_length_give_the_same_film(pipe: CinePoetPipeline) -> None:
    passes = pipe.plan_film((32, 32))

    def stream(frames: int, block: int) -> torch.Tensor:
        blocks = blocks_of(film(frames), block)
        return torch.cat(list(pipe.sharpen_stream(blocks, None, seeded(), passes=passes)), 2)

    whole = stream(20, 20)
    assert whole.shape == (1, 3, 20, 64, 64)
    assert stream(20, 1).equal(whole) and stream(20, 18).equal(whole)
    assert stream(17, 5)[:, :, :8].equal(whole[:, :, :8]), "a longer film begins like a shorter one"


def test_a_film_is_read_no_further_than_it_is_needed(pipe: CinePoetPipeline) -> None:
    read: list[int] = []

    def source() -> Iterator[torch.Tensor]:
        for block in blocks_of(film(41), 5):
            read.append(block.shape[2])
            yield block

    yielded = 0
    for piece in pipe.sharpen_stream(source(), None, seeded(), passes=pipe.plan_film((32, 32))):
        yielded += piece.shape[2]
        assert sum(read) < yielded + pipe.overlap() + 5, "a block beyond the window at most"
    assert yielded == sum(read) == 41


def test_a_window_keeps_the_codes_of_the_end_before(pipe: CinePoetPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Tensor] = []
    upsample = pipe.upsample

    def spy(*args: object, **options: object) -> torch.Tensor:
        made.append(upsample(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(pipe, "upsample", spy)
    pipe.upscale(film())
    assert len(made) == pipe.num_windows(30) == 3
    for earlier, later in pairwise(made):
        assert later[:, :, :3].equal(pipe.encode_sharp(pipe.decode_sharp(earlier)[:, :, -9:]))


def test_each_film_of_a_batch_is_made_as_if_alone(pipe: CinePoetPipeline) -> None:
    passes = pipe.plan_film((32, 32))
    both = torch.cat([film(20), film(20).flip(-1)])
    together = list(pipe.sharpen_stream([both], None, [*seeded(3), *seeded(4)], passes=passes))
    alone = list(pipe.sharpen_stream([both[1:]], None, seeded(4), passes=passes))
    torch.testing.assert_close(torch.cat(together, 2)[1:], torch.cat(alone, 2), atol=1e-5, rtol=1e-5)


# Two stages, other tokenizers.


def test_codes_go_from_stage_to_stage(cascade: CinePoetPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    lows: list[torch.Tensor] = []
    encode_context = SuperResTransformer.encode_context
    monkeypatch.setattr(
        SuperResTransformer,
        "encode_context",
        lambda self, low, *a, **k: (lows.append(low), encode_context(self, low, *a, **k))[1],
    )
    passes = cascade.plan_film((32, 32))
    first = passes[0]
    low = cascade.encode_sharp(film(17))
    middle = cascade.upsample(low, None, seeded(), passes=(first,))
    lows.clear()
    high = cascade.upsample(low, None, seeded(), passes=passes)
    assert high.shape == (1, 1, 5, 16, 16)
    # once for all steps of a stage; the second has two passes for low_scale 2, without a decoder between
    assert [tuple(x.shape) for x in lows] == [(1, 5, 4, 4), (2, 5, 8, 8)]
    assert lows[1].equal(middle[:, 0].repeat(2, 1, 1, 1))


def test_a_cascade_serves_every_length(cascade: CinePoetPipeline) -> None:
    out = cascade(PROMPT, sound=False, extensions=1, generator=seeded()[0])
    assert out.frames.shape == (1, 3, 25, 128, 128) and out.codes["high"].shape == (1, 1, 5, 16, 16)
    assert cascade.upscale(film(1, size=48)).shape == (1, 3, 1, 128, 128)


def test_stages_of_other_tokens_are_refused(bundle: Path, tmp_path: Path) -> None:
    folder = second_stage(bundle, tmp_path / "other", factor_sizes=(8, 16))
    broken = CinePoetPipeline.from_pretrained(folder, device="cpu")
    with pytest.raises(ValueError, match=r"superres2 of .* speaks 128 codes and the tokenizer under it 64"):
        broken(PROMPT)


def test_a_size_that_doubling_does_not_reach_is_refused(bundle: Path) -> None:
    opened = open_bundle(bundle)
    odd = dataclasses.replace(opened, config=dataclasses.replace(opened.config, upscaled_size=96))
    with pytest.raises(ValueError, match=r"upscaled_size \(96\) must be 32 doubled"):
        CinePoetPipeline(odd)(PROMPT)


def test_pictures_of_another_tokenizer_are_encoded_again(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "m")
    torch.manual_seed(7)
    visual = Magvit2.from_pretrained(bundle / "visual")
    other = Magvit2(visual.params)
    other.save_pretrained(tmp_path / "m" / "superres_visual")
    pipe = CinePoetPipeline.from_pretrained(tmp_path / "m", device="cpu")
    out = pipe(PROMPT, sound=False, extensions=1, generator=seeded()[0])
    low = pipe.encode_sharp(pipe.visual.decode(out.codes["low"]))
    assert out.frames.shape == (1, 3, 25, 64, 64) and not low.equal(out.codes["low"])
    text = pipe.embed([PROMPT], [])
    state = seeded()[0]
    lm_only = pipe(PROMPT, sound=False, upscale=False, generator=state)
    assert lm_only.codes["low"].equal(out.codes["low"])
    assert pipe.sharpen(out.codes["low"], prompts=[PROMPT]).shape == out.codes["high"].shape and text is not None


def test_large_pictures_go_through_the_tokenizer_in_tiles(pipe: CinePoetPipeline) -> None:
    video = torch.rand(1, 3, 1, 64, 640) * 2 - 1
    codes = pipe.encode_sharp(video)
    assert codes.shape == (1, 1, 1, 8, 80) and pipe.decode_sharp(codes).shape == video.shape


def test_an_empty_prompt_is_none(pipe: CinePoetPipeline) -> None:
    notes: list[str] = []
    assert pipe.read_prompt(" ", notes) is None and "goes without text" in notes[0]
    assert pipe.read_prompt(None, notes) is None and len(notes) == 1
    assert pipe.read_prompt(PROMPT, notes) is not None
