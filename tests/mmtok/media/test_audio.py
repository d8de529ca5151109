"""Sound: any rate, depth and channel count to exact lengths, aligned by timestamps; bad sound in one line."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from mmtok.media import MediaError, read_audio, stream_audio, write_film, write_wav, write_wav_blocks
from mmtok.media import audio as audio_module


def tone(rate: int, seconds: float = 0.5, hz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_any_rate_comes_out_as_the_same_tone(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(rate, 0.4), rate)
    clip = read_audio(tmp_path / "a.wav")
    assert clip.samples.shape == (1, 6400) and clip.samples.dtype == torch.float32 and clip.sample_rate == 16000
    error = (clip.samples[0] - torch.from_numpy(tone(16000, 0.4)).float())[200:-200].abs().max()
    assert error < 2e-3, f"off by {error:.4f}"
    assert clip.info.sample_rate == rate and clip.info.duration_s == pytest.approx(0.4, abs=1e-3)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_any_depth_is_scaled_to_one(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16000), 16000, subtype=subtype)
    atol = 1 / 100 if subtype == "PCM_U8" else 1e-4
    torch.testing.assert_close(
        read_audio(tmp_path / "a.wav").samples[0], torch.from_numpy(tone(16000)).float(), atol=atol, rtol=0
    )


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "a.wav"])
def test_formats_keep_their_place_in_time(tmp_path: Path, name: str) -> None:
    sound = np.zeros(24000)
    sound[12000:12040] = 0.9
    soundfile.write(tmp_path / name, sound, 24000)
    heard = read_audio(tmp_path / name, sample_rate=24000).samples[0]
    assert -256 <= len(heard) - 24000 <= 1  # FFmpeg may lose a Vorbis file's last short block
    assert abs(int(heard.abs().argmax()) - 12020) <= 22, "the click moved by a millisecond"


def test_channels_are_averaged_or_kept(tmp_path: Path) -> None:
    left, right = tone(16000), tone(16000, hz=880)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    stereo = torch.from_numpy(np.stack([left, right])).float()
    torch.testing.assert_close(read_audio(tmp_path / "a.wav", channels=2).samples, stereo)
    torch.testing.assert_close(read_audio(tmp_path / "a.wav").samples, stereo.mean(0, keepdim=True))
    write_wav(tmp_path / "m.wav", stereo[0])
    mono_twice = read_audio(tmp_path / "m.wav", channels=2).samples
    assert mono_twice.shape == (2, 8000) and torch.equal(mono_twice[0], mono_twice[1])


def test_five_point_one(tmp_path: Path) -> None:
    parts = np.stack([tone(48000, hz=200 * (i + 1)) for i in range(6)])  # FL FR FC LFE BL BR
    soundfile.write(tmp_path / "a.flac", parts.T, 48000, subtype="PCM_24")
    mono = read_audio(tmp_path / "a.flac", sample_rate=48000)
    assert mono.info.channels == 6
    torch.testing.assert_close(mono.samples[0], torch.from_numpy(parts.mean(0)).float(), atol=1e-5, rtol=0)
    stereo = read_audio(tmp_path / "a.flac", sample_rate=48000, channels=2).samples
    expected = np.stack([parts[[0, 2, 3, 4]].mean(0), parts[[1, 2, 3, 5]].mean(0)])
    torch.testing.assert_close(stereo, torch.from_numpy(expected).float(), atol=1e-5, rtol=0)


def test_exact_lengths_by_crop_and_silence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(44100, 1.0), 44100)
    whole = read_audio(tmp_path / "a.wav").samples
    assert whole.shape == (1, 16000)
    part = read_audio(tmp_path / "a.wav", num_samples=4001, start_s=0.25)
    assert part.samples.shape == (1, 4001) and part.padded_samples == 0
    torch.testing.assert_close(part.samples[:, 200:], whole[:, 4200:8001], atol=2e-3, rtol=0)  # the cut rings first
    longer = read_audio(tmp_path / "a.wav", num_samples=34000)
    assert longer.samples.shape == (1, 34000) and longer.padded_samples == 18000
    assert longer.samples[:, 16000:].abs().max() == 0


def test_a_start_by_a_jump_equals_decoding_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 8 * 16000)
    for name in ("a.wav", "a.mp3", "a.ogg", "a.flac"):
        soundfile.write(tmp_path / name, noise, 16000)
        monkeypatch.setattr(audio_module, "_SEEK_FROM_S", 5)
        jumped = read_audio(tmp_path / name, start_s=6.1, num_samples=8000).samples
        monkeypatch.setattr(audio_module, "_SEEK_FROM_S", 100)
        torch.testing.assert_close(
            jumped, read_audio(tmp_path / name, start_s=6.1, num_samples=8000).samples, atol=1e-4, rtol=0, msg=name
        )


def test_sound_is_placed_by_its_stamps_under_the_pictures(tmp_path: Path) -> None:
    """Pictures from 1.0 s on; sound from 0.5 s on, with a hole of a quarter second."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        video = container.add_stream("ffv1", rate=10)
        video.width, video.height, video.pix_fmt = 16, 16, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for at in range(10):
            picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            picture.pts, picture.time_base = 10 + at, Fraction(1, 10)
            container.mux(video.encode(picture))
        for begin, level in [(8000, 0.1), (12000, 0.2), (16000, 0.3), (24000, 0.4)]:  # none from 1.25 to 1.5 s
            piece = np.full((1, 4000), round(level * 32768), np.int16)
            frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, begin, Fraction(1, 16000)
            container.mux(sound.encode(frame))
    heard = read_audio(tmp_path / "a.mkv").samples[0]
    expected = torch.cat([torch.full((4000,), 0.3), torch.zeros(4000), torch.full((4000,), 0.4)])
    torch.testing.assert_close(heard, expected, atol=1e-4, rtol=0)
    later = read_audio(tmp_path / "a.mkv", start_s=5.0, num_samples=100)
    assert later.samples.abs().max() == 0 and later.padded_samples == 100


