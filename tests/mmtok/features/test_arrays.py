"""Weights from .npz: plain arrays, and nothing that could run."""

import numpy as np
import pytest
import torch

from mmtok.features.arrays import read_arrays


def test_arrays_keep_name_and_type(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.arange(3, dtype=np.int8), b=np.eye(2, dtype=np.float32))
    arrays = read_arrays(tmp_path / "w.npz", "Test's")
    assert arrays["a"].dtype == torch.int8 and torch.equal(arrays["b"], torch.eye(2)) and len(arrays) == 2


def test_what_is_no_such_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Test's weights .*w\.npz do not exist"):
        read_arrays(tmp_path / "w.npz", "Test's")
    (tmp_path / "w.npz").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"w\.npz is not an \.npz of plain arrays"):
        read_arrays(tmp_path / "w.npz", "Test's")
    np.savez(tmp_path / "w.npz", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"is not an \.npz of plain arrays"):
        read_arrays(tmp_path / "w.npz", "Test's")
