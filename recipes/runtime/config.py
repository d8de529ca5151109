"""Configs: defaults in a dataclass, then a YAML file, then ``key=value`` words; unknown keys are named.

A nested dataclass is reached with dots: ``optim.lr=1e-3``.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

CONFIGS = Path(__file__).parents[1] / "configs"

# Words of trainings before they had one name a number; records keep them, and who types them is told the new ones.
RENAMED = {
    **dict.fromkeys(("learning_rate", "lr"), "optim.lr"),
    **dict.fromkeys(("final_learning_rate", "final_lr"), "optim.final_lr"),
    **dict.fromkeys(("warmup", "warmup_steps"), "optim.warmup_steps"),
    "betas": "optim.betas",
    "weight_decay": "optim.weight_decay",
    **dict.fromkeys(("clip", "max_grad_norm", "grad_clip"), "optim.grad_clip"),
    **dict.fromkeys(("ema", "ema_decay", "average_decay"), "optim.ema"),
}

T = TypeVar("T")


def old_words(values: Any, where: str = "") -> list[str]:
    """What a record says in words that have changed since.

    Args:
        values: plain values, such as a run's config.json.
        where: prefix of their names.

    Returns:
        Sentences such as "warmup is now optim.warmup_steps".
    """
    if not isinstance(values, dict):
        return []
    told = []
    for key, value in values.items():
        if key in RENAMED and not where.endswith("optim."):
            told.append(f"{where}{key} is now {where}{RENAMED[key]}")
        told += old_words(value, f"{where}{key}.")
    return told


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the annotated type, or ValueError that names the key."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        faults = []
        for option in (a for a in args if a is not type(None)):
            try:
                return _coerce(value, option, where)
            except ValueError as fault:
                faults.append(str(fault))
        raise ValueError(faults[0])
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a table of keys, got {value!r}")
        return from_dict(typing.cast(Any, hint), value, where=f"{where}.")
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} must be a list, got {value!r}")
        inner = [args[0]] * len(value) if len(args) == 2 and args[1] is ... else list(args)
        if len(inner) != len(value):
            raise ValueError(f"{where} must have {len(inner)} entries, got {len(value)}")
        return tuple(_coerce(v, i, f"{where}[{n}]") for n, (v, i) in enumerate(zip(value, inner, strict=True)))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a table of keys, got {value!r}")
        return {k: _coerce(v, args[1], f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as a string
        except ValueError:
            raise ValueError(f"{where} must be a number, got {value!r}") from None
    if hint in (bool, int) and type(value) is hint:  # True is no number
        return value
    if hint is str and isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError(f"{where} must be of type {getattr(hint, '__name__', hint)}, got {value!r}")


def from_dict(cls: type[T], values: dict[str, Any], *, where: str = "", base: T | None = None) -> T:
    """Build the dataclass ``cls`` from plain values, strictly.

    Args:
        cls: a dataclass type.
        values: keys to plain values; nested tables for nested dataclasses.
        where: prefix for messages.
        base: whose values stay where none is given; None takes the defaults of ``cls``.

    Returns:
        An instance of ``cls``.

    Raises:
        ValueError: one message with every unknown key (and its nearest known one) and every wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = [f for f in dataclasses.fields(typing.cast(Any, cls)) if f.init]
    known = {f.name: f.default if base is None else getattr(base, f.name) for f in fields}
    faults, out = [], {}
    for key, value in values.items():
        if key not in known and "optim" in known and key in RENAMED:
            faults.append(f"{where}{key} is now {where}{RENAMED[key]}")
            continue
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {where}{near[0]}?" if near else f"known: {', '.join(sorted(known))}"
            faults.append(f"unknown key {where}{key}; {hint}")
            continue
        try:
            if isinstance(value, dict) and dataclasses.is_dataclass(own := known[key]):
                # a table changes its owner's default, which may differ from that of its class
                out[key] = from_dict(typing.cast(Any, type(own)), value, where=f"{where}{key}.", base=own)
            else:
                out[key] = _coerce(value, hints[key], f"{where}{key}")
        except ValueError as fault:
            faults.append(str(fault))
    required = {f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    if absent := sorted(required - set(values)) if base is None else []:
        faults.append(f"missing keys: {', '.join(where + name for name in absent)}")
    if faults:
        raise ValueError("; ".join(faults))
    return cls(**out) if base is None else dataclasses.replace(typing.cast(Any, base), **out)


def _read_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as fault:
        raise ValueError(f"{where} is not valid YAML: {fault}") from fault


def merge(base: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """``base`` with ``key=value`` words applied; values are read as YAML, dots reach nested tables.

    Args:
        base: plain nested values; not changed.
        overrides: words such as ``["steps=100", "optim.lr=1e-3"]``.

    Returns:
        New nested values.

    Raises:
        ValueError: if a word is not ``key=value``.
    """
    out: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in base.items()}
    for word in overrides:
        key, sign, text = word.partition("=")
        if not sign or not key:
            raise ValueError(f"expected key=value, got {word!r}")
        node = out
        *path, last = key.split(".")
        for part in path:
            if not isinstance(node.get(part) or {}, dict):
                raise ValueError(f"{word!r}: {part} is a single value and has no keys below it")
            node[part] = dict(node.get(part) or {})
            node = node[part]
        node[last] = _read_yaml(text, word)
    return out


def load_config(cls: type[T], path: Path | None, overrides: list[str]) -> T:
    """Resolve a config from a file and words.

    Args:
        cls: the dataclass.
        path: a YAML file with a table of keys, or None for the defaults.
        overrides: ``key=value`` words, applied last.

    Returns:
        The resolved dataclass.

    Raises:
        FileNotFoundError: if ``path`` does not exist.
        ValueError: for unknown keys, wrong types or a file that is not a table.
    """
    values: Any = {}
    if path is not None:
        if not path.is_file():
            raise FileNotFoundError(f"config file {path} does not exist")
        values = _read_yaml(path.read_text(), str(path)) or {}
        if not isinstance(values, dict):
            raise ValueError(f"{path} must hold a table of keys")
    return from_dict(cls, merge(values, overrides))


def given(config: Any, *names: str) -> dict[str, Any]:
    """Those of a config's numbers that are not None.

    Args:
        config: a dataclass instance.
        names: which to look at.
    """
    return {name: value for name in names if (value := getattr(config, name)) is not None}


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain lists, tables and numbers, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))
