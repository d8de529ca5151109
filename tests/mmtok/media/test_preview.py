"""The preview sheet shows every picture where it belongs, and loudness where the sound is."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtok.media import MediaError, contact_sheet, spectrogram_image, write_preview
from mmtok.media.preview import waveform_image


def test_pictures_stand_in_reading_order() -> None:
    frames = torch.linspace(-1, 1, 6)[None, :, None, None].expand(3, 6, 40, 48)
    sheet = np.asarray(contact_sheet(frames, columns=3))
    rows, columns = np.meshgrid([4 + 20, 4 + 20 + 58], [4 + 24 + 52 * i for i in range(3)], indexing="ij")
    middles = sheet[rows.ravel(), columns.ravel(), 0].astype(int)
    assert np.abs(middles - np.linspace(0, 255, 6)).max() <= 1, middles
    with pytest.raises(ValueError, match="columns must be positive"):
        contact_sheet(frames, columns=0)
    with pytest.raises(ValueError, match=r"frames must be \(3, t, h, w\)"):
        contact_sheet(frames[0])


def test_large_pictures_are_shrunk_and_one_picture_is_a_sheet() -> None:
    assert contact_sheet(torch.zeros(3, 1, 720, 1280)).width < 210
    assert contact_sheet(torch.zeros(3, 81, 8, 8)).width > 100


def test_the_spectrogram_is_bright_at_the_tone() -> None:
    seconds = torch.arange(16000) / 16000
    sound = torch.sin(2 * torch.pi * 2000 * seconds) * (seconds >= 0.5)
    image = np.asarray(spectrogram_image(sound, 16000, width=200, height=160)).astype(int).sum(-1)
    assert abs(int(image[30:, 150].argmax()) + 30 - 120) <= 2, "2 kHz of 8 kHz stands at a quarter of the height"
    assert image[118:123, 150].max() > 450 > 200 > image[30:, 30].max()
    silent = np.asarray(spectrogram_image(torch.zeros(1, 16000), 16000))
    assert silent[60:].max() < 60


def test_the_waveform_shows_the_range_of_each_column() -> None:
    sound = torch.cat([torch.zeros(500), torch.ones(500), -torch.ones(500)])
    image = np.asarray(waveform_image(sound, width=30, height=61)).astype(int)
    blue = image[..., 2] - image[..., 0] > 60
    assert [int(np.flatnonzero(blue[:, x]).mean()) for x in (5, 15, 25)] == [30, 0, 60]


def test_a_preview_is_written_fast_and_whole(tmp_path: Path) -> None:
    frames, sound = torch.rand(3, 17, 128, 128) * 2 - 1, torch.rand(1, 34000) * 2 - 1
    began = time.process_time()
    write_preview(tmp_path / "a.png", frames, 8.0, sound, 16000)
    assert time.process_time() - began < 1.0
    write_preview(tmp_path / "b.png", frames)
    assert (tmp_path / "a.png").stat().st_size > (tmp_path / "b.png").stat().st_size
    with pytest.raises(MediaError, match=r"unknown ending '\.jpg'; known: \.png"):
        write_preview(tmp_path / "a.jpg", frames)
