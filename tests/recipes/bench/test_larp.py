"""What the benchmark of LARP tells."""

import json

import pytest


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
