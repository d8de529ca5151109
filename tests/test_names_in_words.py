"""Docs, help, configs and comments name modules and files of the project: each name must lead somewhere."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("mmtok", "llm", "superres", "recipes")
MODULE = re.compile(rf"(?<![\w./-])({'|'.join(PACKAGES)})((?:\.[A-Za-z_]\w*)+)")
FILE = re.compile(rf"(?<![\w.-])((?:{'|'.join(PACKAGES)}|docs|tests)/[\w./-]+\.(?:py|yaml|csv|md|png))\b")
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/configs/*.yaml")]
)
SOURCES = sorted(f for package in PACKAGES for f in (ROOT / package).rglob("*.py"))


def _leads_somewhere(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            fields = getattr(found, "__dataclass_fields__", {})  # without a default they are no attributes of the class
            if not hasattr(found, attribute) and attribute not in fields:
                return False
            found = getattr(found, attribute, None)
        return True
    return False


def _lost(text: str) -> list[str]:
    """Names that lead nowhere; keys of configs such as superres.steps=9 are none, and X.py and WORD.py stand for any."""
    names = {package + rest for package, rest in MODULE.findall(text)}
    keys = set(re.findall(r"(\w+(?:\.\w+)+)(?:=| is | must )", text))
    endings = ("md", "py", "json", "png", "csv", "yaml", "safetensors", "sha256")
    names = {n for n in names - keys if n.rsplit(".", 1)[1] not in endings}
    lost = [n for n in names if not _leads_somewhere(n)]
    return sorted(
        lost + [f for f in FILE.findall(text) if not (ROOT / f).exists() and not re.search(r"[A-Z]\.(py|yaml)", f)]
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda f: str(f.relative_to(ROOT)))
def test_pages_name_what_is_there(page: Path) -> None:
    assert _lost(page.read_text()) == []


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_sources_name_what_is_there(file: Path) -> None:
    texts = [
        n.value
        for n in ast.walk(ast.parse(file.read_text()))
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]
    assert [name for text in texts for name in _lost(text)] == []
    comments = [line.partition("#")[2] for line in file.read_text().splitlines() if "#" in line]
    assert [name for text in comments for name in FILE.findall(text) if not (ROOT / name).exists()] == []


def test_a_name_that_leads_nowhere_is_found() -> None:
    assert _lost("see `llm.nowhere.Thing`, `llm.model.Nothing` and recipes/no/such.py") == [
        "llm.model.Nothing",
        "llm.nowhere.Thing",
        "recipes/no/such.py",
    ]
    assert _lost("see `llm.model.PrefixLM.forward` and recipes/cli.py, superres.steps=8") == []
