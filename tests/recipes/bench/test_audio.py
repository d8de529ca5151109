"""What the benchmark of sound tells."""

import json

import pytest


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
