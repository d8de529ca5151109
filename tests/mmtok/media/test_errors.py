"""MediaError is one line, names the file and survives the way between processes."""

import pickle
from pathlib import Path

from mmtok.media import MediaError


def test_one_line_and_picklable() -> None:
    error = MediaError(Path("a b.mp4"), "is bad:\n  very bad")
    assert str(error) == "a b.mp4: is bad: very bad"
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, MediaError) and isinstance(again, ValueError) and str(again) == str(error)
    assert (again.path, again.problem) == (Path("a b.mp4"), "is bad:\n  very bad")
