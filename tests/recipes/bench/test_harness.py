"""The benchmarks' reference equals ours, and their plumbing tells what it measured."""

import argparse
import dataclasses
import json

import pytest
import torch

from llm.larp_ar import LarpAR, larp_ar_config
from mmtok.quantize.lfq import quantize_signs
from mmtok.text import t5
from mmtok.visual.larp import PRESETS as LARPS
from mmtok.visual.larp import Larp
from mmtok.visual.magvit2 import PRESETS, Magvit2, Magvit2Params
from recipes.bench import superres as superres_bench
from recipes.bench import text
from recipes.bench.harness import in_fresh_process, median_seconds
from recipes.bench.plain_larp import PlainLarp, PlainLarpAR
from recipes.bench.plain_magvit2 import PlainMagvit2
from recipes.figures.tables import table
from recipes.runtime.memory import peak_gb

PARAMS = Magvit2Params(
    channels=8,
    channel_multipliers=(1, 2, 2, 4),
    num_res_blocks=2,
    num_mid_blocks=1,
    spatial_downsample=(True, True, True),
    temporal_downsample=(False, True, True),
    bits=10,
    norm_groups=4,
    normalize_latents=True,
)


@pytest.mark.parametrize("dropped_frame", [0, 1])
def test_the_plain_form_is_the_same_network(dropped_frame):
    torch.manual_seed(0)
    model = Magvit2(dataclasses.replace(PARAMS, dropped_frame=dropped_frame)).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)  # a new model ignores the past
    plain = PlainMagvit2(model.params, model.state_dict())
    video = torch.rand(2, 3, 9, 32, 32) * 2 - 1
    with torch.no_grad():
        latents = model.encode_latents(video)
        torch.testing.assert_close(plain.encode_latents(video), latents, atol=1e-4, rtol=1e-4)
        signs = quantize_signs(latents)
        torch.testing.assert_close(plain.decode_signs(signs), model.decode_signs(signs), atol=1e-4, rtol=1e-4)


def test_the_plain_larp_is_the_same_network():
    params = dataclasses.replace(LARPS["larp-nano"], prior=None, encoder_depth=2, decoder_depth=2)
    torch.manual_seed(0)
    model = Larp(params).eval()
    torch.nn.init.normal_(model.to_pixels.weight, std=0.1)
    plain = PlainLarp(params, model.state_dict())
    video = torch.rand(2, 3, 16, 32, 32) * 2 - 1
    with torch.no_grad():
        codes = plain.encode(video)
        assert torch.equal(codes, model.encode(video))
        torch.testing.assert_close(plain.decode(codes), model.decode(codes), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="published options"):
        PlainLarp(dataclasses.replace(params, token_type=True), {})


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_the_plain_larp_generator_draws_the_same_codes(guidance):
    torch.manual_seed(0)
    config = larp_ar_config("S", dim=32, num_layers=2, num_heads=2, hidden_dim=48, vocab_size=40, num_tokens=12)
    model = LarpAR(config).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    plain = PlainLarpAR(config, model.state_dict())
    labels = torch.tensor([3, 50])
    drawn = [
        subject.generate(
            labels, num_tokens=12, cfg_scale=guidance, generator=torch.Generator().manual_seed(1), **options
        )
        for subject, options in ((plain, {}), (model, {"temperature": 1.0}))
    ]
    assert torch.equal(*drawn)


def test_options_without_a_plain_form_are_refused():
    with pytest.raises(ValueError, match="no patch"):
        PlainMagvit2(PRESETS["tiny"], {})


def test_a_case_runs_alone_and_reports(tmp_path):
    (tmp_path / "case.py").write_text("import json, sys\nprint('noise')\nprint(json.dumps({'got': sys.argv[1:]}))\n")
    import os

    old = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{old}"
    try:
        assert in_fresh_process("case", ["a", "b"]) == {"got": ["a", "b"]}
        (tmp_path / "case.py").write_text("raise SystemExit('broken')")
        with pytest.raises(RuntimeError, match="case a failed: broken"):
            in_fresh_process("case", ["a"])
    finally:
        os.environ["PYTHONPATH"] = old


def test_times_memory_and_tables():
    calls = []
    assert median_seconds(lambda: calls.append(1), runs=3, device=torch.device("cpu")) < 1
    assert len(calls) == 4
    assert 0.05 < peak_gb() < 100
    assert table([{"case": "a", "s": 0.12345}, {"case": "b", "s": 2}]).splitlines() == [
        "| case | s |", "| --- | --- |", "| a | 0.123 |", "| b | 2 |",
    ]  # fmt: skip


