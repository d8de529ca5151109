"""What installed packages add to our tables, by entry point, so that nobody has to touch a file of ours.

A package names a row of its own in pyproject.toml (docs/plugins.md):

    [project.entry-points."cinepoet.tokenizers"]
    haar = "haar_tokenizer:FAMILY"

Our own rows are always there and always ours. A row that cannot be loaded, is something else or takes a name that is
taken is left out with a line that names its package, and nothing else suffers from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Generic, TypeVar

T = TypeVar("T")


def entry_points(group: str) -> list[metadata.EntryPoint]:
    """Entry points of a group, by name and then by package; nothing is imported."""
    return sorted(metadata.entry_points(group=group), key=lambda point: (point.name, _package(point)))


def _package(point: metadata.EntryPoint) -> str:
    return "unknown" if point.dist is None else f"{point.dist.name} {point.dist.version}"


@dataclass(frozen=True)
class Plugin(Generic[T]):
    """One row that a package adds.

    Attributes:
        name: of the row.
        group: of its entry point.
        package: its name and version.
        row: the row, or None where there is a fault.
        fault: why it is left out, one line; "" where all is well.
    """

    name: str
    group: str
    package: str
    row: T | None
    fault: str = ""


@dataclass(frozen=True)
class Table(Generic[T]):
    """A table of ours that packages add rows to.

    Attributes:
        what: a row in words, for errors.
        groups: of the entry points.
        kind: class of a row.
        ours: name to row.
    """

    what: str
    groups: tuple[str, ...]
    kind: type[T]
    ours: Mapping[str, T]

    def plugins(self) -> list[Plugin[T]]:
        """What packages add in a fixed order, each loaded or with its fault."""
        found: list[Plugin[T]] = []
        for point in (point for group in self.groups for point in entry_points(group)):
            package = _package(point)
            holder = next((p.package for p in found if p.name == point.name and p.row is not None), None)
            row, why = None, ""
            if point.name in self.ours:
                why = "cinepoet has that name itself"
            elif holder is not None:
                why = f"{holder} has that name too"
            else:
                try:
                    row = point.load()
                except (Exception, SystemExit) as error:  # whatever a stranger's module does must not stop ours
                    why = " ".join(f"it does not load ({type(error).__name__}: {error})".split())
                if row is not None and not isinstance(row, self.kind):
                    row, why = None, f"{point.value} is no {self.kind.__module__}.{self.kind.__name__}"
            fault = f"{package} adds {self.what} {point.name!r}, which is left out: {why}" if why else ""
            found.append(Plugin(point.name, point.group, package, row, fault))
        return found

    def rows(self) -> dict[str, T]:
        """Name to row, ours and then those that packages add."""
        return {**self.ours, **{p.name: p.row for p in self.plugins() if p.row is not None}}

    def find(self, name: str) -> T | None:
        """A row by name; packages are only asked for what is not ours.

        Args:
            name: of the row.

        Returns:
            The row, or None.

        Raises:
            ValueError: if a package has it and its row cannot be used.
        """
        if name in self.ours:
            return self.ours[name]
        plugin = next((p for p in self.plugins() if p.name == name), None)
        if plugin is not None and plugin.row is None:
            raise ValueError(plugin.fault)
        return None if plugin is None else plugin.row
