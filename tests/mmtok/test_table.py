"""mmtok/table.py: every row leads to a class, its sizes and its converters."""

import importlib

import pytest

from mmtok.pretrained import known_models, resolve_folder
from mmtok.table import FAMILIES, MODELS, Family


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_leads_to_its_class_and_converters(name):
    family = FAMILIES[name]
    assert callable(family.load_class().from_pretrained)
    for published in family.published:
        assert callable(importlib.import_module(published.module).from_upstream) and published.marks


def test_rows_know_the_named_sizes_of_their_classes():
    assert {name for name, family in FAMILIES.items() if family.presets()} >= {"magvit2", "cosmos-dv", "soundstream"}
    params = FAMILIES["magvit2"].presets()["tiny"]
    assert FAMILIES["magvit2"].load_class()(params).params == params
    assert FAMILIES["t5"].presets() == {}


def test_a_family_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of visual, audio, text, got 'smell'"):
        Family("smell", "nose", "Nose", "smells", "nowhere")


def test_every_embedded_model_has_a_name():
    folders = {
        folder.name for folder in resolve_folder("tiny").parent.iterdir() if (folder / "cinepoet.json").is_file()
    }
    assert folders == set(MODELS) <= set(known_models())
