import pytest
import torch

from recipes.tokens.cache import TokenSet


def make(rows=4):
    low = torch.arange(rows * 12, dtype=torch.int32).reshape(rows, 3, 2, 2)
    high = torch.arange(rows * 48, dtype=torch.int32).reshape(rows, 3, 4, 4)
    return TokenSet(low, [f"clip {i} ä" for i in range(rows)], high, torch.zeros(rows, 2, 5, dtype=torch.int32))


def test_save_then_load(tmp_path):
    tokens = make()
    tokens.save(tmp_path)
    loaded = TokenSet.load(tmp_path)
    assert len(loaded) == 4
    assert loaded.captions == tokens.captions
    for name in ("low", "high", "audio"):
        assert torch.equal(getattr(loaded, name), getattr(tokens, name))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["captions.json", "tokens.safetensors"]


def test_optional_parts_stay_absent(tmp_path):
    TokenSet(make().low, make().captions).save(tmp_path)
    loaded = TokenSet.load(tmp_path)
    assert loaded.high is None
    assert loaded.audio is None


def test_rows():
    part = make().rows(1, 3)
    assert part.captions == ["clip 1 ä", "clip 2 ä"]
    assert torch.equal(part.high, make().high[1:3])


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no tokens.safetensors; make one with"):
        TokenSet.load(tmp_path)
    make().save(tmp_path)
    (tmp_path / "tokens.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"the token cache .* is damaged"):
        TokenSet.load(tmp_path)
    with pytest.raises(ValueError, match="low has 4 rows, there are 1 captions"):
        TokenSet(make().low, ["one"])
    with pytest.raises(ValueError, match="audio must be integers with 3 axes"):
        TokenSet(make().low, make().captions, None, torch.zeros(4, 2))
