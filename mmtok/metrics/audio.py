"""How well a sound was restored, and how much of a codebook is in use.

Shape letters: b batch, n samples, k levels, t frames, v codes of one level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmtok.losses.audio import MelSpectrogram


class LogMelDistance(nn.Module):
    """Mean absolute difference of natural-log mel magnitudes, one number a sound.

    Protocol: Hann window of 1024 samples, hop 256, 64 Slaney bands from 0 Hz to Nyquist, magnitudes scaled so
    that a full-scale sine is 1, floor 1e-4 inside the logarithm: what is 80 dB below full scale does not count.

    Args:
        sample_rate: Hz.
        window: samples of the window; the hop is a quarter.
        num_mels: bands.
        floor: added to the magnitudes.
    """

    def __init__(self, *, sample_rate: int, window: int = 1024, num_mels: int = 64, floor: float = 1e-4):
        super().__init__()
        self.mel = MelSpectrogram(sample_rate=sample_rate, window=window, num_mels=num_mels)
        self.floor = floor

    @torch.no_grad()
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            output: (b, 1, n).
            target: (b, 1, n).

        Returns:
            (b,) distances, 0 for equal sounds.

        Raises:
            ValueError: if the shapes differ.
        """
        if output.shape != target.shape:
            raise ValueError(f"output {tuple(output.shape)} and target {tuple(target.shape)} must have one shape")
        logs = [(self.mel(sound) + self.floor).log() for sound in (output, target)]
        return (logs[0] - logs[1]).abs().mean((1, 2))


def si_sdr_db(output: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB (arXiv 1811.02508), after removing means.

    Args:
        output: (..., n) estimate.
        target: (..., n) original.

    Returns:
        (...) dB, limited to +-120; 0 when estimate or target is silent, as nothing can be said then.

    Raises:
        ValueError: if the shapes differ.
    """
    if output.shape != target.shape:
        raise ValueError(f"output {tuple(output.shape)} and target {tuple(target.shape)} must have one shape")
    output, target = (x.double() - x.double().mean(-1, keepdim=True) for x in (output, target))
    energy = target.square().sum(-1, keepdim=True)
    signal = (output * target).sum(-1, keepdim=True) / energy.clamp(min=1e-30) * target
    distortion = (output - signal).square().sum(-1)
    kept = signal.square().sum(-1)
    floor = 1e-12 * (kept + distortion) + 1e-30
    return (10 * ((kept + floor) / (distortion + floor)).log10()).float()


class CodebookUse:
    """Which codes of each level were chosen lately; a plain object whose state can be saved.

    Args:
        num_codebooks: levels.
        codebook_size: codes of one level.
        window: updates after which a choice is forgotten, or None to remember all.
    """

    def __init__(self, *, num_codebooks: int, codebook_size: int, window: int | None = None):
        self.window = window
        self.updates = 0
        self.last_chosen = torch.full((num_codebooks, codebook_size), -1)  # update that chose a code last, -1 for none
        self.counts = torch.zeros(num_codebooks, codebook_size, dtype=torch.float64)

    def update(self, codes: Tensor) -> None:
        """Count one batch.

        Args:
            codes: (b, k, t) int64.
        """
        for level, chosen in enumerate(codes.detach().cpu().transpose(0, 1).flatten(1)):
            counted = torch.bincount(chosen, minlength=self.counts.shape[1])
            self.last_chosen[level, counted > 0] = self.updates
            if self.window is not None:
                self.counts[level] *= 1 - 1 / self.window
            self.counts[level] += counted
        self.updates += 1

    def use(self) -> Tensor:
        """Share of the codes chosen at least once within the window.

        Returns:
            (k,) in [0, 1].
        """
        oldest = 0 if self.window is None else max(0, self.updates - self.window)
        return (self.last_chosen >= oldest).float().mean(1)

    def perplexity(self) -> Tensor:
        """Exponential of the entropy of the choices (with a window: exponentially forgotten ones).

        Returns:
            (k,) in [1, v].
        """
        share = self.counts / self.counts.sum(1, keepdim=True).clamp(min=1e-12)
        return torch.special.entr(share).sum(1).exp().float()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to go on counting.

        Returns:
            Name to tensor.
        """
        return {
            "updates": torch.tensor(self.updates),
            "last_chosen": self.last_chosen.clone(),
            "counts": self.counts.clone(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what ``state_dict`` gave.

        Args:
            state: name to tensor.
        """
        self.updates = int(state["updates"])
        self.last_chosen.copy_(state["last_chosen"])
        self.counts.copy_(state["counts"])
