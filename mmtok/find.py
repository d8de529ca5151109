"""Names and what they stand for; an unknown one is told with the known ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

T = TypeVar("T")


def require_known(name: str, known: Collection[str], what: str) -> None:
    """Raise unless a name is known.

    Args:
        name: looked for.
        known: names, in the order that the message tells them.
        what: kind of the names, for the message.

    Raises:
        ValueError: for an unknown name, with the known ones.
    """
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")


def find(table: Mapping[str, T], name: str, what: str) -> T:
    """The value of a name.

    Args:
        table: name to value.
        name: looked for.
        what: as of ``require_known``.

    Returns:
        The value.

    Raises:
        ValueError: as of ``require_known``.
    """
    require_known(name, table, what)
    return table[name]
