"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of the same keys as a Markdown table, columns in the order of the first; floats have three digits."""

    def cell(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    columns = list(rows[0])
    return text_table(columns, [[cell(row[c]) for c in columns] for row in rows])


def text_table(header: list[str], rows: list[list[str]]) -> str:
    """Texts as a Markdown table.

    Args:
        header: of the columns.
        rows: as long as the header.

    Returns:
        The table.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
