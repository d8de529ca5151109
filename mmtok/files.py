"""Files written whole or not at all: to a name of their own first, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file in full or not at all: yields a name in the same folder, renamed when the block ends well.

    Args:
        path: the file to make or replace; its folder exists. A link keeps pointing at what is written.

    Yields:
        A path to write to; when the block raises, it is removed and ``path`` stays as it was.

    Raises:
        OSError: if the place cannot be written to or the disk is full.
    """
    target = Path(os.path.realpath(path))
    scratch = scratch_beside(target)
    try:
        yield scratch
        put_file(scratch, target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def scratch_beside(target: Path) -> Path:
    """A name of its own in the folder of ``target``, with its ending: two ranks or two commands never share one.

    Args:
        target: where the finished file will lie.

    Returns:
        The name; a part of the target's and a random part, so that long names stay legal.
    """
    return target.with_name(f".{target.stem[:40]}.{uuid.uuid4().hex[:12]}{target.suffix}")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a text or bytes to a temporary name beside ``path``, then rename.

    Args:
        path: the file to replace or create; its folder is made.
        content: what it will hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as scratch:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON that a person can read, in full or not at all.

    Args:
        path: the file to replace or create; its folder is made.
        value: tables, lists, texts and numbers.
    """
    write_atomically(path, json.dumps(value, indent=1) + "\n")


def write_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, in full or not at all.

    Args:
        tensors: name to tensor, contiguous.
        path: the file to replace or create.
        metadata: texts for its header.
    """
    with writing(path) as scratch:
        save_file(tensors, scratch, metadata=metadata)


def put_file(scratch: Path, path: Path) -> None:
    """Rename a finished file to its place, readable by all as other files are (safetensors makes private ones).

    Args:
        scratch: on the same disk.
        path: the file to replace or create.
    """
    mask = os.umask(0)
    os.umask(mask)
    scratch.chmod(0o666 & ~mask)
    os.replace(scratch, path)


def named_file(path: str | os.PathLike[str]) -> str:
    """A file's name and the beginning of its hash, for protocols: "i3d.pt, sha256 0123456789ab"."""
    return f"{Path(path).name}, sha256 {file_hash(path)[:12]}"


def file_hash(path: str | os.PathLike[str]) -> str:
    """sha256 over a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    add_file(digest, path)
    return digest.hexdigest()


def add_file(digest: hashlib._Hash, path: str | os.PathLike[str]) -> None:
    """Take a file's content into a digest, block by block.

    Args:
        digest: of hashlib, changed in place.
        path: the file.
    """
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
