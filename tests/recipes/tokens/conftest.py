"""A small folder of token shards whose codes count up, and what makes others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mmtok.text.embedding_cache import caption_hash
from mmtok.vocabulary import Vocabulary
from recipes.tokens.reader import TokenShards
from recipes.tokens.shards import ShardInfo, write_shard

_INFO = ShardInfo(
    visual={"family": "toy", "codebook_size": 50, "stride": [4, 8, 8], "fps": 8.0, "weights": "aa"},
    audio={"family": "toy", "codebook_size": 10, "num_codebooks": 2, "weights": "bb"},
    vocabulary=Vocabulary(50, 2, 10),
    conditions={"inpaint_central": {}},
    shards=2,
)


def _make_row(number, *, grid=(2, 1, 2), audio_frames=3, caption="a film", split="train", condition=True):
    """A row whose codes count up from its number."""
    tokens = grid[0] * grid[1] * grid[2]
    return {
        "key": f"clip{number}",
        "source": f"{number}.mp4",
        "source_hash": f"hash{number}",
        "collection": "toys" if number % 2 else None,
        "split": split,
        "start_s": number / 8,
        "caption": caption,
        "caption_key": None if caption is None else caption_hash(caption),
        "grid": list(grid),
        "visual": [(number + i) % 50 for i in range(tokens)],
        "audio_frames": audio_frames,
        "audio": [(number + i) % 10 for i in range(2 * audio_frames)] if audio_frames else None,
        "condition_inpaint_central": [49 - i for i in range(tokens)] if condition else None,
    }


def _write(folder, rows=None, info=_INFO):
    rows = rows or [
        _make_row(0),
        _make_row(1, grid=(1, 1, 2), audio_frames=0, condition=False),
        _make_row(2, caption=None, split="validation"),
        _make_row(3, caption="another"),
    ]
    info.write(folder)
    write_shard(folder, 0, rows[:2], conditions=info.conditions, quarantined=[{"source": "x", "reason": "y"}])
    write_shard(folder, 1, rows[2:], conditions=info.conditions)
    return folder


def _open_shards(*folders):
    return TokenShards.open(*folders, cache_dir=folders[0].parent / "cache")


@pytest.fixture
def INFO() -> ShardInfo:
    return _INFO


@pytest.fixture
def make_row() -> Callable:
    return _make_row


@pytest.fixture
def write() -> Callable:
    return _write


@pytest.fixture
def open_shards() -> Callable:
    return _open_shards


@pytest.fixture
def folder(tmp_path):
    return _write(tmp_path / "a")