def test_visual_speed_says_what_bfloat16_costs(capsys, tmp_path):
    from recipes.bench.visual import main

    out = tmp_path / "speed.json"
    assert main(["speed", "--preset", "tiny", "--size", "32", "--runs", "1", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["case"] for row in rows] == ["ours fp32", "ours bf16"]  # the small preset has a patch, no plain form
    assert rows[0]["changed tokens %"] == 0 and 0 <= rows[1]["changed tokens %"] < 20
    assert all(row["encode s"] > 0 and row["decode s"] > 0 and row["peak GB"] > 0.1 for row in rows)
    assert "| ours bf16 |" in capsys.readouterr().out


def test_visual_stream_memory_is_told_by_length(tmp_path):
    from recipes.bench.visual import main

    out = tmp_path / "stream.json"
    words = ["stream", "--preset", "tiny", "--size", "32", "--frames", "17", "33", "--out", str(out)]
    assert main(words) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["frames"] for row in rows] == [17, 33]
    assert all(row["encode frames/s"] > 0 and row["peak GB"] > 0.1 for row in rows)


def test_larp_s_speed_is_told_beside_the_plain_form(capsys, tmp_path):
    from recipes.bench.larp import main

    out = tmp_path / "speed.json"
    assert main(["tokenizer", "--preset", "larp-nano", "--runs", "1", "--modes", "ours fp32", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["case"] for row in rows] == ["plain fp32", "ours fp32"]  # the reference always runs
    assert rows[1]["same tokens %"] == 100 and rows[1]["pictures' PSNR dB"] > 80
    assert all(row["encode x"] > 0 and row["decode x"] > 0 for row in rows)
    words = ["sampling", "--preset", "S", "--runs", "1", "--tokens", "2", "--modes", "ours fp16", "--out", str(out)]
    assert main(words) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["case"] for row in rows] == ["plain fp32", "ours fp16"]
    assert rows[1]["weights GB"] == pytest.approx(rows[0]["weights GB"] / 2) and rows[0]["x"] == 1
    assert "| ours fp16 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["sampling", "--modes", "ours int2"])
    assert "unknown modes ours int2" in capsys.readouterr().err


def test_sound_speed_is_told_beside_encodec(capsys, tmp_path):
    from recipes.bench.audio import main

    out = tmp_path / "speed.json"
    words = ["--preset", "smoke", "--seconds", "0.5", "--runs", "1", "--out", str(out)]
    assert main(["speed", *words]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["case"] for row in rows] == ["encodec fp32", "ours fp32", "ours bf16"]
    assert rows[0]["encode ratio"] == 1 and rows[0]["encoder M"] == pytest.approx(7.426, abs=1e-3)
    assert rows[1]["same codes %"] == "100.0 100.0 100.0 100.0" and rows[2]["encode x real time"] > 0
    assert rows[1]["encode per weight"] == pytest.approx(rows[1]["encode x real time"] * rows[1]["encoder M"])
    assert "| ours bf16 |" in capsys.readouterr().out


