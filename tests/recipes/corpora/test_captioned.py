"""recipes/corpora/captioned.py: the same films and texts from every kind of source, and holes that are told."""

import io
import json
import tarfile

import datasets
import pytest

from mmtok.media.errors import MediaError
from recipes.corpora.captioned import content_hash, list_films, open_film

A, B = b"film a", b"film b, longer"


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "films"
    (root / "deep").mkdir(parents=True)
    (root / "a.mp4").write_bytes(A)
    (root / "deep" / "b.png").write_bytes(B)
    (root / "notes.md").write_text("no film")
    return root


def told(found):
    return [(film.source, film.captions) for film in found.films]


def read(film):
    with open_film(film.where, film.source) as path:
        assert path.suffix == film.where["suffix"]
        return path.read_bytes()


def test_a_folder_with_texts_beside_its_films(folder):
    (folder / "a.txt").write_text(" A dog.\n")
    (folder / "deep" / "b.txt").write_text("A cat.")
    found = list_films(str(folder))
    assert told(found) == [("a.mp4", ("A dog.",)), ("deep/b.png", ("A cat.",))]
    assert [film.is_picture for film in found.films] == [False, True] and read(found.films[0]) == A


def test_a_listing_joins_texts_of_one_film_and_names_absent_ones(folder):
    listing = folder / "list.csv"
    listing.write_text(
        "path,text,licence,split,start_s\n"
        "a.mp4,One.,MIT,train,\n"
        "a.mp4,Two.,MIT,train,\n"
        "a.mp4,Later.,MIT,train,2.5\n"
        "deep/b.png,B.,,validation,\n"
        "gone.mp4,C.,,,\n"
    )
    found = list_films(str(listing))
    assert told(found) == [("a.mp4", ("One.", "Two.")), ("a.mp4", ("Later.",)), ("deep/b.png", ("B.",))]
    assert [film.start_s for film in found.films] == [None, 2.5, None]
    assert found.films[0].licence == "MIT" and found.films[2].split == "validation"
    assert found.quarantined == [{"source": "gone.mp4", "reason": "no such file"}]
    assert told(list_films(str(folder), captions=listing)) == told(found)


def test_jsonl_with_lists_of_texts_and_a_named_column(folder):
    listing = folder / "list.jsonl"
    rows = [{"path": "a.mp4", "words": ["One.", "Two."]}, {"path": "deep/b.png", "words": "B.", "collection": "web"}]
    listing.write_text("\n".join(map(json.dumps, rows)))
    found = list_films(str(listing), caption_column="words")
    assert told(found) == [("a.mp4", ("One.", "Two.")), ("deep/b.png", ("B.",))]
    assert found.films[1].collection == "web"


def test_holes_are_refused_kept_or_skipped(folder):
    (folder / "list.csv").write_text("path,caption\na.mp4,A.\ndeep/b.png,\n")
    source = str(folder / "list.csv")
    with pytest.raises(ValueError, match=r"list.csv: 1 of 2 films have no caption, such as deep/b.png; write them, or"):
        list_films(source)
    kept = list_films(source, uncaptioned="keep")
    assert len(kept.films) == 2 and kept.films[1].captions == () and "they are kept" in kept.notes[0]
    assert told(list_films(source, uncaptioned="skip")) == [("a.mp4", ("A.",))]
    assert "no film has a caption" in list_films(str(folder)).notes[0]


def test_texts_that_were_promised_and_are_not_there(folder):
    listing = folder / "list.csv"
    listing.write_text("path,words\na.mp4,A.\n")
    with pytest.raises(
        ValueError, match=r"list.csv has no column of captions .*it has: path, words; name it with --capt"
    ):
        list_films(str(folder), captions=listing)
    for rows in ("a.mp4,\ndeep/b.png,\n", "elsewhere/a.mp4,A.\n"):
        listing.write_text(f"path,caption\n{rows}")
        for uncaptioned in ("refuse", "skip"):
            with pytest.raises(ValueError, match=r"list.csv: no film has a caption there; write them, or keep"):
                list_films(str(folder), captions=listing, uncaptioned=uncaptioned)
        assert len(list_films(str(folder), captions=listing, uncaptioned="keep").films) == 2
    with pytest.raises(ValueError, match="names of columns go with a listing"):
        list_films(str(folder), caption_column="words")


