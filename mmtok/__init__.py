"""Media to tokens and back: images, video, sound and text.

``mmtok.load(name_or_path)`` gives any tokenizer or text encoder; see mmtok/loading.py.
"""

from typing import Any

from mmtok import compat as _compat

_compat.make_importable()  # before anybody imports torchaudio or a model class of transformers


def __getattr__(name: str) -> Any:
    """``load`` on first use, because it needs torch and importing this package should not."""
    if name == "load":
        from mmtok.loading import load

        return load
    raise AttributeError(f"module 'mmtok' has no attribute {name!r}")
