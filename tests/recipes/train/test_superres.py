"""recipes/train/superres.py: it learns, logs, refuses what does not fit, and resumes exactly."""

import json
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import recipes.train.superres as recipe
from mmtok.media.video import write_film
from recipes.loop.learner import Optim
from recipes.runtime.device import choose_compute
from recipes.runtime.distributed import Ranks, join
from recipes.tokens.cache import TokenSet
from recipes.tokens.caption_vectors import CaptionVectors
from recipes.tokens.superres_pairs import CachedPairs
from recipes.train.superres import (
    PixelTrainConfig,
    SuperResData,
    SuperResTrainConfig,
    copy_accuracy,
    start_from,
    superres_config,
    train_superres,
)
from superres.model import SuperResTransformer

COMPUTE = choose_compute("cpu", "float32")
OPTIM = {field.name for field in fields(Optim)}
CAPTIONS = ["a red ball", "a blue box", "a green star"]


@pytest.fixture(autouse=True)
def no_curves(request, monkeypatch):
    """Drawing takes most of a short run's time; one test keeps it."""
    if "curves" not in request.node.name:
        monkeypatch.setattr(recipe.Run, "plot", lambda self: None)


class WordVectors:
    """A text encoder of six letters a text; counts how often it is asked."""

    dim, max_length = 16, 8

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked += texts
        letters = torch.tensor([[ord(c) % 16 for c in text[-6:]] for text in texts])
        return torch.nn.functional.one_hot(letters, 16).float(), torch.ones(letters.shape, dtype=torch.bool)


def make_tokens(count=12, grid=(2, 4, 4), seed=0):
    """High codes are the low code below, moved by a fixed pattern: learnable, and never a mere copy."""
    low = torch.randint(200, (count, *grid), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    high = low.repeat_interleave(2, 2).repeat_interleave(2, 3)
    high = high + torch.arange(4, dtype=torch.int32).view(2, 2).repeat(grid[1], grid[2]) * 13 + 1
    return TokenSet(low, [CAPTIONS[i % 3] for i in range(count)], high=high)


def make_config(**changes):
    values = {"size": "nano", "visual_codes": 256, "text_slots": 8, "steps": 6, "batch_size": 4, "log_every": 1}
    values |= {"validation_rows": 4, "validate_every": 3}
    optim = {name: changes.pop(name) for name in list(changes) if name in OPTIM}
    config = SuperResTrainConfig(**{**values, **changes})
    return replace(config, optim=replace(config.optim, **optim))


def cached(tokens, config, weight=1.0):
    group = CachedPairs(tokens, validation_rows=config.validation_rows, codebook_size=config.visual_codes)
    group.weight = weight
    return group


def run(folder, config, tokens=None, encoder=None, more=(), **options):
    encoder, tokens = encoder or WordVectors(), tokens or make_tokens()
    return train_superres(
        config,
        folder,
        groups=[cached(part, config) for part in (tokens, *more)],
        captions=CaptionVectors(tokens.captions, encoder, slots=config.text_slots),
        text_dim=encoder.dim,
        compute=COMPUTE,
        **options,
    )


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_writes_a_model_and_its_curves(tmp_path):
    encoder = WordVectors()
    model = SuperResTransformer.from_pretrained(run(tmp_path, make_config(), encoder=encoder))
    assert model.config.grid == (2, 8, 8) and model.config.factor_sizes == (16, 16) and model.config.text_dim == 16
    assert sorted(encoder.asked) == sorted(CAPTIONS), "every distinct caption is embedded once"
    assert (tmp_path / "curves.png").exists()
    lines = read_log(tmp_path)
    train = [line for line in lines if "train/loss" in line]
    val = [line for line in lines if "val/loss" in line]
    assert [line["step"] for line in train] == list(range(6)) and [line["step"] for line in val] == [2, 5]
    for name in ("train/accuracy", "train/accuracy_factor0", "train/accuracy_factor1", "perf/clips_per_s"):
        assert name in train[0]
    for name in ("val/accuracy_factor1", "val/first_step_accuracy", "val/copy_accuracy", "val/copy_accuracy_factor0"):
        assert name in val[0]


def test_the_loss_falls_well_below_that_of_guessing(tmp_path):
    run(tmp_path, make_config(steps=50, lr=1e-2, validate_every=50, drop_low=0.0, max_noise=0.0))
    losses = [line["train/loss"] for line in read_log(tmp_path) if "train/loss" in line]
    assert losses[0] == pytest.approx(2 * 2.7726, rel=0.02)  # two factors of 16
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0], losses