def test_a_truncated_file_gives_what_decodes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16000, 1.0), 16000)
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
    part = read_audio(tmp_path / "cut.wav", num_samples=16000)
    assert 7000 < part.padded_samples < 9000
    torch.testing.assert_close(part.samples[0, :7000], torch.from_numpy(tone(16000))[:7000].float(), atol=1e-4, rtol=0)


def test_bad_sound_is_one_clear_line(tmp_path: Path) -> None:
    bad = tone(16000)
    bad[4000] = np.nan
    soundfile.write(tmp_path / "nan.wav", bad, 16000, subtype="FLOAT")
    bad[4000] = np.inf
    soundfile.write(tmp_path / "inf.wav", bad, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "loud.wav", tone(16000) * 32768, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "fine.wav", tone(16000), 16000)
    write_film(tmp_path / "mute.mp4", torch.zeros(3, 2, 16, 16))
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound at all " * 99)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 16000)
    for name, options, message in [
        ("nan.wav", {}, "nan.wav: sound contains NaN or infinite samples"),
        ("inf.wav", {}, "inf.wav: sound contains NaN or infinite samples"),
        ("loud.wav", {}, r"loud.wav: sound has samples up to 16\d\d\d, expected \[-1, 1\]"),
        ("mute.mp4", {}, "mute.mp4: has pictures but no sound"),
        ("empty.wav", {}, r"empty.wav: is empty \(0 bytes\)"),
        ("text.wav", {}, "text.wav: is not a media file"),
        ("gone.wav", {}, "gone.wav: no such file"),
        ("nothing.wav", {}, r"nothing.wav: has a sound track, but none of it can be decoded \(empty, "),
        ("fine.wav", {"start_s": 2.0}, "fine.wav: ends before the requested start of 2 s"),
    ]:
        with pytest.raises(MediaError, match=message) as caught:
            read_audio(tmp_path / name, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="channels=3"):
        read_audio(tmp_path / "fine.wav", channels=3)


def test_write_wav_round_trip_and_errors(tmp_path: Path) -> None:
    sound = torch.stack([torch.linspace(-1, 1, 500), torch.linspace(1, -1, 500)])
    write_wav(tmp_path / "a.wav", sound, 22050)
    back = read_audio(tmp_path / "a.wav", sample_rate=22050, channels=2).samples
    torch.testing.assert_close(back, sound, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="audio contains NaN"):
        write_wav(tmp_path / "b.wav", torch.tensor([float("nan")]))
    with pytest.raises(ValueError, match=r"audio must be \(n,\), \(1, n\) or \(2, n\), got \(3, 5\)"):
        write_wav(tmp_path / "b.wav", torch.zeros(3, 5))
    with pytest.raises(MediaError, match=r"unknown ending '\.mp3'; known: \.wav"):
        write_wav(tmp_path / "b.mp3", torch.zeros(5))
    with pytest.raises(MediaError, match="is not an existing folder"):
        write_wav(tmp_path / "no" / "b.wav", torch.zeros(5))
    assert os.listdir(tmp_path) == ["a.wav"]


