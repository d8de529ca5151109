"""What keeps the tree in order: directions of import, no work at import, docstrings that match signatures, size of the package."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("mmtok", "llm", "superres", "recipes")
MAY_IMPORT = {
    "mmtok": {"mmtok"},
    "llm": {"mmtok", "llm"},
    "superres": {"mmtok", "llm", "superres"},
    "recipes": set(PACKAGES),
}
FILES = [f for package in PACKAGES for f in sorted((ROOT / package).rglob("*.py"))]


def _imports(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_every_file_was_found():
    assert len(FILES) > 50


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_one_way(file: Path):
    ours = _imports(ast.parse(file.read_text())) & set(PACKAGES)
    package = file.relative_to(ROOT).parts[0]
    assert ours <= MAY_IMPORT[package], f"{package} imports {sorted(ours - MAY_IMPORT[package])}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_modules_only_define_names(file: Path):
    """Calls that stand alone at the top of a module would do something at import; mmtok's import hook is the one that may."""
    allowed = {"make_importable"}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = node.value.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "?")
            assert name in allowed, f"{file.name}:{node.lineno} calls {name}() when imported"
        assert not isinstance(node, (ast.For, ast.While, ast.With)), f"{file.name}:{node.lineno} runs when imported"


def _documented(doc: str) -> list[str]:
    found = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)+)", doc, re.M)
    return re.findall(r"^    \*{0,2}(\w+):", found.group(1), re.M) if found else []


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_docstring_arguments_equal_the_signature(file: Path):
    tree = ast.parse(file.read_text())
    owners = [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_"))]
    for owner in owners:
        for node in getattr(owner, "body", []):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            if any("property" in ast.unparse(d) for d in node.decorator_list):
                continue
            doc = ast.get_docstring(node)
            assert doc, f"{file.name}:{node.lineno} {node.name} has no docstring"
            spec = node.args
            names = [a.arg for a in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
            names += [a.arg for a in (spec.vararg, spec.kwarg) if a]
            if isinstance(owner, ast.ClassDef) and not any("static" in ast.unparse(d) for d in node.decorator_list):
                names = names[1:]  # self or cls
            if "contract.py" in file.name and isinstance(owner, ast.ClassDef):
                continue  # protocols say it in a sentence
            if len(names) == 1 and "\n" not in doc:
                continue  # one sentence says it all for one argument
            assert sorted(_documented(doc)) == sorted(names), f"{file.name}:{node.lineno} {node.name}"


def test_imported_llm_is_ours():
    code = "import llm, mmtok, superres, recipes; print(llm.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert Path(done.stdout.strip()).resolve() == (ROOT / "llm" / "__init__.py").resolve()


def test_embedded_weights_are_small_enough():
    files = [f for f in (ROOT / "recipes" / "pretrained").rglob("*") if f.is_file()]
    size_mb = sum(f.stat().st_size for f in files) / 1e6
    assert size_mb <= 24, f"{size_mb:.1f} MB"


def test_no_pickles_are_shipped():
    shipped = [
        f.name for f in (ROOT / "recipes" / "pretrained").rglob("*") if f.suffix in (".pt", ".bin", ".ckpt", ".pkl")
    ]
    assert shipped == []


def test_short_names_are_lazy_and_right():
    code = (
        "import sys, mmtok, recipes; assert 'torch' not in sys.modules;"
        "from mmtok.loading import load; from recipes.pipeline import CinePoetPipeline;"
        "assert mmtok.load is load and recipes.CinePoetPipeline is CinePoetPipeline"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
