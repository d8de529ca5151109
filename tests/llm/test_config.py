from pathlib import Path

import pytest
import torch

import llm
from llm.config import PRESETS, LMConfig, preset
from llm.model import PrefixLM


def count(config: LMConfig) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in PrefixLM(config).parameters())


def test_the_imported_llm_is_ours():
    assert Path(llm.__file__).resolve().parent == Path(__file__).resolve().parents[2] / "llm"


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("tiny", 5.5e6, 7.0e6), ("300m", 0.5e9, 0.62e9), ("1b", 1.0e9, 1.2e9), ("8b", 7.5e9, 8.5e9)],
)
def test_presets_have_the_size_of_their_name(name, low, high):
    assert low <= count(preset(name)) <= high


def test_body_of_300m_has_300_million_weights():
    config = preset("300m")
    with torch.device("meta"):
        body = sum(weight.numel() for weight in PrefixLM(config).model.layers.parameters())
    assert 0.29e9 <= body <= 0.32e9


def test_large_presets_speak_videopoets_vocabulary():
    for name in set(PRESETS) - {"tiny"}:
        config = preset(name)
        assert config.vocabulary.size == 266_496
        assert (config.text_slots, config.text_dim) == (64, 2048)


def test_preset_takes_changes():
    assert preset("tiny", visual_codes=100).vocabulary.visual.stop == 356


def test_errors():
    with pytest.raises(ValueError, match=r"unknown language model size '2b'; known: tiny, 300m, 1b, 8b"):
        preset("2b")
    with pytest.raises(ValueError, match=r"num_heads \(4\) must be a multiple of num_kv_heads \(3\)"):
        preset("tiny", num_kv_heads=3)
    with pytest.raises(ValueError, match="head_dim must be even"):
        preset("tiny", head_dim=7)
    with pytest.raises(ValueError, match=r"max_grid must be \(t, h, w\)"):
        preset("tiny", max_grid=(5, 8))
