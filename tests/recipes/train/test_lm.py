"""recipes/train/lm.py: it learns, logs each task, keeps held-out rows out, and resumes exactly."""

import json
import math
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
import torch

import recipes.train.lm as recipe
from llm.batching import fit_text
from llm.config import PRESETS
from llm.generate import generate
from llm.model import PrefixLM
from llm.tasks import Clip, task_layout
from mmtok.audio.orders import ORDERS
from mmtok.audio.soundstream import SoundStream, SoundStreamParams
from recipes.loop.learner import Learner, Optim
from recipes.runtime.device import choose_compute
from recipes.runtime.distributed import ALONE, Ranks, join
from recipes.tokens.cache import TokenSet
from recipes.tokens.caption_vectors import CaptionVectors
from recipes.tokens.lm_batches import cached_data
from recipes.train.lm import LMTrainConfig, lm_care, lm_config, train_lm

COMPUTE = choose_compute("cpu", "float32")
CAPTIONS = ["a red ball", "a blue box", "a green star falls"]
OPTIM = {field.name for field in fields(Optim)}
SMALL = {"dim": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8, "hidden_dim": 24}


class WordVectors:
    """A text encoder without weights: a fixed random vector for each word."""

    dim, max_length = 8, 6

    def __init__(self):
        self.calls: list[str] = []

    def encode(self, texts):
        self.calls += texts
        vectors, mask = torch.zeros(len(texts), 6, 8), torch.zeros(len(texts), 6, dtype=torch.bool)
        for row, text in enumerate(texts):
            for place, word in enumerate(text.split()):
                seed = sum(ord(letter) * 31**i for i, letter in enumerate(word)) % 1000
                vectors[row, place] = torch.randn(8, generator=torch.Generator().manual_seed(seed))
                mask[row, place] = True
        return vectors, mask


def make_tokens(rows=15, silent=False):
    """Each caption has its own constant colour and pitch, so that there is something to learn."""
    caption = torch.arange(rows) % 3
    low = (caption * 10)[:, None, None, None].expand(rows, 3, 2, 2).to(torch.int32).clone()
    levels = (caption * 3)[:, None] + torch.arange(2)  # so that levels cannot be mistaken for each other
    audio = None if silent else levels[:, :, None].expand(rows, 2, 4).to(torch.int32).clone()
    return TokenSet(low, [CAPTIONS[int(c)] for c in caption], None, audio)


def make_config(**changes):
    defaults = {
        "visual_codes": 32,
        "audio_codes": 11,
        "text_slots": 5,
        "steps": 8,
        "tokens_per_step": 200,
        "validation_rows": 3,
        "validate_every": 4,
        "log_every": 1,
    }
    optim = {"warmup_steps": 2} | {name: changes.pop(name) for name in list(changes) if name in OPTIM}
    config = LMTrainConfig(**{**defaults, **changes})
    return replace(config, optim=replace(config.optim, **optim))


@pytest.fixture(autouse=True)
def small_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", {**PRESETS["tiny"], **SMALL})
    monkeypatch.setattr(recipe.Run, "plot", lambda self: None)  # drawing curves takes longer than training here


def make_data(tokens=None, config=None):
    config = config if config is not None else make_config()
    return cached_data(tokens if tokens is not None else make_tokens(), validation_rows=config.validation_rows)


def run(folder, config, tokens=None, **options):
    data = make_data(tokens, config)
    captions = CaptionVectors(data.captions, WordVectors(), slots=config.text_slots)
    return train_lm(config, folder, data=data, captions=captions, text_dim=8, compute=COMPUTE, **options)


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_sizes_come_from_the_cache_and_the_encoder():
    config = lm_config(make_config(), make_data(), 8)
    assert (config.max_grid, config.max_audio_frames, config.audio_levels) == ((3, 2, 2), 4, 2)
    assert (config.visual_codes, config.audio_codes, config.text_dim, config.text_slots) == (32, 11, 8, 5)
    silent = lm_config(make_config(), make_data(make_tokens(silent=True)), 8)
    assert (silent.audio_levels, silent.audio_codes, silent.max_audio_frames) == (0, 0, 0)


