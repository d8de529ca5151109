"""Make torchaudio, and with it transformers and encodec, importable beside a torch it was not built for.

The registry's torchaudio wheel links CUDA's and CUDA torch's libraries. Beside a CPU-only torch its native extension
cannot be loaded and ``import torchaudio`` raises ``OSError``; since transformers imports torchaudio as soon as it is
installed, every model class of transformers breaks with it. torchaudio itself has Python code for a missing
extension (its loader may answer False), so the cure is small: a loader that also answers False for an extension that
is there but does not load. What is pure Python (functional, transforms, compliance, models) then works as it is; the
compiled extras (forced alignment, RNN-T loss, the CTC beam decoder) stay absent and say so when called.

``import mmtok`` calls :func:`make_importable`, which only puts a finder on ``sys.meta_path``: nothing is imported
before somebody asks for torchaudio, and where it loads natively, or is not installed, nothing changes.
``import transformers`` may come before ``import mmtok``, as its classes are imported when they are first named;
``from transformers import SomeModel`` may not, but after its error ``import mmtok`` and a second try succeed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_LOADER_MODULE = "torchaudio._extension.utils"  # torchaudio's own code that loads its shared libraries
_NATIVE_LIBRARIES = ("_torchaudio", "libtorchaudio")  # needed together: one without the other is an error upstream


def make_importable() -> None:
    """Let torchaudio be imported although its native extension may not load; calling it again changes nothing."""
    if not any(isinstance(finder, _ForgivingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ForgivingFinder())
    # A failed `import torchaudio` before ours leaves its loader module behind, so the finder would not be asked.
    if _LOADER_MODULE in sys.modules and "torchaudio" not in sys.modules:
        _forgive(sys.modules[_LOADER_MODULE])


def _forgive(module: Any) -> None:
    """Replace torchaudio's ``_load_lib`` by one that answers False instead of raising."""
    load_native = module._load_lib
    if getattr(load_native, "forgiving", False):
        return

    def load_lib(lib: str) -> bool:
        # Asked for the first library we try both, as torchaudio raises when only the second one fails.
        names = _NATIVE_LIBRARIES if lib in _NATIVE_LIBRARIES else (lib,)
        try:
            return all(load_native(name) for name in names)
        except (OSError, ImportError):
            return False

    load_lib.forgiving = True  # type: ignore[attr-defined]
    module._load_lib = load_lib


class _ForgivingLoader(SourceFileLoader):
    """Runs torchaudio's loader module as it is, then makes its answer forgiving."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _forgive(module)


class _ForgivingFinder(MetaPathFinder):
    """Finds exactly one module, torchaudio's library loader; silent about all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _LOADER_MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _ForgivingLoader(spec.loader.name, spec.loader.path)
        return spec


@dataclass(frozen=True)
class Fact:
    """One line of the report on what is installed.

    Attributes:
        name: distribution name, for example ``torchaudio``.
        version: installed version, or None when it is not installed.
        ok: False when something of ours cannot run because of it.
        detail: what was found, in one line.
        fix: the command that repairs it, empty when nothing needs repair.
    """

    name: str
    version: str | None
    ok: bool
    detail: str
    fix: str = ""


_IMPORT_NAMES = {"pillow": "PIL", "pyyaml": "yaml"}
_REQUIRED = (
    "torch", "numpy", "transformers", "sentencepiece", "torchaudio", "encodec", "accelerate", "datasets", "einops",
    "safetensors", "huggingface_hub", "av", "soundfile", "soxr", "pillow", "matplotlib", "pyyaml", "rich",
)  # fmt: skip
_NOT_NEEDED = ("torchvision", "torchcodec")  # broken CPU installs of these are common; the first breaks transformers


def status() -> list[Fact]:
    """Report every required package, by really importing it, and the two unneeded ones that often do harm.

    Takes seconds, since it imports everything: it is for ``cinepoet doctor``, not for start-up.

    Returns:
        One :class:`Fact` a package, required ones first.
    """
    make_importable()
    return [_required_fact(name) for name in _REQUIRED] + [_unneeded_fact(name) for name in _NOT_NEEDED]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _import_problem(name: str) -> str:
    """Import a distribution's module and return the error in one line, empty when there is none."""
    try:
        importlib.import_module(_IMPORT_NAMES.get(name, name))
    except Exception as error:
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


def _required_fact(name: str) -> Fact:
    version = _version(name)
    if version is None:
        return Fact(name, None, False, "not installed", f"pip install {name}")
    problem = _import_problem(name)
    if problem:
        return Fact(name, version, False, f"does not import ({problem})", f"pip install --force-reinstall {name}")
    module: Any = sys.modules[_IMPORT_NAMES.get(name, name)]
    detail = "imports"
    if name == "torch":
        detail = "CPU build" if module.version.cuda is None else f"CUDA {module.version.cuda}"
        if module.version.cuda is not None and not module.cuda.is_available():
            detail += ", but no usable GPU"
    elif name == "torchaudio":
        if module._extension._IS_TORCHAUDIO_EXT_AVAILABLE:
            detail = "native extension loads"
        else:
            detail = (
                "imports through mmtok.compat: its native extension does not load beside this torch, which only"
                " forced alignment and RNN-T would need"
            )
    elif name == "av":
        missing = [codec for codec in ("libx264", "aac") if codec not in module.codecs_available]
        if missing:
            problem = f"built without {' and '.join(missing)}, so films cannot be written"
            return Fact(name, version, False, problem, "pip install --force-reinstall --only-binary av av")
        detail = "reads and writes H.264 and AAC"
    return Fact(name, version, True, detail)


def _unneeded_fact(name: str) -> Fact:
    version = _version(name)
    if version is None:
        return Fact(name, None, True, "not installed, and not needed")
    problem = _import_problem(name)
    if not problem:
        return Fact(name, version, True, "imports, and is not needed")
    # transformers imports torchvision as soon as it is installed; a broken torchcodec does it no harm
    return Fact(name, version, name != "torchvision", f"does not import ({problem})", f"pip uninstall {name}")
