"""Corpora that go by name: ``cinepoet prepare NAME``; packages may add rows (docs/plugins.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmtok.plugins import Table

SHAPES = "shapes"


@dataclass(frozen=True)
class Corpus:
    """Films with captions under a name.

    Attributes:
        about: one line for ``cinepoet models``.
        place: gives a source that ``recipes.corpora.captioned.list_films`` reads, such as a folder or a listing, and
            may make or fetch it first; None for what is drawn on the way.
    """

    about: str
    place: Callable[[], str | Path] | None = None


CORPORA = Table(
    "the corpus",
    ("cinepoet.corpora",),
    Corpus,
    {SHAPES: Corpus("made-up scenes: a shape, its colour, its motion, a background and a tone, with their captions")},
)


def find_source(name: str) -> tuple[str, str | None]:
    """What ``cinepoet prepare`` reads.

    Args:
        name: of a corpus, or a source as it is (``./NAME`` for a folder that is called like a corpus).

    Returns:
        The source, and the corpus' name where it is one.

    Raises:
        ValueError: if a package has that corpus and it cannot be used.
    """
    corpus = CORPORA.find(name)
    if corpus is None:
        return name, None
    return (name if corpus.place is None else str(corpus.place())), name
