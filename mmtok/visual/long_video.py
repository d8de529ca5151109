"""Videos of any length through a tokenizer, clip by clip or as one stream: for reconstruct, tokenize and evaluation.

Shape letters: b batch, k codebooks, t h w time/height/width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmtok.contract import Streaming, decode_clip
from mmtok.visual.grid import pad_frames, repeat_last_frame


def encode_video(
    tokenizer: Any, video: Tensor, *, clip: int, stream: bool = False, between: Callable[[], object] | None = None
) -> list[Tensor]:
    """Codes of a video of any length, the last clip filled with its last picture to the next length that fits.

    Args:
        tokenizer: a ``VisualTokenizer``.
        video: (b, 3, t, h, w) in [-1, 1].
        clip: pictures a clip, a valid length.
        stream: False encodes every clip alone; True carries the state from clip to clip, so that together they are the
            codes of the whole video (causal grid tokenizers).
        between: called before a stream begins, such as to give freed memory back to the system.

    Returns:
        (b, k, *grid) codes of each clip.

    Raises:
        ValueError: if the tokenizer cannot stream.
    """
    if stream:
        _require_streams(tokenizer)
        if between is not None:
            between()
        st = tokenizer.stride[0]
        whole = pad_frames(video, st)
        later = whole[:, :, clip:].split(max(st, clip - 1), 2) if whole.shape[2] > clip else ()
        return list(tokenizer.encode_stream((whole[:, :, :clip], *later)))
    clips = (repeat_last_frame(part, _filled(tokenizer, part.shape[2], clip)) for part in video.split(clip, 2))
    return [tokenizer.encode(part) for part in clips]


def decode_video(
    tokenizer: Any, codes: Sequence[Tensor], *, size: tuple[int, int, int], clip: int, stream: bool = False
) -> Tensor:
    """The video of ``encode_video``.

    Args:
        tokenizer: the same.
        codes: of each clip.
        size: (t, h, w) of the video.
        clip: the same.
        stream: the same.

    Returns:
        (b, 3, t, h, w) in [-1, 1].

    Raises:
        ValueError: if the tokenizer cannot stream.
    """
    t, h, w = size
    if stream:
        _require_streams(tokenizer)
        clips = list(tokenizer.decode_stream(codes))
    else:
        lengths = [min(clip, t - start) for start in range(0, t, clip)]
        encoded = [_filled(tokenizer, n, clip) for n in lengths]  # as encode_video filled them
        clips = [decode_clip(tokenizer, c, (n, h, w)) for c, n in zip(codes, encoded, strict=True)]
    return torch.cat(clips, 2)[:, :, :t]


def _filled(tokenizer: Any, num_frames: int, clip: int) -> int:
    """The next length that a tokenizer takes, at most a whole clip."""
    return next(n for n in range(num_frames, clip + 1) if n == clip or _fits(tokenizer, n))


def _fits(tokenizer: Any, num_frames: int) -> bool:
    try:
        return bool(tokenizer.valid_num_frames(num_frames) == num_frames)
    except ValueError:  # fewer than one token needs
        return False


def _require_streams(tokenizer: Any) -> None:
    if not (tokenizer.is_causal and isinstance(tokenizer, Streaming)):
        raise ValueError("this tokenizer cannot carry its state from clip to clip (it looks ahead, or works in tiles)")


def reconstruct_video(
    tokenizer: Any, video: Tensor, *, clip: int, stream: bool = False, between: Callable[[], object] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """``encode_video``, then ``decode_video``.

    Args:
        tokenizer: a ``VisualTokenizer``.
        video: (b, 3, t, h, w) in [-1, 1].
        clip: pictures a clip, a valid length.
        stream: see ``encode_video``.
        between: see ``encode_video``.

    Returns:
        (b, 3, t, h, w) in [-1, 1], and the codes of each clip.

    Raises:
        ValueError: if the tokenizer cannot stream.
    """
    codes = encode_video(tokenizer, video, clip=clip, stream=stream, between=between)
    t, h, w = video.shape[2:]
    return decode_video(tokenizer, codes, size=(t, h, w), clip=clip, stream=stream), codes
