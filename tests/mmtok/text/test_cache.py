"""The on-disk cache: encode once, never mix models, never leave half a shard."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mmtok.text.cache as cache_module
from mmtok.text.cache import EncoderIdentity, TextCache

IDENTITY = EncoderIdentity("f" * 64, "float32", 8, 4)


class CountingEncoder:
    """One vector a word, from the word's letters; counts the captions it was given."""

    def __init__(self, fingerprint: str = "f" * 64):
        self.fingerprint, self.dtype, self.max_length, self.dim = fingerprint, torch.float32, 8, 4
        self.seen: list[str] = []

    def encode(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen += texts
        if not all(text.split() for text in texts):
            raise ValueError("the prompt '' is empty")
        rows = [
            torch.tensor([[len(w), ord(w[0]) / 8, ord(w[-1]) / 8, 1.0] for w in text.split()][: self.max_length])
            for text in texts
        ]
        embeddings = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return embeddings, torch.arange(embeddings.shape[1]) < lengths[:, None]


def make(folder: Path, encoder: CountingEncoder | None, **options: int) -> TextCache:
    return TextCache(folder, encoder, **options)  # type: ignore[arg-type]


TEXTS = ["a red circle", "b", "the big blue square", "b", "  a  red\ncircle"]


def test_second_run_calls_no_encoder(tmp_path: Path) -> None:
    first = CountingEncoder()
    embeddings, mask = make(tmp_path, first).encode(TEXTS)
    assert sorted(first.seen) == ["  a  red\ncircle", "b", "the big blue square"]  # each caption once
    second = CountingEncoder()
    again, again_mask = make(tmp_path, second).encode(TEXTS)
    assert second.seen == []
    assert torch.equal(embeddings, again) and torch.equal(mask, again_mask)


def test_rows_come_back_as_the_encoder_gave_them(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    embeddings, mask = make(tmp_path, encoder).encode(TEXTS)
    direct, direct_mask = CountingEncoder().encode(TEXTS)
    assert embeddings.dtype == torch.float32 and mask.dtype == torch.bool
    assert torch.equal(mask, direct_mask)
    assert torch.equal(embeddings, direct.bfloat16().float())


def test_stored_rows_are_unpadded_bfloat16(tmp_path: Path) -> None:
    make(tmp_path, CountingEncoder()).add(TEXTS)
    (file,) = tmp_path.glob("*.safetensors")
    shapes = {tuple(t.shape): t.dtype for t in load_file(file).values()}
    assert shapes == {(3, 4): torch.bfloat16, (1, 4): torch.bfloat16, (4, 4): torch.bfloat16}


def test_key_depends_on_everything_that_changes_the_vectors() -> None:
    others = [
        EncoderIdentity("e" * 64, "float32", 8, 4),
        EncoderIdentity("f" * 64, "bfloat16", 8, 4),
        EncoderIdentity("f" * 64, "float32", 9, 4),
    ]
    assert len({i.key("a cat") for i in [IDENTITY, *others]}) == 4
    assert IDENTITY.key(" a \n cat ") == IDENTITY.key("a cat")
    assert IDENTITY.key("A cat") != IDENTITY.key("a cat")


def test_two_models_share_a_folder_without_mixing(tmp_path: Path) -> None:
    make(tmp_path, CountingEncoder("a")).add(["x y"])
    other = CountingEncoder("b")
    cache = make(tmp_path, other)
    assert "x y" not in cache
    cache.add(["x y"])
    assert other.seen == ["x y"] and "x y" in cache
    with pytest.raises(ValueError, match="holds vectors of 2 encoders; say which by passing the encoder"):
        make(tmp_path, None)


def test_reading_needs_no_encoder(tmp_path: Path) -> None:
    embeddings, _ = make(tmp_path, CountingEncoder()).encode(["x y", "z"])
    reader = make(tmp_path, None)
    assert reader.identity == IDENTITY and reader.dim == 4 and reader.max_length == 8
    assert torch.equal(reader.encode(["x y", "z"])[0], embeddings)
    with pytest.raises(RuntimeError, match=r"1 captions are not in .*such as 'new'; open the cache with its encoder"):
        reader.encode(["x y", "new"])


def test_shards_hold_at_most_so_many_rows(tmp_path: Path) -> None:
    cache = make(tmp_path, CountingEncoder(), rows_per_shard=2)
    assert cache.add([f"w{i}" for i in range(5)], batch_size=1) == 5
    assert sorted(len(load_file(f)) for f in tmp_path.glob("*.safetensors")) == [1, 2, 2]
    assert cache.add(["w3"]) == 0


def test_interrupted_write_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(rows: dict, path: Path, metadata: dict) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "save_file", full_disk)
        with pytest.raises(OSError, match="disk full"):
            make(tmp_path, CountingEncoder()).add(["x y"])
    assert list(tmp_path.glob("*.safetensors")) == []
    encoder = CountingEncoder()
    make(tmp_path, encoder).add(["x y"])
    assert encoder.seen == ["x y"]


def test_two_writers_see_each_other_after_opening_again(tmp_path: Path) -> None:
    one, two = make(tmp_path, CountingEncoder()), make(tmp_path, CountingEncoder())
    one.add(["x", "y"])
    two.add(["y", "z"])
    late = CountingEncoder()
    make(tmp_path, late).encode(["x", "y", "z"])
    assert late.seen == []


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds vectors of 0 encoders"):
        make(tmp_path, None)
    cache = make(tmp_path, CountingEncoder())
    with pytest.raises(ValueError, match="no captions to encode"):
        cache.encode([])
    with pytest.raises(ValueError, match=r"pad_to \(1\) is shorter than the longest caption \(2 tokens\)"):
        cache.encode(["x y"], pad_to=1)
    assert cache.encode(["x y"], pad_to=5)[1].tolist() == [[True, True, False, False, False]]
    with pytest.raises(ValueError, match="is empty"):
        cache.encode([" "])
    with pytest.raises(ValueError, match=r"rows_per_shard \(0\) must be at least 1"):
        make(tmp_path, CountingEncoder(), rows_per_shard=0)
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense" * 9)
    with pytest.raises(ValueError, match="is not a shard of text vectors"):
        make(tmp_path, CountingEncoder())
