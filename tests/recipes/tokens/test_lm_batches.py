"""recipes/tokens/lm_batches.py and cinepoet train lm: shards become pools, and a command trains on them."""

import json
import shutil

import pytest
import torch

from llm.batching import empty_places, make_groups, padding_elsewhere
from llm.model import PrefixLM
from mmtok.text.embedding_cache import caption_hash
from mmtok.vocabulary import Vocabulary
from recipes.bundle.folder import open_bundle
from recipes.loop.run import Run
from recipes.tokens.lm_batches import shard_data
from recipes.tokens.reader import TokenShards
from recipes.tokens.shards import ShardInfo, write_shard

VOCABULARY = Vocabulary(50, 2, 10)
INFO = ShardInfo(
    visual={"family": "toy", "codebook_size": 50, "weights": "a"},
    audio={"family": "toy", "codebook_size": 10, "num_codebooks": 2, "weights": "b"},
    vocabulary=VOCABULARY,
    conditions={"inpaint_central": {}, "structure": {}},
    shards=1,
)
LONG, PORTRAIT, STILL = (4, 2, 2), (2, 3, 2), (1, 2, 2)


def make_row(number, *, grid=(2, 2, 2), frames=3, caption="a film", split="train", collection=None, conditions=()):
    tokens = grid[0] * grid[1] * grid[2]
    return {
        "key": str(number),
        "source": f"{number}.mp4",
        "source_hash": str(number),
        "collection": collection,
        "split": split,
        "start_s": 0.0,
        "caption": caption,
        "caption_key": None if caption is None else caption_hash(caption),
        "grid": list(grid),
        "visual": [number] * tokens,
        "audio_frames": frames,
        "audio": [number % 10] * (2 * frames) if frames else None,
        **{f"condition_{name}": [number + 1] * tokens for name in conditions},
    }


@pytest.fixture
def shards(tmp_path):
    rows = [
        make_row(0, conditions=("inpaint_central", "structure"), collection="good"),
        make_row(1, conditions=("inpaint_central", "structure"), collection="poor"),
        make_row(2, conditions=("inpaint_central", "structure"), split="validation", collection="good"),
        make_row(3, caption=None),
        make_row(4, grid=LONG),
        make_row(5, grid=PORTRAIT, frames=0),
        make_row(6, grid=STILL, frames=0, caption="a picture"),
    ]
    INFO.write(tmp_path / "data")
    write_shard(tmp_path / "data", 0, rows, conditions=INFO.conditions)
    return TokenShards.open(tmp_path / "data", cache_dir=tmp_path / "cache")


def test_each_shape_source_and_set_of_conditions_is_a_pool(shards):
    data = shard_data(shards, sources=("good", "poor"))
    found = {(p.clip.grid, p.captioned, p.source): p for p in data.pools}
    assert len(found) == len(data.pools) == 6
    assert found[(2, 2, 2), True, 0].conditions == ("inpaint_central", "structure")
    assert (found[LONG, True, None].duration, found[LONG, True, None].resolution) == (0, None)
    assert (found[PORTRAIT, True, None].duration, found[PORTRAIT, True, None].resolution) == (None, 0)
    assert (found[STILL, True, None].duration, found[STILL, True, None].resolution) == (None, None)
    good = data.pools.index(found[(2, 2, 2), True, 0])
    assert (data.train[good].tolist(), data.held_out[good].tolist()) == ([0], [2])
    clips = data.read(torch.tensor([1, 0]), "structure")
    assert clips.visual[:, 0, 0, 0, 0].tolist() == [1, 0] and clips.conditions["structure"][:, 0, 0, 0, 0].tolist() == [
        2,
        1,
    ]
    assert clips.captions == ["a film", "a film"]
    assert data.max_grid == (4, 3, 2) and data.max_audio_frames == 3 and data.captions == ["a film", "a picture"]
    assert {p.source for p in shard_data(shards).pools} == {None}
    with pytest.raises(ValueError, match=r"clips of 3 x 2 tokens, the model's sizes are \[\(2, 2\)\]"):
        shard_data(shards, sizes=[(2, 2)])
    with pytest.raises(ValueError, match=r"clips of 4 slices, the model's durations are \[2\]"):
        shard_data(shards, durations=[2])


