"""The codec to beat: log-mel frames, residual k-means, and phases by Griffin and Lim; nothing in it is trained.

At its usual sizes it has SoundStream's codes at VideoPoet's setting: 16 kHz, hop 320, four levels of 1,024, 2 kbit/s.
A log-mel frame is coded by a residual quantizer whose levels are fitted one after the other by k-means. Decoding sums
the codes, finds magnitudes that are not negative and have those mel levels (multiplicative updates of Lee and Seung
2001), and phases that suit them (fast Griffin-Lim, Perraudin et al. 2013, as torchaudio has it).

``cinepoet evaluate tokenizer --baseline`` fits it on the files that may train and measures it on those kept out.

Shape letters: b batch, n samples, t frames, m mel bands, f frequency bins, k levels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mmtok.contract import wanted_samples, whole_hops
from mmtok.nn.mel import MelSpectrogram
from mmtok.quantize.residual import Codebook, ResidualVQ, nearest_codes

FLOOR = 1e-4  # 80 dB below full scale
_SHORTEST = 4  # frames that the inversion needs at least


class MelKMeansCodec(nn.Module):
    """The baseline; an ``mmtok.contract.AudioTokenizer``.

    Args:
        sample_rate: Hz.
        hop_length: samples between frames.
        window: samples of a frame's Hann window.
        num_mels: bands.
        num_codebooks: levels.
        codebook_size: codes of a level.
        inversion_steps: updates of the magnitudes.
        phase_steps: rounds of Griffin-Lim.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        hop_length: int = 320,
        window: int = 1024,
        num_mels: int = 80,
        num_codebooks: int = 4,
        codebook_size: int = 1024,
        inversion_steps: int = 60,
        phase_steps: int = 32,
    ):
        super().__init__()
        self.sample_rate, self.hop_length = sample_rate, hop_length
        self.frame_rate = sample_rate / hop_length
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.inversion_steps, self.phase_steps = inversion_steps, phase_steps
        self.mel = MelSpectrogram(
            sample_rate=sample_rate, window=window, num_mels=num_mels, hop=hop_length, min_n_fft=window
        )
        self.quantizer = ResidualVQ(dim=num_mels, num_codebooks=num_codebooks, codebook_size=codebook_size)
        self.eval()

    def frames(self, audio: Tensor) -> Tensor:
        """(b, m, n // hop_length) log-mel frames of (b, 1, n) sounds; frame i stands at sample ``i * hop_length``."""
        t = whole_hops(audio, self.hop_length).shape[-1] // self.hop_length
        levels: Tensor = self.mel(audio)
        return (levels[..., :t] + FLOOR).log()

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """(b, k, n // hop_length) int64 codes of sounds (b, 1, n) in [-1, 1]; the tail below one hop is dropped."""
        return self.quantizer.encode(self.frames(audio))

    @torch.no_grad()
    def decode(self, codes: Tensor, num_samples: int | None = None) -> Tensor:
        """Sound of codes, exactly as long as asked; the same codes give the same sound.

        Args:
            codes: (b, k, t) int64, k at most ``num_codebooks``.
            num_samples: length wanted, below ``(t + 1) * hop_length``; None means ``t * hop_length``.

        Returns:
            (b, 1, num_samples) in [-1, 1].

        Raises:
            ValueError: for codes that do not fit or a length outside 1..(t + 1) * hop_length - 1.
        """
        t = codes.shape[-1]
        wanted = wanted_samples(t, self.hop_length, num_samples)
        logs = self.quantizer.decode(codes)  # (b, m, t)
        more = max(2, _SHORTEST - t)  # frames that stand on and behind the end
        levels = (torch.cat([logs, logs[..., -1:].expand(-1, -1, more)], -1).exp() - FLOOR).clamp(min=0)
        return self._sound(self._magnitudes(levels))[..., :wanted].clamp(-1, 1)

    def _magnitudes(self, levels: Tensor) -> Tensor:
        """(b, m, t) mel levels to (b, f, t) magnitudes that have them nearly."""
        filters = self.mel.filters  # (m, f)
        target = filters.T @ levels
        magnitudes = target / filters.sum(0).clamp(min=1e-3).unsqueeze(-1) ** 2
        for _ in range(self.inversion_steps):
            magnitudes = magnitudes * target / (filters.T @ (filters @ magnitudes) + 1e-9)
        return magnitudes * self.mel.hann.sum() / 2

    def _sound(self, magnitudes: Tensor) -> Tensor:
        """(b, f, t) magnitudes to (b, 1, (t - 1) * hop) sound; random first phases that are always the same."""
        from torchaudio.functional import griffinlim

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sound: Tensor = griffinlim(
                magnitudes,
                window=self.mel.hann,
                n_fft=self.mel.n_fft,
                hop_length=self.hop_length,
                win_length=self.mel.window,
                power=1.0,
                n_iter=self.phase_steps,
                momentum=0.99,
                length=None,
                rand_init=True,
            )
        return sound.unsqueeze(1)

    def fit(self, sounds: Iterable[Tensor], *, seed: int = 0, most: int = 60_000, iterations: int = 12) -> int:
        """Place the codes by k-means, level after level.

        Args:
            sounds: (n,) each in [-1, 1], read once.
            seed: of the choice of frames and of k-means.
            most: frames kept in memory; of more, a uniform random choice.
            iterations: rounds of k-means a level.

        Returns:
            Frames that the codes were fitted on.

        Raises:
            ValueError: if there are fewer frames than codes of a level.
        """
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            vectors, keys = torch.zeros(0, self.quantizer.dim), torch.zeros(0)
            for sound in sounds:
                if len(sound) < self.hop_length:
                    continue
                new = self.frames(sound.view(1, 1, -1))[0].T
                vectors, keys = torch.cat([vectors, new]), torch.cat([keys, torch.rand(len(new))])
                if len(keys) > 2 * most:  # the largest keys of all so far are a uniform choice
                    keys, kept = keys.topk(most)
                    vectors = vectors[kept]
            kept = keys.topk(min(most, len(keys))).indices
            residual = vectors[kept]
            if len(residual) < self.codebook_size:
                raise ValueError(f"{len(residual)} frames are too few to fit {self.codebook_size} codes on")
            for book in self.quantizer.levels:
                assert isinstance(book, Codebook), "built by the quantizer"
                book.start(residual, iterations)
                residual = residual - book.codes[nearest_codes(residual, book.codes)]
        return len(kept)
