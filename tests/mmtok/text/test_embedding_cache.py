"""The on-disk cache: encode once, never mix models, never leave half a shard, read without holding it in memory."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mmtok.text.embedding_cache as cache_module
from mmtok.contract import TextEncoder
from mmtok.text.embedding_cache import EmbeddingCache, EmbedReport, EncoderIdentity, caption_hash, embed_captions
from mmtok.text.t5 import TokenizedText

TEXTS = ["a red circle", "b", "the big blue square", "b", "  a  red\ncircle"]


class CountingEncoder:
    """One vector a word, from the word's letters; counts the captions it was given and reads eight words."""

    def __init__(self, fingerprint: str = "f" * 64, name: str = "words"):
        self.fingerprint, self.dtype, self.max_length, self.dim = fingerprint, torch.float32, 8, 4
        self.name, self.revision = name, None
        self.seen: list[str] = []

    def tokenize(self, text: str) -> TokenizedText:
        words = text.split()
        if not words:
            raise ValueError(f"the prompt {text!r} is empty")
        unknown = " ".join(word for word in words if not word.isascii())
        return TokenizedText(tuple(range(len(words[:8]))), " ".join(words[:8]), " ".join(words[8:]), unknown)

    def encode(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen += texts
        rows = [torch.tensor([[len(w), ord(w[0]) / 8, ord(w[-1]) / 8, 1.0] for w in t.split()][:8]) for t in texts]
        embeddings = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return embeddings, torch.arange(embeddings.shape[1]) < lengths[:, None]


def embed(captions: list[str], encoder: CountingEncoder, folder: Path, **options) -> EmbedReport:
    return embed_captions(captions, encoder, folder, **options)  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    embed(TEXTS, CountingEncoder(), tmp_path / "cache")
    return EmbeddingCache.open(tmp_path / "cache")


def test_each_caption_is_encoded_once_and_a_second_run_encodes_nothing(tmp_path: Path) -> None:
    first, second = CountingEncoder(), CountingEncoder()
    assert embed(TEXTS, first, tmp_path) == EmbedReport(captions=5, distinct=3, encoded=3, cut=0, unknown=0)
    assert sorted(first.seen) == ["a red circle", "b", "the big blue square"]
    assert embed(TEXTS, second, tmp_path).encoded == 0 and second.seen == []
    assert embed([*TEXTS, "new"], second, tmp_path).encoded == 1 and second.seen == ["new"]
    assert len(EmbeddingCache.open(tmp_path)) == 4


def test_rows_come_back_as_the_encoder_gave_them(cache: EmbeddingCache) -> None:
    direct, direct_mask = CountingEncoder().encode(TEXTS)
    for embeddings, mask in (cache.encode(TEXTS), cache(TEXTS, slots=4)):
        assert embeddings.dtype == torch.float32 and mask.dtype == torch.bool
        assert torch.equal(mask, direct_mask)
        assert torch.equal(embeddings, direct.bfloat16().float())


def test_a_trainer_gets_fixed_slots_by_caption_or_by_hash(cache: EmbeddingCache) -> None:
    vectors, mask = cache(["b", "a red circle"])
    assert vectors.shape == (2, 8, 4) and mask.sum(1).tolist() == [1, 3] and not vectors[0, 1:].any()
    again, again_mask = cache.by_hash([caption_hash("b"), caption_hash(" a red\ncircle ")])
    assert torch.equal(vectors, again) and torch.equal(mask, again_mask)
    assert cache([])[0].shape == (0, 8, 4)


def test_a_clip_without_text_has_no_vectors(cache: EmbeddingCache) -> None:
    vectors, mask = cache([None, "b", None])
    assert mask.sum(1).tolist() == [0, 1, 0] and not vectors[[0, 2]].any()
    assert torch.equal(cache.by_hash([None, caption_hash("b"), None])[0], vectors)
    assert not cache([None])[1].any()


def test_a_run_finds_out_at_its_start_what_is_missing(cache: EmbeddingCache) -> None:
    cache.require([*TEXTS, None])
    with pytest.raises(ValueError, match=r"1 of 2 captions are not in .*, the first is 'new'"):
        cache.require(["b", "new"])
    with pytest.raises(ValueError, match="a caption has 4 vectors, and there are 3 slots"):
        cache.require(TEXTS, slots=3)


def test_it_keeps_the_contract_of_a_text_encoder(cache: EmbeddingCache) -> None:
    assert isinstance(cache, TextEncoder) and cache.dim == 4 and cache.max_length == 8
    assert cache.encode(["b"], pad_to=5)[1].tolist() == [[True, False, False, False, False]]


def test_stored_rows_are_unpadded_bfloat16(cache: EmbeddingCache) -> None:
    (file,) = cache.folder.glob("vectors-*.safetensors")
    tensors = load_file(file)
    assert tensors["vectors"].shape == (3 + 1 + 4, 4) and tensors["vectors"].dtype == torch.bfloat16
    assert tensors["keys"].shape == (3, 16) and tensors["starts"].shape == (4,)


def test_names_of_captions_are_their_words() -> None:
    assert caption_hash(" a \n cat ") == caption_hash("a cat") != caption_hash("A cat")


def test_another_encoder_is_refused(tmp_path: Path, cache: EmbeddingCache) -> None:
    other = CountingEncoder("a" * 64, name="other")
    with pytest.raises(
        ValueError, match=r"holds vectors of words \(float32.*\), not of other \(.*; use another folder"
    ):
        embed(["x"], other, cache.folder)
    assert other.seen == []
    with pytest.raises(ValueError, match="not of other"):
        EmbeddingCache.open(cache.folder, encoder=other)  # type: ignore[arg-type]
    renamed = CountingEncoder(name="the same under another name")
    assert EmbeddingCache.open(cache.folder, encoder=renamed).identity == cache.identity  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["fingerprint", "dtype", "max_length", "dim"])
