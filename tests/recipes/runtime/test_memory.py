"""glibc's malloc told to keep or to give back: in a process of its own, as the settings stay."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys, torch
from recipes.runtime.memory import forget_peak, give_back_freed_memory, peak_gb

told = give_back_freed_memory()
kept = []
for _ in range(200):
    blocks = [torch.ones(2_000_000 + 1000 * i) for i in range(4)]
    kept.append(torch.ones(1000))
    del blocks
forget_peak()
print(told, peak_gb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc is Linux'")
def test_large_blocks_go_back_though_small_ones_stay():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    told, peak = done.stdout.split()
    assert told == "True" and float(peak) < 0.5
