"""recipes/tokens/superres_pairs.py: films and scenes become pairs of codes; what is too small or too short is told and left out."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmtok.media.errors import MediaError
from mmtok.media.resize import half_size
from mmtok.media.video import read_video, write_film
from recipes.corpora.film_clips import MOST_ZOOM, FilmClip, FilmClips, View, film_clips
from recipes.corpora.folder import MediaFolder
from recipes.corpora.shapes import ShapesCorpus, render_video
from recipes.tokens.superres_pairs import TokenizedPairs, film_groups, pair_grid, scene_groups


class Brightness(nn.Module):
    """A tokenizer whose code is the mean brightness of each 4 x 8 x 8 block; counts its calls."""

    codebook_size, num_codebooks, stride, fps, is_causal = 64, 1, (4, 8, 8), 8.0, True

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.calls = 0

    def grid(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        if height % 8 or width % 8:
            raise ValueError(f"height ({height}) and width ({width}) must be positive multiples of 8 and 8")
        return (num_frames - 1) // 4 + 1, height // 8, width // 8

    def encode(self, video: Tensor) -> Tensor:
        self.calls += 1
        t, h, w = self.grid(*video.shape[2:])
        mean = nn.functional.adaptive_avg_pool3d(video, (t, h, w)).mean(1, keepdim=True)
        return ((mean + 1) * 31.5).round().long().clamp(0, 63)


def film(path: Path, height: int, width: int, frames: int = 20, seed: int = 0) -> Path:
    noise = torch.rand(3, 1, height // 8, width // 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    pictures = nn.functional.interpolate(noise.transpose(0, 1), size=(height, width)).transpose(0, 1)
    write_film(path, pictures.expand(-1, frames, -1, -1), fps=8.0)
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for number, name in enumerate("adg"):  # every third file is kept out: c, f and i would be
        film(folder / f"{name}_wide.mp4", 64, 96, seed=number)
    film(folder / "b_tall.mp4", 112, 64, frames=40)
    film(folder / "c_kept_out.mp4", 64, 64)
    film(folder / "e_small.mp4", 48, 64)
    film(folder / "f_short_and_kept_out.mp4", 64, 64, frames=9)
    (folder / "b_tall.txt").write_text("a tall noise\n")
    (folder / "c_kept_out.txt").write_text("a square noise")
    return folder


def clips_of(folder: Path, sizes=((64, 64), (112, 64)), **options):
    told: list[str] = []
    media = MediaFolder.open(folder)
    return film_clips(media, sizes=sizes, num_frames=17, fps=8.0, clips_per_film=4, tell=told.append, **options), told


def test_films_go_to_the_nearest_form_and_are_never_enlarged(films: Path) -> None:
    found, told = clips_of(films)
    names = {size: [clip.path.stem for clip in clips.train] for size, clips in found.items()}
    assert names == {(64, 64): ["a_wide", "d_wide", "g_wide"], (112, 64): ["b_tall", "b_tall"]}
    assert [clip.path.stem for clip in found[64, 64].held_out] == ["c_kept_out"]
    assert {clip.caption for clip in found[112, 64].train} == {"a tall noise"}
    assert [clip.caption for clip in found[64, 64].train] == [None] * 3
    starts = [clip.start_s for clip in found[112, 64].train]
    assert starts[0] == 0 and starts[1] == pytest.approx((40 - 17) / 8)
    assert len(told) == 2 and "e_small.mp4" in told[0] and "48x64, smaller than 64x64 and 112x64" in told[0]
    assert "is too short: 9 of 17 pictures" in told[1]


def test_views_are_parts_of_the_same_film_and_only_for_training(films: Path) -> None:
    found, _ = clips_of(films, views=4)
    wide, tall = found[64, 64], found[112, 64]
    assert (len(wide.train), len(wide.held_out), len(tall.train)) == (3 * 4, 1, 2 * 4)
    assert [clip.path for clip in wide.train] == sorted(clip.path for clip in wide.train)
    views = [clip.view for clip in wide.train]
    assert [view == View() for view in views] == 3 * [True, False, False, False]
    assert any(v.mirrored for v in views) and all(v.zoom == 1.0 for v in views), "64 pixels have no smaller part of 64"
    assert not any(clip.view.mirrored for clip in tall.train), "a caption may tell left from right"
    starts = {clip.start_s for clip in tall.train}
    assert len(starts) > 6 and max(starts) <= (40 - 17) / 8
    assert clips_of(films, views=4)[0] == found, "the same draws each time"
    assert clips_of(films, views=4, seed=1)[0] != found

    small, _ = clips_of(films, sizes=((32, 32),), views=20)
    clips = small[32, 32].train
    zooms = [clip.view.zoom for clip in clips]
    assert max(zooms) <= MOST_ZOOM and min(zooms) == 1.0 and len(set(zooms)) > 50


def test_a_view_shows_the_part_that_it_names(films: Path) -> None:
    path, wanted = films / "a_wide.mp4", (32, 32)
    whole = read_video(path, fps=8.0, num_frames=17, size=(64, 64)).frames
    seen = []
    for view in (View(2.0, 1.0, 0.0), View(2.0, 1.0, 0.0, mirrored=True)):
        clips = {wanted: FilmClips([FilmClip(path, 0.0, None, view)], [])}
        tokenizer = Brightness()
        tokenizer.encode = lambda video, t=tokenizer: (seen.append(video), Brightness.encode(t, video))[1]  # type: ignore
        film_groups(clips, tokenizer=tokenizer, num_frames=17, validation_rows=1, kept_clips=0)[0].read([0])
    assert seen[1][0].equal(whole[..., 32:, :32])
    assert seen[3][0].equal(whole[..., 32:, :32].flip(-1))


def test_a_folder_without_a_usable_film_is_refused(films: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no film of .* can be trained on; 7 were left out, such as .*smaller than 256x256"
    ):
        clips_of(films, sizes=((256, 256),))
    (tmp_path / "sound.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="holds no films"):
        clips_of(tmp_path)


def test_a_pair_is_the_clip_and_its_bicubic_half(films: Path) -> None:
    found, _ = clips_of(films)
    tokenizer = Brightness()
    options = {"tokenizer": tokenizer, "num_frames": 17, "validation_rows": 4}
    square, tall = film_groups(found, kept_clips=10, **options)
    assert (square.grid, tall.grid) == ((5, 8, 8), (5, 14, 8))
    assert (square.num_train, square.num_held_out, tall.num_held_out) == (3, 1, 0)
    assert (square.weight, tall.weight) == (3 / 5, 2 / 5)
    tall.expect([1])
    pairs = tall.read([1, 0, 1])
    assert tokenizer.calls == 4, "each clip is encoded once, large and small"
    assert pairs.high.shape == (3, 5, 14, 8) and pairs.low.shape == (3, 5, 7, 4)
    assert pairs.high[0].equal(pairs.high[2]) and pairs.captions == ["a tall noise"] * 3
    again = film_groups(found, kept_clips=0, **options)[1].read([1])
    assert again.high[0].equal(pairs.high[0]) and again.low[0].equal(pairs.low[0])
    assert square.read([3]).captions == ["a square noise"]

    seen: list[Tensor] = []
    tokenizer.encode = lambda video: (seen.append(video), Brightness.encode(tokenizer, video))[1]  # type: ignore
    film_groups(found, kept_clips=0, **options)[1].read([0])
    assert seen[0].shape[3:] == (56, 32) and seen[0].equal(half_size(seen[1]))


def test_a_film_that_breaks_is_replaced_by_the_next_one(capsys: pytest.CaptureFixture[str]) -> None:
    read: list[int] = []

    def pictures(row: int) -> Tensor:
        read.append(row)
        if row in (1, 2, 4):
            raise MediaError("film.mp4", "is damaged")
        return torch.full((3, 5, 16, 16), row / 10)

    group = TokenizedPairs(
        pictures,
        lambda row: f"film {row}",
        [],
        size=(16, 16),
        num_frames=5,
        tokenizer=Brightness(),
        num_train=4,
        num_held_out=1,
        weight=1.0,
        name="16x16",
        kept_clips=9,
    )
    assert group.read([0, 1, 3]).captions == ["film 0", "film 3", "film 3"]
    group.expect([1, 2])
    assert group.read([2, 1]).captions == ["film 3", "film 3"]
    assert read.count(1) == 1 and "left out: film.mp4" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no film of 16x16 can be read"):
        group.read([4])


def test_scenes_of_a_portrait_are_the_middle_of_a_square() -> None:
    sizes = ((16, 16), (32, 16))
    options = {"num_frames": 5, "seed": 0, "scenes": 3, "validation_rows": 2, "kept_clips": 0, "weight": 0.5}
    tokenizer = Brightness()
    square, tall = scene_groups(sizes, tokenizer=tokenizer, **options)
    assert (square.grid, tall.grid, square.weight, square.num_held_out) == ((2, 2, 2), (2, 4, 2), 0.25, 2)
    whole = render_video(ShapesCorpus(0, "train").scene(1), size=32, num_frames=5)
    pairs = tall.read([1])
    assert pairs.high[0].equal(tokenizer.encode(whole[None, ..., 8:24])[0, 0])
    assert pairs.captions == [ShapesCorpus(0, "train").scene(1).caption]
    assert tall.read([3]).captions == [ShapesCorpus(0, "heldout").scene(0).caption]
    assert {*pairs.captions, *tall.read([4]).captions} <= set(tall.captions())


def test_tokenizers_and_sizes_that_do_not_fit_are_refused() -> None:
    tokenizer = Brightness()
    assert pair_grid(tokenizer, 17, (448, 256)) == (5, 56, 32)
    with pytest.raises(ValueError, match=r"clips of 65x64 \(height x width\) have no half"):
        pair_grid(tokenizer, 17, (65, 64))
    with pytest.raises(ValueError, match=r"height \(36\)"):
        pair_grid(tokenizer, 17, (72, 64))
    tokenizer.num_codebooks = 2
    with pytest.raises(ValueError, match=r"one codebook and a \(t, h, w\) grid; Brightness has 2"):
        pair_grid(tokenizer, 17, (64, 64))
