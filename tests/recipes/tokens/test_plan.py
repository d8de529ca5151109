"""recipes/tokens/plan.py: windows, splits and shards, decided by content and seed alone."""

import itertools

import pytest

from recipes.corpora.captioned import Film
from recipes.tokens.plan import (
    ClipPlan,
    CorpusPlan,
    PrepareConfig,
    SourcePlan,
    _number_shards,
    _splits,
    _starts,
    frame_size,
)

FILM = Film("a.mp4", {"file": "a.mp4", "suffix": ".mp4"})


@pytest.mark.parametrize("pictures", [17, 18, 33, 34, 60, 200])
@pytest.mark.parametrize("most", [1, 3, 4, None])
def test_windows_lie_in_the_film_and_never_overlap(pictures, most):
    config = PrepareConfig("x", clips_per_file=most, seed=3)
    starts = _starts(FILM, "digest", 17, pictures, config, 8.0)
    places = [start * 8 for start in starts]
    assert len(starts) == (pictures // 17 if most is None else min(most, pictures // 17))
    assert all(place == int(place) for place in places)  # on a picture of the clock
    assert places[0] >= 0 and places[-1] + 17 <= pictures
    assert all(after - before >= 17 for before, after in itertools.pairwise(places))
    assert starts == _starts(FILM, "digest", 17, pictures, config, 8.0)


def test_windows_follow_seed_and_content():
    drawn = {
        (seed, digest): tuple(_starts(FILM, digest, 17, 400, PrepareConfig("x", seed=seed), 8.0))
        for seed in (0, 1)
        for digest in ("a", "b")
    }
    assert len(set(drawn.values())) == 4


def test_short_films_and_listed_starts():
    config = PrepareConfig("x")
    assert _starts(FILM, "d", 17, 16, config, 8.0) == []
    assert _starts(FILM, "d", 17, None, config, 8.0) == [0.0]
    listed = Film("a.mp4", {}, start_s=1.3)
    assert _starts(listed, "d", 17, 28, config, 8.0) == [1.3]
    assert _starts(listed, "d", 17, 27, config, 8.0) == []


def test_splits_follow_content_only_and_copies_stay_together():
    films = [(Film(f"{i % 3}/{i}.mp4", {}), f"hash{i // 2}") for i in range(200)]
    notes = []
    splits = _splits(films, PrepareConfig("x", validation=0.2, seed=1), notes)
    again = _splits(films[::-1], PrepareConfig("y", validation=0.2, seed=2), notes)
    assert splits == again[::-1] and not notes
    assert all(splits[i] == splits[i + 1] for i in range(0, 200, 2))
    assert 8 < splits.count("validation") < 60
    by_folder = _splits(films, PrepareConfig("x", validation=0.5, split_by="folder"), notes)
    assert all(len({by_folder[i] for i in range(k, 200, 3)}) == 1 for k in range(3))
    few = _splits(films[:4], PrepareConfig("x", validation=0.001), notes)
    assert few.count("validation") == 2 and "so one was taken" in notes[-1]
    listed = [(Film("a", {}, split="validation"), "x"), (Film("b", {}), "y")]
    assert _splits(listed, PrepareConfig("x", validation=0.0), notes) == ["validation", "train"]


def film(number, clips):
    clip = ClipPlan(0.0, 17, 8, 8, 0)
    return SourcePlan(f"{number}.mp4", {"file": "f"}, ("a",), f"h{number}", 7, "train", None, None, 0, (clip,) * clips)


def test_shards_hold_whole_films():
    numbered = _number_shards([film(i, n) for i, n in enumerate((3, 3, 9, 1, 2))], 5)
    assert [f.shard for f in numbered] == [0, 1, 2, 3, 3]


def test_a_plan_is_read_back_and_a_changed_one_refused(tmp_path):
    plan = CorpusPlan([film(0, 2), film(1, 1)], [{"source": "x", "reason": "y"}])
    digest = plan.write(tmp_path)
    again = CorpusPlan.read(tmp_path, digest)
    assert again.films == plan.films and again.quarantined == plan.quarantined and again.shards == 1
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(ValueError, match="was changed since the work began"):
        CorpusPlan.read(tmp_path, digest)


def test_sizes_are_those_of_the_paper():
    assert frame_size("portrait", 128, (4, 8, 8)) == (224, 128)
    assert frame_size("square", 128, (4, 8, 8)) == (128, 128)
    assert frame_size("portrait", 64, (4, 8, 8)) == (112, 64)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"aspects": ("wide",)}, "unknown aspect 'wide'; known: square, portrait, auto"),
        ({"conditions": ("flow",)}, "unknown condition 'flow'; known: structure"),
        ({"conditions": ("structure", "structure")}, "conditions names one twice"),
        ({"num_frames": (17, 17)}, "num_frames must be different positive lengths"),
        ({"aspects": ()}, "no aspect is given"),
        ({"validation": 1.0}, r"validation must lie in \[0, 1\), got 1.0"),
        ({"split_by": "day"}, "unknown split_by 'day'"),
        ({"source": "shapes", "aspects": ("portrait",)}, "scenes of shapes are square"),
        ({"source": "shapes", "captions": "a.csv", "skip_dull": True}, "captions, skip_dull: of films only"),
    ],
)
def test_bad_options(values, message):
    with pytest.raises(ValueError, match=message):
        PrepareConfig(**{"source": "x", **values})