def test_resuming_equals_not_stopping(tmp_path, monkeypatch):
    config = make_config(ema=0.5)
    straight = run(tmp_path / "straight", config)

    loss, calls = recipe.batch_loss, []

    def stops(model, batch, config):
        calls.append(model.training and torch.is_grad_enabled())
        if sum(calls) == 5:
            raise KeyboardInterrupt
        return loss(model, batch, config)

    monkeypatch.setattr(recipe, "batch_loss", stops)
    monkeypatch.setattr(recipe.Run, "maybe_save", lambda self, step: self.save(step + 1))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", config)
    monkeypatch.setattr(recipe, "batch_loss", loss)
    resumed = run(tmp_path / "stopped", config)

    first, second = SuperResTransformer.from_pretrained(straight), SuperResTransformer.from_pretrained(resumed)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert a.equal(b), f"{name} differs after resuming"
    for a, b in zip(read_log(tmp_path / "straight"), read_log(tmp_path / "stopped"), strict=True):
        assert {k: v for k, v in a.items() if "perf" not in k} == {k: v for k, v in b.items() if "perf" not in k}


def weights(folder):
    return torch.cat([x.flatten() for x in SuperResTransformer.from_pretrained(folder).state_dict().values()])


def test_parts_of_a_batch_and_recomputed_layers_mean_the_same(tmp_path):
    config = make_config(visible_weight=0.5, steps=4, ema=0.0)
    whole = weights(run(tmp_path / "whole", config))
    parts = weights(run(tmp_path / "parts", replace(config, micro_batch=3, recompute=True)))
    moved = (whole - weights(run(tmp_path / "other", replace(config, max_noise=0.0)))).abs().mean()
    assert (whole - parts).abs().mean() < 0.02 * moved
    with_parts, alone = (read_log(tmp_path / name)[0]["train/loss"] for name in ("parts", "whole"))
    assert with_parts == pytest.approx(alone, rel=1e-5)