def test_a_task_draws_from_the_pools_that_can_serve_it(shards):
    data = shard_data(shards, sources=("good", "poor"))
    weights = {
        "inpaint": 0.2,
        "stylize_from_image": 0.2,
        "video_to_audio": 0.2,
        "text_to_image": 0.2,
        "continue_av": 0.2,
    }
    groups = make_groups(weights, VOCABULARY, data.pools, text_slots=4, source_dropout=0.1)
    for group in groups:
        pool = data.pools[group.pool]
        assert group.condition in (None, *pool.conditions)
        assert (group.task in ("inpaint", "stylize_from_image")) == (group.condition is not None)
        assert pool.clip.audio_frames or group.task in ("inpaint", "stylize_from_image", "text_to_image")
        told = group.layout.find("<source>") is not None
        assert told <= (pool.source is not None)
    for task in weights:
        assert sum(g.weight for g in groups if g.task == task) == pytest.approx(0.2)
    images = {data.pools[g.pool].clip.grid for g in groups if g.task == "text_to_image"}
    assert images == {(2, 2, 2), LONG, PORTRAIT, STILL}  # the first picture of any captioned clip
    untold = sum(g.weight for g in groups if g.task == "inpaint" and g.layout.find("<source>") is None)
    assert untold == pytest.approx(0.02)
    with pytest.raises(ValueError, match="outpaint needs a clip with a condition named outpaint"):
        make_groups({"outpaint": 1.0}, VOCABULARY, data.pools, text_slots=4)


def test_padding_of_other_ways_of_batching():
    from llm.tasks import Clip

    groups = make_groups({"text_to_video": 0.5, "text_to_image": 0.5}, VOCABULARY, Clip((4, 4, 4), 5), text_slots=4)
    long, short = (g.layout.length for g in groups)
    shares = torch.tensor([0.5, 0.5], dtype=torch.float64)
    found = padding_elsewhere(groups, shares, tokens_per_step=4 * long, generator=torch.Generator().manual_seed(0))
    assert 0 < found.packed < found.naive < 1 - short / long
    alone = padding_elsewhere(groups[:1], shares[:1], tokens_per_step=400, generator=torch.Generator().manual_seed(0))
    assert (alone.packed, alone.naive) == (0, 0)


def test_empty_places_are_counted_where_codes_are_delayed():
    from llm.batching import Batch
    from llm.tasks import Clip, task_layout

    for order, empty in (("level", 0), ("delay", 2)):  # two levels: one place behind the first, one before the second
        layout = task_layout("text_to_video", VOCABULARY, Clip((1, 2, 2), 3), text_slots=4, audio_order=order)
        codes = {"visual_out": torch.ones(2, 1, 1, 2, 2).long(), "audio_out": torch.ones(2, 2, 3).long()}
        ids, _ = layout.fill(codes, 2)
        mask = torch.tensor([[True, True, False, False], [True] * 4])
        assert empty_places(Batch(layout, ids, torch.zeros(2, 4, 3), mask)) == (2, 2 * empty)


