"""What the benchmark of visual tokenizers tells."""

import json


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
