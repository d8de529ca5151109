"""What the tokenizers' training loops draw from: shapes and real media, mixed.

A source is a function of a generator, so a step's data depend on (seed, step) only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.media.image import to_bytes, to_signed
from recipes.corpora.shapes import ShapesCorpus, render_audio, render_video
from recipes.runtime.distributed import ALONE, Ranks
from recipes.runtime.seeds import step_generator

SoundSource = Callable[[torch.Generator, int, int], Tensor]  # (generator, batch_size, num_samples) -> (b, 1, n)
ClipSource = Callable[[torch.Generator, int, int, int], Tensor]  # (generator, b, num_frames, size) -> (b, 3, t, s, s)


def _integer(generator: torch.Generator, high: int) -> int:
    return int(torch.randint(high, (1,), generator=generator))


def _happens(generator: torch.Generator, chance: float) -> bool:
    return float(torch.rand(1, generator=generator)) < chance


class MixedClips:
    """Batches of square clips: whole shapes scenes, crops of larger ones, crops of real clips.

    Args:
        corpus: scenes to render.
        real: (n, 3, t, s, s) uint8 pool of real clips; may be empty.
        real_share: share of a batch taken from ``real`` when it is not empty.
        large: side of the larger rendering that crops are cut from, pixels.
        pool: how many larger scenes are kept rendered (drawing them takes 10 ms each).
    """

    def __init__(
        self, corpus: ShapesCorpus, real: Tensor | None, *, real_share: float = 0.4, large: int = 128, pool: int = 192
    ):
        self.corpus, self.real_share, self.large = corpus, real_share, large
        self.real = real if real is not None and len(real) else None
        frames = self.real.shape[2] if self.real is not None else 17
        scenes = [render_video(corpus.scene(10_000_000 + i), size=large, num_frames=frames) for i in range(pool)]
        self._pool = torch.stack([to_bytes(scene) for scene in scenes])

    def __call__(self, generator: torch.Generator, batch_size: int, num_frames: int, size: int) -> Tensor:
        """Clips (b, 3, num_frames, size, size) in [-1, 1]; one shorter than the pools' starts anywhere."""
        return torch.stack([self._draw(generator, num_frames, size) for _ in range(batch_size)])

    def _draw(self, generator: torch.Generator, num_frames: int, size: int) -> Tensor:
        if self.real is not None and _happens(generator, self.real_share):
            return self._crop(self.real, generator, num_frames, size)
        if size >= self.large or _happens(generator, 0.35):
            return self._crop(self._pool, generator, num_frames, size)
        scene, whole = self.corpus.scene(_integer(generator, 2_000_000)), self._pool.shape[2]
        first = _integer(generator, whole - num_frames + 1)
        return render_video(scene, size=size, num_frames=whole)[:, first : first + num_frames]

    @staticmethod
    def _crop(pool: Tensor, generator: torch.Generator, num_frames: int, size: int) -> Tensor:
        clip = pool[_integer(generator, len(pool))]
        first = _integer(generator, clip.shape[1] - num_frames + 1)
        clip = to_signed(clip[:, first : first + num_frames])
        side = clip.shape[-1]
        if side >= 2 * size and _happens(generator, 0.4):
            clip = F.avg_pool2d(clip, 2)
            side //= 2
        top, left = _integer(generator, side - size + 1), _integer(generator, side - size + 1)
        clip = clip[..., top : top + size, left : left + size]
        return clip.flip(-1) if _happens(generator, 0.5) else clip


class WholeScenes:
    """Batches of scenes seen from their first picture on, each drawn when it is asked for.

    Args:
        corpus: scenes to render.
        scenes: how many of them, from the first one.
    """

    def __init__(self, corpus: ShapesCorpus, *, scenes: int = 2_000_000):
        self.corpus, self.scenes = corpus, scenes

    def __call__(self, generator: torch.Generator, batch_size: int, num_frames: int, size: int) -> Tensor:
        """Clips (b, 3, num_frames, size, size) in [-1, 1], pictures at 8 per second."""
        drawn = [self.corpus.scene(_integer(generator, self.scenes)) for _ in range(batch_size)]
        return torch.stack([render_video(scene, size=size, num_frames=num_frames) for scene in drawn])


