"""What tokenizers with a (t, h, w) grid share: sizes, checks, whole clips and streams of chunks.

Shape letters: b batch, t h w time/height/width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from mmtok.contract import check_codes, require_video
from mmtok.nn.streaming import Stream, streaming
from mmtok.pretrained import PretrainedModule


def repeat_last_frame(video: Tensor, num_frames: int) -> Tensor:
    """Fill a video up with copies of its last frame.

    Args:
        video: (b, c, t, h, w).
        num_frames: wanted, at least t.

    Returns:
        (b, c, num_frames, h, w); ``video`` itself where it is as long.

    Raises:
        ValueError: if the video is longer.
    """
    missing = num_frames - video.shape[2]
    if missing < 0:
        raise ValueError(f"{video.shape[2]} given frames do not fit into a clip of {num_frames}")
    return torch.cat((video, video[:, :, -1:].expand(-1, -1, missing, -1, -1)), 2) if missing else video


def pad_frames(video: Tensor, stride: int) -> Tensor:
    """Repeat the last frame until the length is 1 + a multiple of ``stride``.

    Args:
        video: (b, c, t, h, w), at least one frame.
        stride: frames per token.

    Returns:
        (b, c, t', h, w), t <= t' < t + stride; ``video`` itself where it fits.
    """
    return repeat_last_frame(video, video.shape[2] + -(video.shape[2] - 1) % stride)


class GridTokenizer(PretrainedModule):
    """Base of the grid families; a subclass sets the attributes and writes ``codes_of`` and ``video_of``.

    Attributes:
        codebook_size: entries of the codebook.
        num_codebooks: 1.
        stride: frames and pixels per token, ordered time, height, width.
        fps: pictures per second of the training clips.
        is_causal: True when codes of slice i depend on frames up to slice i only.
    """

    codebook_size: int
    num_codebooks = 1
    stride: tuple[int, int, int]
    fps: float
    is_causal: bool

    def codes_of(self, video: Tensor) -> Tensor:
        """Codes without checks: (b, 3, t, h, w) in [-1, 1] to (b, 1, t', h', w') int64."""
        raise NotImplementedError

    def video_of(self, codes: Tensor) -> Tensor:
        """Pixels without checks, not clamped."""
        raise NotImplementedError

    def to_network(self, x: Tensor) -> Tensor:
        """A network's input in the weights' type and the layout that convolutions like, channels last."""
        return x.to(next(self.parameters()).dtype).contiguous(memory_format=torch.channels_last_3d)

    def grid(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Token grid of a clip.

        Args:
            num_frames: 1 + a multiple of the temporal stride.
            height: pixels, a multiple of the spatial stride.
            width: pixels, a multiple of the spatial stride.

        Returns:
            (t, h, w) tokens.

        Raises:
            ValueError: for other sizes, with the nearest lengths that fit.
        """
        st, sh, sw = self.stride
        if num_frames < 1 or (num_frames - 1) % st:
            below = self.valid_num_frames(max(num_frames, 1))
            raise ValueError(
                f"num_frames ({num_frames}) must be 1 + a multiple of {st}: use {below} or {below + st}, or "
                f"encode with pad=True, which repeats the last frame up to {below + st}"
            )
        if height < sh or width < sw or height % sh or width % sw:
            raise ValueError(f"height ({height}) and width ({width}) must be positive multiples of {sh} and {sw}")
        return ((num_frames - 1) // st + 1, height // sh, width // sw)

    def valid_num_frames(self, num_frames: int) -> int:
        """Largest clip length that fits.

        Args:
            num_frames: frames at hand, at least 1.

        Returns:
            1 + a multiple of the temporal stride, at most ``num_frames``.

        Raises:
            ValueError: if there is no frame.
        """
        if num_frames < 1:
            raise ValueError(f"num_frames ({num_frames}) must be at least 1")
        return (num_frames - 1) // self.stride[0] * self.stride[0] + 1

    @torch.inference_mode()
    def encode(self, video: Tensor, *, pad: bool = False) -> Tensor:
        """Codes of a clip; a one-frame clip is an image.

        Args:
            video: (b, 3, t, h, w) in [-1, 1].
            pad: repeat the last frame up to the next length that fits; ``decode`` then gives as many frames more.

        Returns:
            (b, 1, *grid) int64.

        Raises:
            ValueError: if the tensor is not such a clip or does not fit the grid.
        """
        require_video(video)
        if pad:
            video = pad_frames(video, self.stride[0])
        self.grid(*video.shape[2:])
        return self.codes_of(video)

    @torch.inference_mode()
    def decode(self, codes: Tensor, *, clamp: bool = True) -> Tensor:
        """Clip from codes.

        Args:
            codes: (b, 1, t, h, w) integers below ``codebook_size``.
            clamp: bring the result into [-1, 1].

        Returns:
            (b, 3, 1 + (t - 1) * stride_t, h * stride_h, w * stride_w) float32.

        Raises:
            ValueError: for another shape or a code out of range.
        """
        check_codes(codes, num_codebooks=self.num_codebooks, codebook_size=self.codebook_size)
        video = self.video_of(codes)
        return video.clamp(-1, 1) if clamp else video

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Codes of a clip that arrives in chunks; together exactly those of the whole clip.

        Args:
            chunks: (b, 3, t, h, w) in [-1, 1]; 1 + a multiple of the temporal stride first, then multiples of it.

        Yields:
            (b, 1, t', h', w') int64 of each chunk.

        Raises:
            ValueError: for a chunk of another length, or when the network looks ahead.
        """
        self._require_causal()
        stream = Stream()
        for number, chunk in enumerate(chunks):
            require_video(chunk)
            self._check_chunk(chunk.shape[2] - (number == 0), number)
            self.grid(1, *chunk.shape[3:])
            with torch.inference_mode(), streaming(stream):
                codes = self.codes_of(chunk)
            yield codes

    def decode_stream(self, chunks: Iterable[Tensor], *, clamp: bool = True) -> Iterator[Tensor]:
        """Pictures of codes that arrive in chunks of slices; together those of the whole clip.

        Args:
            chunks: (b, 1, t, h, w) integers below ``codebook_size``, any number of slices.
            clamp: bring the result into [-1, 1].

        Yields:
            (b, 3, t', h', w') float32: 1 + (t - 1) * stride_t frames for the first chunk, t * stride_t afterwards; a
            decoder that looks ahead (VidTok 1.1) holds some back until the next chunk.

        Raises:
            ValueError: for codes out of range, or when the network looks ahead.
        """
        self._require_causal()
        stream, waiting = Stream(), None
        for chunk in chunks:
            check_codes(chunk, num_codebooks=self.num_codebooks, codebook_size=self.codebook_size)
            if waiting is not None:
                yield self._decode_chunk(waiting, stream, last=False, clamp=clamp)
            waiting = chunk
        if waiting is not None:
            yield self._decode_chunk(waiting, stream, last=True, clamp=clamp)

    def _decode_chunk(self, codes: Tensor, stream: Stream, *, last: bool, clamp: bool) -> Tensor:
        with torch.inference_mode(), streaming(stream, last=last):
            video = self.video_of(codes)
        return video.clamp(-1, 1) if clamp else video

    def _require_causal(self) -> None:
        if not self.is_causal:
            raise ValueError(f"{type(self).__name__} with these options looks ahead in time, so it cannot stream")

    def _check_chunk(self, length: int, number: int) -> None:
        if length < 0 or length % self.stride[0] or (number and not length):
            first = "1 + " if number == 0 else ""
            got = length + (number == 0)
            raise ValueError(f"chunk {number} has {got} frames, expected {first}a multiple of {self.stride[0]}")
