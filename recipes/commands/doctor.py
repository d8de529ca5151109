"""``cinepoet doctor``: what is installed, what is broken, and the fix for each broken thing."""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path

from mmtok.compat import Fact, status

SUMMARY = "tell what is installed, what is broken, and how to mend it"
EXAMPLES = """\
  cinepoet doctor
  cinepoet doctor --out films     # also: can films be written there?
"""
_ROOT = Path(__file__).resolve().parents[2]  # the folder that holds mmtok, llm, superres and recipes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--out", type=Path, default=Path("."), metavar="FOLDER", help="where you mean to write (.)")


def run(args: argparse.Namespace) -> int:
    """Print the report."""
    facts = examine(args.out)
    print(report(facts))
    return 0 if all(fact.ok for fact in facts) else 1


def examine(folder: Path) -> list[Fact]:
    """Look at everything; a check that fails in an unforeseen way is a broken thing, not a crash."""
    checks: tuple[Callable[[], list[Fact]], ...] = (
        lambda: [python_fact()],
        status,
        lambda: [import_fact(name) for name in ("mmtok", "llm", "superres", "recipes")],
        lambda: [processor_fact()],
        lambda: [film_fact()],
        model_facts,
        plugin_facts,
        lambda: [folder_fact(folder)],
    )
    facts = []
    for check in checks:
        try:
            facts += check()
        except Exception as fault:
            facts.append(Fact("doctor", None, False, _line(fault), "make install (or pip install -e . again)"))
    return facts


def report(facts: list[Fact]) -> str:
    """The facts as lines, broken ones marked and with their fix, and a verdict."""
    width = max(len(fact.name) for fact in facts)
    lines = []
    for fact in facts:
        mark = "ok    " if fact.ok else "BROKEN"
        lines.append(f"{mark} {fact.name:<{width}}  {fact.version or '':<12} {fact.detail}".rstrip())
        if fact.fix and not fact.ok:
            lines.append(f"       fix: {fact.fix}")
    broken = [fact.name for fact in facts if not fact.ok]
    verdict = f"{len(broken)} broken: {', '.join(broken)}" if broken else "cinepoet is ready: try `cinepoet demo`"
    return "\n".join([*lines, "", verdict])


def _line(fault: BaseException) -> str:
    return " ".join(f"{type(fault).__name__}: {fault}".split())


def python_fact() -> Fact:
    """The interpreter."""
    version = platform.python_version()
    good = sys.version_info >= (3, 10)
    return Fact("python", version, good, sys.executable, "" if good else "install Python 3.10 or newer")


def import_fact(name: str) -> Fact:
    """Whether an import package is ours: others use the name ``llm``, and then whichever came last wins."""
    spec = util.find_spec(name)
    origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if origin is None or origin.parent.parent != _ROOT:
        where = origin.parent if origin else "nowhere"
        fix = f"pip uninstall {name}; then install cinepoet again, in an environment of its own"
        return Fact(name, None, False, f"`import {name}` leads to {where}, not to cinepoet's {_ROOT / name}", fix)
    try:
        importlib.import_module(name)
    except Exception as fault:
        return Fact(name, None, False, f"does not import ({_line(fault)})", "pip install --force-reinstall cinepoet")
    try:
        rival = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Fact(name, None, True, "ours")
    return Fact(
        name, None, False, f"ours is found, but the package {name} {rival} has the same name", f"pip uninstall {name}"
    )


def processor_fact() -> Fact:
    """Device, precision and threads that cinepoet would use."""
    import torch

    from recipes.runtime.device import choose_compute

    return Fact("device", None, True, f"{choose_compute().reason}; {torch.get_num_threads()} threads")


def film_fact() -> Fact:
    """Write a short film with sound and read it back."""
    import torch

    from mmtok.media.audio import read_audio
    from mmtok.media.video import read_video, write_film

    fix = "pip install --force-reinstall --only-binary av av"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        try:
            sound = 0.5 * torch.sin(torch.arange(8000) / 5)[None]
            write_film(path, torch.zeros(3, 4, 32, 32), fps=8, audio=sound, sample_rate=16000)
            frames, heard = read_video(path, fps=8, num_frames=None).frames, read_audio(path).samples
        except Exception as fault:
            return Fact("films", None, False, f"a test film fails ({_line(fault)})", fix)
    good = frames.shape[1] == 4 and abs(heard.shape[1] - 8000) < 1100 and bool(heard.abs().max() > 0.3)
    detail = "H.264 with AAC is written and read back" if good else "a test film came back with another length or sound"
    return Fact("films", None, good, detail, "" if good else fix)


def model_facts() -> list[Fact]:
    """The embedded models."""
    from mmtok.loading import what_is
    from mmtok.pretrained import PARTS, known_models, resolve_folder
    from recipes.bundle.folder import open_bundle

    facts = []
    for name in known_models():
        try:
            if (held := what_is(resolve_folder(name))).kind != "model":
                facts.append(Fact(f"model {name}", None, True, held.words))
                continue
            bundle = open_bundle(name)
            absent = [p for p in PARTS if not (bundle.part(p) / "model.safetensors").is_file()]
            detail = f"without {', '.join(absent)}" if absent else "all parts present"
        except (FileNotFoundError, ValueError) as fault:
            absent, detail = ["all"], str(fault)
        facts.append(Fact(f"model {name}", None, not absent, detail, "pip install --force-reinstall cinepoet"))
    if not facts:
        fix = "cinepoet train tiny, or pip install --force-reinstall cinepoet"
        facts.append(Fact("models", None, False, "no model is embedded in this installation", fix))
    return facts


def plugin_facts() -> list[Fact]:
    """What installed packages add; broken where it is left out."""
    from mmtok.metrics.table import TABLE as METRICS
    from mmtok.table import TOKENIZERS
    from recipes.corpora.named import CORPORA

    return [
        Fact(
            f"plug-in {plugin.name}",
            None,
            not plugin.fault,
            plugin.fault or f"{plugin.group} of {plugin.package}",
            f"pip uninstall {plugin.package.split()[0]}, or ask its authors",
        )
        for table in (TOKENIZERS, METRICS, CORPORA)
        for plugin in table.plugins()
    ]


def folder_fact(folder: Path) -> Fact:
    """Whether files can be written into a folder."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as fault:
        reason = fault.strerror or str(fault)
        return Fact(
            "output", None, False, f"{folder} cannot be written to ({reason})", "choose another folder for --out"
        )
    return Fact("output", None, True, f"{folder.resolve()} can be written to")
