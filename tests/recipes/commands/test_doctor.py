"""The doctor's report: healthy here, and a named fix for whatever is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmtok.compat import Fact
from recipes.cli import main
from recipes.commands import doctor


def test_this_environment_is_usable(tmp_path: Path) -> None:
    facts = {fact.name: fact for fact in doctor.examine(tmp_path)}
    for name in ("python", "torch", "av", "transformers", "mmtok", "llm", "superres", "recipes", "films", "output"):
        assert facts[name].ok, facts[name]
    assert "H.264" in facts["films"].detail


def test_exit_code_follows_the_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = Fact("one", "1.0", True, "fine"), Fact("two", None, False, "missing", "pip install two")
    monkeypatch.setattr(doctor, "examine", lambda folder: [good])
    assert main(["doctor", "--out", str(tmp_path)]) == 0
    assert "cinepoet is ready" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "examine", lambda folder: [good, bad])
    assert main(["doctor", "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "BROKEN two" in shown and "fix: pip install two" in shown and "1 broken: two" in shown


def test_llm_of_another_package_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "__init__.py").touch()

    class Spec:
        origin = str(tmp_path / "llm" / "__init__.py")

    monkeypatch.setattr(doctor.util, "find_spec", lambda name: Spec)
    fact = doctor.import_fact("llm")
    assert not fact.ok and str(tmp_path / "llm") in fact.detail and "pip uninstall llm" in fact.fix


def test_rival_distribution_of_the_same_name_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "0.27")
    fact = doctor.import_fact("llm")
    assert not fact.ok and "llm 0.27" in fact.detail


def test_imported_llm_is_ours() -> None:
    import llm

    assert Path(str(llm.__file__)).resolve().parent == Path(__file__).resolve().parents[3] / "llm"


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    fact = doctor.folder_fact(tmp_path / "absent")
    assert not fact.ok and "cannot be written to" in fact.detail and fact.fix


def test_missing_model_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mmtok.pretrained.MODELS", {})
    (fact,) = doctor.model_facts()
    assert not fact.ok and "train tiny" in fact.fix


def test_failing_check_is_a_broken_thing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def crash() -> list[Fact]:
        raise OSError("no\nlibrary")

    monkeypatch.setattr(doctor, "status", crash)
    facts = doctor.examine(tmp_path)
    assert [f.detail for f in facts if f.name == "doctor"] == ["OSError: no library"]
