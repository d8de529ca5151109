"""What tokenizers with finite scalar quantisation on a (t, h, w) grid share (Cosmos DV, VidTok).

Shape letters: b batch, d latent channels, t h w time/height/width.
"""

from __future__ import annotations

from torch import Tensor

from mmtok.quantize.fsq import fsq_codes, fsq_quantize, fsq_values
from mmtok.visual.grid import GridTokenizer


class FsqGridTokenizer(GridTokenizer):
    """A subclass writes ``encode_latents`` and ``decode_latents``; codes are mixed-radix numbers of the levels.

    Attributes:
        levels: of each latent channel.
    """

    levels: tuple[int, ...]

    def encode_latents(self, video: Tensor) -> Tensor:
        """Latents before the quantiser: (b, 3, t, h, w) in [-1, 1] to (b, d, t', h', w') float32."""
        raise NotImplementedError

    def decode_latents(self, values: Tensor) -> Tensor:
        """Quantised latents (b, d, t, h, w), multiples of 1 / (L // 2), to video, not clamped and with gradients."""
        raise NotImplementedError

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction, not clamped, with gradients through the rounding, and the latents (b, d, t', h', w')."""
        self.grid(*video.shape[2:])
        latents = self.encode_latents(video)
        return self.decode_latents(fsq_quantize(latents, self.levels)), latents

    def codes_of(self, video: Tensor) -> Tensor:
        """Codes without checks, see ``GridTokenizer``; (b, 3, t, h, w) in [-1, 1] to (b, 1, t', h', w') int64."""
        return fsq_codes(self.encode_latents(video), self.levels)[:, None]

    def video_of(self, codes: Tensor) -> Tensor:
        """Pixels without checks, not clamped, see ``GridTokenizer``."""
        return self.decode_latents(fsq_values(codes[:, 0], self.levels))
