from pathlib import Path

import pytest

import llm
from llm.config import PRESETS, preset
from llm.model import count_weights


def test_the_imported_llm_is_ours():
    assert Path(llm.__file__).resolve().parent == Path(__file__).resolve().parents[2] / "llm"


@pytest.mark.parametrize(("name", "wanted"), [("300m", 300e6), ("1b", 1e9), ("8b", 8e9)])
def test_the_layers_of_a_preset_have_the_size_of_its_name(name, wanted):
    counts = count_weights(preset(name))
    assert abs(counts["body"] / wanted - 1) < 0.05
    assert counts["tables"] == 266_496 * preset(name).dim
    assert counts["total"] == counts["body"] + counts["tables"] + counts["other"]
    assert 0 < counts["other"] < 0.02 * counts["total"]


def test_tiny_is_the_size_it_was_shipped_with():
    assert count_weights(preset("tiny"))["total"] == 6_398_720
    assert count_weights(preset("tiny", tie_embeddings=False))["tables"] == 2 * 8448 * 256


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
