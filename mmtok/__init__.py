"""Media to tokens and back: images, video, sound and text.

``mmtok.load(name_or_path)`` gives any tokenizer or text encoder; see mmtok/loading.py.
"""

import importlib
from importlib import metadata
from typing import Any

from mmtok import compat as _compat

_compat.make_importable()  # before anybody imports torchaudio or a model class of transformers

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """``load`` and the version, on first use: one needs torch and the other reads files, which an import should not."""
    if name == "load":
        return importlib.import_module("mmtok.loading").load
    if name == "__version__":
        try:
            return metadata.version("cinepoet")  # of what is installed, not of files that lie about
        except metadata.PackageNotFoundError:
            return "unknown"
    raise AttributeError(f"module 'mmtok' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What Tab shows: also what is not imported yet."""
    return sorted({*globals(), *__all__, "__version__"})