def test_captions_decide_what_is_written_after_training(tmp_path):
    weights = {"text_to_video": 1.0}
    path = run(tmp_path, make_config(steps=50, lr=2e-2, task_weights=weights, text_dropout=0.0, validate_every=50))
    last = read_log(tmp_path)[-1]
    assert last["val/visual_accuracy"] > 0.95
    assert last["val/audio_accuracy"] > 0.95
    assert last["val/loss_text_to_video"] < 0.3
    assert PrefixLM.from_pretrained(path).config.text_slots == 5


@pytest.mark.parametrize("order", ORDERS)
def test_each_order_of_audio_codes_is_trained_by_one_key_then_generated_and_decoded(tmp_path, order):
    weights = {"text_to_video": 0.5, "audio_to_video": 0.2, "video_to_audio": 0.3}
    config = make_config(
        steps=80, lr=2e-2, task_weights=weights, text_dropout=0.0, validate_every=80, audio_order=order
    )
    model = PrefixLM.from_pretrained(run(tmp_path, config))
    assert model.config.audio_order == order
    assert read_log(tmp_path)[-1]["val/audio_accuracy"] > 0.95

    clip = Clip((3, 2, 2), 4)
    layout = task_layout("text_to_video", model.vocabulary, clip, text_slots=5, audio_order=model.config.audio_order)
    ids, known = layout.fill({}, len(CAPTIONS))
    text, mask = fit_text(*WordVectors().encode(CAPTIONS), 5)
    ids = generate(model, layout, ids, known, text=text, text_mask=mask, temperature=0.0)
    codes = layout.read(ids, "audio_out")
    assert codes.tolist() == make_tokens(3).audio.tolist()

    sizes = {"encoder_channels": 1, "decoder_channels": 1, "dim": 2, "num_codebooks": 2, "codebook_size": 11}
    sound = SoundStream(SoundStreamParams(sample_rate=16000, **sizes)).eval().decode(codes, num_samples=4 * 320 + 7)
    assert sound.shape == (3, 1, 1287) and sound.isfinite().all()


def test_every_task_is_trained_and_logged_by_name(tmp_path):
    run(tmp_path, make_config(steps=40, validate_every=40, log_every=1))
    log = read_log(tmp_path)
    for task in LMTrainConfig().task_weights:
        assert any(f"train/loss_{task}" in line for line in log), task
        assert math.isfinite(log[-1][f"val/loss_{task}"]), task
    assert all(line["perf/tokens_per_s"] > 0 for line in log if "perf/tokens_per_s" in line)


def test_silent_clips_train_the_tasks_without_sound(tmp_path):
    weights = {"text_to_video": 1.0, "text_to_image": 1.0}
    run(tmp_path / "a", make_config(task_weights=weights, image_share=(0.9, 0.1)), make_tokens(silent=True))
    assert "val/audio_loss" not in read_log(tmp_path / "a")[-1]
    with pytest.raises(ValueError, match="video_to_audio needs a clip with sound"):
        run(tmp_path / "b", make_config(), make_tokens(silent=True))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resuming_equals_not_stopping(tmp_path, monkeypatch, optimizer):
    config = make_config(ema=0.5, optimizer=optimizer, context_dropout=0.5, first_slice_weight=2.0)
    straight = run(tmp_path / "straight", config)

    loss, calls = recipe.prefix_lm_loss, []

    def stops(model, batch, **options):
        calls.append(torch.is_grad_enabled())
        if sum(calls) == 6:
            raise KeyboardInterrupt
        return loss(model, batch, **options)

    monkeypatch.setattr(recipe, "prefix_lm_loss", stops)
    monkeypatch.setattr(recipe.Run, "maybe_save", lambda self, step: self.save(step + 1))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", config)
    monkeypatch.setattr(recipe, "prefix_lm_loss", loss)
    resumed = run(tmp_path / "stopped", config)

    first, second = (PrefixLM.from_pretrained(path).state_dict() for path in (straight, resumed))
    assert all(first[name].equal(second[name]) for name in first)
    for a, b in zip(read_log(tmp_path / "straight"), read_log(tmp_path / "stopped"), strict=True):
        assert {k: v for k, v in a.items() if "perf" not in k} == {k: v for k, v in b.items() if "perf" not in k}


