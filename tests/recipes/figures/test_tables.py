"""Markdown tables."""

from recipes.figures.tables import table, text_table


def test_texts_become_a_table() -> None:
    assert text_table(["", "a"], [["x", "1"]]) == "|  | a |\n| --- | --- |\n| x | 1 |"


def test_rows_of_values_have_the_columns_of_the_first() -> None:
    assert table([{"n": 1, "ms": 2.34567}, {"ms": 100.0, "n": 22}]).splitlines()[2:] == ["| 1 | 2.35 |", "| 22 | 100 |"]