class RealSounds:
    """Batches of crops of recordings at random gain.

    Args:
        recordings: mono (n,) sounds, peak-normalised.
        by_length: draw every second of sound as often as any other; False draws every recording as often.
        gain_db: a crop is made quieter by up to so many dB.
        quiet: a crop whose peak is below this is drawn again, up to three times, so that silence is learnt but seldom.

    Raises:
        ValueError: without a recording.
    """

    def __init__(
        self, recordings: list[Tensor], *, by_length: bool = False, gain_db: float = 15.0, quiet: float = 0.02
    ):
        if not recordings:
            raise ValueError("there is no sound to train on: every file was silent or could not be read")
        self.recordings, self.gain_db, self.quiet = recordings, gain_db, quiet
        self.ends = torch.tensor([sound.numel() for sound in recordings]).cumsum(0) if by_length else None

    def __call__(self, generator: torch.Generator, batch_size: int, num_samples: int) -> Tensor:
        """Crops (b, 1, num_samples) in [-1, 1]; shorter recordings are padded with silence."""
        return torch.stack([self._draw(generator, num_samples) for _ in range(batch_size)])[:, None]

    def _draw(self, generator: torch.Generator, num_samples: int) -> Tensor:
        if self.ends is None:
            number = _integer(generator, len(self.recordings))
        else:
            number = int(torch.searchsorted(self.ends, _integer(generator, int(self.ends[-1])), right=True))
        sound = self.recordings[number]
        for _ in range(4):
            crop = _crop_sound(sound, generator, num_samples)
            if float(crop.abs().max()) > self.quiet:
                break
        gain = float(10 ** (-torch.rand(1, generator=generator) * self.gain_db / 20))
        return F.pad(crop * gain, (0, num_samples - crop.numel()))


def _crop_sound(sound: Tensor, generator: torch.Generator, num_samples: int) -> Tensor:
    """A piece of at most ``num_samples`` from anywhere."""
    first = _integer(generator, max(1, sound.numel() - num_samples + 1))
    return sound[first : first + num_samples]


class MixedSounds:
    """Batches of mono sound: scenes of the corpus and crops of real recordings at random gain.

    Args:
        corpus: scenes to play.
        real: mono (n,) recordings; may be empty.
        real_share: share of a batch taken from ``real`` when it is not empty.
        pool: how many scenes are kept rendered.
        sample_rate: Hz.
        gain_db: a crop of a recording is made quieter by up to so many dB.
    """

    def __init__(
        self,
        corpus: ShapesCorpus,
        real: list[Tensor] | None,
        *,
        real_share: float = 0.4,
        pool: int = 800,
        sample_rate: int = 16000,
        gain_db: float = 15.0,
    ):
        self.real_share, self.real = real_share, RealSounds(real, gain_db=gain_db) if real else None
        scenes = (corpus.scene(20_000_000 + i) for i in range(pool))
        self._pool = [render_audio(scene, sample_rate=sample_rate)[0] for scene in scenes]

    def __call__(self, generator: torch.Generator, batch_size: int, num_samples: int) -> Tensor:
        """Crops (b, 1, num_samples) in [-1, 1]; shorter recordings are padded with silence."""
        return torch.stack([self._draw(generator, num_samples) for _ in range(batch_size)])[:, None]

    def _draw(self, generator: torch.Generator, num_samples: int) -> Tensor:
        if self.real is not None and _happens(generator, self.real_share):
            return self.real(generator, 1, num_samples)[0, 0]
        crop = _crop_sound(self._pool[_integer(generator, len(self._pool))], generator, num_samples)
        return F.pad(crop, (0, num_samples - crop.numel()))


def draw_clips(
    clip_source: ClipSource,
    *,
    seed: int,
    step: int,
    count: int,
    num_frames: int,
    sizes: tuple[int, ...],
    ranks: Ranks = ALONE,
) -> Tensor:
    """This process' share of a step's clips; the whole is a function of (seed, step), whoever takes which part.

    Args:
        clip_source: draws clips.
        seed: of the run.
        step: optimizer step.
        count: clips a step at the first of ``sizes``; other sizes get the same number of pixels.
        num_frames: of each clip.
        sizes: heights (= widths) in pixels, of which the step draws one.
        ranks: this process among others.

    Returns:
        (b, 3, num_frames, size, size).
    """
    size = sizes[int(torch.randint(len(sizes), (1,), generator=step_generator(seed, step)))]
    count = max(ranks.world, round(count * (sizes[0] / size) ** 2))
    drawn = (clip_source(step_generator(seed, step, n), 1, num_frames, size) for n in ranks.share(count))
    return torch.cat(list(drawn))


def held_clips(clip_source: ClipSource, *, seed: int, num_frames: int, sizes: tuple[int, ...]) -> list[Tensor]:
    """Clips whose reconstructions a run shows, two of each size; no step draws them.

    Args:
        clip_source: draws clips.
        seed: of the run.
        num_frames: of each clip.
        sizes: heights (= widths) in pixels.

    Returns:
        (2, 3, num_frames, size, size) for each size.
    """
    return [clip_source(step_generator(seed, -1 - n), 2, num_frames, size) for n, size in enumerate(sizes)]
