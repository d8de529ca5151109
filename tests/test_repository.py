"""What keeps the tree in order: who may import whom, no circles, no work at import, docstrings that match signatures, size of the package."""

import ast
import functools
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import mmtok

ROOT = Path(__file__).parent.parent
PACKAGES = ("mmtok", "llm", "superres", "recipes")
MAY_IMPORT = {
    "mmtok": {"mmtok"},
    "llm": {"mmtok", "llm"},
    "superres": {"mmtok", "llm", "superres"},
    "recipes": set(PACKAGES),
}
# Rooms of recipes/, from the ground up, and the rooms that each may import; nothing imports cli, and no room its own commands.
GROUND = {"runtime"}
MAKING = {"loop", "tokens", "corpora", "figures"} | GROUND
WHOLE = {"pipeline", "bundle", "corpora", "figures"} | GROUND
ROOMS: dict[str, set[str]] = {
    "runtime": set(),
    "figures": set(),
    "loop": {"figures"} | GROUND,
    "corpora": GROUND,
    "tokens": {"corpora"} | GROUND,
    "bundle": GROUND,
    "pipeline": {"bundle"} | GROUND,
    "terminal": {"pipeline", "bundle"} | GROUND,
    "train": MAKING,  # and train/tiny.py its sister programs and bundle
    "evaluate": WHOLE,
    "bench": {"bundle", "tokens", "corpora", "figures"} | GROUND,
    "studies": {"train", "evaluate"} | MAKING | WHOLE,
    "commands": {"train", "evaluate", "terminal"} | MAKING | WHOLE,
    "cli": {"commands"},
    "__init__": {"pipeline", "tokens"},
}
NO_SISTERS = {"commands", "train"}  # files here do not import each other, but for the tables in __init__.py
# train/tiny.py runs every program and gathers a bundle
MAY_BESIDES = {"recipes.train.tiny": {"train", "bundle"}}
FILES = [f for package in PACKAGES for f in sorted((ROOT / package).rglob("*.py"))]


def _module(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(file): file for file in FILES}


@functools.cache
def _imported(file: Path) -> frozenset[str]:
    """Modules of ours that a file imports, at its top, inside functions, or to check types only."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and node.level == 0, f"{file}:{node.lineno} imports by dots, which no rule here sees"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in whole}
    return frozenset(name for name in found if name.split(".")[0] in PACKAGES)


def test_every_file_was_found():
    assert len(FILES) > 50


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_one_way(file: Path):
    ours = {name.split(".")[0] for name in _imported(file)}
    package = file.relative_to(ROOT).parts[0]
    assert ours <= MAY_IMPORT[package], f"{package} imports {sorted(ours - MAY_IMPORT[package])}"


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] == "recipes"])
def test_rooms_of_recipes_import_what_the_table_allows(module: str):
    own = _room(module)
    allowed = ROOMS[own] | MAY_BESIDES.get(module, set())
    if own not in NO_SISTERS or MODULES[module].name == "__init__.py":
        allowed |= {own}
    wrong = {name for name in _imported(MODULES[module]) if name.split(".")[0] == "recipes"}
    wrong = {name for name in wrong if name != module and _room(name) not in allowed}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


def test_every_room_is_in_the_table():
    assert {_room(m) for m in MODULES if m.split(".")[0] == "recipes"} == set(ROOMS)
    assert {f.name for f in (ROOT / "recipes").glob("*.py")} == {"__init__.py", "cli.py"}


def _circles() -> list[list[str]]:
    """Sets of modules that import each other, by Tarjan's walk."""
    graph = {name: {n for n in _imported(file) if n in MODULES and n != name} for name, file in MODULES.items()}
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    waiting: list[str] = []
    circles = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        waiting.append(name)
        for other in graph[name]:
            if other not in order:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in waiting:
                lowest[name] = min(lowest[name], order[other])
        if lowest[name] == order[name]:
            circle = [waiting.pop()]
            while circle[-1] != name:
                circle.append(waiting.pop())
            circles.append(sorted(circle))

    for name in graph:
        if name not in order:
            visit(name)
    return [circle for circle in circles if len(circle) > 1]


def test_no_modules_import_each_other():
    assert _circles() == []


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


