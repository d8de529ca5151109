"""A file is whole or not there, and who cannot be written is named."""

import os
from pathlib import Path

import pytest
import torch

from mmtok.media import (
    MediaError,
    require_writable,
    write_film,
)
from mmtok.media import video as video_module


def test_nothing_is_left_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, target = torch.zeros(3, 2, 16, 16), tmp_path / "a.mp4"
    target.write_bytes(b"precious")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video_module.FilmWriter, "_encode", fail)
    with pytest.raises(MediaError, match=r"a\.mp4: cannot be written \(No space left on device\)"):
        write_film(target, frames)
    assert target.read_bytes() == b"precious" and os.listdir(tmp_path) == ["a.mp4"]


def test_unwritable_targets_are_named(tmp_path: Path) -> None:
    frames = torch.zeros(3, 1, 16, 16)
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    for name, message in [
        ("nowhere/a.mp4", "a.mp4: cannot be written: .*nowhere is not an existing folder"),
        ("file/a.mp4", "is not an existing folder"),
        ("folder.mp4", "cannot be written: it is a folder"),
        ("a.avi", "unknown ending '.avi'; known: .mp4, .mov, .gif"),
        ("a" * 300 + ".mp4", r"cannot be written \("),
    ]:
        with pytest.raises(MediaError, match=message):
            write_film(tmp_path / name, frames)
        with pytest.raises(MediaError, match=message):
            require_writable(tmp_path / name, video_module.FILM_SUFFIXES)
    require_writable(tmp_path / "fine.mp4", video_module.FILM_SUFFIXES)
    with pytest.raises(MediaError, match=r"a \.gif holds no sound"):
        write_film(tmp_path / "a.gif", frames, audio=torch.zeros(1, 100))
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.mp4"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(MediaError, match=r"cannot be written \(Permission denied\)"):
            write_film(tmp_path / "a.mp4", torch.zeros(3, 1, 16, 16))
    finally:
        tmp_path.chmod(0o700)
