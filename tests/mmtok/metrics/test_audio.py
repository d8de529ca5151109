"""Audio metrics on cases that can be checked by eye."""

import math
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from mmtok.contract import bitrate_kbps
from mmtok.media.audio import read_audio
from mmtok.metrics.audio import (
    LogMel,
    LogMelDistance,
    SiSdr,
    Stft,
    STFTDistance,
    Stoi,
    si_sdr_db,
    stoi,
)


def test_log_mel_distance_of_a_gain_is_its_logarithm() -> None:
    distance = LogMelDistance(sample_rate=16_000, floor=1e-9)
    noise = 0.3 * torch.randn(2, 1, 8000)
    assert_close(distance(0.5 * noise, noise), torch.full((2,), math.log(2)), atol=1e-3, rtol=0)
    assert distance(noise, noise).eq(0).all()


def test_log_mel_distance_is_one_number_a_sound_and_checks_shapes() -> None:
    distance = LogMelDistance(sample_rate=16_000)
    noise = 0.3 * torch.randn(2, 1, 8000)
    mixed = torch.stack([noise[0], torch.zeros(1, 8000)])
    values = distance(mixed, noise)
    assert values[0] == 0 and values[1] > 1
    with pytest.raises(ValueError, match="must have one shape"):
        distance(noise, noise[..., :-1])


def test_what_is_far_below_the_floor_does_not_count() -> None:
    distance = LogMelDistance(sample_rate=16_000)
    assert float(distance(1e-6 * torch.randn(1, 1, 4000), torch.zeros(1, 1, 4000))) < 0.01


def test_si_sdr_by_hand() -> None:
    target = torch.tensor([1.0, -1.0, 1.0, -1.0])
    orthogonal = torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert_close(si_sdr_db(target + 0.1 * orthogonal, target), torch.tensor(20.0))
    assert_close(si_sdr_db(7 * (target + 0.1 * orthogonal) + 3, target), torch.tensor(20.0))  # gain and offset are free
    assert si_sdr_db(target, target) > 100
    assert si_sdr_db(orthogonal, target) < -100
    assert_close(si_sdr_db(torch.zeros(4), target), torch.tensor(0.0))
    assert si_sdr_db(torch.randn(3, 1, 50), torch.randn(3, 1, 50)).shape == (3, 1)
    with pytest.raises(ValueError, match="must have one shape"):
        si_sdr_db(target, target[:2])


def test_stft_distance_of_a_gain_by_hand() -> None:
    noise = 0.3 * torch.randn(2, 1, 8000, generator=torch.Generator().manual_seed(0))
    distance = STFTDistance(floor=1e-9)
    linear, logarithmic = distance.terms(0.5 * noise, noise)
    assert_close(linear, torch.full((2,), 0.5), atol=1e-5, rtol=0)
    assert_close(logarithmic, torch.full((2,), math.log(2)), atol=1e-3, rtol=0)
    assert_close(distance(0.5 * noise, noise), linear + logarithmic)
    assert distance(noise, noise).eq(0).all()
    with pytest.raises(ValueError, match="must have one shape"):
        distance(noise, noise[..., :-1])


def test_stft_distance_knows_phase_no_more_than_a_spectrogram_does() -> None:
    """A shifted noise keeps its spectrum nearly, another noise does not; silence against silence is equal."""
    noise = 0.3 * torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))
    other = 0.3 * torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(1))
    distance = STFTDistance()
    assert distance(-noise, noise) < 1e-5
    assert distance(noise.roll(5, -1), noise) < 0.5 * distance(other, noise)
    quiet = torch.zeros(1, 1, 8000)
    assert float(distance(quiet, quiet)) == 0 and float(distance.terms(noise, quiet)[0]) > 1e3


