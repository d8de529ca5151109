"""Training, inference, evaluation and the command line, on top of mmtok, llm and superres."""

from typing import Any


def __getattr__(name: str) -> Any:
    """``CinePoetPipeline`` on first use, because it needs torch and importing this package should not."""
    if name == "CinePoetPipeline":
        from recipes.pipeline import CinePoetPipeline

        return CinePoetPipeline
    raise AttributeError(f"module 'recipes' has no attribute {name!r}")
