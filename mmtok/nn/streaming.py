"""Causal layers over video or sound that arrives in chunks: each layer remembers the past it still needs.

    stream = Stream()
    for chunk in chunks:                # of video 1 + k * stride frames first, then multiples of the stride
        with streaming(stream):
            out.append(network(chunk))  # together equal to network(whole)

A layer asks ``with_past`` for the frames before its input and ``is_first`` whether the clip begins here; without a
stream both mean a whole clip. The stream lives in a context variable, so networks pass nothing along and two threads
may stream at once. Shape letters: b batch, c channels, t time, ... anything else, such as height and width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor, nn


class Stream:
    """What the layers of one network keep between the chunks of one clip.

    Attributes:
        kept: each layer's tensor.
        seen: layers that were called before.
        last: whether the chunk being read ends the clip.
    """

    def __init__(self) -> None:
        self.kept: dict[nn.Module, Tensor] = {}
        self.seen: set[nn.Module] = set()
        self.last = False


_current: ContextVar[Stream | None] = ContextVar("stream", default=None)


@contextlib.contextmanager
def streaming(stream: Stream, *, last: bool = False) -> Iterator[None]:
    """Layers called inside read and write ``stream``.

    Args:
        stream: of this clip.
        last: True for the chunk that ends the clip; layers that look ahead hold frames back until then.

    Yields:
        Nothing.
    """
    stream.last = last
    token = _current.set(stream)
    try:
        yield
    finally:
        _current.reset(token)


def is_streaming() -> bool:
    """Whether a stream is being read: True inside ``streaming``."""
    return _current.get() is not None


def is_last() -> bool:
    """Whether the clip ends with this call: True for a whole clip and for a stream's last chunk."""
    stream = _current.get()
    return stream is None or stream.last


def is_first(layer: nn.Module) -> bool:
    """Whether the clip begins with this call of ``layer``; asked once a call.

    Args:
        layer: who asks.

    Returns:
        True for a whole clip and for a stream's first chunk.
    """
    stream = _current.get()
    if stream is None:
        return True
    first = layer not in stream.seen
    stream.seen.add(layer)
    return first


def with_past(
    layer: nn.Module, x: Tensor, past: int, *, kernel: int | None = None, stride: int = 1, repeat_first: bool = False
) -> Tensor:
    """Put the frames in front of ``x`` that a causal window needs.

    Args:
        layer: who asks; its own past is kept.
        x: (b, c, t, ...).
        past: frames before the clip's first.
        kernel: frames of a window; None means ``past + 1``.
        stride: step of the window in time.
        repeat_first: fill them with copies of the first frame instead of zeros.

    Returns:
        (b, c, past + t, ...) for a whole clip or a first chunk; afterwards the frames that the next windows need.
    """
    kernel = past + 1 if kernel is None else kernel
    if past == 0 and kernel == stride:
        return x
    stream = _current.get()
    if stream is not None and layer in stream.kept:
        x = torch.cat((stream.kept[layer].to(x.dtype), x), 2)
    elif past:
        first = x[:, :, :1]
        front = first if repeat_first else torch.zeros_like(first)
        x = torch.cat((front.expand(*x.shape[:2], past, *x.shape[3:]), x), 2)
    if stream is not None:
        windows = max(0, (x.shape[2] - kernel) // stride + 1)
        stream.kept[layer] = x[:, :, windows * stride :].clone()
    return x


def swap(layer: nn.Module, kept: Tensor | None) -> Tensor | None:
    """What ``layer`` kept, and what it keeps from now on.

    Args:
        layer: who asks.
        kept: for the next chunk.

    Returns:
        What it kept before; None at the start and for a whole clip.
    """
    stream = _current.get()
    if stream is None:
        return None
    before = stream.kept.pop(layer, None)
    if kept is not None:
        stream.kept[layer] = kept
    return before


def remember(layer: nn.Module, x: Tensor, dim: int) -> Tensor:
    """Everything that ``layer`` was given so far, for layers that read the whole past.

    Args:
        layer: who asks.
        x: the new part.
        dim: axis of time.

    Returns:
        The old parts and ``x``; ``x`` itself for a whole clip.
    """
    stream = _current.get()
    if stream is None:
        return x
    if layer in stream.kept:
        x = torch.cat((stream.kept[layer], x), dim)
    stream.kept[layer] = x
    return x