def test_sound_frames_and_lengths_are_measured(tmp_path):
    from recipes.bench.audio import main

    out = tmp_path / "rows.json"
    assert main(["stream", "--preset", "smoke", "--seconds", "0.4", "--modes", "ours fp32", "--out", str(out)]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["ms of sound"] == 20 and 0 < row["encode ms"] <= row["encode ms, 95 %"]
    assert main(["memory", "--preset", "smoke", "--lengths", "1", "2", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["seconds"] for row in rows] == [1, 2] and all(row["decode peak GB"] > 0.05 for row in rows)
    with pytest.raises(SystemExit):
        main(["memory", "--modes", "encodec fp32"])


def test_a_random_t5_in_shards_is_loaded_and_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(t5.PUBLISHED, "mini", {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 2})
    stored = text.save_random(tmp_path, "mini", torch.bfloat16, shard_bytes=50_000)
    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) > 1 and stored <= sum(f.stat().st_size for f in files) < stored + 20_000
    words = {"folder": tmp_path, "dtype": "bfloat16", "batch": 3, "pieces": 20, "runs": 1, "device": "cpu"}
    row = text.case(argparse.Namespace(**words))
    assert 15 <= row["pieces"] <= 20 and row["captions/s"] > 0 and row["peak GB"] > row["mapped GB"] > 0


def test_decoding_is_told_beside_transformers(capsys, tmp_path, monkeypatch):
    from recipes.bench.lm import main

    monkeypatch.setattr("recipes.bench.lm.bandwidth_gb_s", lambda device: 10.0)
    out = tmp_path / "decode.json"
    assert main(["decode", "--tokens", "4", "--runs", "1", "--out", str(out)]) == 0
    told = json.loads(out.read_text())
    ours = ["ours fp32", "ours bf16", "ours int8", "ours fp16"]
    assert [row["case"] for row in told["rows"]] == ["transformers fp32", *ours]
    theirs, fp32, bf16, int8, fp16 = told["rows"]
    assert fp32["share of memory %"] == pytest.approx(10 * fp32["GB/s"])
    assert theirs["x"] == 1 and all(row["tokens/s"] > 0 for row in told["rows"])
    assert fp32["GB a step"] < theirs["GB a step"], "our head reads one block"
    assert bf16["GB a step"] == fp16["GB a step"] == pytest.approx(fp32["GB a step"] / 2, rel=0.01)
    assert int8["GB a step"] == pytest.approx(fp32["GB a step"] / 4, rel=0.05)
    assert "4 visual tokens" in told["machine"] and "| ours int8 |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["decode", "--modes", "ours bf4"])
    assert "unknown modes ours bf4; known: transformers fp32, ours fp32" in capsys.readouterr().err


def test_transformers_form_makes_the_same_ids():
    from llm.tasks import Clip, task_layout
    from recipes.bench.lm import make_model, plain_model

    model = make_model("tiny", torch.device("cpu"), num_layers=2, visual_codes=64).eval()
    layout = task_layout("unconditional", model.vocabulary, Clip((5, 4, 4)), text_slots=0)
    theirs = plain_model(model)
    causal = torch.ones(12, 12, dtype=torch.bool).tril()[None, None]
    ids = torch.randint(256, 320, (2, 12))
    with torch.no_grad():
        mine = model.logits(model.model(model.embed_ids(ids), mask=causal))
        torch.testing.assert_close(theirs(input_ids=ids).logits, mine, atol=1e-4, rtol=1e-4)
    made = theirs.generate(layout.template[None, :3], max_new_tokens=5, do_sample=False, cache_implementation="static")
    assert made.shape == (1, 8)
    assert theirs.model.embed_tokens.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_the_large_loss_takes_an_eighth_of_the_memory(capsys):
    from recipes.bench.lm import main

    words = ["loss", "--batch", "2", "--length", "768", "--dim", "32", "--vocabulary", "32768", "--runs", "1"]
    rows = {}
    for case in ("plain", "ours"):
        assert main([*words, "--case", case]) == 0
        rows[case] = json.loads(capsys.readouterr().out)
    assert rows["ours"]["gradient norm"] == pytest.approx(rows["plain"]["gradient norm"], rel=1e-4)
    assert rows["plain"]["extra GB"] > 0.5
    assert rows["ours"]["extra GB"] < rows["plain"]["extra GB"] / 8


def test_a_training_step_is_timed(capsys):
    from recipes.bench.lm import MODES, main

    for case in (MODES["train"][0], MODES["train"][-1]):
        assert main(["train", "--side", "4", "--runs", "1", "--case", case, "--precision", "bf16"]) == 0
        row = json.loads(capsys.readouterr().out)
        assert row["s"] > 0 and row["peak GB"] > 0.1


@pytest.mark.slow
def test_the_cost_of_fewer_bits_is_measured_on_the_default_model(tmp_path):
    from recipes.bench.lm import main

    out = tmp_path / "quality.json"
    assert main(["quality", "--scenes", "1", "--modes", "int8", "--out", str(out)]) == 0
    fp32, int8 = json.loads(out.read_text())["rows"]
    assert fp32["same best id %"] == 100 and 90 < int8["same best id %"] <= 100
    assert 0 < abs(float(int8["change"])) < 0.05 < float(fp32["loss"]) < 6


def test_superres_cases_are_measured_and_published_sizes_want_a_gpu(tmp_path, capsys, monkeypatch):
    small = ("--preset", "nano", "--grid", "2,8,8", "--runs", "1", "--steps", "2")

    def measured(kind, case, *words):
        assert superres_bench.main([kind, "--case", case, *small, *words]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    rows = [measured("windows", case) for case in (*superres_bench.AXES, "full")]
    assert [row["tokens a window"] for row in rows] == [64, 64, 128, 128] and all(row["us a token"] > 0 for row in rows)
    superres_bench.draw(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    logits = []
    monkeypatch.setattr("superres.model.SuperResTransformer.compile_layers", lambda self: True)  # half a minute
    for mode in superres_bench.MODES:
        assert measured("modes", mode, "--keep", str(tmp_path / "logits.pt"))["mode"] == mode
        logits.append(torch.load(tmp_path / "logits.pt", weights_only=True))
    assert all(a.equal(b) for a, b in zip(logits[0], logits[1], strict=True)), "a kept context changes nothing"
    assert not logits[0][0].equal(logits[2][0]) and not logits[2][0].equal(logits[4][0])
    for guidance in superres_bench.GUIDANCE:
        assert measured("clip", guidance)["s a clip"] > 0
    assert superres_bench.main(["full"]) == 2
    assert capsys.readouterr().err == superres_bench.NO_GPU + "\n"


@pytest.mark.parametrize(("words", "expected"), [([], "fp32"), (["--precision", "bf16"], "bf16")])
def test_windows_are_measured_in_float32_unless_told(monkeypatch, capsys, words, expected):
    """Over 35,840 tokens a CPU's fused attention needs float32."""
    for kind, usual in (("windows", expected), ("clip", "bf16")):
        monkeypatch.setitem(superres_bench.CASE, kind, lambda args: {"precision": args.precision})
        assert superres_bench.main([kind, "--case", "full", *words]) == 0
        assert json.loads(capsys.readouterr().out)["precision"] == usual
