"""Weights out of published files, without running anything that lies in them.

    .safetensors          as it is
    .ckpt .pt .pth        torch.save: weights under ``state_dict``, ``model`` or at the top; files from before torch 1.6
                          go to torch's own weights-only reader
    .jit                  TorchScript archives (Cosmos): the attributes of the module tree; its code is never read

A pickle is a program. Ours runs with five harmless words: ordered dictionaries, storages, the tensor rebuilder, the
lists of TorchScript, and, for ``__torch__`` classes, an object that only holds attributes. Any other word is refused by
name before it could do a thing.
"""

from __future__ import annotations

import collections
import functools
import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_PICKLE_MOST = 16 << 20  # bytes; names and shapes of the largest published model take 1 MB
_MOST_NODES, _DEEPEST = 1_000_000, 100  # of the tree of names
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Holder:
    """A module of a TorchScript archive: attributes and nothing else."""

    def __init__(self, *_: Any):
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.attributes = state


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor that still lies in the archive.

    Attributes:
        read_storage: gives the storage.
        offset: of the first entry in it.
        size: shape.
        stride: in entries.
    """

    read_storage: Callable[[], Tensor]
    offset: int = 0
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    def read(self) -> Tensor:
        """Read it; torch checks that it stays inside the storage."""
        return torch.as_strided(self.read_storage(), self.size, self.stride, self.offset)


def _rebuild_tensor(storage: _Stored, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Stored:
    return _Stored(storage.read_storage, offset, size, stride)


def _same(value: Any, *_: Any) -> Any:
    return value


class _Reader(pickle.Unpickler):
    """The pickle of one archive.

    Args:
        archive: the open zip.
        root: folder of its data.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str, data: bytes):
        super().__init__(io.BytesIO(data))
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a word of the pickle means."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return functools.partial(_rebuild_tensor)  # fresh ones: a pickle may set attributes of what it names
        if module == "torch._utils" and name == "_rebuild_parameter":
            return functools.partial(_same)
        if module == "torch.jit._pickle" and (name.startswith("build_") or name == "restore_type_tag"):
            return functools.partial(_same)
        if module == "__torch__" or module.startswith("__torch__."):
            return _Holder
        raise pickle.UnpicklingError(f"it asks to run {module}.{name}")

    def persistent_load(self, pid: Any) -> _Stored:
        """A storage of the archive, to be read when it is known whether it is wanted."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], torch.dtype)):
            raise pickle.UnpicklingError(f"unknown reference {str(pid)[:60]!r}")
        return _Stored(functools.partial(self._read_storage, pid[1], str(pid[2]), int(pid[4])))

    def _read_storage(self, dtype: torch.dtype, key: str, length: int) -> Tensor:
        """(length,) entries, each storage once."""
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.root}data/{key}"))
            if len(data) != length * dtype.itemsize:
                raise pickle.UnpicklingError(
                    f"storage {key} holds {len(data)} bytes, expected {length * dtype.itemsize}"
                )
            self.storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self.storages[key]


def _read_archive(path: Path, wanted: Callable[[str], bool], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The wanted tensors of a zip archive, one storage after another where they change their type."""
    with zipfile.ZipFile(path) as archive:
        names = {e.filename: e.file_size for e in archive.infolist()}
        tops = [n for n in names if n.count("/") <= 1 and n.rsplit("/", 1)[-1] == "data.pkl"]
        if len(tops) != 1:
            raise ValueError("it is a zip archive but holds no torch data")
        root = tops[0].removesuffix("data.pkl")
        read = [e for e in archive.infolist() if e.filename == tops[0] or e.filename.startswith(f"{root}data/")]
        if any(e.compress_type != zipfile.ZIP_STORED for e in read):
            raise ValueError("its data are compressed, which torch never does")
        if sum(e.file_size for e in read) > path.stat().st_size:
            raise ValueError("its entries overlap")
        if names[tops[0]] > _PICKLE_MOST:
            raise ValueError(f"its pickle takes {names[tops[0]] >> 20} MB")
        script = any(n.startswith(f"{root}code/") for n in names)
        data = archive.read(tops[0])
        _check_memo(data)
        reader = _Reader(archive, root, data)
        top = reader.load()
        stored = _tensors_of(top if script else _weights_in(top))
        tensors = {}
        for name, place in stored.items():
            if wanted(name):
                tensors[name] = _as(place.read(), dtype)
                if dtype is not None:
                    reader.storages.clear()
        return tensors


def _as(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def _weights_in(top: Any) -> Any:
    """The table of weights, which may lie under a usual name."""
    if not isinstance(top, dict):
        return top
    return next((top[key] for key in ("state_dict", "model") if isinstance(top.get(key), dict)), top)


def _check_memo(data: bytes) -> None:
    """Refuse places in the pickle's memory that it cannot fill: a few bytes would reserve gigabytes."""
    for word, argument, _ in pickletools.genops(data):
        if word.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument is not None and int(argument) > len(data):
            raise pickle.UnpicklingError("it reserves more memory than it can fill")


def _tensors_of(top: Any) -> dict[str, Any]:
    """Tensors, read or not, in a tree of modules or dictionaries, names joined with dots."""
    found: dict[str, Any] = {}
    left, seen = [("", top, 0)], 0
    while left:
        prefix, value, depth = left.pop()
        seen += 1
        if seen > _MOST_NODES or depth > _DEEPEST:
            raise ValueError("its tables hold each other without end")
        if isinstance(value, (Tensor, _Stored)):
            found[prefix] = value
            continue
        children = value.attributes if isinstance(value, _Holder) else value if isinstance(value, dict) else {}
        named = [(f"{prefix}.{n}" if prefix else str(n), child, depth + 1) for n, child in children.items()]
        left.extend(reversed(named))
    return found


def read_checkpoint(
    path: str | Path, wanted: Callable[[str], bool] | None = None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The tensors of a published file.

    Args:
        path: .safetensors, a torch.save archive or a TorchScript archive; told apart by content.
        wanted: whether the tensor of a name is read (files from before torch 1.6 are read whole); None reads all.
        dtype: that floating tensors get as they are read, so that only one is in memory in both types; None keeps.

    Returns:
        Name to tensor.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: in one line, if it is damaged, of another format, or asks to run code.
    """
    path, keep = Path(path), wanted or (lambda name: True)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if zipfile.is_zipfile(path):
            tensors = _read_archive(path, keep, dtype)
        elif start[:1] == b"\x80":  # before torch 1.6; torch's own restricted reader knows the layout
            top = torch.load(path, map_location="cpu", weights_only=True)
            tensors = {name: _as(tensor, dtype) for name, tensor in _tensors_of(_weights_in(top)).items() if keep(name)}
        elif start[8:9] == b"{":
            with safe_open(path, "pt") as file:
                tensors = {name: _as(file.get_tensor(name), dtype) for name in file.keys() if keep(name)}  # noqa: SIM118
        elif start[:2] == b"PK":
            raise ValueError("it is a torch archive that is cut short")
        else:
            raise ValueError("it is neither safetensors nor a torch archive")
    except (
        pickle.UnpicklingError,
        SafetensorError,
        zipfile.BadZipFile,
        ValueError,
        LookupError,
        EOFError,
        AttributeError,
        TypeError,
        RuntimeError,
        MemoryError,
        OSError,
    ) as fault:
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise ValueError(f"{path} cannot be read as weights: {reason}") from fault
    if not tensors and wanted is None:
        raise ValueError(f"{path} holds no tensors")
    return tensors