BAD_LISTINGS = {
    ("l.csv", "path,caption\na.mp4,A,B\n"): "line 2 has another number of columns",
    ("l.csv", "path,caption\n"): "has no rows",
    ("l.csv", "name,caption\na.mp4,A\n"): "has no column of media .* it has: name, caption; name it with",
    ("l.csv", "path,caption,split\na.mp4,A,test\n"): "line 2: unknown split 'test'",
    ("l.csv", "path,caption,start_s\na.mp4,A,-1\n"): "line 2: start_s must be seconds from 0 on, got '-1'",
    ("l.csv", "path,caption\n,A\n"): "line 2: the column 'path' is empty",
    ("l.jsonl", '{"path": "a.mp4"}\n{"path"\n'): "line 2 is not JSON",
    ("l.jsonl", "[1]"): "line 1 is not a table",
    ("l.jsonl", '{"path": "a.mp4", "caption": 3}'): "line 1: a caption must be a text or a list of texts, got 3",
}


@pytest.mark.parametrize("case", BAD_LISTINGS)
def test_a_damaged_listing_names_the_line(folder, case):
    name, text = case
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=BAD_LISTINGS[case]):
        list_films(str(folder / name))


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_webdataset(tmp_path, folder):
    tar = tmp_path / "0.tar"
    write_tar(
        tar,
        {
            "x/1.mp4": A,
            "x/1.json": json.dumps({"caption": "A.", "license": "MIT"}).encode(),
            "2.png": B,
            "2.txt": b"B.",
            "3.txt": b"no film",
            "4.mp4": A,
            "4.json": b"{",
        },
    )
    found = list_films(str(tar))
    assert told(found) == [("0.tar/x/1.mp4", ("A.",)), ("0.tar/2.png", ("B.",))]
    assert [read(film) for film in found.films] == [A, B] and found.films[0].licence == "MIT"
    assert (
        found.quarantined[0]["source"] == "0.tar/4" and "description cannot be read" in found.quarantined[0]["reason"]
    )
    plain = list_films(str(folder)).films
    for there, here in zip(found.films, plain, strict=True):
        assert content_hash(there.where, "") == content_hash(here.where, "")
    whole = tar.read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[:3600])  # behind the text of the second sample's picture
    (tmp_path / "2.tar").write_bytes(b"\x1f\x8b no tar")
    both = list_films(str(tmp_path / "*.tar"))
    assert [film.source for film in both.films] == ["0.tar/x/1.mp4", "0.tar/2.png", "1.tar/x/1.mp4"]
    reasons = {entry["source"]: entry["reason"] for entry in both.quarantined}
    assert reasons["1.tar/2"] == "the tar file breaks off here" and "must be unpacked" in reasons["2.tar"]


def test_data_sets_of_the_library(tmp_path, folder):
    rows = {
        "video": [{"bytes": A, "path": "x.mp4"}, {"bytes": None, "path": str(folder / "deep" / "b.png")}],
        "caption": ["A.", "B."],
    }
    table = datasets.Dataset.from_dict(rows)
    table.save_to_disk(tmp_path / "saved")
    found = list_films(str(tmp_path / "saved"))
    assert [film.captions for film in found.films] == [("A.",), ("B.",)]
    assert [film.where["suffix"] for film in found.films] == [".mp4", ".png"]
    assert [read(film) for film in found.films] == [A, B]


def test_absent_sources(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r"gone.csv: no such file"):
        list_films(str(tmp_path / "gone.csv"))
    with pytest.raises(FileNotFoundError, match="unknown kind of source"):
        list_films(str(folder / "a.mp4"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no films or pictures"):
        list_films(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="go with a folder of media"):
        list_films(str(tmp_path / "x.tar"), captions="c.csv")
    with pytest.raises(ValueError, match="has no column 'words'"):
        (folder / "l.csv").write_text("path,caption\na.mp4,A\n")
        list_films(str(folder / "l.csv"), caption_column="words")
    film = list_films(str(folder / "l.csv")).films[0]
    (folder / "a.mp4").unlink()
    with pytest.raises(MediaError, match=r"a.mp4: cannot be read \(No such file"):
        content_hash(film.where, film.source)


def test_large_files_are_hashed_by_blocks(folder, monkeypatch):
    import recipes.corpora.captioned as captioned

    film = list_films(str(folder)).films[1]
    before = content_hash(film.where, "")
    monkeypatch.setattr(captioned, "_WHOLE_UP_TO", 10)
    monkeypatch.setattr(captioned, "_BLOCK", 2)
    blocks = content_hash(film.where, "")
    (folder / "deep" / "b.png").write_bytes(B[:-1] + b"!")
    assert blocks != before and content_hash(film.where, "") != blocks
