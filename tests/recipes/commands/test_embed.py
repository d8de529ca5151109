"""``cinepoet embed``: captions in, a cache out that a trainer and a pipeline's text encoder agree with."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path

import pytest
import torch

from mmtok.pretrained import resolve_folder
from mmtok.text.embedding_cache import EmbeddingCache, caption_hash
from mmtok.text.t5 import T5TextEncoder
from recipes.cli import main
from recipes.tokens.caption_vectors import CaptionVectors

CAPTIONS = ["a red circle moves left", "a blue star spins", "a red circle moves left"]
LONG = "a very long caption " * 30


@pytest.fixture
def embed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def run(*words: str) -> tuple[int, str, str]:
        code = main(["embed", words[0], "--text", "tiny", "--out", str(tmp_path / "vectors"), *words[1:]])
        return code, *capsys.readouterr()

    return run


def test_a_trainer_reads_what_the_encoder_gives(tmp_path: Path, embed, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.txt").write_text("\n".join(CAPTIONS))
    code, out, err = embed(str(tmp_path / "c.txt"))
    assert code == 0 and "3 captions, 2 distinct, 2 encoded in" in out, err
    monkeypatch.setattr("sys.stdin", io.StringIO("blurry, low quality\n"))
    assert "1 captions, 1 distinct, 1 encoded" in embed("-")[1]  # a negative prompt joins
    assert "3 captions, 2 distinct, 0 encoded" in embed(str(tmp_path / "c.txt"))[1]

    cache = EmbeddingCache.open(tmp_path / "vectors")
    assert (len(cache), cache.identity.name, cache.identity.dtype) == (3, "tiny", "bfloat16")
    encoder = T5TextEncoder.from_pretrained(resolve_folder("tiny/text"), dtype=torch.bfloat16)
    for text in (*CAPTIONS, "blurry, low quality"):
        direct, mask = encoder.encode([text], pad_to=64)
        vectors, kept = cache([text])
        assert torch.equal(mask, kept)
        torch.testing.assert_close(vectors, direct, atol=0.05, rtol=0.05)  # batches of other lengths round otherwise
    batch = [*CAPTIONS, None]  # what a trainer asks for, whichever way it got its vectors
    lookups = (partial(cache, slots=16), *(CaptionVectors(CAPTIONS, e, slots=16) for e in (cache, encoder)))
    for vectors, mask in (lookup(batch) for lookup in lookups[1:]):
        assert torch.equal(mask, lookups[0](batch)[1])
        torch.testing.assert_close(vectors, lookups[0](batch)[0], atol=0.05, rtol=0.05)
    assert torch.equal(cache.by_hash([caption_hash(c) for c in CAPTIONS])[0], cache(CAPTIONS)[0])


def test_what_was_not_read_whole_is_told(tmp_path: Path, embed) -> None:
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"title": t}) + "\n" for t in [*CAPTIONS, LONG]))
    code, out, err = embed(str(tmp_path / "c.jsonl"), "--column", "title", "--report", str(tmp_path / "report.jsonl"))
    assert code == 0 and "1 longer than 64 pieces" in out and "left out: " in err
    (told,) = map(json.loads, (tmp_path / "report.jsonl").read_text().splitlines())
    assert told["caption"] == LONG and LONG.split()[-1] in told["cut"] and told["unknown"] == ""


def test_mistakes_are_one_line(tmp_path: Path, embed) -> None:
    (tmp_path / "c.txt").write_text("a ball\n")
    (tmp_path / "hole.csv").write_text("caption\na\n''\n\"\"\n")
    assert embed(str(tmp_path / "c.txt"), "--max-length", "32")[0] == 0
    for words, told in (
        (("c.txt",), "holds vectors of tiny (bfloat16, 32 positions"),
        (("c.txt", "--dtype", "float32"), "use another folder"),
        (("hole.csv",), "no caption in row 4"),
        (("nothing.txt",), "no such file or folder"),
        (("c.txt", "--revision", "main"), "revision 'main' is a choice for hub ids, and tiny"),
        (("c.txt", "--max-length", "1"), "must be at least 2"),
    ):
        code, out, err = embed(str(tmp_path / words[0]), *words[1:])
        assert code == 2 and told in err and err.count("\n") == 1 and not out, err