def test_real_sounds_equal_another_decoder(shared: Path) -> None:
    folder = shared / "data" / "audio"
    for name in ("environment/crunching.mp3", "environment/robin.ogg", "speech/jfk_1961.flac", "music/lyra_music1.wav"):
        reference, rate = soundfile.read(folder / name, dtype="float32", always_2d=True)
        ours = read_audio(folder / name, sample_rate=rate).samples[0]
        assert len(ours) == len(reference), name
        torch.testing.assert_close(ours, torch.from_numpy(reference.mean(1)).clamp(-1, 1), atol=2e-3, rtol=0)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 24_000, 44_100, 96_000])
def test_blocks_together_are_the_whole_sound(tmp_path, rate):
    file = tmp_path / "sound.wav"
    sound = 0.4 * torch.sin(torch.arange(50_001) * 0.05)[None]
    write_wav(file, sound, rate)
    whole = read_audio(file, sample_rate=16_000).samples
    for block_s, most_s in ((0.3, None), (0.7, 1.5), (10.0, None), (10.0, 0.25)):
        blocks = list(stream_audio(file, block_s=block_s, most_s=most_s))
        joined = torch.cat(blocks, 1)
        wanted = whole if most_s is None else whole[:, : round(most_s * 16_000)]
        assert joined.shape == wanted.shape
        torch.testing.assert_close(joined, wanted, atol=1e-4, rtol=0)
        assert {block.shape[1] for block in blocks[:-1]} <= {round(block_s * 16_000)}
    with pytest.raises(ValueError, match="must be positive"):
        next(stream_audio(file, block_s=0))
    (tmp_path / "no.wav").write_bytes(b"RIFF")
    with pytest.raises(MediaError, match=r"no\.wav"):
        next(stream_audio(tmp_path / "no.wav"))


def test_blocks_of_films_are_those_of_the_whole(tmp_path):
    file = tmp_path / "film.mp4"
    frames = torch.zeros(3, 20, 32, 32)
    write_film(file, frames, fps=8, audio=0.3 * torch.sin(torch.arange(40_000) * 0.1)[None])
    whole = read_audio(file).samples
    joined = torch.cat(list(stream_audio(file, block_s=0.4)), 1)
    assert joined.shape == whole.shape and torch.allclose(joined, whole, atol=1e-5)


def test_blocks_keep_left_and_right(tmp_path):
    file = tmp_path / "two.wav"
    soundfile.write(file, np.stack([tone(22050), 0.3 * tone(22050, hz=300)], 1), 22050)
    whole = read_audio(file, channels=2).samples
    joined = torch.cat(list(stream_audio(file, block_s=0.1, channels=2)), 1)
    assert joined.shape == whole.shape == (2, 8000)
    torch.testing.assert_close(joined, whole, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="channels must be 1 or 2, got 3"):
        next(stream_audio(file, channels=3))


def test_blocks_become_one_file_or_none(tmp_path):
    sound = 0.5 * torch.sin(torch.arange(3001) * 0.1)[None].repeat(2, 1)
    file, whole = tmp_path / "blocks.wav", tmp_path / "whole.wav"
    assert write_wav_blocks(file, sound.split(1000, 1), 8000) == 3001
    write_wav(whole, sound, 8000)
    assert file.read_bytes() == whole.read_bytes()
    with pytest.raises(ValueError, match="no sound to write"):
        write_wav_blocks(tmp_path / "none.wav", [])
    with pytest.raises(ValueError, match="NaN"):
        write_wav_blocks(file, [sound, sound / 0 * 0])
    assert file.read_bytes() == whole.read_bytes()  # the old file stands
    assert sorted(p.name for p in tmp_path.iterdir()) == ["blocks.wav", "whole.wav"]
