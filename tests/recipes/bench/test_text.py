"""What the benchmark of the text encoder tells."""

import argparse

import torch

from mmtok.text import t5
from recipes.bench import text


def test_a_random_t5_in_shards_is_loaded_and_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(t5.PUBLISHED, "mini", {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 2})
    stored = text.save_random(tmp_path, "mini", torch.bfloat16, shard_bytes=50_000)
    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) > 1 and stored <= sum(f.stat().st_size for f in files) < stored + 20_000
    words = {"folder": tmp_path, "dtype": "bfloat16", "batch": 3, "pieces": 20, "runs": 1, "device": "cpu"}
    row = text.case(argparse.Namespace(**words))
    assert 15 <= row["pieces"] <= 20 and row["captions/s"] > 0 and row["peak GB"] > row["mapped GB"] > 0
