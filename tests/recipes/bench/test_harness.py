"""The benchmarks' reference equals ours, and their plumbing tells what it measured."""

import pytest
import torch

from recipes.bench.harness import in_fresh_process, median_seconds
from recipes.figures.tables import table
from recipes.runtime.memory import peak_gb


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