def test_stft_distance_against_the_definition() -> None:
    """One resolution, frame by frame, with numbers of the transform taken by hand."""
    generator = torch.Generator().manual_seed(0)
    pair = 0.3 * torch.randn(2, 60, generator=generator)
    n_fft, hop, window = 16, 5, 10
    hann = torch.zeros(n_fft)
    hann[3:13] = torch.hann_window(window)
    spectra = []
    for sound in torch.nn.functional.pad(pair, (8, 8)):
        frames = sound.unfold(0, n_fft, hop) * hann
        spectra.append(torch.fft.rfft(frames).abs() * 2 / hann.sum())
    linear = (spectra[0] - spectra[1]).square().sum().sqrt() / spectra[1].square().sum().sqrt()
    logarithmic = ((spectra[0] + 1e-4) / (spectra[1] + 1e-4)).log().abs().mean()
    got = STFTDistance(resolutions=((n_fft, hop, window),)).terms(pair[:1, None], pair[1:, None])
    assert_close(torch.stack(got)[:, 0], torch.stack([linear, logarithmic]))


def test_stoi_falls_with_noise(shared: Path) -> None:
    pytest.importorskip("pystoi")
    speech = read_audio(shared / "data" / "audio" / "speech" / "jfk_1961.flac", num_samples=48_000).samples
    noise = torch.randn(speech.shape, generator=torch.Generator().manual_seed(0)) * speech.std()
    figures = [float(stoi(speech + gain * noise, speech, sample_rate=16_000)) for gain in (0, 0.3, 1, 10)]
    assert figures[0] == pytest.approx(1, abs=1e-4)
    assert figures == sorted(figures, reverse=True) and figures[-1] < 0.4, figures
    assert float(stoi(0.1 * speech, speech, sample_rate=16_000)) == pytest.approx(1, abs=1e-4)  # gain is free


def test_stoi_says_nothing_about_what_is_too_short_or_silent() -> None:
    pytest.importorskip("pystoi")
    noise = torch.randn(3, 1, 4000)
    noise[1, :, 200:] = 0  # too few loud frames
    noise[2] = 0
    assert stoi(noise, noise, sample_rate=8000).isnan().tolist() == [[False], [True], [True]]
    assert stoi(noise[0, 0, :50], noise[0, 0, :50], sample_rate=8000).isnan()
    with pytest.raises(ValueError, match="must have one shape"):
        stoi(noise, noise[:1], sample_rate=8000)


def test_stoi_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pystoi", None)
    with pytest.raises(ImportError, match=r"pip install 'cinepoet\[speech\]'"):
        stoi(torch.zeros(9), torch.zeros(9), sample_rate=8000)


def test_bitrate_of_videopoets_sound() -> None:
    assert bitrate_kbps(frame_rate=50, num_codebooks=4, codebook_size=1024) == 2.0
    assert bitrate_kbps(frame_rate=75, num_codebooks=8, codebook_size=1024) == 6.0  # SoundStream's 6 kbit/s


def test_metrics_of_sounds_are_means_over_sounds() -> None:
    generator = torch.Generator().manual_seed(0)
    real = 0.3 * torch.randn(2, 1, 9000, generator=generator)
    again = real + 0.1 * torch.randn(real.shape, generator=generator)
    for metric, wanted in (
        (LogMel(16_000), LogMelDistance(sample_rate=16_000)(again, real)),
        (Stft(), STFTDistance()(again, real)),
        (SiSdr(), si_sdr_db(again, real)),
    ):
        for i in range(2):
            metric.update(real[i : i + 1], again[i : i + 1])
        assert len(metric.values) == 2 and metric.value() == pytest.approx(float(wanted.mean()), rel=1e-5)


def test_sounds_without_speech_are_left_out_of_stoi() -> None:
    pytest.importorskip("pystoi")
    metric = Stoi(16_000)
    metric.update(torch.zeros(1, 1, 16_000), torch.zeros(1, 1, 16_000))
    assert math.isnan(metric.value()) and "384 ms" in metric.protocol
    noise = 0.3 * torch.randn(1, 1, 16_000, generator=torch.Generator().manual_seed(0))
    metric.update(noise, noise)
    assert metric.value() == pytest.approx(1, abs=1e-3) and "over 1 of 2 sounds" in metric.protocol