def test_held_out_rows_are_never_trained_on(tmp_path):
    spoiled = make_tokens()
    spoiled.low[-3:] = 31 - spoiled.low[-3:]
    first, second = run(tmp_path / "a", make_config()), run(tmp_path / "b", make_config(), spoiled)
    a, b = (PrefixLM.from_pretrained(path).state_dict() for path in (first, second))
    assert all(a[name].equal(b[name]) for name in a)
    val_a, val_b = ([x["val/loss"] for x in read_log(tmp_path / f) if "val/loss" in x] for f in "ab")
    assert val_a != val_b


def test_dropped_captions_are_hidden_from_attention(tmp_path):
    data = make_data()
    config = make_config(tokens_per_step=50_000)
    model_config = lm_config(config, data, 8)
    groups = recipe.make_groups({"text_to_video": 1.0}, model_config.vocabulary, Clip((3, 2, 2), 4), text_slots=5)
    captions = CaptionVectors(data.captions, WordVectors(), slots=5)
    (batch,) = recipe.draw_batch(
        groups[0],
        0,
        config=config,
        data=data,
        captions=captions,
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
    )
    hidden = (~batch.text_mask.any(1)).float().mean()
    assert len(batch.ids) > 1400
    assert 0.08 < hidden < 0.12
    assert batch.text_mask[batch.text_mask.any(1)].sum(1).unique().tolist() == [3, 4]


def test_captions_are_embedded_once_and_come_back_in_their_rows():
    encoder = WordVectors()
    captions = CaptionVectors(["a red ball", "a blue box", "a red ball"], encoder, slots=5, batch_size=1)
    assert encoder.calls == ["a red ball", "a blue box"]
    vectors, mask = captions(["a blue box", None, "a red ball"])
    expected, _ = encoder.encode(["a blue box", "a red ball"])
    torch.testing.assert_close(vectors[::2, :3], expected[:, :3], atol=0.02, rtol=0.01)  # kept in bfloat16
    assert mask.tolist() == [[True] * 3 + [False] * 2, [False] * 5, [True] * 3 + [False] * 2]
    assert not vectors[:, 3:].any() and not vectors[1].any()
    nothing = CaptionVectors([], encoder, slots=5)([None])
    assert nothing[0].shape == (1, 5, 8) and not nothing[1].any()


def test_the_rate_is_logged(tmp_path):
    run(tmp_path, make_config(lr=1.0, warmup_steps=4))
    rates = [line["train/lr"] for line in read_log(tmp_path) if "train/lr" in line]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0]) and rates[4:] == sorted(rates[4:], reverse=True)


def optimizers(model, config):
    return Learner(model, config.optim, steps=config.steps, care=lm_care(config.optimizer)).optimizers


def test_norms_and_tables_are_not_decayed():
    model = PrefixLM(lm_config(make_config(), make_data(), 8))
    groups = optimizers(model, make_config())["optimizer"].param_groups
    kept, decayed = sorted(groups, key=lambda group: group["weight_decay"])
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    assert {id(p) for p in kept["params"]} >= {id(model.model.norm.weight), id(model.model.embed_tokens.weight)}
    count = len(decayed["params"]) + len(kept["params"])
    assert count == len(list(model.parameters()))


def test_muon_takes_the_matrices_of_the_layers_and_adamw_the_rest():
    model = PrefixLM(lm_config(make_config(), make_data(), 8))
    made = optimizers(model, make_config(optimizer="muon"))
    inside = {id(p) for n, p in model.named_parameters() if ".layers." in n and p.ndim == 2}
    assert {id(p) for group in made["muon"].param_groups for p in group["params"]} == inside
    others = {id(p) for group in made["optimizer"].param_groups for p in group["params"]}
    assert not inside & others and len(inside | others) == len(list(model.parameters()))


def test_muon_learns_too(tmp_path):
    weights = {"text_to_video": 1.0}
    config = make_config(steps=50, lr=2e-2, optimizer="muon", task_weights=weights, text_dropout=0.0, validate_every=50)
    run(tmp_path, config)
    assert read_log(tmp_path)[-1]["val/visual_accuracy"] > 0.95