def test_compiled_layers_train_the_same(tmp_path, monkeypatch):
    config = make_config(steps=2, ema=0.0)
    plain = weights(run(tmp_path / "plain", config))
    inductor = SuperResTransformer.compile_layers
    monkeypatch.setattr(SuperResTransformer, "compile_layers", lambda self: inductor(self, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert weights(run(tmp_path / "compiled", replace(config, compiled=True))).equal(plain)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"]


# Two grids: a portrait in square windows, whose batches are twice as large.
TOGETHER = SuperResTrainConfig(
    size="nano", visual_codes=256, text_slots=8, steps=6, batch_size=4, validation_rows=4, validate_every=3, log_every=1
)
NARROW = {"grid": (2, 4, 2), "seed": 1}


def test_one_group_a_step_is_the_same_for_all_processes(tmp_path):
    groups = [cached(make_tokens(), TOGETHER, 0.25), cached(make_tokens(**NARROW), TOGETHER, 0.75)]
    options = {"codebook_size": 256, "device": torch.device("cpu")}
    alone, *pair = (
        SuperResData(groups, None, TOGETHER, ranks=ranks, **options) for ranks in (Ranks(), Ranks(0, 2), Ranks(1, 2))
    )
    assert alone.counts == [4, 8], "the smaller grid gets as many tokens"
    drawn = [[data.draw(step)[:2] for step in range(200)] for data in (alone, *pair)]
    for (number, rows), (first, even), (second, odd) in zip(*drawn, strict=True):
        assert number == first == second and rows[::2] == even and rows[1::2] == odd
    assert 0.65 < sum(number for number, _ in drawn[0]) / 200 < 0.85
    with pytest.raises(ValueError, match="a batch of 4 clips of cache cannot be shared by 3 processes"):
        SuperResData(groups, None, TOGETHER, ranks=Ranks(0, 3), **options)


def test_two_processes_are_one_with_the_whole_batch(two_processes, tmp_path):
    alone = run(tmp_path / "one", TOGETHER, more=[make_tokens(**NARROW)])
    two_processes(__file__, tmp_path / "two")
    one, two = weights(alone), weights(tmp_path / "two" / "model")
    start = run(tmp_path / "start", replace(TOGETHER, steps=1), more=[make_tokens(**NARROW)])
    moved, apart = (one - weights(start)).abs().mean(), (one - two).abs().mean()
    assert apart < 0.02 * moved, f"{apart:.2e} apart after moving {moved:.2e}"
    for a, b in zip(read_log(tmp_path / "one"), read_log(tmp_path / "two"), strict=True):
        for name in a:
            if name.startswith(("perf/", "train/accuracy")):  # shares of the hidden codes of each process
                continue
            assert b[name] == pytest.approx(a[name], rel=1e-2, abs=1e-4), (name, a["step"])
    assert {"val/loss", "val/loss cache"} <= read_log(tmp_path / "one")[-1].keys()


def test_training_without_text_leaves_the_text_weights_alone(tmp_path):
    config = make_config(steps=3, weight_decay=0.0)
    options = {"captions": None, "text_dim": None, "compute": COMPUTE}
    folder = train_superres(config, tmp_path, groups=[cached(make_tokens(), config)], **options)
    model = SuperResTransformer.from_pretrained(folder)
    torch.manual_seed(0)
    assert model.text_proj.weight.equal(SuperResTransformer(model.config).text_proj.weight)
    assert model.config.text_dim == 16, "the preset's"


def test_training_goes_on_from_weights_of_another_grid(tmp_path):
    first = run(tmp_path / "small", make_config(steps=2))
    start = SuperResTransformer.from_pretrained(first)
    told = {}

    def remember(self, step, values):
        told.setdefault(step, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe.Run, "log", remember)
        large = make_config(steps=1, batch_size=2)
        folder = run(tmp_path / "large", large, make_tokens(grid=(2, 8, 8)), start=start)
    assert SuperResTransformer.from_pretrained(folder).config.grid == (2, 16, 16)
    wanted = superres_config(make_config(), [(2, 16, 16)], 16)
    assert start_from(start, wanted, text_dim=16).heads[0].weight.equal(start.heads[0].weight)
    with pytest.raises(ValueError, match=r"speak 256 codes \(factors \(16, 16\)\), the tokenizer has 4096"):
        start_from(start, superres_config(make_config(visual_codes=4096), [(2, 16, 16)], 16), text_dim=16)
    with pytest.raises(ValueError, match="read text vectors of width 16, the text encoder gives 8"):
        start_from(start, wanted, text_dim=8)


def test_grids_that_one_model_cannot_take_are_refused():
    assert superres_config(make_config(), [(5, 32, 32), (5, 56, 32)], 16).grid == (5, 56, 32)
    with pytest.raises(
        ValueError, match=r"one model cannot take grids of \(5, 56, 32\) and \(5, 28, 18\) tokens: .*tile"
    ):
        superres_config(make_config(), [(5, 56, 32), (5, 28, 18)], 16)
    with pytest.raises(ValueError, match=r"codebook_size \(251\) is not a product"):
        superres_config(make_config(visual_codes=251), [(5, 32, 32)], 16)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 0, "batch_size": 0}, "steps must be at least 1, got 0; batch_size must be at least 1, got 0"),
        ({"micro_batch": 0}, "micro_batch must be at least 1"),
        ({"max_noise": 1.5, "drop_low": -0.1}, r"max_noise must lie in \[0, 1\], got 1.5; drop_low must lie"),
        ({"validation_rows": -1}, "validation_rows must not be negative"),
        ({"sizes": ()}, "sizes must name at least one"),
        ({"sizes": ((64, 64), (64, 64))}, "none twice"),
        ({"sizes": ((0, 64),)}, "sizes must be positive"),
        ({"scenes_share": 2.0}, "scenes_share must lie"),
        ({"clips_per_film": 0}, "clips_per_film, views and scenes must be positive"),
        ({"views": 0}, "views and scenes must be positive"),
    ],
)
def test_numbers_that_cannot_train_are_named(changes, told):
    with pytest.raises(ValueError, match=told):
        PixelTrainConfig(**changes)


def test_the_command_trains_on_films_and_scenes_and_resumes(cinepoet, bundle, tmp_path, monkeypatch):
    films = tmp_path / "films"
    films.mkdir()
    for number, (height, width) in enumerate(((64, 80), (112, 64), (64, 64), (40, 64))):
        noise = torch.rand(3, 18, height // 8, width // 8, generator=torch.Generator().manual_seed(number)) * 2 - 1
        write_film(films / f"{number}.mp4", noise.repeat_interleave(8, 2).repeat_interleave(8, 3), fps=8.0)
    (films / "1.txt").write_text("a tall noise")
    numbers = ["size=nano", "sizes=[[64,64],[112,64]]", "steps=3", "batch_size=2", "log_every=1", "scenes=2"]
    words = ["train", "superres", "--media", films, "--tokenizer", bundle, "--text", bundle / "text", "--device", "cpu"]
    words += [*numbers, "scenes_share=0.4", "validation_rows=1", "text_slots=40", "optim.warmup_steps=1"]
    code, told, fault = cinepoet(*words, "--out", tmp_path / "whole")
    assert code == 0, fault
    assert "3.mp4: is 40x64, smaller than 64x64 and 112x64" in told
    assert "64x64: 1 clips of (5, 8, 8) tokens, 1 held out" in told and "112x64: 1 clips of (5, 14, 8)" in told
    assert "scenes 112x64: 2 clips" in told and "ready; its curves" in told
    model = SuperResTransformer.from_pretrained(tmp_path / "whole" / "model")
    assert model.config.grid == (5, 14, 8) and model.config.factor_sizes == (8, 8)
    assert "1.mp4 0 a tall noise" in (tmp_path / "whole" / "data.txt").read_text()

    save = recipe.Run.save  # killed behind its second step

    def interrupted(self, step):
        if step == 1:
            save(self, step + 1)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recipe.Run, "maybe_save", interrupted)
        assert cinepoet(*words, "--out", tmp_path / "killed")[0] == 130
    assert cinepoet(*words, "--out", tmp_path / "killed")[0] == 0
    assert weights(tmp_path / "killed" / "model").equal(weights(tmp_path / "whole" / "model"))


