"""superres/film.py: windows of a film, their seams, two stages, and pictures of any size, without a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch

from mmtok.visual.magvit2 import Magvit2, Magvit2Params
from superres.config import SuperResConfig
from superres.film import FilmUpscaler, blocks_of
from superres.model import SuperResTransformer
from superres.passes import Stage
from superres.sample import Decoding
from superres.windows import windows_for


def film(frames: int = 30, size: int = 32) -> torch.Tensor:
    """A pattern that moves; a longer film begins like a shorter one."""
    t, y, x = (torch.arange(n, dtype=torch.float32) for n in (frames, size, size))
    picture = [torch.sin(k * t[:, None, None] / 5 + y[:, None] / 4 - k * x / 7) for k in (1, 2, 3)]
    return torch.stack(picture)[None]


def seeded(seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed)]


def stage(grid: tuple[int, int, int], decoding: Decoding, seed: int) -> Stage:
    torch.manual_seed(seed)
    sizes = {"dim": 16, "num_blocks": 1, "num_heads": 2, "hidden_dim": 16, "text_dim": 16}
    config = SuperResConfig(grid=grid, windows=windows_for(grid), factor_sizes=(8, 8), **sizes)
    model = SuperResTransformer(config).eval()
    return Stage(config, decoding, lambda: model)


def make_upscaler(*, size: int) -> FilmUpscaler:
    torch.manual_seed(0)
    tokenizer = Magvit2(
        Magvit2Params(
            channels=4,
            channel_multipliers=(1, 2),
            num_res_blocks=1,
            num_mid_blocks=0,
            spatial_downsample=(True,),
            temporal_downsample=(False,),
            bits=6,
            patch_size=(4, 4, 4),
            norm_groups=2,
            normalize_latents=True,
        )
    ).eval()
    stages = {"superres": stage((5, 8, 8), Decoding(num_steps=2), 0)}
    if size == 128:
        stages["superres2"] = stage((5, 16, 16), Decoding(num_steps=3, text_scale=8.0, low_scale=2.0), 1)
    return FilmUpscaler(stages, tokenizer, base=32, size=size, num_frames=17, embed=lambda texts, notes: None)


@pytest.fixture(scope="module")
def upscaler() -> FilmUpscaler:
    return make_upscaler(size=64)


@pytest.fixture(scope="module")
def cascade() -> FilmUpscaler:
    return make_upscaler(size=128)


# Windows.


@pytest.mark.parametrize(
    ("length", "pieces"), [(1, [1]), (17, [8, 9]), (18, [8, 10]), (25, [8, 8, 9]), (41, [8, 8, 8, 8, 9])]
)
def test_windows_cover_a_film(upscaler: FilmUpscaler, length: int, pieces: list[int]) -> None:
    joints = upscaler.joints(length)
    assert joints == [17, 25, 33][: len(joints)] and upscaler.num_windows(length) == 1 + len(joints)
    steps: list[tuple[str, int, int]] = []
    passes = upscaler.plan_film((32, 32))
    made = upscaler.upscale_stream([film(length)], None, seeded(), lambda *s: steps.append(s), passes=passes)
    assert [piece.shape[2] for piece in made] == pieces, "nine pictures wait for the next window, which shows them too"
    assert steps == [("super-resolution", done, 2) for done in range(3)] * upscaler.num_windows(length)


@pytest.mark.parametrize("given", [0, 9])
def test_what_two_windows_show_fades_from_one_to_the_other(
    upscaler: FilmUpscaler, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    windows = iter([0.0, 0.5, 1.0])  # each window's pictures are of one brightness
    monkeypatch.setattr(
        upscaler, "decode", lambda codes, num_frames: torch.full((1, 3, num_frames, 64, 64), next(windows))
    )
    before = torch.zeros(1, 3, given, 64, 64) if given else None
    made = upscaler.upscale_stream([film(30)], None, seeded(), passes=upscaler.plan_film((32, 32)), before=before)
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


def test_blocks_of_any_length_give_the_same_film(upscaler: FilmUpscaler) -> None:
    passes = upscaler.plan_film((32, 32))

    def stream(frames: int, block: int) -> torch.Tensor:
        blocks = blocks_of(film(frames), block)
        return torch.cat(list(upscaler.upscale_stream(blocks, None, seeded(), passes=passes)), 2)

    whole = stream(20, 20)
    assert whole.shape == (1, 3, 20, 64, 64)
    assert stream(20, 1).equal(whole) and stream(20, 18).equal(whole)
    assert stream(17, 5)[:, :, :8].equal(whole[:, :, :8]), "a longer film begins like a shorter one"


def test_a_film_is_read_no_further_than_it_is_needed(upscaler: FilmUpscaler) -> None:
    read: list[int] = []

    def source() -> Iterator[torch.Tensor]:
        for block in blocks_of(film(41), 5):
            read.append(block.shape[2])
            yield block

    yielded = 0
    for piece in upscaler.upscale_stream(source(), None, seeded(), passes=upscaler.plan_film((32, 32))):
        yielded += piece.shape[2]
        assert sum(read) < yielded + upscaler.overlap + 5, "a block beyond the window at most"
    assert yielded == sum(read) == 41


def test_a_window_keeps_the_codes_of_the_end_before(upscaler: FilmUpscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.Tensor] = []
    double = upscaler.double

    def spy(*args: object, **options: object) -> torch.Tensor:
        made.append(double(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(upscaler, "double", spy)
    upscaler.upscale(film())
    assert len(made) == upscaler.num_windows(30) == 3
    for earlier, later in pairwise(made):
        assert later[:, :, :3].equal(upscaler.encode(upscaler.decode(earlier)[:, :, -9:]))


def test_each_film_of_a_batch_is_made_as_if_alone(upscaler: FilmUpscaler) -> None:
    passes = upscaler.plan_film((32, 32))
    both = torch.cat([film(20), film(20).flip(-1)])
    together = list(upscaler.upscale_stream([both], None, [*seeded(3), *seeded(4)], passes=passes))
    alone = list(upscaler.upscale_stream([both[1:]], None, seeded(4), passes=passes))
    torch.testing.assert_close(
        torch.cat(together, 2)[1:], torch.cat(alone, 2), atol=1e-4, rtol=0
    )  # sums in another order


# Two stages, large pictures.


def test_codes_go_from_stage_to_stage(cascade: FilmUpscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    lows: list[torch.Tensor] = []
    encode_context = SuperResTransformer.encode_context
    monkeypatch.setattr(
        SuperResTransformer,
        "encode_context",
        lambda self, low, *a, **k: (lows.append(low), encode_context(self, low, *a, **k))[1],
    )
    passes = cascade.plan_film((32, 32))
    first = passes[0]
    low = cascade.encode(film(17))
    middle = cascade.double(low, None, seeded(), passes=(first,))
    lows.clear()
    high = cascade.double(low, None, seeded(), passes=passes)
    assert high.shape == (1, 1, 5, 16, 16)
    # once for all steps of a stage; the second has two passes for low_scale 2, without a decoder between
    assert [tuple(x.shape) for x in lows] == [(1, 5, 4, 4), (2, 5, 8, 8)]
    assert lows[1].equal(middle[:, 0].repeat(2, 1, 1, 1))


def test_large_pictures_go_through_the_tokenizer_in_tiles(upscaler: FilmUpscaler) -> None:
    video = torch.rand(1, 3, 1, 64, 640) * 2 - 1
    codes = upscaler.encode(video)
    assert codes.shape == (1, 1, 1, 8, 80) and upscaler.decode(codes).shape == video.shape
