"""YAMNet (Plakal and Ellis, Google 2019; MobileNet, arXiv 1704.04861): AudioSet's sound classifier of 3.7 M weights.

Read from an .npz of plain arrays: hann_window, mel_matrix, log_offset, layer1 to layer27 and fc, each with
.weight_int8, .weight_scale (one for each output channel; weight = int8 x scale) and .bias, convolutions OIHW. A window
of 0.975 s at 16 kHz becomes a log-mel picture of 96 x 64; a 3 x 3 convolution of stride 2 and thirteen pairs of a
depthwise and a 1 x 1 convolution, each clamped to 0..6, make 1,024 numbers of it, and a sigmoid layer 521 scores.

Longer sounds go window by window: ``mmtok.metrics.fad.sound_windows`` cuts them in bounded memory. Shape letters: b
batch, n samples, t frames, m mel bands, c channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.features.arrays import FrozenNetwork

FRAME, HOP, N_FFT = 400, 160, 512  # samples
FRAMES, BANDS = 96, 64
CLASSES = 521
_PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
# width after each pair, stride of its depthwise half


class _SameConv2d(nn.Conv2d):
    """A 3 x 3 or 1 x 1 convolution padded as TensorFlow's SAME: what does not divide goes to the end."""

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        sides = []
        for size in (x.shape[-1], x.shape[-2]):
            missing = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            sides += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(x, sides))


class YAMNet(FrozenNetwork):
    """The network, frozen, in evaluation mode; a ``mmtok.metrics.fad.SoundEmbedding``.

    Attributes:
        sample_rate: Hz.
        window: samples that it looks at.
        hop: usual distance of windows in samples, 0.48 s.
        dim: width of an embedding.
    """

    title = "YAMNet"
    sample_rate = 16_000
    window = (FRAMES - 1) * HOP + FRAME  # 15,600
    hop = 48 * HOP
    dim = 1024
    hann_window: Tensor
    mel_matrix: Tensor
    log_offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hann_window", torch.hann_window(FRAME))
        self.register_buffer("mel_matrix", torch.zeros(BANDS, N_FFT // 2 + 1))
        self.register_buffer("log_offset", torch.tensor([0.001]))
        self.layer1 = _SameConv2d(1, 32, 3, stride=2)
        width, number = 32, 2
        for out, stride in _PAIRS:
            self.add_module(f"layer{number}", _SameConv2d(width, width, 3, stride=stride, groups=width))
            self.add_module(f"layer{number + 1}", _SameConv2d(width, out, 1))
            width, number = out, number + 2
        self.fc = nn.Linear(width, CLASSES)
        self.source = f"{self.title}, random weights"
        self.requires_grad_(False).eval()

    def log_mel(self, windows: Tensor) -> Tensor:
        """The picture that the network sees: natural log of mel magnitudes plus 0.001.

        Args:
            windows: (b, 15600) at 16 kHz in [-1, 1].

        Returns:
            (b, 96, 64).

        Raises:
            ValueError: for another shape or integers.
        """
        if windows.ndim != 2 or windows.shape[1] != self.window or not windows.is_floating_point():
            raise ValueError(
                f"YAMNet takes float windows (b, {self.window}) at 16 kHz, got {windows.dtype} {tuple(windows.shape)}"
            )
        frames = windows.float().unfold(1, FRAME, HOP) * self.hann_window  # (b, t, 400)
        magnitudes = torch.fft.rfft(frames, n=N_FFT).abs()  # (b, t, 257)
        return (magnitudes @ self.mel_matrix.T + self.log_offset).log()

    @torch.no_grad()
    def embed(self, windows: Tensor) -> Tensor:
        """(b, 1024) means over places of the last convolution's output, of windows as ``log_mel`` takes them."""
        x = self.log_mel(windows)[:, None]  # (b, 1, 96, 64)
        for number in range(1, 2 * len(_PAIRS) + 2):
            x = getattr(self, f"layer{number}")(x).clamp(0, 6)
        return x.mean((2, 3))

    def forward(self, windows: Tensor) -> Tensor:
        """Class scores; those of a long sound are the mean over its windows.

        Args:
            windows: (b, 15600) at 16 kHz in [-1, 1].

        Returns:
            (b, 521) in [0, 1], each class by itself.

        Raises:
            ValueError: for another shape or integers.
        """
        result: Tensor = self.fc(self.embed(windows)).sigmoid()
        return result
