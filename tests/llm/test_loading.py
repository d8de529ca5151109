"""LARP's generators by folder, ours or not."""

import json

import pytest
import torch
from safetensors.torch import save_file

from llm.larp_ar import LarpAR, larp_ar_config
from llm.loading import is_published, load_larp


def test_a_folder_of_ours_is_known_by_its_config(tmp_path):
    torch.manual_seed(0)
    model = LarpAR(larp_ar_config("S", dim=32, num_layers=1, num_heads=2, hidden_dim=48, vocab_size=40, num_tokens=12))
    torch.nn.init.normal_(model.output.weight)
    model.save_pretrained(tmp_path)
    assert not is_published(tmp_path)
    ids = torch.randint(40, (1, 11))
    with torch.no_grad():
        assert torch.equal(load_larp(tmp_path)(ids, torch.tensor([1])), model.eval()(ids, torch.tensor([1])))


def test_other_folders_are_named(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        load_larp(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"family": "larp", "params": {}}))
    with pytest.raises(ValueError, match="holds a 'larp' model, expected 'larp-ar' or 'larp-ar-fp'"):
        load_larp(tmp_path)
