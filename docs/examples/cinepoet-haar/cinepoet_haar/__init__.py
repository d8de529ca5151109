"""What this package adds to cinepoet: a family of tokenizers, a metric and a corpus.

Light, as it is read to list what there is.
"""

from __future__ import annotations

from pathlib import Path

from mmtok.metrics.table import Row
from mmtok.table import Family
from recipes.corpora.named import Corpus


def _gratings() -> Path:
    from cinepoet_haar.gratings import draw  # torch and a film encoder, when the films are wanted

    return draw()


FAMILY = Family(
    "visual", "cinepoet_haar.tokenizer", "HaarTokenizer", "Haar wavelets, the coarse bands rounded", "Haar 1910"
)
EDGES = Row("pictures", "difference of edges", "", "lower", "cinepoet_haar.edges:Edges")
GRATINGS = Corpus("stripes that drift, with their captions", _gratings)