def test_the_command_trains_goes_on_and_refuses(cinepoet, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(Run, "plot", lambda self: None)
    data = tmp_path / "tokens"
    words = (
        "--tokenizer",
        bundle,
        "--device",
        "cpu",
        "--conditions",
        "inpaint_central,outpaint_central",
        "--scenes",
        10,
    )
    code, _, notes = cinepoet("prepare", "shapes", *words, "--out", data)
    assert code == 0, notes
    small = (
        "size=tiny",
        "steps=3",
        "text_slots=16",
        "tokens_per_step=900",
        "optim.ema=0",
        "validation_rows=1",
        "log_every=1",
    )
    tasks = ("task_weights={text_to_video: 0.5, inpaint: 0.25, outpaint: 0.25}", "context_dropout=0")
    train = ("train", "lm", *small, *tasks, "--data", data, "--tokenizer", bundle, "--device", "cpu")
    code, shown, notes = cinepoet(*train, "--out", tmp_path / "lm")
    assert code == 0, notes
    assert "inpaint_central" in shown and "padding of this mixture" in shown
    model = PrefixLM.from_pretrained(tmp_path / "lm" / "model")
    assert model.config.text_slots == 16
    config = open_bundle(bundle).config
    clips = {"pictures": [[config.size] * 2], "num_frames": [config.num_frames]}
    assert json.loads((tmp_path / "lm" / "clips.json").read_text()) == clips
    log = [json.loads(line) for line in (tmp_path / "lm" / "log.jsonl").read_text().splitlines()]
    assert [line["perf/padding"] for line in log if "perf/padding" in line] == [0, 0, 0]
    code, _, notes = cinepoet(*train, "text_slots=2", "steps=1", "--out", tmp_path / "cut")
    assert code == 0 and "captions are longer than 2 tokens; their ends are left out" in notes
    code, _, notes = cinepoet(*train, "--init", tmp_path / "lm" / "model", "--out", tmp_path / "adapted")
    assert code == 0, notes

    words = ("embed", data, "--text", bundle / "text", "--out", tmp_path / "vectors", "--max-length", 16)
    code, _, notes = cinepoet(*words)
    assert code == 0, notes
    assert cinepoet("convert", tmp_path / "lm" / "model", "--to", "qwen3", "--out", tmp_path / "qwen3")[0] == 0
    shutil.rmtree(tmp_path / "qwen3" / "cinepoet")  # what is left is a text model to the trainer
    more = (
        "--text",
        tmp_path / "vectors",
        "--init",
        tmp_path / "qwen3",
        "steps=1",
        "optim.lr=0",
        "--out",
        tmp_path / "warm",
    )
    code, _, notes = cinepoet(*train, *more)
    assert code == 0, notes
    warm = PrefixLM.from_pretrained(tmp_path / "warm" / "model").state_dict()
    for name, weight in model.state_dict().items():
        if ".layers." in name:
            assert torch.equal(warm[name], weight), name

    def encode(*_):
        raise AssertionError("captions are read before everything else is known to be right")

    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("recipes.tokens.caption_vectors.caption_lookup", encode)
    for more, message in (
        (("--media", tmp_path), "unknown option --media; cinepoet train tiny"),
        (("task_weights.stylize=1", "--out", tmp_path / "x"), "stylize needs a clip with a condition named structure"),
        (("--init", tmp_path / "empty", "--out", tmp_path / "x"), "no config.json, so it is not a model folder"),
        (("image_share=[0.9,0.1]", "--out", tmp_path / "x"), "image_share needs at least one image task"),
    ):
        code, _, notes = cinepoet(*train, *more)
        assert code == 2 and message in notes, (more, notes)
    assert not (tmp_path / "x").exists()
    monkeypatch.undo()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for more, message in (
        (("size=300m", "--init", tmp_path / "lm" / "model", "--out", tmp_path / "x"), "is of another size"),
        (("seed=1", "--out", tmp_path / "lm"), "holds a run with another config"),
    ):
        code, _, notes = cinepoet(*train, *more)
        assert code == 2 and message in notes, (more, notes)
    code, _, notes = cinepoet("train", "lm", "--data", data, "--tokenizer", "tiny", "--device", "cpu")
    assert code == 2 and "were made with another tokenizer" in notes
    code, _, notes = cinepoet("train", "lm", "--device", "cpu")
    assert code == 2 and "--data FOLDER" in notes
    code, _, notes = cinepoet("train", "smoke", "--data", data)
    assert code == 2 and "unknown option --data; cinepoet train lm has it" in notes
