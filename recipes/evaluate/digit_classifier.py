"""A small network that understands spoken digits, to ask whether a codec's output is still understood.

Intelligibility of a codec is the network's accuracy on reconstructions over its accuracy on the originals of the same
recordings. It is trained on originals only. It listens at 8 kHz, where the free spoken digits were recorded: noise that
a codec adds above 4 kHz does not confuse it (the distances of ``mmtok.metrics.audio`` count that). Which recordings
train it, which test it and which a codec may hear is told by ``recipes.corpora.spoken_digits.split_digits``.

Shape letters: b sounds, m mel bands, t frames, n samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.media.audio import resample
from mmtok.nn.mel import MelSpectrogram
from recipes.corpora.spoken_digits import Recording
from recipes.runtime.progress import track

RATE, HOP, BANDS = 8000, 80, 40
FRAMES = 100  # 1 s; shorter digits stand in silence, of longer ones the middle is heard
FLOOR = 1e-3  # 60 dB below the peak


class DigitClassifier(nn.Module):
    """Log-mel pictures through four convolutions, mean and maximum over time, and a linear layer.

    Args:
        width: channels of the first convolution; the last has four times as many.
    """

    def __init__(self, width: int = 16):
        super().__init__()
        self.mel = MelSpectrogram(sample_rate=RATE, window=256, num_mels=BANDS, hop=HOP)
        layers: list[nn.Module] = []
        before = 1
        for channels, pool in ((width, 2), (2 * width, 2), (3 * width, 2), (4 * width, 1)):
            layers += [nn.Conv2d(before, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            layers += [nn.MaxPool2d(pool)]
            before = channels
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * before * (BANDS // 8), 10)

    @torch.no_grad()
    def picture(self, sound: Tensor, sample_rate: int) -> Tensor:
        """What the network sees of one sound: log-mel magnitudes relative to the peak, 0 for silence, 1 for the peak.

        Args:
            sound: (n,), n at least 1.
            sample_rate: Hz.

        Returns:
            (m, t).
        """
        heard = resample(sound[None], sample_rate, RATE)
        heard = heard / heard.abs().max().clamp(min=1e-4)
        levels: Tensor = self.mel(heard[None])[0]
        return 1 - (levels + FLOOR).log() / math.log(FLOOR)

    def forward(self, pictures: Tensor) -> Tensor:
        """(b, 10) scores before the softmax, of pictures (b, m, t) with t = 100."""
        x = self.layers(pictures[:, None]).flatten(1, 2)  # (b, channels x bands / 8, t / 8)
        scores: Tensor = self.head(self.dropout(torch.cat([x.mean(-1), x.amax(-1)], 1)))
        return scores

    @torch.no_grad()
    def understand(self, sounds: Sequence[Tensor], sample_rate: int) -> list[int]:
        """The digits heard.

        Args:
            sounds: (n,) each.
            sample_rate: Hz.

        Returns:
            A digit a sound.
        """
        pictures = [_framed(self.picture(sound, sample_rate), 0.5) for sound in sounds]
        return self.eval()(torch.stack(pictures)).argmax(1).tolist()


def _framed(picture: Tensor, place: float) -> Tensor:
    """(m, t) in 100 frames; ``place`` in [0, 1] says how far to the right it stands, or what of it is seen."""
    spare = FRAMES - picture.shape[1]
    if spare < 0:
        first = round(-spare * place)
        return picture[:, first : first + FRAMES]
    left = round(spare * place)
    return F.pad(picture, (left, spare - left))


def _varied(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Another tempo, height and place, and a band and a moment left out (SpecAugment, arXiv 1904.08779)."""

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    size = (round(BANDS * draw(0.9, 1.1)), max(4, round(picture.shape[1] * draw(0.8, 1.25))))
    moved = F.interpolate(picture[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    moved = F.pad(moved[:BANDS], (0, 0, 0, max(0, BANDS - size[0])))
    framed = _framed(moved, draw(0, 1)).clone()
    band, moment = int(draw(0, BANDS - 5)), int(draw(0, FRAMES - 8))
    framed[band : band + int(draw(0, 6))] = 0
    framed[:, moment : moment + int(draw(0, 9))] = 0
    return framed


def train_classifier(
    recordings: Sequence[Recording], *, seed: int = 0, epochs: int = 16, batch_size: int = 32, lr: float = 3e-3
) -> DigitClassifier:
    """Train on original recordings; the same seed gives the same network on the same machine.

    Args:
        recordings: what it may hear.
        seed: of weights, order and variation.
        epochs: passes over the recordings.
        batch_size: recordings a step.
        lr: peak learning rate of AdamW; warm-up over a tenth, then a cosine to zero.

    Returns:
        The network in evaluation mode.

    Raises:
        MediaError: if a recording cannot be read.
        ValueError: if there are no recordings or ``epochs`` is not positive.
    """
    if not recordings or epochs < 1:
        raise ValueError(f"a classifier needs recordings and epochs, got {len(recordings)} and {epochs}")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitClassifier()
        pictures = [model.picture(r.read(RATE), RATE) for r in track(recordings, title="recordings")]
        digits = torch.tensor([r.digit for r in recordings])
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.02)
        steps = epochs * -(-len(pictures) // batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1, pct_start=0.1)
        model.train()
        for _ in track(range(epochs), title="digit classifier"):
            for chosen in torch.randperm(len(pictures), generator=generator).split(batch_size):
                batch = torch.stack([_varied(pictures[i], generator) for i in chosen.tolist()])
                loss = F.cross_entropy(model(batch), digits[chosen], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return model.eval()
