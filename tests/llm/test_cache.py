import pytest
import torch

from llm.cache import KVCache


def cache(**changes):
    return KVCache(**{"num_layers": 2, "batch_size": 2, "num_kv_heads": 1, "max_length": 4, "head_dim": 3, **changes})


def test_append_returns_everything_up_to_the_new_end():
    c = cache()
    first, second = torch.randn(2, 1, 2, 3), torch.randn(2, 1, 1, 3)
    for layer in range(2):
        keys, values = c.append(layer, first, -first)
        assert torch.equal(keys, first)
        assert torch.equal(values, -first)
    c.advance(2)
    keys, _ = c.append(0, second, second)
    assert torch.equal(keys, torch.cat((first, second), dim=2))
    assert c.position == 2  # only advance moves it


def test_fork_copies_and_repeats():
    c = cache()
    c.append(0, torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 1, 1, 3), torch.zeros(2, 1, 1, 3))
    c.advance(1)
    other = c.fork(2)
    assert other.position == 1
    assert other.keys[0, :, 0, 0, 0].tolist() == [0.0, 0.0, 1.0, 1.0]
    other.append(0, torch.ones(4, 1, 1, 3), torch.ones(4, 1, 1, 3))
    assert not c.keys[0, :, :, 1].any()


def test_keep_drops_the_last_rows():
    c = cache()
    c.append(0, torch.arange(2.0).reshape(2, 1, 1, 1).expand(2, 1, 1, 3), torch.zeros(2, 1, 1, 3))
    c.advance(1)
    c.keep(1)
    keys, _ = c.append(0, torch.ones(1, 1, 1, 3), torch.ones(1, 1, 1, 3))
    assert keys[:, 0, :, 0].tolist() == [[0.0, 1.0]]
    with pytest.raises(ValueError, match=r"batch_size must lie in \[1, 1\], got 2"):
        c.keep(2)


def test_reset_goes_back():
    c = cache()
    c.append(0, torch.ones(2, 1, 3, 3), torch.ones(2, 1, 3, 3))
    c.advance(3)
    c.reset(1)
    assert c.position == 1
    with pytest.raises(ValueError, match=r"position must lie in \[0, 1\], got 2"):
        c.reset(2)


def test_no_room_is_an_error():
    with pytest.raises(ValueError, match="the cache holds 4 places, 5 are needed"):
        cache().append(0, torch.ones(2, 1, 5, 3), torch.ones(2, 1, 5, 3))
