"""Names of tables."""

from __future__ import annotations

import pytest

from mmtok.find import find


def test_a_name_gives_its_value_and_an_unknown_one_the_known_ones():
    assert find({"a": 1, "b": 2}, "b", "letter") == 2
    with pytest.raises(ValueError, match=r"^unknown letter 'c'; known: a, b$"):
        find({"a": 1, "b": 2}, "c", "letter")
