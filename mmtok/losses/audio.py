"""Losses between sounds: multi-scale mel spectra and the waveform itself.

The mel loss is SoundStream's (arXiv 2107.03312, eq. 6-7, after arXiv 2008.01160). Everything runs in float32.

Shape letters: b batch, n samples, m mel bands, f frequency bins, t frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.contract import require_one_shape
from mmtok.nn.mel import MelSpectrogram


class MultiScaleMelLoss(nn.Module):
    """L2 of log-mel differences plus weighted L1 of mel magnitudes, averaged over frames and window lengths.

    The paper sums ``|S - S'|_1 + sqrt(window / 2) |log S - log S'|_2`` over frames and windows, with unscaled
    magnitudes. Ours is the same per frame and window divided by ``sqrt(window / 2) sqrt(num_mels)``, so that all
    windows count alike and the value does not depend on length or number of bands. In scaled magnitudes the weight of
    the linear term is then ``sqrt(num_mels window / 8)``.

    Args:
        sample_rate: Hz.
        windows: window lengths in samples; the paper's are 64, 128, ... 2048.
        num_mels: bands.
        linear_weight: factor on the paper's weight of the linear term.
        floor: added to magnitudes inside the logarithm; 1e-4 is 80 dB below full scale.
        as_published: sum windows with the paper's weights, for use with its other weights; only the sum over frames
            stays a mean.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        windows: Sequence[int] = (64, 128, 256, 512, 1024, 2048),
        num_mels: int = 64,
        linear_weight: float = 1.0,
        floor: float = 1e-4,
        as_published: bool = False,
    ):
        super().__init__()
        if not windows:
            raise ValueError("windows must name at least one length")
        even = 1 / len(windows)
        self.window_weights = [(num_mels * w / 2) ** 0.5 if as_published else even for w in windows]
        self.linear_weights = [linear_weight * (num_mels * w / 8) ** 0.5 for w in windows]
        self.floor = floor
        self.scales = nn.ModuleList(
            MelSpectrogram(sample_rate=sample_rate, window=w, num_mels=num_mels) for w in windows
        )

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance of two sounds.

        Args:
            output: (b, 1, n) reconstruction; gradients flow here.
            target: (b, 1, n) original.

        Returns:
            () float32, 0 for equal sounds.

        Raises:
            ValueError: if the shapes differ.
        """
        require_one_shape(output, target)
        total = torch.zeros((), device=output.device)
        for scale, weight, linear_weight in zip(self.scales, self.window_weights, self.linear_weights, strict=True):
            with torch.no_grad():
                wanted = scale(target)
            got = scale(output)  # (b, m, t)
            logs = (got + self.floor).log() - (wanted + self.floor).log()
            # the tiny constant keeps the gradient of the root finite for equal frames
            log_term = (logs.square().mean(1) + 1e-8).sqrt().mean() - 1e-4
            total = total + weight * (log_term + linear_weight * F.l1_loss(got, wanted))
        return total


def waveform_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of samples; ties down the phase that mel spectra leave free.

    Args:
        output: (b, 1, n).
        target: (b, 1, n).

    Returns:
        () float32.
    """
    return F.l1_loss(output.float(), target.float())