@functools.cache
def _words(file: Path) -> frozenset[str]:
    """Names and attributes that a file says, those that it imports included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
    return frozenset(found)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_docstrings_say_what_others_need(file: Path):
    """A public name has a docstring; one that another file uses says each argument; an argument list is never wrong."""
    elsewhere = frozenset().union(*(_words(other) for other in FILES if other != file))
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
            if file.parent.name in ("commands", "train", "evaluate") and node.name in ("add_arguments", "run"):
                continue  # the contract of commands says it once
            if "\n" not in doc and (len(names) <= 1 or node.name not in elsewhere):
                continue  # one sentence says it all
            assert sorted(_documented(doc)) == sorted(names), f"{file.name}:{node.lineno} {node.name}"


PROMISES = "mmtok.contract"  # the one page that may ask an object what it has
# what other libraries' objects may have: torch's DTensor, a parser's words
ASKED_OF_OTHERS = {"full_tensor", "changes", "COMMANDS"}


def _asked(file: Path) -> set[tuple[str, str]]:
    """What a file asks objects for by name: ("hasattr" or "getattr" with a default, the attribute)."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    found = {(ast.unparse(c.func), c.args[1]) for c in calls if len(c.args) == 2 + (ast.unparse(c.func) == "getattr")}
    return {(how, ast.unparse(name).strip("'")) for how, name in found if how in ("hasattr", "getattr")}


def _promised() -> set[str]:
    """Attributes and methods of every protocol in mmtok/contract.py."""
    names: set[str] = set()
    for owner in ast.parse(MODULES[PROMISES].read_text()).body:
        for node in owner.body if isinstance(owner, ast.ClassDef) else ():
            if isinstance(node, ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.AnnAssign):
                names.add(ast.unparse(node.target))
    return names


@pytest.mark.parametrize("module", [m for m in MODULES if m != PROMISES])
def test_promises_are_asked_for_on_one_page(module: str):
    """``isinstance(x, Streaming)`` instead of ``hasattr(x, "encode_stream")``: what may be missing is written down once."""
    promised = _promised() | {"family", "tokenizer"}
    wrong = {how_name for how_name in _asked(MODULES[module]) if how_name[1] in promised}
    wrong |= {(how, name) for how, name in _asked(MODULES[module]) if how == "hasattr" and name not in ASKED_OF_OTHERS}
    assert not wrong, f"{module} asks by {sorted(wrong)}; mmtok/contract.py has a Protocol or a function for it"


# modules without a test file of their own name, commands aside, which are tested by what is typed; only ever shorter
WITHOUT_A_TEST = {
    "mmtok/audio/mimi.py",
    "mmtok/convert/cosmos.py",
    "mmtok/convert/open_magvit2.py",
    "mmtok/features/resnet.py",
    "mmtok/metrics/tiling.py",
    "mmtok/visual/fsq_grid.py",
    "recipes/bundle/config.py",
    "recipes/bundle/describe.py",
    "recipes/bundle/parts.py",
    "recipes/corpora/film_clips.py",
    "recipes/corpora/wording.py",
    "recipes/terminal/films.py",
    "recipes/terminal/given_media.py",
    "recipes/terminal/media.py",
    "recipes/tokens/caption_vectors.py",
    "recipes/tokens/conditions.py",
    "recipes/tokens/larp_codes.py",
}


def test_every_module_has_a_test_of_its_own_name():
    wanted = [f.relative_to(ROOT) for f in FILES if f.name != "__init__.py"]
    wanted = [f for f in wanted if f.parts[:2] != ("recipes", "commands")]
    without = {f.as_posix() for f in wanted if not (ROOT / "tests" / f.parent / f"test_{f.name}").is_file()}
    assert without <= WITHOUT_A_TEST, f"tests/ has no file for {sorted(without - WITHOUT_A_TEST)}"
    assert without >= WITHOUT_A_TEST, f"these have a test or are gone: {sorted(WITHOUT_A_TEST - without)}"
    assert len(WITHOUT_A_TEST) < 40


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


def test_every_package_says_that_it_is_typed():
    assert '[tool.setuptools.package-data]\n"*" = ["py.typed"]\n' in (ROOT / "pyproject.toml").read_text()
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)


def test_tab_finds_what_is_not_imported_yet():
    code = (
        "import sys, mmtok, recipes; assert 'torch' not in sys.modules;"
        "assert {'load', '__version__'} <= set(dir(mmtok)), dir(mmtok);"
        "assert {'CinePoetPipeline', 'TokenShards', '__version__'} <= set(dir(recipes)), dir(recipes);"
        "assert 'torch' not in sys.modules; assert mmtok.__version__ == recipes.__version__; print(mmtok.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert re.fullmatch(r"\d+\.\d+.*|unknown", done.stdout.strip())


def test_the_version_is_unknown_where_nothing_is_installed(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert mmtok.__version__ == "unknown"
    monkeypatch.setattr(metadata, "version", lambda name: f"{name} 7")
    assert mmtok.__version__ == "cinepoet 7"


def test_short_names_are_lazy_and_right():
    code = (
        "import sys, mmtok, recipes; assert 'torch' not in sys.modules;"
        "from mmtok.loading import load; from recipes.pipeline.cinepoet import CinePoetPipeline;"
        "assert mmtok.load is load and recipes.CinePoetPipeline is CinePoetPipeline"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
