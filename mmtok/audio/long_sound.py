"""Sounds of any length through a codec, whole or block by block."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from mmtok.media.audio import stream_audio

LONG_SOUND_S = 120.0  # longer sounds are coded block by block
WHOLE_SOUND_S = 600.0  # the longest for tokenizers that cannot do that: their memory grows with the length
BLOCK_S = 8.0


def long_sound(
    path: str,
    audio: Any,
    *,
    seconds: float,
    device: Any,
    decodes: bool,
    on_block: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Any, Any, Any]]:
    """Code a long sound block by block, in bounded memory.

    Args:
        path: the file.
        audio: an ``AudioTokenizer`` that streams.
        seconds: longest piece read.
        device: where the tokenizer is.
        decodes: False leaves the reconstruction out.
        on_block: called with (blocks done, blocks in all) behind each block.

    Yields:
        Of each block the original (1, 1, n), its codes (1, k, t) and its reconstruction (1, 1, n) or None, on the CPU;
        a last frame that is not full is filled with silence.
    """
    originals: deque[Any] = deque()
    made: deque[Any] = deque()
    block_s = round(BLOCK_S * audio.frame_rate) / audio.frame_rate

    def blocks() -> Iterator[Any]:
        for block in stream_audio(path, sample_rate=audio.sample_rate, block_s=block_s, most_s=seconds):
            originals.append(block[None])
            yield F.pad(block[None], (0, -block.shape[-1] % audio.hop_length)).to(device)

    def codes() -> Iterator[Any]:
        for part in audio.encode_stream(blocks()):
            made.append(part.cpu())
            yield part

    total = math.ceil(seconds / block_s)
    tell = on_block or (lambda done, total: None)
    if not decodes:
        for done, _ in enumerate(codes(), 1):
            tell(done, total)
            yield originals.popleft(), made.popleft(), None
        return
    waiting: list[Any] = []  # what is decoded and not yet a whole block: a codec may answer late
    for done, result in enumerate(audio.decode_stream(codes()), 1):
        tell(done, total)
        waiting.append(result.float().cpu())
        while originals and sum(part.shape[-1] for part in waiting) >= originals[0].shape[-1]:
            sound, original = torch.cat(waiting, -1), originals.popleft()
            length = original.shape[-1]
            waiting = [sound[..., length:]]
            yield original, made.popleft(), sound[..., :length]


def encode_sound(audio: Any, sound: Any) -> Any:
    """Codes of a whole sound; a last frame that is not full is filled with silence.

    Args:
        audio: an ``AudioTokenizer``.
        sound: (1, 1, n) in [-1, 1].

    Returns:
        (1, k, ceil(n / hop)) codes.
    """
    return audio.encode(F.pad(sound, (0, -sound.shape[-1] % audio.hop_length)))
