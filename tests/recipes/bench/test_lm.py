"""What the benchmark of the language model tells."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]


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


def test_the_large_loss_takes_an_eighth_of_the_memory():
    words = ["loss", "--batch", "2", "--length", "768", "--dim", "32", "--vocabulary", "32768", "--runs", "1"]
    rows = {}
    for case in ("plain", "ours"):  # in processes of their own: this one may keep what other tests have freed
        done = subprocess.run(
            [sys.executable, "-m", "recipes.bench.lm", *words, "--case", case],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        rows[case] = json.loads(done.stdout)
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
