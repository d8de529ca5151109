"""What is measured on: held-out scenes, files kept out of training, and what of them cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmtok.media.audio import write_wav
from mmtok.media.video import write_film
from recipes.corpora.folder import sound_pieces
from recipes.corpora.shapes import ShapesCorpus
from recipes.evaluate.held_out import (
    Clips,
    drawn_clips,
    drawn_sounds,
    file_sounds,
    film_clips,
    held_out_scenes,
    kept_out,
    read_sounds,
)


def _noise(seconds: float, seed: int = 0, rate: int = 16_000) -> Tensor:
    return (0.3 * torch.randn(round(seconds * rate), generator=torch.Generator().manual_seed(seed))).clamp(-1, 1)


def test_pieces_are_spread_and_short_sounds_whole(tmp_path: Path) -> None:
    ramp = torch.linspace(-0.9, 0.9, 16_000 * 5)
    write_wav(tmp_path / "long.wav", ramp)
    pieces = list(sound_pieces(tmp_path / "long.wav", sample_rate=16_000, seconds=1.0, most=3))
    assert [len(piece) for piece in pieces] == [16_000] * 3
    assert [float(p[0]) for p in pieces] == pytest.approx([-0.9, -0.18, 0.54], abs=1e-3)
    write_wav(tmp_path / "short.wav", ramp[:5000])
    (only,) = sound_pieces(tmp_path / "short.wav", sample_rate=16_000, seconds=1.0, most=3)
    assert len(only) == 5000


def test_bad_files_are_named_and_good_ones_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(tmp_path / "a.wav", _noise(0.3))
    (tmp_path / "b.wav").write_bytes(b"RIFF nothing")
    write_wav(tmp_path / "c.wav", torch.zeros(4000))
    write_film(tmp_path / "d.mp4", torch.rand(3, 5, 32, 32) * 2 - 1, fps=8.0)
    write_film(tmp_path / "e.mp4", torch.rand(3, 5, 32, 32) * 2 - 1, fps=8.0, audio=_noise(0.6), sample_rate=16_000)
    left_out: list[str] = []
    options = {"sample_rate": 8000, "seconds": 2.0, "most": 2}
    given = dict(read_sounds(sorted(tmp_path.iterdir()), **options, left_out=left_out))
    assert list(given) == ["a.wav", "e.mp4"] and len(given["a.wav"]) == 2400
    assert [Path(line.split(": ")[0]).name for line in left_out] == ["b.wav", "c.wav", "d.mp4"]
    assert "silent" in left_out[1] and "no sound" in left_out[2]
    shown = capsys.readouterr().err
    assert all(name in shown for name in ("b.wav", "c.wav", "d.mp4"))
    with pytest.raises(ValueError, match=r"none of 1 files gives a sound, such as .*silent"):
        list(read_sounds([tmp_path / "c.wav"], **options, left_out=[]))


def test_scenes_are_those_that_training_never_saw() -> None:
    scenes = held_out_scenes(3)
    assert scenes == [ShapesCorpus(0, "heldout").scene(i) for i in range(3)]
    clips = drawn_clips(3, size=16, num_frames=5, captioned=True)
    assert clips.pixels.shape == (3, 3, 5, 16, 16) and clips.pixels.dtype == torch.uint8
    assert (
        clips.told
        == "3 clips of 5 frames of 16x16; held-out scenes of corpus shapes at 8 fps, their captions as prompts"
    )
    assert clips.scenes == tuple(scenes) and drawn_clips(1, size=16, num_frames=1).scenes == ()
    sounds = dict(drawn_sounds(2, sample_rate=8000).items)
    assert list(sounds) == ["scene 0", "scene 1"] and len(sounds["scene 0"]) == 17_000


def test_clips_come_in_batches() -> None:
    clips = Clips(torch.full((3, 3, 1, 4, 4), 255, dtype=torch.uint8), "white", tuple(held_out_scenes(3)))
    batches = list(clips.batches(2, "clips"))
    assert [len(video) for video, _ in batches] == [2, 1] and float(batches[0][0].min()) == 1
    assert [scene for _, scenes in batches for scene in scenes] == list(clips.scenes)


def test_files_are_those_that_training_left_alone(tmp_path: Path) -> None:
    for name in "abc":
        write_wav(tmp_path / f"{name}.wav", _noise(0.3))
        write_film(tmp_path / f"{name}.mp4", torch.rand(3, 9, 32, 32) * 2 - 1, fps=8.0)
    films = kept_out(tmp_path)
    assert [p.name for p in films.paths] == ["c.mp4"] and films.told == "1 files kept out of training"
    both = kept_out(tmp_path, every_file=True, films=False)
    assert len(both.paths) == 6 and both.told == "6 files in the folder"
    clips = film_clips(films, size=16, num_frames=4, fps=8.0)
    assert clips.pixels.shape == (2, 3, 4, 16, 16) and "up to 4 windows of each of 1 files kept out" in clips.made
    assert film_clips(films, size=16, num_frames=4, fps=8.0, most=1).made.startswith("one window of each")
    sounds = file_sounds(kept_out(tmp_path, films=False), sample_rate=8000, seconds=1.0, most=2)
    assert [name for name, _ in sounds.items] == ["c.wav"] and "c.mp4" in sounds.left_out[0]
    (tmp_path / "c.mp4").unlink()
    with pytest.raises(ValueError, match=r"no film that is kept out .*--every-file"):
        kept_out(tmp_path)
