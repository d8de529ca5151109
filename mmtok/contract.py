"""What every tokenizer and text encoder of cinepoet promises: all of it on this page.

``VisualTokenizer``, ``AudioTokenizer`` and ``TextEncoder`` say what each must have; ``Streaming``, ``HasCodeVectors``
and ``NeedsSize`` what some offer besides, asked for by ``isinstance``. The classes are ``typing.Protocol``: a tokenizer
needs no base class, only these attributes and methods. ``mmtok.testing`` proves the promises on one's own tokenizer.
Shape letters: b batch, c channels, t h w time/height/width, k codebooks, n sequence, d width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class VisualTokenizer(Protocol):
    """Video in [-1, 1] to integer codes and back; a one-frame video is an image.

    Attributes:
        codebook_size: entries of one codebook.
        num_codebooks: parallel codebooks, 1 for every family so far.
        stride: pixels (frames) per token, ordered time, height, width.
        fps: pictures per second the tokenizer was trained on.
        is_causal: True when codes of slice i depend on frames up to slice i only, and its pictures on slices up to
            i + 1, so that a decoder may look one slice ahead. Programs cut and carry on films by it.

    Wrong shapes, types, ranges and codes raise ValueError (``require_video``, ``check_codes``).
    """

    codebook_size: int
    num_codebooks: int
    stride: tuple[int, int, int]
    fps: float
    is_causal: bool

    def grid(self, num_frames: int, height: int, width: int) -> tuple[int, ...]:
        """Token grid of a clip; raises ValueError for sizes the tokenizer cannot take."""
        ...

    def valid_num_frames(self, num_frames: int) -> int:
        """Largest valid clip length that is not longer than ``num_frames`` (at least 1)."""
        ...

    def encode(self, video: Tensor) -> Tensor:
        """(b, 3, t, h, w) in [-1, 1] to (b, k, *grid) int64, deterministically."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """(b, k, *grid) int64 to (b, 3, t, h, w) in [-1, 1]."""
        ...


@runtime_checkable
class AudioTokenizer(Protocol):
    """Mono audio in [-1, 1] to residual codes and back.

    Attributes:
        sample_rate: samples per second, Hz.
        hop_length: samples per latent frame.
        frame_rate: latent frames per second, Hz.
        num_codebooks: residual levels.
        codebook_size: entries of one level.
    """

    sample_rate: int
    hop_length: int
    frame_rate: float
    num_codebooks: int
    codebook_size: int

    def encode(self, audio: Tensor) -> Tensor:
        """(b, 1, n) in [-1, 1] to (b, k, n // hop_length) int64; the tail below one hop is dropped."""
        ...

    def decode(self, codes: Tensor, num_samples: int | None = None) -> Tensor:
        """(b, k, t) int64 to (b, 1, num_samples), exactly; ``None`` means t * hop_length."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """Media that arrive in chunks, in memory that does not grow with their length; visual or audio.

    Both give exactly what ``encode`` and ``decode`` give of the whole, so a tokenizer that streams is causal; a visual
    one says so by ``is_causal``, and refuses to stream where that is False. Chunks of video have 1 + a multiple of the
    temporal stride of frames first, then multiples of it; chunks of sound have any length.
    """

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Codes as soon as their input is there; together those of the whole."""
        ...

    def decode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Media of chunks of codes, together those of the whole; a decoder may look ahead and answer later."""
        ...


@runtime_checkable
class HasCodeVectors(Protocol):
    """What codes mean, so that a model over them need not learn it from nothing."""

    def code_vectors(self) -> Tensor | list[Tensor]:
        """(codebook_size, width) float32; of sound one a level."""
        ...


@runtime_checkable
class NeedsSize(Protocol):
    """Codes about a whole clip, with one axis of tokens and no grid, that do not tell the clip's size (LARP's).

    Attributes:
        needs_size: True; False takes the promise back.
        clip_size: (t, h, w) of the clips it was trained on, which ``decode`` takes when it is told none.
    """

    needs_size: bool
    clip_size: tuple[int, int, int]

    def decode(self, codes: Tensor, *, size: tuple[int, int, int] | None = None) -> Tensor:
        """(b, k, n) int64 to (b, 3, *size) in [-1, 1]."""
        ...


@runtime_checkable
class Stored(Protocol):
    """A model that lives in a folder of its own: config.json and model.safetensors, never a pickle."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write it; the folder is created when absent."""
        ...

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Any:
        """Load it strictly, from a folder or a hub id, in evaluation mode."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Frozen text embeddings.

    Attributes:
        dim: width of one embedding.
        max_length: most positions returned (64 at VideoPoet's setting).
    """

    dim: int
    max_length: int

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Embeddings (b, n, dim) float32 and mask (b, n) bool, True where a token is; n <= max_length."""
        ...


def needs_size(tokenizer: Any) -> bool:
    """Whether codes do not tell the size of their clip: True for tokenizers without a grid."""
    return isinstance(tokenizer, NeedsSize) and tokenizer.needs_size


def usual_size(tokenizer: Any) -> int:
    """Side of the pictures that it was made for where it says so (``clip_size``, ``params.size``), else 128."""
    if needs_size(tokenizer):
        return int(tokenizer.clip_size[1])
    return int(getattr(getattr(tokenizer, "params", None), "size", 128))


def family_name(tokenizer: Any) -> str:
    """Its ``family``, a key of ``mmtok.table.FAMILIES``, or the name of its class where it has none."""
    return str(getattr(tokenizer, "family", type(tokenizer).__name__))


def declared_sizes(tokenizer: Any) -> dict[str, Any]:
    """The numbers that say which codes a visual or audio tokenizer makes, plain values as JSON holds them."""
    names = ("codebook_size", "num_codebooks", "stride", "fps", "sample_rate", "hop_length")
    sizes = {name: getattr(tokenizer, name) for name in names if hasattr(tokenizer, name)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in sizes.items()}


def _require_signed(media: Tensor, what: str, advice: str) -> None:
    if not media.numel():
        raise ValueError(f"{what} is empty: {tuple(media.shape)}")
    low, high = torch.aminmax(media.detach())
    if not (low >= -1.01 and high <= 1.01):
        raise ValueError(f"{what} must lie in [-1, 1], got values in [{low:.3g}, {high:.3g}]; {advice}")


def require_range(codes: Tensor, size: int, what: str = "codes") -> None:
    """Raise unless codes are integers in [0, size).

    Args:
        codes: of any shape.
        size: one past the largest.
        what: they are, for the message.

    Raises:
        ValueError: with the type or the range that they have.
    """
    if codes.is_floating_point() or codes.dtype == torch.bool:
        raise ValueError(f"{what} must be integers, got {codes.dtype}")
    if not codes.numel():
        return
    low, high = (int(v) for v in torch.aminmax(codes))
    if low < 0 or high >= size:
        raise ValueError(f"{what} must lie in [0, {size}), got [{low}, {high}]")


def require_video(video: Tensor) -> None:
    """Raise unless ``video`` is a (b, 3, t, h, w) float tensor within [-1, 1] (small overshoot allowed).

    Args:
        video: the tensor to check.

    Raises:
        ValueError: on a wrong shape, dtype or range, or when a value is not finite.
    """
    if video.ndim != 5 or video.shape[1] != 3 or not video.is_floating_point():
        raise ValueError(f"video must be a float tensor (b, 3, t, h, w), got {video.dtype} of {tuple(video.shape)}")
    _require_signed(video, "video", "scale x / 127.5 - 1")


def require_audio(audio: Tensor) -> None:
    """Raise unless ``audio`` is a (b, 1, n) float tensor within [-1, 1] (small overshoot allowed).

    Args:
        audio: the tensor to check.

    Raises:
        ValueError: on a wrong shape, type or range, when a value is not finite, or when it is empty.
    """
    if audio.ndim != 3 or audio.shape[1] != 1 or not audio.is_floating_point():
        raise ValueError(f"audio must be a float tensor (b, 1, n), got {audio.dtype} of {tuple(audio.shape)}")
    _require_signed(audio, "audio", "divide by the peak")


def whole_hops(audio: Tensor, hop_length: int) -> Tensor:
    """The part of a sound that fills whole frames, which is all that its codes may depend on.

    Args:
        audio: (b, 1, n) float within [-1, 1] (small overshoot allowed).
        hop_length: samples per frame.

    Returns:
        (b, 1, n // hop_length * hop_length), sharing memory.

    Raises:
        ValueError: as of ``require_audio``, or for less than one hop.
    """
    require_audio(audio)
    if audio.shape[-1] < hop_length:
        raise ValueError(f"audio of {audio.shape[-1]} samples is shorter than one hop of {hop_length}")
    return audio[..., : audio.shape[-1] // hop_length * hop_length]


def wanted_samples(num_frames: int, hop_length: int, num_samples: int | None) -> int:
    """How long a decoded sound shall be.

    Args:
        num_frames: frames of codes.
        hop_length: samples per frame.
        num_samples: length asked for; None means all frames.

    Returns:
        Samples.

    Raises:
        ValueError: for a length that no sound of that many whole frames has.
    """
    wanted = num_frames * hop_length if num_samples is None else num_samples
    longest = (num_frames + 1) * hop_length - 1
    if not 1 <= wanted <= longest:
        raise ValueError(f"num_samples must lie in 1..{longest} for {num_frames} frames, got {wanted}")
    return wanted


def decode_clip(tokenizer: VisualTokenizer, codes: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Decode codes of a clip whose size is known, also where the codes do not tell it (``needs_size``, as LARP's).

    Args:
        tokenizer: a ``VisualTokenizer``.
        codes: (b, k, *grid).
        size: (t, h, w) of the clip that was encoded.

    Returns:
        (b, 3, t, h, w) in [-1, 1].
    """
    if isinstance(tokenizer, NeedsSize) and tokenizer.needs_size:
        return tokenizer.decode(codes, size=size)
    return tokenizer.decode(codes)


def check_codes(codes: Tensor, *, num_codebooks: int, codebook_size: int, axes: str = "t, h, w") -> None:
    """Raise unless ``codes`` are integers (b, k, *grid) below ``codebook_size``.

    Args:
        codes: the tensor to check.
        num_codebooks: k.
        codebook_size: entries of one codebook.
        axes: the grid's, by letter.

    Raises:
        ValueError: on a wrong shape, type or range.
    """
    if codes.ndim != 3 + axes.count(",") or codes.shape[1] != num_codebooks or codes.is_floating_point():
        raise ValueError(
            f"codes must be integers of shape (b, {num_codebooks}, {axes}), got {codes.dtype} {tuple(codes.shape)}"
        )
    if not codes.numel():
        raise ValueError(f"codes are empty: {tuple(codes.shape)}")
    require_range(codes, codebook_size)


def bitrate_kbps(*, frame_rate: float, num_codebooks: int, codebook_size: int) -> float:
    """What codes cost without any entropy coding: ``frame_rate * num_codebooks * log2(codebook_size)``.

    Args:
        frame_rate: frames per second, Hz.
        num_codebooks: levels sent, each one code a frame.
        codebook_size: codes of one level.

    Returns:
        Thousands of bits per second.
    """
    return frame_rate * num_codebooks * math.log2(codebook_size) / 1000


def require_one_shape(output: Tensor, target: Tensor) -> None:
    """Raise unless two sounds can be compared.

    Args:
        output: a reconstruction.
        target: its original.

    Raises:
        ValueError: if the shapes differ.
    """
    if output.shape != target.shape:
        raise ValueError(f"output {tuple(output.shape)} and target {tuple(target.shape)} must have one shape")
