"""mmtok/plugins.py: rows that packages add, and what becomes of those that cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmtok.plugins import Table, entry_points
from mmtok.table import TOKENIZERS, Family

GROUP = "cinepoet.test_rows"


def install(folder: Path, package: str, rows: dict[str, str], *, group: str = GROUP, code: str = "") -> None:
    """A package as an installer leaves it: a module, and metadata beside it."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in rows.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]) + "\n")
    (folder / f"{package}.py").write_text(code)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


TABLE: Table[int] = Table("the number", (GROUP,), int, {"one": 1})


def test_rows_of_packages_stand_behind_ours(site: Path) -> None:
    assert TABLE.rows() == {"one": 1} and TABLE.find("two") is None
    install(site, "more_numbers", {"two": "more_numbers:TWO", "ten": "more_numbers:TEN"}, code="TWO, TEN = 2, 10\n")
    assert TABLE.rows() == {"one": 1, "ten": 10, "two": 2}
    assert TABLE.find("two") == 2 and TABLE.find("three") is None
    assert [(p.name, p.package, p.fault) for p in TABLE.plugins()] == [
        ("ten", "more_numbers 1.0", ""),
        ("two", "more_numbers 1.0", ""),
    ]


def test_what_cannot_be_used_is_left_out_and_named(site: Path) -> None:
    install(site, "a_clash", {"one": "a_clash:ONE", "six": "a_clash:SIX"}, code="ONE, SIX = 111, 6\n")
    install(site, "b_broken", {"five": "b_broken:FIVE"}, code="raise OSError('no\\nlibrary')\n")
    install(site, "c_absent", {"four": "c_nowhere:FOUR"})
    install(site, "d_wrong", {"nine": "d_wrong:NINE"}, code="NINE = 'nine'\n")
    install(site, "e_second", {"six": "e_second:SIX"}, code="SIX = 66\n")
    assert TABLE.rows() == {"one": 1, "six": 6}
    faults = [p.fault for p in TABLE.plugins() if p.fault]
    assert faults == [
        "b_broken 1.0 adds the number 'five', which is left out: it does not load (OSError: no library)",
        "c_absent 1.0 adds the number 'four', which is left out: it does not load "
        "(ModuleNotFoundError: No module named 'c_nowhere')",
        "d_wrong 1.0 adds the number 'nine', which is left out: d_wrong:NINE is no builtins.int",
        "a_clash 1.0 adds the number 'one', which is left out: cinepoet has that name itself",
        "e_second 1.0 adds the number 'six', which is left out: a_clash 1.0 has that name too",
    ]
    with pytest.raises(ValueError, match=r"b_broken 1\.0 adds the number 'five'"):
        TABLE.find("five")


def test_names_of_ours_import_no_package(site: Path) -> None:
    install(site, "loud", {"three": "loud:THREE"}, code="raise SystemExit('imported')\n")
    assert TABLE.find("one") == 1
    assert [point.name for point in entry_points(GROUP)] == ["three"] and "loud" not in sys.modules
    with pytest.raises(ValueError, match="SystemExit: imported"):
        TABLE.find("three")


@pytest.mark.parametrize("group", TOKENIZERS.groups)
def test_a_family_comes_by_either_group(site: Path, group: str) -> None:
    code = 'from mmtok.table import Family\nROW = Family("audio", "hum", "Hum", "hums", "nowhere")\n'
    install(site, "hum", {"hum": "hum:ROW"}, group=group, code=code)
    row = TOKENIZERS.find("hum")
    assert isinstance(row, Family) and row.kind == "audio" and entry_points(group)[0].value == "hum:ROW"