def test_the_command_refuses_what_cannot_train_in_one_line(cinepoet, bundle, tmp_path):
    def refused(*words):
        code, _, fault = cinepoet("train", "superres", "--tokenizer", bundle, "--out", tmp_path / "run", *words)
        assert code == 2 and fault.count("\n") == 1, fault
        return fault

    (tmp_path / "empty").mkdir()
    assert "holds no clips or sounds" in refused("--media", tmp_path / "empty")
    assert "unknown option --data; cinepoet train lm has it" in refused("--data", tmp_path)
    assert "unknown option --stages; cinepoet train tiny" in refused("--stages", "lm")
    assert "--captions goes with the films of --media" in refused("--captions", "x.csv")
    assert "scenes_share is 1.0" in refused("--media", tmp_path / "empty", "scenes_share=1.0")
    assert "height (60) and width (60) must be positive multiples" in refused("sizes=[[60,60]]")
    assert "no windows are known for the grid (5, 130, 8)" in refused("sizes=[[1040,64]]")
    assert "one model cannot take grids" in refused("sizes=[[64,64],[112,96]]")
    assert "speak 4096 codes (factors (64, 64)), the tokenizer has 64" in refused("--init", "tiny")
    assert "unknown super-resolution size 'huge'; known: nano, tiny, sr1-1b, sr2-500m" in refused("size=huge")
    assert "did you mean scenes_share" in refused("scene_share=0.5")
    assert not (tmp_path / "run").exists()


def test_held_out_rows_are_never_trained_on(tmp_path):
    tokens = make_tokens()
    spoiled = make_tokens()
    spoiled.high[-4:] = 255 - spoiled.high[-4:]
    first, second = run(tmp_path / "a", make_config(), tokens), run(tmp_path / "b", make_config(), spoiled)
    a, b = (SuperResTransformer.from_pretrained(path).state_dict() for path in (first, second))
    assert all(a[name].equal(b[name]) for name in a)
    val_a, val_b = ([x["val/loss"] for x in read_log(tmp_path / f) if "val/loss" in x] for f in "ab")
    assert val_a != val_b


def test_copy_baseline_takes_the_code_below():
    low = torch.tensor([[[[1, 18]]]])
    high = torch.tensor([[[[1, 1, 18, 2], [17, 1, 18, 19]]]])
    told = copy_accuracy(low, high, (16, 16))
    assert [float(told[f"val/copy_accuracy{name}"]) for name in ("_factor0", "_factor1", "")] == [7 / 8, 6 / 8, 5 / 8]


def test_sizes_of_the_preset_can_be_replaced():
    config = superres_config(make_config(dim=48, num_heads=3, num_blocks=2, hidden_dim=96), [(2, 8, 8)], 16)
    assert (config.dim, config.num_heads, config.num_blocks, config.hidden_dim) == (48, 3, 2, 96)


def test_caches_that_do_not_fit_raise(tmp_path):
    tokens = make_tokens()
    with pytest.raises(ValueError, match="no high-resolution codes; encode the corpus with upscale=true"):
        run(tmp_path, make_config(), TokenSet(tokens.low, tokens.captions))
    with pytest.raises(ValueError, match="visual_codes is 16"):
        run(tmp_path, make_config(visual_codes=16))
    with pytest.raises(ValueError, match="not half as high and wide"):
        run(tmp_path, make_config(), TokenSet(tokens.high, tokens.captions, high=tokens.high))
    with pytest.raises(ValueError, match=r"validation_rows \(12\) must be less than the 12 rows"):
        run(tmp_path, make_config(validation_rows=12))


if __name__ == "__main__":  # one of the two processes
    torch.set_num_threads(1)
    recipe.Run.plot = lambda self: None
    run(Path(sys.argv[1]), TOGETHER, more=[make_tokens(**NARROW)], ranks=join(torch.device("cpu")))
    torch.distributed.destroy_process_group()
