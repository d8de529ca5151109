"""What the benchmark of super-resolution tells."""

import json

import pytest
import torch

from recipes.bench import superres as superres_bench


def test_superres_cases_are_measured_and_published_sizes_want_a_gpu(tmp_path, capsys, monkeypatch):
    small = ("--preset", "nano", "--grid", "2,8,8", "--runs", "1", "--steps", "2")

    def measured(kind, case, *words):
        assert superres_bench.main([kind, "--case", case, *small, *words]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    rows = [measured("windows", case) for case in (*superres_bench.AXES, "full")]
    assert [row["tokens a window"] for row in rows] == [64, 64, 128, 128] and all(row["us a token"] > 0 for row in rows)
    superres_bench.plot_windows(rows, tmp_path / "plot.png")
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
