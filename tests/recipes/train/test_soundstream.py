"""The SoundStream recipe: runs, resumes exactly, stops on a collapsed level, stages the discriminators."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mmtok.audio.soundstream as soundstream
import recipes.train.soundstream as recipe
from mmtok.audio.soundstream import SoundStream, build_soundstream
from mmtok.media.audio import write_wav
from recipes.corpora.sources import RealSounds
from recipes.loop.run import Run
from recipes.runtime.config import CONFIGS, load_config
from recipes.runtime.device import Compute
from recipes.runtime.distributed import join
from recipes.train.soundstream import SoundStreamTrainConfig, train_soundstream

CPU = Compute(torch.device("cpu"), torch.float32, "test")
OPTIM = replace(SoundStreamTrainConfig().optim, warmup_steps=2)
SMOKE = SoundStreamTrainConfig(
    preset="smoke",
    steps=6,
    batch_size=2,
    num_samples=640,
    optim=OPTIM,
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


def test_the_codec_hears_before_it_is_quantized(tmp_path: Path) -> None:
    config = replace(SMOKE, steps=6, log_every=1, quantize_from_step=4)
    train_soundstream(config, tmp_path, sound_source=tones, compute=CPU)
    use = [row["vq/use_level_0"] for row in log_of(tmp_path)]
    assert use[:4] == [0.0] * 4
    assert all(value > 0 for value in use[4:])


@pytest.mark.parametrize(
    "extra",
    [
        {"start_vectors": 25, "quantize_from_step": 2},
        {"optim": replace(OPTIM, ema=0.5), "adversarial_start_step": 2, **CRITICS},
        {"balanced": True, "adversarial_start_step": 2, **CRITICS},
    ],
)
def test_resuming_after_an_interruption_equals_not_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: dict
) -> None:
    config = replace(SMOKE, num_samples=1280, **extra)
    whole = train_soundstream(config, tmp_path / "whole", sound_source=tones, compute=CPU)

    def interrupted(self: Run, step: int) -> None:
        if step == 3:
            self.save(step + 1)
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
    config = replace(SMOKE, optim=replace(OPTIM, ema=0.9))
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

    def few(corpus: object, real: object, *, sample_rate: int) -> object:
        made.append((type(corpus).__name__, real, sample_rate))
        return tones

    monkeypatch.setattr(recipe, "MixedSounds", few)
    train_soundstream(replace(SMOKE, steps=1), tmp_path, compute=CPU)
    assert made == [("ShapesCorpus", None, 16_000)]


def test_a_crop_that_is_no_multiple_of_the_hop_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"num_samples \(1000\) must be a multiple of the hop of 320"):
        train_soundstream(replace(SMOKE, num_samples=1000), tmp_path, sound_source=tones, compute=CPU)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_size": 0, "log_every": 0}, "batch_size must be at least 1, got 0; log_every must be"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"spectral_channels": 0}, "spectral_channels must be at least 1"),
        ({"adversarial_examples": 0}, "adversarial_examples must be at least 1, got 0"),
        ({"gain_db": -1, "mel_weight": -0.5}, "mel_weight must not be negative, got -0.5; gain_db must not"),
        ({"recording_s": 0.0}, "recording_s must be positive, got 0.0"),
        ({"mel_weight": 0.0, "waveform_weight": 0.0}, "both 0: nothing teaches the codec before discriminators do"),
        ({"mel_weight": 0.0, "waveform_weight": 0.0, "adversarial_start_step": 3}, "both 0: nothing teaches"),
    ],
)
def test_numbers_that_cannot_train_are_named_at_once(changes: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(SMOKE, **changes)
    replace(SMOKE, mel_weight=0.0, waveform_weight=0.0, adversarial_start_step=0)


def test_balanced_terms_train_and_their_weights_decide(tmp_path: Path) -> None:
    config = replace(SMOKE, steps=3, balanced=True, log_every=1)
    models = [
        load_file(train_soundstream(c, tmp_path / str(i), sound_source=tones, compute=CPU) / "model.safetensors")
        for i, c in enumerate(
            (config, replace(config, mel_weight=10.0, waveform_weight=10.0), replace(config, mel_weight=9.0))
        )
    ]
    weights = [name for name in models[0] if name.endswith("weight")]
    assert all(torch.allclose(models[0][n], models[1][n], atol=1e-6) for n in weights)  # only ratios matter
    assert not all(torch.allclose(models[0][n], models[2][n], atol=1e-5) for n in weights)


def test_nothing_is_quantized_before_kmeans_has_its_vectors(tmp_path: Path) -> None:
    config = replace(SMOKE, num_samples=3200, start_vectors=41, log_every=1, steps=5)  # two crops of ten frames a step
    train_soundstream(config, tmp_path, sound_source=tones, compute=CPU)
    waiting = [row["train/commitment"] == 0 for row in log_of(tmp_path)]
    assert waiting == [True, True, False, False, False]


TOGETHER = replace(
    SMOKE,
    batch_size=4,
    steps=5,
    num_samples=3200,
    start_vectors=60,
    log_every=1,
    adversarial_start_step=3,
    adversarial_examples=2,
    balanced=True,
    level_dropout=0.8,
    **CRITICS,
)


def test_two_processes_are_one_with_the_whole_batch(two_processes: Callable[[str, Path], None], tmp_path: Path) -> None:
    alone = train_soundstream(TOGETHER, tmp_path / "one", sound_source=tones, compute=CPU)
    two_processes(__file__, tmp_path / "two")
    one, two = (load_file(f / "model.safetensors") for f in (alone, tmp_path / "two" / "model"))
    torch.manual_seed(TOGETHER.seed)
    start = build_soundstream(TOGETHER.preset).state_dict()
    apart, moved = (
        torch.cat([(x[name] - one[name]).abs().flatten() for name in one if not name.endswith("codes")]).mean()
        for x in (two, start)
    )
    assert moved > 1e-4 and apart < 0.02 * moved, f"{apart:.2e} apart after moving {moved:.2e}"
    for name in one:
        if name.endswith("codes"):  # k-means, running means and revived codes are those of the whole batch
            assert torch.allclose(one[name], two[name], atol=0.02 * float(one[name].abs().max())), name
    first, second = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    for a, b in zip(first, second, strict=True):  # the second process writes no log
        for name in ("train/loss", "train/mel", "train/commitment", "vq/use_level_0", "vq/revived_level_1"):
            assert b[name] == pytest.approx(a[name], rel=1e-2), (name, a["step"])


def test_the_published_numbers_are_a_config() -> None:
    config = load_config(SoundStreamTrainConfig, CONFIGS / "soundstream_16k.yaml", [])
    assert config.preset == "soundstream-16k" and config.num_samples == 48_000
    weights = recipe.weights_of(config)
    assert weights == {"mel": 1.0, "adversarial": 1.0, "feature": 100.0} and config.mel_as_published
    assert load_config(SoundStreamTrainConfig, CONFIGS / "soundstream_tiny.yaml", []).balanced


def test_the_command_trains_on_a_folder_and_keeps_files_out(
    cinepoet: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "sounds").mkdir()
    for number in range(4):
        write_wav(tmp_path / "sounds" / f"{number}.wav", tones(torch.Generator().manual_seed(number), 1, 8000)[0])
    write_wav(tmp_path / "sounds" / "silence.wav", torch.zeros(1, 8000))
    (tmp_path / "sounds" / "broken.wav").write_bytes(b"RIFF nothing")
    words = ["train", "soundstream", "--media", tmp_path / "sounds", "--out", tmp_path / "run", "--device", "cpu"]
    words += ["preset=smoke", "steps=2", "batch_size=2", "num_samples=1280", "mel_windows=[128]", "num_mels=16"]
    words += ["adversarial_start_step=1", "waveform_channels=4", "max_waveform_channels=8", "spectral_channels=2"]
    code, told, fault = cinepoet(*words)
    assert code == 0, fault
    assert "3 recordings, 0.00 h; 2 files are kept out for measuring" in told and "ready; its curves" in told
    assert "broken.wav: is not a media file" in told
    assert (tmp_path / "run" / "data.txt").read_text() == "0.wav\n1.wav\n3.wav\nbroken.wav\n"
    assert SoundStream.from_pretrained(tmp_path / "run" / "model").sample_rate == 16_000

    first = tmp_path / "run" / "model"  # goes on, with its codebooks
    more = [*words[:5], tmp_path / "more", *words[6:], "--init", first, "optim.lr=1e-9", "optim.weight_decay=0"]
    code, _, fault = cinepoet(*more)
    assert code == 0, fault
    one, two = (load_file(folder / "model.safetensors") for folder in (first, tmp_path / "more" / "model"))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one if name.startswith("decoder"))
    code, _, fault = cinepoet(*words[:5], tmp_path / "no", "preset=tiny", "--init", first)
    assert code == 2 and "has other sizes than the preset tiny; use preset=smoke" in fault
    code, _, fault = cinepoet(*words[:4], "--out", tmp_path / "other", "--stages", "audio")
    assert code == 2 and "unknown option --stages" in fault
    code, _, fault = cinepoet("train", "soundstream", "--tokenizer", "tiny", "--out", tmp_path / "other")
    assert code == 2 and "unknown option --tokenizer" in fault
    code, told, fault = cinepoet(*words[:4], "--out", tmp_path / "other", "preset=huge")
    assert code == 2 and "unknown SoundStream preset 'huge'" in fault and "recordings" not in told
    for file in range(4):
        (tmp_path / "sounds" / f"{file}.wav").unlink()
    code, _, fault = cinepoet("train", "soundstream", "--media", tmp_path / "sounds", "--out", tmp_path / "none")
    assert code == 2 and "every file was silent or could not be read" in fault


def test_sounds_are_read_at_the_rate_of_the_preset(
    cinepoet: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sounds").mkdir()
    write_wav(tmp_path / "sounds" / "a.wav", tones(torch.Generator().manual_seed(0), 1, 16_000)[0], 16_000)
    monkeypatch.setitem(soundstream.PRESETS, "smoke", replace(soundstream.PRESETS["smoke"], sample_rate=24_000))
    lengths = []

    def train(config: SoundStreamTrainConfig, folder: Path, *, sound_source: RealSounds, **rest: object) -> Path:
        lengths.extend(len(sound) for sound in sound_source.recordings)
        return folder / "model"

    monkeypatch.setattr(recipe, "train_soundstream", train)
    words = ("--media", tmp_path / "sounds", "--out", tmp_path / "run", "--device", "cpu", "preset=smoke")
    assert cinepoet("train", "soundstream", *words)[0] == 0
    assert lengths == [24_000]


if __name__ == "__main__":  # one of the two processes
    torch.set_num_threads(1)
    Run.plot = lambda self: None
    ranks = join(torch.device("cpu"))
    train_soundstream(TOGETHER, Path(sys.argv[1]), sound_source=tones, compute=CPU, ranks=ranks)
    torch.distributed.destroy_process_group()
