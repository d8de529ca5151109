"""recipes/corpora/named.py: what a name of a corpus stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.corpora.named import CORPORA, SHAPES, find_source


def test_a_source_that_is_no_name_stays_as_it_is() -> None:
    assert find_source("films/captions.csv") == ("films/captions.csv", None)
    assert find_source(f"./{SHAPES}") == (f"./{SHAPES}", None)
    assert find_source(SHAPES) == (SHAPES, SHAPES)


def test_a_package_brings_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "reels-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reels\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[cinepoet.corpora]\nreels = reels_corpus:REELS\nshapes = reels_corpus:REELS\n"
    )
    code = 'from recipes.corpora.named import Corpus\nREELS = Corpus("old films", lambda: "/films/list.csv")\n'
    (tmp_path / "reels_corpus.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_source("reels") == ("/films/list.csv", "reels")
    assert list(CORPORA.rows()) == [SHAPES, "reels"] and CORPORA.rows()[SHAPES].place is None
    (fault,) = (plugin.fault for plugin in CORPORA.plugins() if plugin.fault)
    assert fault == "reels 1.0 adds the corpus 'shapes', which is left out: cinepoet has that name itself"
