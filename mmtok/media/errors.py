"""The one error of the media readers and writers."""

from __future__ import annotations

import os


class MediaError(ValueError):
    """A media file that cannot be read or written; its text is one line that names the file and the trouble.

    Args:
        path: the file as the user named it.
        problem: what is wrong, and the way out where there is one; newlines are folded.
    """

    def __init__(self, path: str | os.PathLike[str], problem: str) -> None:
        super().__init__(path, problem)  # both in args, so that the error survives pickling between processes
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return " ".join(f"{os.fspath(self.path)}: {self.problem}".split())
