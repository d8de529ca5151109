"""Training, inference, evaluation and the command line, on top of mmtok, llm and superres."""

import importlib
from typing import Any

# On first use, because they need torch and importing this package should not.
_FACE = {
    "CinePoetPipeline": "recipes.pipeline.cinepoet",
    "LarpPipeline": "recipes.pipeline.larp",
    "Segment": "recipes.pipeline.request",
    "TokenShards": "recipes.tokens.reader",
}
__all__ = [*_FACE]


def __getattr__(name: str) -> Any:
    """One of the names above, imported when it is first asked for."""
    if name in _FACE:
        return getattr(importlib.import_module(_FACE[name]), name)
    if name == "__version__":
        return importlib.import_module("mmtok").__version__
    raise AttributeError(f"module 'recipes' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What Tab shows: also what is not imported yet."""
    return sorted({*globals(), *_FACE, "__version__"})