def test_everything_that_changes_the_vectors_tells_encoders_apart(field: str) -> None:
    one = EncoderIdentity("f" * 64, "float32", 8, 4)
    changed = EncoderIdentity(**{**vars(one), field: "e" if isinstance(vars(one)[field], str) else 9})
    assert one.gives_the_vectors_of(one) and not one.gives_the_vectors_of(changed)


def test_shards_hold_at_most_so_many_rows(tmp_path: Path) -> None:
    embed([f"w{i}" for i in range(5)], CountingEncoder(), tmp_path, rows_per_shard=2, batch_size=1)
    assert sorted(len(load_file(f)["keys"]) for f in tmp_path.glob("vectors-*.safetensors")) == [1, 2, 2]
    cache = EmbeddingCache.open(tmp_path)
    assert cache([f"w{i}" for i in range(5)])[0][:, 0, 2].tolist() == [ord(str(i)) / 8 for i in range(5)]


def test_a_slow_run_closes_shards_by_the_clock(tmp_path: Path) -> None:
    embed(["a", "b c", "d e f"], CountingEncoder(), tmp_path, batch_size=1, seconds_per_shard=0.0)
    assert len(list(tmp_path.glob("vectors-*"))) == 3


def test_progress_counts_what_is_missing(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    embed(TEXTS, CountingEncoder(), tmp_path, batch_size=2, on_progress=lambda *done: told.append(done))
    assert told == [(2, 3), (3, 3)]


class SlowEncoder(CountingEncoder):
    def encode(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(0.02)
        return super().encode(texts)


def test_a_killed_run_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    """kill -9 in the middle; the index is not there, shards are complete or absent."""
    captions = [f"w{i}" for i in range(400)]
    child = os.fork()
    if not child:
        try:
            embed(captions, SlowEncoder(), tmp_path, rows_per_shard=2, batch_size=2)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("vectors-*.safetensors"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kept = len(EmbeddingCache.open(tmp_path))
    assert 6 <= kept < 400 and not (tmp_path / "index.safetensors").exists()
    encoder = CountingEncoder()
    assert embed(captions, encoder, tmp_path).encoded == 400 - kept == len(encoder.seen)
    assert EmbeddingCache.open(tmp_path)(["w0", "w399"])[1].sum() == 2


def test_an_index_that_is_behind_is_not_believed(tmp_path: Path) -> None:
    embed(["a"], CountingEncoder(), tmp_path)
    old = (tmp_path / "index.safetensors").read_bytes()
    embed(["b"], CountingEncoder(), tmp_path)
    (tmp_path / "index.safetensors").write_bytes(old)
    assert len(EmbeddingCache.open(tmp_path)) == 2
    next(
        f for f in tmp_path.glob("vectors-*") if caption_hash("a") in load_file(f)["keys"].numpy().tobytes().hex()
    ).unlink()
    cache = EmbeddingCache.open(tmp_path)
    assert "a" not in cache and "b" in cache


def test_two_writers_of_one_caption_count_it_once(tmp_path: Path) -> None:
    embed(["x", "y"], CountingEncoder(), tmp_path / "one")
    embed(["y", "z"], CountingEncoder(), tmp_path / "two")
    for file in (tmp_path / "two").glob("vectors-*"):
        file.rename(tmp_path / "one" / file.name)
    cache = EmbeddingCache.open(tmp_path / "one")
    assert len(cache) == 3 and cache(["x", "y", "z"])[0][:, 0, 1].tolist() == [ord(c) / 8 for c in "xyz"]


def test_a_full_disk_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: dict, path: Path, metadata: dict) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "save_file", full)
        with pytest.raises(OSError, match="disk full"):
            embed(["x y"], CountingEncoder(), tmp_path)
    assert list(tmp_path.glob("*.safetensors")) == []
    (left,) = tmp_path.glob("*.partial")
    os.utime(left, (0, 0))
    assert embed(["x y"], CountingEncoder(), tmp_path).encoded == 1 and not left.exists()


def test_cut_and_unreadable_captions_are_told_before_the_first_is_encoded(tmp_path: Path) -> None:
    told: list[tuple[str, str, str]] = []
    encoder = CountingEncoder()
    long = "one two three four five six seven eight nine ten"
    report = embed(
        ["fine", long, long, "über alles"],
        encoder,
        tmp_path,
        on_reading=lambda caption, read: told.append((caption, read.cut, read.unknown)),
    )
    assert told == [(long, "nine ten", ""), ("über alles", "", "über")]
    assert (report.cut, report.unknown) == (1, 1)
    other = CountingEncoder()
    with pytest.raises(ValueError, match="caption 3 cannot be embedded: the prompt ' ' is empty"):
        embed(["fresh", "more", " "], other, tmp_path)
    assert other.seen == []


def test_a_worker_process_opens_the_files_itself(cache: EmbeddingCache) -> None:
    vectors, _ = cache(TEXTS)
    data = pickle.dumps(cache)
    assert len(data) < 1000
    assert torch.equal(pickle.loads(data)(TEXTS)[0], vectors)


def test_faults_are_named(tmp_path: Path, cache: EmbeddingCache) -> None:
    with pytest.raises(ValueError, match=r"2 of 3 captions are not in .*, the first is 'new'; add them with cinepoet"):
        cache(["b", "new", "newer"])
    with pytest.raises(ValueError, match="a caption has 4 vectors, and there are 3 slots for text"):
        cache(["the big blue square"], slots=3)
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        cache.by_hash(["b"])
    with pytest.raises(ValueError, match="another length"):
        cache.by_hash(["ab"])
    with pytest.raises(ValueError, match="no captions to encode"):
        cache.encode([])
    with pytest.raises(FileNotFoundError, match=r"has no cache\.json; make one with cinepoet embed"):
        EmbeddingCache.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no captions to embed"):
        embed([], CountingEncoder(), tmp_path / "new")
    with pytest.raises(ValueError, match=r"rows_per_shard \(0\) must be at least 1"):
        embed(["x"], CountingEncoder(), tmp_path / "new", rows_per_shard=0)
    broken = CountingEncoder()
    broken.encode = lambda texts: (torch.full((1, 1, 4), float("nan")), torch.ones(1, 1, dtype=torch.bool))  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="not finite for 'x'"):
        embed(["x"], broken, tmp_path / "new")


def test_damage_is_told_in_one_line(cache: EmbeddingCache) -> None:
    (shard,) = cache.folder.glob("vectors-*")
    (cache.folder / "index.safetensors").unlink()
    shard.write_bytes(b"nonsense" * 9)
    with pytest.raises(ValueError, match="is no file of text vectors, or damaged"):
        EmbeddingCache.open(cache.folder)
    card = json.loads((cache.folder / "cache.json").read_text())
    (cache.folder / "cache.json").write_text(json.dumps({**card, "format": "cinepoet-text-9"}))
    with pytest.raises(ValueError, match=r"cache\.json is damaged or of another version: format 'cinepoet-text-9'"):
        EmbeddingCache.open(cache.folder)


def test_a_foreign_shard_is_refused(tmp_path: Path, cache: EmbeddingCache) -> None:
    embed(["x"], CountingEncoder("a" * 64), tmp_path / "other")
    for file in (tmp_path / "other").glob("vectors-*"):
        file.rename(cache.folder / file.name)
    with pytest.raises(ValueError, match="holds vectors of another encoder than"):
        EmbeddingCache.open(cache.folder)
