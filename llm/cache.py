"""The key-value cache: memory taken once, written in place, advanced by the model.

Shape letters: b batch, n places; heads are spelled out.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor


class KVCache:
    """Keys and values of all layers for up to ``max_length`` places.

    ``append`` writes behind ``position`` and returns everything up to the new end; the model calls ``advance`` once all
    layers have appended.

    Args:
        num_layers: layers.
        batch_size: b.
        num_kv_heads: key and value heads.
        max_length: most places.
        head_dim: width of a head.
        device: where the memory lies.
        dtype: float type of the memory.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        batch_size: int,
        num_kv_heads: int,
        max_length: int,
        head_dim: int,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        shape = (num_layers, batch_size, num_kv_heads, max_length, head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.position = 0

    @property
    def max_length(self) -> int:
        """Most places."""
        return self.keys.shape[3]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's new places behind ``position``.

        Args:
            layer: from 0.
            keys: (b, num_kv_heads, n, head_dim).
            values: as ``keys``.

        Returns:
            Views (b, num_kv_heads, position + n, head_dim) of all keys and values so far.

        Raises:
            ValueError: if there is no room.
        """
        stop = self.position + keys.shape[2]
        if stop > self.max_length:
            raise ValueError(f"the cache holds {self.max_length} places, {stop} are needed")
        all_keys, all_values = self.keys.select(0, layer), self.values.select(0, layer)
        all_keys.narrow(2, self.position, keys.shape[2]).copy_(keys)
        all_values.narrow(2, self.position, keys.shape[2]).copy_(values)
        return all_keys.narrow(2, 0, stop), all_values.narrow(2, 0, stop)

    def advance(self, n: int) -> None:
        """Count ``n`` places, which every layer has appended, as written."""
        self.position += n

    def reset(self, position: int = 0) -> None:
        """Forget all places from ``position`` on.

        Args:
            position: places kept, at most the present number.

        Raises:
            ValueError: if that many are not there.
        """
        if not 0 <= position <= self.position:
            raise ValueError(f"position must lie in [0, {self.position}], got {position}")
        self.position = position

    def fork(self, times: int = 1) -> KVCache:
        """An independent copy for b * times, each sequence ``times`` times next to each other, at the same position."""
        out = copy.copy(self)
        out.keys, out.values = (kept.repeat_interleave(times, dim=1) for kept in (self.keys, self.values))
        return out

    def keep(self, batch_size: int) -> None:
        """Forget all sequences behind the first ``batch_size``, without copying.

        Args:
            batch_size: sequences kept, at most the present number.

        Raises:
            ValueError: if that many are not there.
        """
        if not 1 <= batch_size <= self.keys.shape[1]:
            raise ValueError(f"batch_size must lie in [1, {self.keys.shape[1]}], got {batch_size}")
        self.keys, self.values = self.keys[:, :batch_size], self.values[:, :batch_size]