def test_a_batch_in_pieces_gives_the_gradients_of_the_whole(tmp_path):
    whole = run(tmp_path / "whole", make_config(steps=3, context_dropout=0.5))
    pieces = run(tmp_path / "pieces", make_config(steps=3, context_dropout=0.5, micro_tokens=60))
    first, second = (PrefixLM.from_pretrained(path).state_dict() for path in (whole, pieces))
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=2e-5, rtol=1e-3)
    assert [x["train/loss"] for x in read_log(tmp_path / "whole") if "train/loss" in x] == pytest.approx(
        [x["train/loss"] for x in read_log(tmp_path / "pieces") if "train/loss" in x], rel=1e-5
    )


def joint(folder):
    """What test_two_processes_... trains: one step replicated and one sharded, then stopped halfway and gone on."""
    torch.set_num_threads(1)
    ranks = join(torch.device("cpu"))
    PRESETS["tiny"] = {**PRESETS["tiny"], **SMALL}
    recipe.Run.plot = lambda self: None
    for name, sharded in (("replicated", False), ("sharded", True)):
        config = make_config(
            steps=4, tokens_per_step=160, batch_multiple=2, sharded=sharded, ema=0.5, context_dropout=0.3
        )
        config = replace(config, recompute_every=1 if sharded else None)
        if sharded and not ranks.is_main:
            recipe.PrefixLM = None  # only the first process may hold the whole model
        run(folder / name, config, ranks=ranks)
    stop_after(1, folder / "stopped", config, ranks)


def stop_after(step, folder, config, ranks=ALONE):
    save = recipe.Run.maybe_save

    def stops(self, done):
        if done == step:
            self.save(done + 1)
            raise KeyboardInterrupt

    recipe.Run.maybe_save = stops
    with pytest.raises(KeyboardInterrupt):
        run(folder, config, ranks=ranks)
    recipe.Run.maybe_save = save


def test_two_processes_are_one_replicated_or_sharded_and_either_number_goes_on(two_processes, tmp_path):
    two_processes(__file__, tmp_path)
    config = make_config(steps=4, tokens_per_step=160, batch_multiple=2, ema=0.5, context_dropout=0.3)
    alone = PrefixLM.from_pretrained(run(tmp_path / "alone", config)).state_dict()
    run(tmp_path / "stopped", replace(config, sharded=True, recompute_every=1))  # began with two processes
    for name in ("replicated", "sharded", "stopped"):
        state = PrefixLM.from_pretrained(tmp_path / name / "model").state_dict()
        for key, weight in alone.items():
            torch.testing.assert_close(state[key], weight, atol=2e-5, rtol=1e-4)
        losses = [[x["train/loss"] for x in read_log(tmp_path / f) if "train/loss" in x] for f in (name, "alone")]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4), name
        assert len(losses[0]) == 4


def test_a_killed_process_leaves_a_whole_checkpoint_and_goes_on_bit_for_bit(tmp_path, monkeypatch):
    config = make_config(steps=6, context_dropout=0.5)
    straight = run(tmp_path / "straight", config)
    stop_after(2, tmp_path / "killed", config)
    half = tmp_path / "killed" / "checkpoint" / "5.partial"  # as a kill during a later save leaves it
    half.mkdir()
    (half / "__0_0.distcp").write_bytes(b"half a file")
    resumed = run(tmp_path / "killed", config)
    first, second = (PrefixLM.from_pretrained(path).state_dict() for path in (straight, resumed))
    assert all(first[name].equal(second[name]) for name in first)
    assert [p.name for p in (tmp_path / "killed" / "checkpoint").iterdir()] == ["6"]


def test_a_trained_model_goes_on_with_other_tasks(tmp_path):
    weights = {"text_to_video": 1.0}
    first = run(tmp_path / "a", make_config(steps=50, lr=2e-2, task_weights=weights, validate_every=50))
    config = make_config(steps=1, lr=1e-4, task_weights={"text_to_video": 0.5, "audio_to_video": 0.5})
    run(tmp_path / "b", config, start=partial(PrefixLM.from_pretrained, first))
    run(tmp_path / "c", config)
    adapted, fresh = (read_log(tmp_path / f)[-1]["val/loss_text_to_video"] for f in "bc")
    assert adapted < 0.5 < fresh
    with pytest.raises(ValueError, match=r"does not fit this run: text_slots 5 \(wanted 6\)"):
        run(tmp_path / "d", make_config(text_slots=6), start=partial(PrefixLM.from_pretrained, first))


