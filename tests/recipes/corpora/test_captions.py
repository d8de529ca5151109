"""Captions come out of every kind of file in order, and a hole is named before anything else happens."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from recipes.corpora.captions import read_captions

TEXTS = ["a red ball", "ein Käse, 3½", "a red ball"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    import pyarrow
    from pyarrow import parquet

    folder = tmp_path / "shards" / "train"
    folder.mkdir(parents=True)
    for number, part in enumerate((TEXTS[:2], TEXTS[2:])):
        parquet.write_table(
            pyarrow.table({"id": list(range(len(part))), "caption": part}), folder / f"{number}.parquet"
        )
    kinds = {
        "a.txt": "\n".join([TEXTS[0], "", *TEXTS[1:]]) + "\r\n",
        "a.csv": "\ufeffid,caption\n" + "".join(f'{i},"{t}"\n' for i, t in enumerate(TEXTS)),
        "a.tsv": "caption\tid\n" + "".join(f"{t}\t0\n" for t in TEXTS),
        "a.jsonl": "".join(json.dumps({"id": 1, "caption": t}) + "\n" for t in TEXTS),
        "captions.json": json.dumps(TEXTS),
    }
    for name, content in kinds.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    found = {name: tmp_path / name for name in kinds}
    return {**found, "token folder": tmp_path, "parquet folder": tmp_path / "shards", "parquet": folder / "0.parquet"}


def test_every_kind_gives_the_same_texts_in_order(files: dict[str, Path]) -> None:
    for name, path in files.items():
        assert read_captions(path) == (TEXTS[:2] if name == "parquet" else TEXTS), name


def test_clips_without_a_caption_are_skipped_in_token_shards(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    for name, texts in (("0.parquet", [None, None]), ("1.parquet", ["a", None])):
        parquet.write_table(pyarrow.table({"caption": pyarrow.array(texts, pyarrow.string())}), tmp_path / name)
    assert read_captions(tmp_path) == ["a"]


def test_standard_input_is_a_file_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a red ball\n\nblurry\n"))
    assert read_captions("-") == ["a red ball", "blurry"]


def test_another_column_is_asked_for_by_name(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("title,caption\nx,\ny,\n")
    assert read_captions(tmp_path / "b.csv", column="title") == ["x", "y"]
    for name in ("a.csv", "a.jsonl", "parquet"):
        with pytest.raises(ValueError, match=r"has no column 'title'; there are: .*caption"):
            read_captions(files[name], column="title")
    with pytest.raises(ValueError, match="--column is a choice for tables"):
        read_captions(files["a.txt"], column="title")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "id,caption\n1,a\n2, \n", r"x\.csv has no caption in row 3; fill it or take the row out"),
        ("x.csv", "id,caption\n1,a\n2\n", "no caption in row 3"),
        ("x.jsonl", '{"caption": "a"}\n{"caption": null}\n', "no caption in row 2"),
        ("x.jsonl", '{"caption": "a"}\nnonsense\n', "cannot be read: "),
        ("x.json", '{"a": 1}', "must hold a list of texts"),
        ("x.json", '["a", 3]', "no caption in row 2"),
        ("x.txt", "\n \n", "holds no captions"),
        ("x.parquet", "nonsense", "cannot be read"),
        ("x.doc", "a", r"is of no kind that holds captions; known: \.txt"),
    ],
)
def test_holes_and_damage_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path / name)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ValueError, match=r"x\.txt cannot be read"):
        read_captions(tmp_path / "x.txt")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_captions(tmp_path / "y.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has neither captions\.json nor \.parquet files"):
        read_captions(tmp_path / "empty")
