"""recipes/terminal/report.py: outputs are checked before the work, and what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recipes.terminal.report import check_folder, check_outputs, describe_film, note, profile_table, prompt_of


def test_outputs_overwrite_neither_inputs_nor_each_other(tmp_path: Path) -> None:
    film, sheet = tmp_path / "a.mp4", tmp_path / "a.png"
    check_outputs({"--out": (film, (".mp4",)), "--sheet": (sheet, (".png",))}, [None, str(tmp_path / "b.mp4")])
    with pytest.raises(ValueError, match=r"--out .* would overwrite"):
        check_outputs({"--out": (film, (".mp4",))}, [str(film)])
    with pytest.raises(ValueError, match=r"--sheet .* would overwrite"):
        check_outputs({"--out": (sheet, (".png",)), "--sheet": (sheet, (".png",))}, [])
    with pytest.raises(ValueError, match="unknown ending"):
        check_outputs({"--out": (film, (".wav",))}, [])


def test_folders_are_made_or_told(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir() and not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file cannot be written to"):
        check_folder(tmp_path / "file")


def test_a_film_in_one_line() -> None:
    film = torch.zeros(3, 17, 32, 48)
    assert describe_film(Path("f.mp4"), film, 8.0, True) == "f.mp4: 17 frames of 48x32 at 8 fps, 2.125 s, with sound"
    assert describe_film(Path("f.png"), (1, 32, 48), 8.0, False) == "f.png: one picture of 48x32"
    assert describe_film(Path("f.gif"), (1, 32, 48), 8.0, False).startswith("f.gif: 1 frame of 48x32")


def test_times_add_up_to_the_total() -> None:
    lines = profile_table({"read": 1.0, "sample": 2.5}, 4.0).splitlines()
    told = [line.split() for line in lines[:4]]
    assert told == [["read", "1.00", "s"], ["sample", "2.50", "s"], ["other", "0.50", "s"], ["total", "4.00", "s"]]


def test_prompts_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    assert prompt_of("a star") == "a star" and prompt_of(None) is None
    with pytest.raises(ValueError, match="the prompt is empty"):
        prompt_of(" \n")
    note("cut")
    assert capsys.readouterr() == ("", "note: cut\n")
