"""The SoundStream recipe: runs, resumes exactly, stops on a collapsed level, stages the discriminators."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import recipes.train_soundstream as recipe
from mmtok.audio.soundstream import SoundStream
from recipes.device import Compute
from recipes.run import Run
from recipes.train_soundstream import SoundStreamTrainConfig, learning_rate_share, train_soundstream

CPU = Compute(torch.device("cpu"), torch.float32, "test")
SMOKE = SoundStreamTrainConfig(
    preset="smoke",
    steps=6,
    batch_size=2,
    num_samples=640,
    warmup_steps=2,
    mel_windows=(128,),
    num_mels=16,
    kmeans_iterations=2,
    use_window=4,
    log_every=2,
    evaluate_every=4,
    evaluation_size=2,
)
CRITICS = {"waveform_channels": 4, "max_waveform_channels": 8, "spectral_channels": 2}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing curves takes longer than all these runs; the run's own tests draw them."""
    monkeypatch.setattr(Run, "plot", lambda self: None)


def tones(generator: torch.Generator, batch_size: int, num_samples: int) -> Tensor:
    hz = 200 + 2000 * torch.rand(batch_size, 1, 1, generator=generator)
    return 0.5 * torch.sin(2 * torch.pi * hz * torch.arange(num_samples) / 16_000)


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_smoke_run_writes_a_model_and_logs_every_level(tmp_path: Path) -> None:
    folder = train_soundstream(SMOKE, tmp_path, sound_source=tones, compute=CPU)
    assert folder == tmp_path / "model"
    model = SoundStream.from_pretrained(folder)
    assert model.decode(model.encode(torch.zeros(1, 1, 700)), 700).shape == (1, 1, 700)
    rows = log_of(tmp_path)
    assert [row["step"] for row in rows] == [0, 2, 4, 5]
    for name in ("train/loss", "train/mel", "train/waveform", "train/commitment", "perf/steps_per_s"):
        assert all(name in row for row in rows), name
    for level in range(4):
        assert all(f"vq/{name}_level_{level}" in row for row in rows for name in ("use", "perplexity", "revived"))
    assert ["val/log_mel" in row for row in rows] == [True, False, True, True]


@pytest.mark.parametrize("extra", [{}, {"average_decay": 0.5, "adversarial_start_step": 2, **CRITICS}])
def test_resuming_after_an_interruption_equals_not_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: dict
) -> None:
    config = replace(SMOKE, num_samples=1280, **extra)
    whole = train_soundstream(config, tmp_path / "whole", sound_source=tones, compute=CPU)

    def interrupted(self: Run, step: int, parts: dict) -> None:
        if step == 3:
            self.save(step + 1, parts)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "maybe_save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_soundstream(config, tmp_path / "halves", sound_source=tones, compute=CPU)
    torch.rand(7)  # the world moves on
    halves = train_soundstream(config, tmp_path / "halves", sound_source=tones, compute=CPU)

    one, two = load_file(whole / "model.safetensors"), load_file(halves / "model.safetensors")
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []

    def timeless(folder: Path) -> list[dict[str, float]]:
        return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in log_of(folder)]

    assert timeless(tmp_path / "whole") == timeless(tmp_path / "halves")


def test_discriminators_join_at_their_step_and_only_then(tmp_path: Path) -> None:
    config = replace(SMOKE, num_samples=1280, log_every=1, adversarial_start_step=3, **CRITICS)
    train_soundstream(config, tmp_path, sound_source=tones, compute=CPU)
    joined = ["train/adversarial" in row and "train/feature" in row for row in log_of(tmp_path)]
    assert joined == [False, False, False, True, True, True]


def test_a_collapsed_level_stops_the_run_with_advice(tmp_path: Path) -> None:
    def silence(generator: torch.Generator, batch_size: int, num_samples: int) -> Tensor:
        return torch.zeros(batch_size, 1, num_samples)

    config = replace(SMOKE, revival_threshold=0.0, min_use=0.5, min_use_from_step=4)
    with pytest.raises(RuntimeError, match=r"level \d uses .* of its codes at step 4 of 6, less than min_use \(50%\)"):
        train_soundstream(config, tmp_path, sound_source=silence, compute=CPU)


def test_averaged_weights_are_saved_with_the_live_codebooks(tmp_path: Path) -> None:
    last = load_file(train_soundstream(SMOKE, tmp_path / "a", sound_source=tones, compute=CPU) / "model.safetensors")
    config = replace(SMOKE, average_decay=0.9)
    mean = load_file(train_soundstream(config, tmp_path / "b", sound_source=tones, compute=CPU) / "model.safetensors")
    weights = [name for name in last if name.endswith("weight")]
    assert not any(torch.equal(last[name], mean[name]) for name in weights)
    assert all(torch.equal(last[name], mean[name]) for name in last if name.endswith("codes"))


def test_runs_under_bfloat16_autocast(tmp_path: Path) -> None:
    compute = Compute(torch.device("cpu"), torch.bfloat16, "test")
    config = replace(SMOKE, steps=2)
    tensors = load_file(train_soundstream(config, tmp_path, sound_source=tones, compute=compute) / "model.safetensors")
    assert all(t.dtype == torch.float32 and torch.isfinite(t).all() for t in tensors.values())


def test_default_sound_is_the_shapes_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def few(corpus: object, real: object) -> object:
        made.append((type(corpus).__name__, real))
        return tones

    monkeypatch.setattr(recipe, "MixedSounds", few)
    train_soundstream(replace(SMOKE, steps=1), tmp_path, compute=CPU)
    assert made == [("ShapesCorpus", None)]


def test_learning_rate_rises_then_falls_to_two_percent() -> None:
    shares = [learning_rate_share(step, steps=100, warmup_steps=10) for step in range(101)]
    assert shares[0] == 0.1 and shares[9] == shares[10] == 1
    assert all(a >= b for a, b in itertools.pairwise(shares[10:]))
    assert abs(shares[100] - 0.02) < 1e-9


def test_a_crop_that_is_no_multiple_of_the_hop_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"num_samples \(1000\) must be a multiple of the hop of 320"):
        train_soundstream(replace(SMOKE, num_samples=1000), tmp_path, sound_source=tones, compute=CPU)