def test_halved_codes_and_layers_computed_again_train_too(tmp_path):
    tokens = replace(make_tokens(), low=make_tokens().low // 2)
    config = make_config(visual_codes=16, steps=4)
    halved = run(tmp_path / "halved", replace(config, visual_factors=2), tokens)
    assert PrefixLM.from_pretrained(halved).factors is not None
    kept, again = (
        run(tmp_path / "kept", config, tokens),
        run(tmp_path / "again", replace(config, recompute_every=1), tokens),
    )
    first, second = (PrefixLM.from_pretrained(path).state_dict() for path in (kept, again))
    assert all(first[name].equal(second[name]) for name in first)


def test_steps_use_a_stated_part_of_the_machine(tmp_path):
    run(tmp_path, make_config())
    for line in read_log(tmp_path):
        if "perf/mfu" in line:
            assert 0 < line["perf/mfu"] < 1


@pytest.mark.parametrize(("share", "changed"), [(1.0, True), (0.0, False)])
def test_slices_are_hidden_in_the_tasks_that_say_so(share, changed):
    weights = {"video_to_audio": 1.0}
    config = make_config(task_weights=weights, task_slice_dropout={"video_to_audio": share})
    data = make_data(config=config)
    (group,) = recipe.mixture(config, data, lm_config(config, data, 8).vocabulary)
    captions = CaptionVectors(data.captions, WordVectors(), slots=config.text_slots)
    generator = torch.Generator().manual_seed(0)
    (batch,) = recipe.draw_batch(
        group, 0, config=config, data=data, captions=captions, generator=generator, device=torch.device("cpu")
    )
    given = group.layout.stretch("visual_in")
    seen = batch.ids if batch.inputs is None else batch.inputs
    assert seen[:, given.stop :].equal(batch.ids[:, given.stop :])
    assert bool((seen != batch.ids)[:, given.start : given.stop].any()) == changed


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"a batch of 3 \w+ sequences cannot be shared by 2 processes"):
        run(tmp_path / "ranks", make_config(tokens_per_step=120), ranks=Ranks(0, 2))
    with pytest.raises(ValueError, match=r"validation_rows \(15\) must be less than the 15 rows"):
        run(tmp_path, make_config(validation_rows=15))
    with pytest.raises(ValueError, match="a text has 4 tokens, the model's sequences have 3 text slots"):
        run(tmp_path, make_config(text_slots=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch_multiple": 0, "log_every": 0},
            "batch_multiple must be at least 1, got 0; log_every must be at least 1",
        ),
        ({"micro_tokens": 0}, "micro_tokens must be at least 1"),
        ({"image_share": (2.0, 0.0)}, r"image_share\[0\] must lie in \[0, 1\], got 2"),
        ({"task_text_dropout": {"video_to_audio": 7.0}}, r"task_text_dropout.video_to_audio must lie in \[0, 1\]"),
        ({"task_text_dropout": {"dance": 0.5}}, "unknown task 'dance'"),
        ({"task_slice_dropout": {"audio_to_video": 0.5}}, "task_slice_dropout.audio_to_video: the task reads no whole"),
        ({"task_slice_dropout": {"stylize": 1.5}}, r"task_slice_dropout.stylize must lie in \[0, 1\]"),
        ({"ema": 2.0}, r"optim.ema must lie in \[0, 1\]"),
        ({"lr": float("nan")}, "optim.lr must not be negative, got nan"),
        ({"grad_clip": 0.0}, "optim.grad_clip must be positive, got 0.0; null is no limit"),
        ({"size": "huge"}, "unknown size 'huge'; known: tiny, 300m"),
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd'; known: adamw, muon"),
        ({"visual_factors": 2, "full_softmax": True}, "full_softmax needs a row for every code"),
    ],
)
def test_numbers_that_cannot_be_are_told_before_anything_is_read(changes, message):
    with pytest.raises(ValueError, match=message):
        make_config(**changes)


if __name__ == "__main__":
    joint(Path(sys.argv[1]))
