"""The whole line from nothing, as one command: every stage of the smoke preset, what it leaves and how it goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llm.model import PrefixLM
from mmtok.audio.encodec import Encodec
from mmtok.media.container import probe
from mmtok.visual.magvit2 import Magvit2
from recipes.bundle.folder import PARTS, open_bundle
from recipes.cli import main

STAGES = (*PARTS, "decoder", "tasks")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "run"
    assert main(["train", "smoke", "--out", str(folder)]) == 0
    return folder


def test_one_command_makes_a_model_that_makes_films(trained: Path, cinepoet: Command, tmp_path: Path) -> None:
    assert all((trained / stage / "curves.png").stat().st_size > 5000 for stage in STAGES)
    for part in PARTS:
        assert (trained / "bundle" / part / "model.safetensors").exists()
    card = open_bundle(trained / "bundle").card
    assert card["command"] == "cinepoet train smoke" and card["seed"] == 0
    assert set(card["minutes"]) == set(card["training"]) == set(STAGES)
    film = tmp_path / "film.mp4"
    code, _, _ = cinepoet("generate", "a red circle moves left", "--model", trained / "bundle", "--out", film)
    info = probe(film)
    assert code == 0 and (info.width, info.height, info.has_audio) == (64, 64, True)


def test_the_language_model_goes_on_with_more_tasks(trained: Path) -> None:
    first, then, kept = (
        dict(PrefixLM.from_pretrained(trained / folder).named_parameters())
        for folder in ("lm/model", "tasks/model", "bundle/lm")
    )
    norm = "model.layers.0.input_layernorm.weight"
    assert not first[norm].equal(then[norm]) and (kept[norm] - then[norm]).abs().max() < 1e-3
    for name, tensor in kept.items():  # a byte a weight
        assert (tensor - then[name]).abs().max() <= 0.02 * then[name].abs().max() + 1e-6, name
    bundle = open_bundle(trained / "bundle")
    assert "inpaint" in bundle.config.tasks and "inpaint" not in bundle.card["training"]["lm"]["task_weights"]
    assert bundle.card["training"]["tasks"]["task_text_dropout"]["video_to_audio"] == 0.7


def test_the_same_command_repeats_nothing(trained: Path, cinepoet: Command) -> None:
    before = (trained / "lm" / "model" / "model.safetensors").stat().st_mtime_ns
    code, shown, _ = cinepoet("train", "smoke", "--out", trained)
    assert code == 0 and shown.count("finished before, kept") == len(STAGES)
    assert (trained / "lm" / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_other_numbers_are_refused_for_a_finished_stage(trained: Path, cinepoet: Command, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    code, _, fault = cinepoet("train", "smoke", "audio.optim.lr=0.5", "--stages", "audio", "--out", tmp_path / "run")
    assert code == 2 and "was trained with other numbers" in fault
    assert (tmp_path / "run" / "config.yaml").read_text() == (trained / "config.yaml").read_text()
    record = tmp_path / "run" / "audio" / "config.json"
    record.write_text(json.dumps({"lr": 0.001, "average_decay": None}))
    code, _, fault = cinepoet("train", "smoke", "--stages", "audio", "--out", tmp_path / "run")
    assert code == 2 and "numbers of other names (lr is now optim.lr; average_decay is now optim.ema)" in fault


def test_the_bundle_has_the_polished_decoder_and_refuses_a_foreign_one(
    trained: Path, cinepoet: Command, tmp_path: Path
) -> None:
    folders = ("visual/model", "decoder/model", "bundle/visual")
    visual, polished, stored = (Magvit2.from_pretrained(trained / f).state_dict() for f in folders)
    assert all(polished[name].equal(weight) for name, weight in visual.items() if name.startswith("encoder."))
    assert stored.keys() == polished.keys() > visual.keys()
    assert all(stored[name].equal(weight.half().float()) for name, weight in polished.items())
    shutil.copytree(trained, tmp_path / "run")
    Magvit2(Magvit2.from_pretrained(trained / "visual/model").params).save_pretrained(tmp_path / "run/visual/model")
    code, _, fault = cinepoet("train", "smoke", "--stages", "bundle", "--out", tmp_path / "run")
    assert code == 2 and "belongs to another visual tokenizer" in fault


def test_several_processes_train_the_visual_stages_together(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "recipes.cli",
    ]
    words += ["train", "smoke", "--device", "cpu", "--out", str(tmp_path / "run"), "--stages", "visual,decoder"]
    words += ["visual.sizes=[32]", "decoder.sizes=[32]", "visual.image_steps=2", "visual.video_steps=2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("done in") == 1, "only the first process speaks"
    for stage, steps in (("visual", 4), ("decoder", 4)):
        rows = [json.loads(row) for row in (tmp_path / "run" / stage / "log.jsonl").read_text().splitlines()]
        assert rows[-1]["step"] == steps - 1
        assert (tmp_path / "run" / stage / "model" / "model.safetensors").exists()
    single = subprocess.run([*words, "--stages", "visual,text"], capture_output=True, text=True, timeout=300)
    assert single.returncode != 0 and "text train in one process" in single.stderr


def test_numbers_that_contradict_each_other_are_refused(cinepoet: Command, tmp_path: Path) -> None:
    for change, told in (
        ("bundle.size=64", "lm_tokens.size is 32, but bundle.size is 64"),
        ("superres_tokens.seed=4", "superres_tokens.seed is 4, but seed is 0"),
        ("lm_tokens.num_frames=9", "lm_tokens.num_frames is 9, but bundle.num_frames is 17"),
        ("superres_tokens.upscale=false", "superres_tokens.upscale must be true"),
        ("bundle.upscaled_size=32", "bundle.upscaled_size is 32, super-resolution makes 64"),
    ):
        code, _, fault = cinepoet("train", "smoke", change, "--out", tmp_path / "run")
        assert code == 2 and told in fault and fault.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_stopped_run_does_not_go_on_with_other_data(trained: Path, cinepoet: Command, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "audio" / "model")
    words = ("train", "smoke", "--stages", "audio", "--out", tmp_path / "run")
    code, _, fault = cinepoet(*words, "scenes_pool=14")
    assert code == 2 and "was started with other data" in fault
    assert cinepoet(*words)[0] == 0


def test_tokenizers_of_a_finished_model_serve_another(trained: Path, cinepoet: Command, tmp_path: Path) -> None:
    words = ("train", "smoke", "lm.steps=2", "superres.steps=2", "--tokenizer", trained / "bundle")
    code, shown, fault = cinepoet(*words, "--out", tmp_path)
    assert code == 0, fault
    assert "visual: taken from bundle" in shown
    for part in ("visual", "audio", "text"):
        theirs, ours = (load_file(f / "bundle" / part / "model.safetensors") for f in (trained, tmp_path))
        assert theirs.keys() == ours.keys() and all(theirs[k].equal(ours[k]) for k in theirs)
    card, first = (open_bundle(f / "bundle").card for f in (tmp_path, trained))
    for stage in ("visual", "decoder"):
        assert card["training"][stage] == first["training"][stage]
        assert card["minutes"][stage] == first["minutes"][stage]
    assert card["training"]["lm"]["steps"] == 2

    # its language model too, which goes on
    words = ("train", "smoke", "tasks.steps=1", "--stages", "tasks,bundle", "--tokenizer", trained / "bundle")
    shutil.copytree(tmp_path / "lm_tokens", tmp_path / "more" / "lm_tokens")
    code, shown, fault = cinepoet(*words, "--out", tmp_path / "more")
    assert code == 0 and "lm: taken from bundle" in shown and "superres: taken from bundle" in shown, fault
    assert (tmp_path / "more" / "tasks" / "model" / "model.safetensors").exists()
    sharp = [f / "bundle" / "superres" / "model.safetensors" for f in (trained, tmp_path / "more")]
    assert sharp[0].read_bytes() == sharp[1].read_bytes()
    assert {"lm", "tasks", "superres"} <= open_bundle(tmp_path / "more" / "bundle").card["minutes"].keys()
    code, shown, fault = cinepoet(*words, "--out", tmp_path / "more")
    assert code == 0 and "lm: there before, kept" in shown and "tasks: finished before, kept" in shown, fault
    more = open_bundle(tmp_path / "more" / "bundle").card
    assert more["command"].endswith("bundle --stages tokens,tasks,bundle")
    (before,) = more["adapted_before"]  # smoke has a stage tasks itself
    assert before == {key: {"tasks": first[key]["tasks"]} for key in ("training", "minutes")}
    assert card["command"].startswith("cinepoet train smoke; then cinepoet train smoke lm.steps=2")


def test_a_codec_takes_the_place_of_soundstream_and_sizes_follow(
    trained: Path, cinepoet: Command, tmp_path: Path
) -> None:
    """One config line a choice: whose sound tokens, how many levels, in which order; then a film by it."""
    sizes = {"num_filters": 2, "hidden_size": 8, "upsampling_ratios": [10, 8, 8], "num_lstm_layers": 1}
    config_class, model_class = Encodec._classes()
    model = model_class(config_class(**sizes, codebook_size=32, target_bandwidths=[0.75]))  # 38 frames a second
    with torch.no_grad():
        for layer in model.quantizer.layers:
            layer.codebook.embed.normal_(generator=torch.Generator().manual_seed(0))
    Encodec(model).save_pretrained(tmp_path / "codec")
    run, film = tmp_path / "run", tmp_path / "film.mp4"
    changes = (f"sound_tokenizer={tmp_path / 'codec'}", "sound_levels=2", "lm.audio_order=delay", "lm.steps=2")
    words = ("train", "smoke", *changes, "superres.steps=2", "--tokenizer", trained / "bundle", "--out", run)
    code, shown, fault = cinepoet(*words)
    assert code == 0, fault
    assert "visual: taken from bundle" in shown and "audio: Encodec, 2 levels, 0.375 kbit/s" in shown
    code, shown, fault = cinepoet(*words)
    assert code == 0 and "audio: finished before, kept" in shown and "lm: finished before, kept" in shown, fault
    lm = PrefixLM.from_pretrained(run / "bundle" / "lm").config
    assert (lm.audio_levels, lm.audio_codes, lm.audio_order, lm.max_audio_frames) == (2, 32, "delay", 51_000 // 640)
    ours, theirs = (load_file(f / "model.safetensors") for f in (run / "bundle" / "audio", tmp_path / "codec"))
    assert all(theirs[name].equal(ours[name]) for name in theirs)  # not rounded
    assert "sound tokenizer encodec as it was published (CC-BY-NC 4.0)" in open_bundle(run / "bundle").card["licence"]
    assert cinepoet("generate", "a red circle", "--model", run / "bundle", "--out", film)[0] == 0
    info = probe(film)
    assert info.has_audio and info.sample_rate == 24_000
    code, shown, fault = cinepoet("models", run / "bundle")
    assert code == 0 and "encodec" in shown, fault
    code, _, fault = cinepoet(*words, "sound_levels=1", "--stages", "audio")
    assert code == 2 and "was trained with other numbers" in fault
    code, _, fault = cinepoet("train", "smoke", "sound_levels=2", "--out", tmp_path / "other")
    assert code == 2 and "sound_levels is a choice for sound_tokenizer" in fault
    words = ("train", "smoke", "--stages", "audio", "--out", tmp_path / "other", "sound_levels=2")
    code, shown, _ = cinepoet(*words, f"sound_tokenizer={trained / 'bundle' / 'audio'}")
    assert code == 0 and "audio: SoundStream, 2 levels, 0.4 kbit/s" in shown
    code, _, fault = cinepoet(*words[:-1], f"sound_tokenizer={trained / 'bundle' / 'visual'}", "--out", tmp_path / "no")
    assert code == 2 and "is not a sound tokenizer" in fault


def test_the_card_tells_what_was_measured(trained: Path, cinepoet: Command, tmp_path: Path) -> None:
    shutil.copytree(trained / "bundle", tmp_path / "bundle")
    model, results = tmp_path / "bundle", tmp_path / "results"
    code, _, fault = cinepoet("evaluate", "card", "--model", model, "--results", results)
    assert code == 2 and "make it with cinepoet evaluate prompts" in fault
    words = ("--model", model, "--out", results)
    assert cinepoet("evaluate", "prompts", "--prompts", 2, *words)[0] == 0
    assert cinepoet("evaluate", "reconstruction", "--scenes", 2, "--size", 64, *words)[0] == 0
    (tmp_path / "limits.md").write_text("## Limits\n\nIt makes noise.\n")
    words = ("evaluate", "card", "--model", model, "--results", results)
    assert cinepoet(*words, "--notes", tmp_path / "limits.md")[0] == 0
    text = (model / "README.md").read_text()
    measured = json.loads((results / "reconstruction.json").read_text())["figures"]["shapes/psnr_db"]
    assert text.startswith("# cinepoet smoke\n") and text.endswith("It makes noise.\n")
    assert "every other task" not in text
    assert f"{measured:.1f} dB" in text and "`cinepoet train smoke`" in text and "| lm | " in text
    assert "| its decoder alone, behind the same codes |  | 4 | " in text
    assert cinepoet("evaluate", "tasks", "--scenes", 1, "--model", model, "--out", results)[0] == 0
    assert cinepoet(*words)[0] == 0
    text = (model / "README.md").read_text()
    assert "| inpaint central | hidden region " in text and "| super-resolution |" not in text
    assert cinepoet("evaluate", "superres", "--scenes", 1, "--films", 0, "--model", model, "--out", results)[0] == 0
    assert cinepoet(*words)[0] == 0
    text = (model / "README.md").read_text()
    sharp = json.loads((results / "superres.json").read_text())["figures"]["sets"]["shapes"]["methods"]["ours"]
    assert f"| shapes, ours | {sharp['psnr_db']:.2f} | {sharp['sharpness']:.2f} |" in text
    (results / "prompts.json").write_text("[]")
    code, _, fault = cinepoet(*words)
    assert code == 2 and "does not say which model it measured" in fault
    assert text == (model / "README.md").read_text()


def test_one_config_line_lets_the_model_speak_larp(trained: Path, cinepoet: Command, tmp_path: Path) -> None:
    """Holistic tokens from the grid's bundle: its text, sound and super-resolution are taken, the rest is trained."""
    run, film = tmp_path / "run", tmp_path / "film.mp4"
    code, shown, fault = cinepoet("train", "smoke", "tokenizer=larp", "--tokenizer", trained / "bundle", "--out", run)
    assert code == 0, fault
    assert "superres: taken from bundle" in shown and not (run / "superres_tokens").exists()
    bundle = open_bundle(run / "bundle")
    assert bundle.config.num_frames == 16 and bundle.has("superres_visual")
    assert json.loads((bundle.part("visual") / "config.json").read_text())["family"] == "larp"
    trained_on = json.loads((run / "lm" / "config.json").read_text())["task_weights"]
    assert set(trained_on) == {"text_to_video", "unconditional", "video_to_audio", "audio_to_video"}
    assert set(bundle.config.tasks) == {name for name, weight in trained_on.items() if weight}
    words = ("generate", "a red circle moves left", "--model", run / "bundle", "--out", film)
    code, shown, _ = cinepoet(*words)
    assert code == 0 and "16 frames of 64x64" in shown and "with sound" in shown  # sharpened by re-encoding
    code, shown, _ = cinepoet(*words, "--no-upscale")
    assert code == 0 and "16 frames of 32x32" in shown
    picture = tmp_path / "picture.png"
    code, _, fault = cinepoet("generate", "a red circle", "--model", run / "bundle", "--out", picture)
    assert code == 2 and "text_to_image is not trained in this model; trained: text_to_video, unconditional" in fault
    code, _, fault = cinepoet(*words, "--extensions", 1)
    assert code == 2 and "extensions need continue_video, which is not trained in this model" in fault
    code, shown, _ = cinepoet("evaluate", "prompts", "--model", run / "bundle", "--prompts", 2, "--batch-size", 2)
    assert code == 0 and "reconstructed_upscaled" in shown
    code, _, _ = cinepoet("upscale", film, "--model", run / "bundle", "--out", tmp_path / "sharp.mp4")
    assert code == 0
    code, shown, _ = cinepoet("train", "smoke", "tokenizer=larp", "--tokenizer", trained / "bundle", "--out", run)
    assert code == 0 and shown.count("finished before, kept") == 3
    code, _, fault = cinepoet("train", "smoke", "tokenizer=vqgan", "--out", tmp_path / "no")
    assert code == 2 and "known: magvit2, larp" in fault
