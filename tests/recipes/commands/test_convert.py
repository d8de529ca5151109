"""``cinepoet convert --to qwen3`` and back, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llm.model import PrefixLM
from mmtok.pretrained import resolve_folder
from recipes.cli import main

TINY = resolve_folder("tiny/lm")


def test_the_embedded_model_goes_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "tiny", "--to", "qwen3", "--out", str(tmp_path / "there")]) == 0
    told = capsys.readouterr()
    assert "qwen3, " in told.out and "adds positions to its embeddings; other programs must too" in told.err
    values = json.loads((tmp_path / "there" / "config.json").read_text())
    assert values["architectures"] == ["Qwen3ForCausalLM"] and values["max_position_embeddings"] >= 1351
    assert main(["convert", str(tmp_path / "there"), "--out", str(tmp_path / "back")]) == 0
    one, other = PrefixLM.from_pretrained(TINY), PrefixLM.from_pretrained(tmp_path / "back")
    assert one.config == other.config
    assert all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())
    words = ["convert", str(TINY), "--to", "qwen3", "--dtype", "bfloat16", "--out", str(tmp_path / "half")]
    assert main(words) == 0
    assert {t.dtype for t in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.bfloat16}


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text('{"model_type": "qwen3"}')
    (tmp_path / "empty").mkdir()
    text, empty, out = str(tmp_path / "text"), str(tmp_path / "empty"), str(tmp_path / "out")
    for words, told in (
        (["tiny", "--to", "llama", "--out", out], "unknown choice 'llama'"),
        (["tiny", "tiny", "--to", "qwen3", "--out", out], "one model at a time, got 2"),
        (["tiny", "--to", "qwen3", "--family", "larp", "--out", out], "--family is not a language model's"),
        (["nowhere", "--to", "qwen3", "--out", out], "unknown model 'nowhere': it is not a folder; known: tiny"),
        ([text, "--out", out], "so it is a text model: it can start a training, but it speaks no media"),
        ([empty, "--out", out], "is a folder; name the files of weights in it"),
        ([text, "--dtype", "float32", "--out", out], "--dtype is a choice for T5 and with --to"),
    ):
        assert main(["convert", *words]) == 2, words
        err = capsys.readouterr().err
        assert told in err and err.count("\n") == 1, err
    assert not (tmp_path / "out").exists()
