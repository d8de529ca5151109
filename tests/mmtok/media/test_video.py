"""Films: right pictures at right times from odd files, exact clocks in written ones, one clear line for bad input."""

import csv
import os
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mmtok.media import (
    MediaError,
    probe,
    read_audio,
    read_video,
    stream_video,
    write_film,
    write_wav,
)
from mmtok.media import video as video_module

Paint = Callable[[int], np.ndarray]


def grey(height: int = 32, width: int = 32) -> Paint:
    """Picture i is plain grey of level 10 * i."""
    return lambda index: np.full((height, width, 3), 10 * index, np.uint8)


def make_film(
    path: Path,
    paint: Paint,
    pts: list[int],
    *,
    base: Fraction = Fraction(1, 1000),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotate: float = 0.0,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A film whose picture i is ``paint(i)`` from ``pts[i] * base`` seconds on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options or ({"crf": "4"} if codec == "libx264" else {}))
        stream.height, stream.width = paint(0).shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotate:
            stream.set_display_rotation(rotate)
        for index, at in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(paint(index), format="rgb24")
            frame.pts, frame.time_base = at, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def levels(frames: Tensor) -> list[int]:
    """Which of the grey(...) pictures each frame shows."""
    return ((frames.mean(dim=(0, 2, 3)) + 1) * 127.5 / 10).round().long().tolist()


def test_each_frame_is_the_picture_on_show_at_its_time(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.mp4", grey(), [40 * i for i in range(20)])  # 25 pictures a second
    clip = read_video(film, fps=8, num_frames=6)
    assert levels(clip.frames) == [i * 125 // 40 for i in range(6)]
    assert clip.frames.shape == (3, 6, 32, 32) and clip.frames.dtype == torch.float32
    assert clip.held_frames == 0 and clip.fps == 8.0
    assert levels(read_video(film, fps=25, num_frames=None).frames) == list(range(20))
    assert levels(read_video(film, fps=8, num_frames=2, start_s=0.3).frames) == [7, 10]


def test_variable_rate_and_a_late_first_stamp(tmp_path: Path) -> None:
    times = [0, 10, 20, 500, 510, 900]
    at_zero = make_film(tmp_path / "a.mkv", grey(), times)
    late = make_film(tmp_path / "b.mkv", grey(), [time + 7000 for time in times])
    for film in (at_zero, late):
        clip = read_video(film, fps=10, num_frames=10)
        # in hundredths: 0 10 20 30 40 show pictures 0 and 2; picture 3 is over before 60
        assert levels(clip.frames) == [0, 2, 2, 2, 2, 3, 4, 4, 4, 5], film.name


def test_rounded_millisecond_stamps_do_not_shift_frames(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.mkv", grey(), [round(i * 1000 / 30) for i in range(24)])
    assert levels(read_video(film, fps=30, num_frames=None).frames) == list(range(24))


def test_a_short_film_holds_its_last_picture(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.mp4", grey(), [125 * i for i in range(4)])
    clip = read_video(film, fps=8, num_frames=17)
    assert levels(clip.frames) == [0, 1, 2, 3] + [3] * 13
    assert clip.held_frames == 13
    one = read_video(make_film(tmp_path / "b.mp4", grey(), [0]), fps=8, num_frames=5)
    assert one.held_frames == 4 and one.frames.shape == (3, 5, 32, 32)
    assert read_video(tmp_path / "b.mp4", num_frames=None).frames.shape[1] == 1


@pytest.mark.parametrize(("degrees", "corner"), [(90, "bottom left"), (-90, "top right"), (180, "bottom right")])
def test_rotation_is_applied(tmp_path: Path, degrees: int, corner: str) -> None:
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :16] = 255  # stored with the light in the top left corner
    film = make_film(tmp_path / "a.mp4", lambda _: picture, [0, 40], rotate=degrees)
    clip = read_video(film, num_frames=1)
    shown = clip.frames[:, 0].mean(0)
    assert shown.shape == ((32, 64) if degrees == 180 else (64, 32))
    assert (clip.info.height, clip.info.width) == tuple(shown.shape)
    assert clip.info.rotation == {90: 270, -90: 90, 180: 180}[degrees]  # the film states it counterclockwise
    quarters = {
        "top left": shown[:14, :14],
        "top right": shown[:14, -14:],
        "bottom left": shown[-14:, :14],
        "bottom right": shown[-14:, -14:],
    }
    assert {name: bool(quarter.mean() > 0.9) for name, quarter in quarters.items()} == {
        name: name == corner for name in quarters
    }


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "shape"),
    [
        ("ten.mkv", "libx265", "yuv420p10le", (48, 64)),
        ("ten_ffv1.mkv", "ffv1", "yuv422p10le", (33, 47)),
        ("odd.mkv", "ffv1", "yuv444p", (41, 61)),
        ("odd.mp4", "mpeg4", "yuv420p", (41, 61)),
        ("alpha.mkv", "ffv1", "bgra", (32, 32)),
        ("grey.mkv", "ffv1", "gray", (32, 32)),
    ],
)
def test_pixel_formats_and_odd_sizes(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, shape: tuple[int, int]
) -> None:
    options = {"log-level": "none"} if codec == "libx265" else {}
    film = make_film(tmp_path / name, grey(*shape), [0, 125, 250], codec=codec, pix_fmt=pix_fmt, options=options)
    clip = read_video(film, num_frames=3)
    assert clip.frames.shape == (3, 3, *shape)
    assert levels(clip.frames) == [0, 1, 2]
    assert read_video(film, num_frames=3, size=16).frames.shape == (3, 3, 16, 16)


def test_crop_is_central_and_pad_and_stretch_keep_everything(tmp_path: Path) -> None:
    picture = np.zeros((32, 96, 3), np.uint8)
    picture[:, 32:64] = 255
    film = make_film(tmp_path / "a.mp4", lambda _: picture, [0])
    crop, pad, stretch = (
        read_video(film, num_frames=1, size=16, fit=fit).frames[0, 0] for fit in ("crop", "pad", "stretch")
    )
    assert crop[:, 1:-1].min() > 0.9
    assert pad[:4].max() < -0.9 and pad[-4:].max() < -0.9 and pad[7:9, 7:9].min() > 0.8
    assert stretch[:, :4].max() < -0.8 and stretch[:, 7:9].min() > 0.8
    with pytest.raises(ValueError, match="unknown fit 'zoom'; known: crop, pad, stretch"):
        read_video(film, fit="zoom")


def test_wide_pixels_are_shown_wide(tmp_path: Path) -> None:
    film = make_film(tmp_path / "a.mp4", grey(), [0, 40], aspect=Fraction(2, 1))
    assert probe(film).width == 64
    assert read_video(film, num_frames=1).frames.shape == (3, 1, 32, 64)


def test_start_by_a_jump_equals_decoding_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 16, 16, 3), dtype=np.uint8)
    film = make_film(
        tmp_path / "a.mp4", lambda i: noise[i], [40 * i for i in range(120)], options={"g": "12", "crf": "4"}
    )
    jumped = read_video(film, num_frames=8, start_s=3.33)
    monkeypatch.setattr(video_module, "_SEEK_FROM_S", 100)
    assert torch.equal(jumped.frames, read_video(film, num_frames=8, start_s=3.33).frames)


@pytest.mark.parametrize(
    ("fps", "block", "most"), [(25.0, 7, None), (8.0, 3, None), (60.0, 100, None), (8.0, 3, 5), (0.5, 1, None)]
)
def test_blocks_are_the_pictures_of_the_whole(tmp_path: Path, fps: float, block: int, most: int | None) -> None:
    pts = [0, 40, 80, 200, 240, 280, 320, 600, 640, 680, 720, 760, 1000]  # a hole, and another rate in places
    path = make_film(tmp_path / "a.mkv", grey(), pts)
    whole = read_video(path, fps=fps, num_frames=None, size=16).frames[:, :most]
    blocks = list(stream_video(path, fps=fps, block=block, num_frames=most, size=16))
    assert torch.cat(blocks, 1).equal(whole)
    assert {b.shape[1] for b in blocks[:-1]} <= {block}


def test_blocks_are_refused_like_the_whole(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(MediaError, match=r"text\.mp4"):
        next(stream_video(tmp_path / "text.mp4"))
    with pytest.raises(ValueError, match="fps, block and num_frames must be positive"):
        next(stream_video(tmp_path / "text.mp4", block=0))
    with pytest.raises(ValueError, match="unknown fit 'zoom'"):
        next(stream_video(tmp_path / "text.mp4", fit="zoom"))


def test_gif_and_picture_files_are_films(tmp_path: Path) -> None:
    ramp = torch.linspace(-1, 1, 9)[None, :, None, None].expand(3, 9, 24, 32)
    write_film(tmp_path / "a.gif", ramp, fps=8)
    clip = read_video(tmp_path / "a.gif", num_frames=None)
    torch.testing.assert_close(clip.frames, ramp, atol=0.01, rtol=0)  # 256 colours a picture hold a ramp of greys
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "a.png")
    still = read_video(tmp_path / "a.png", num_frames=3)
    assert still.held_frames == 2 and still.frames[0].min() == 1 and still.frames[1].max() == -1


def test_a_truncated_film_gives_what_decodes(tmp_path: Path) -> None:
    noise = torch.rand(3, 24, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    write_film(tmp_path / "whole.mp4", noise)  # its index is in front
    data = (tmp_path / "whole.mp4").read_bytes()
    half, none = tmp_path / "half.mp4", tmp_path / "none.mp4"
    half.write_bytes(data[: len(data) // 2])
    whole, part = read_video(tmp_path / "whole.mp4", num_frames=17), read_video(half, num_frames=17)
    assert torch.equal(part.frames[:, :6], whole.frames[:, :6])
    assert 0 < part.held_frames < 17
    none.write_bytes(data[: data.index(b"mdat") + 4])
    with pytest.raises(MediaError, match=r"none\.mp4: has a stream of pictures, but none of them can be decoded"):
        read_video(none)
    none.write_bytes(data[:600])
    with pytest.raises(
        MediaError, match=r"none\.mp4: is truncated or damaged \(an mp4 file without a readable index\)"
    ):
        read_video(none)


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is not a film\n" * 50)
    (tmp_path / "text.txt").write_text("this is not a film\n" * 50)
    write_wav(tmp_path / "sound.wav", torch.zeros(1, 800))
    short = make_film(tmp_path / "short.mp4", grey(), [0, 125])
    cases = [
        ("missing.mp4", {}, "missing.mp4: no such file"),
        (".", {}, "is a folder, not a media file"),
        ("empty.mp4", {}, r"empty.mp4: is empty \(0 bytes\)"),
        ("text.mp4", {}, "text.mp4: is not a media file"),
        ("text.txt", {}, "text.txt: is not a media file"),
        ("sound.wav", {}, "sound.wav: has sound but no pictures"),
        ("short.mp4", {"start_s": 5.0}, "short.mp4: ends at 0.* s, before the requested start of 5 s"),
    ]
    for name, options, message in cases:
        with pytest.raises(MediaError, match=message) as caught:
            read_video(tmp_path / name, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="num_frames=0"):
        read_video(short, num_frames=0)
    assert not probe(tmp_path / "sound.wav").has_video


def test_names_with_signs_that_mean_something_to_ffmpeg(tmp_path: Path) -> None:
    frames = torch.zeros(3, 2, 16, 16)
    for name in ("a:b %03d é.mp4", "-x.mp4"):
        write_film(tmp_path / name, frames)
        assert read_video(tmp_path / name, num_frames=2).held_frames == 0
    assert sorted(os.listdir(tmp_path)) == ["-x.mp4", "a:b %03d é.mp4"]


@pytest.mark.parametrize("num_frames", [1, 17, 81])
def test_written_clocks_are_exact(tmp_path: Path, num_frames: int) -> None:
    marked = num_frames * 2 // 3
    frames = torch.full((3, num_frames, 32, 32), -1.0)
    frames[:, marked] = 1.0
    num_samples = num_frames * 2000
    audio = torch.zeros(1, num_samples + 999)  # too long on purpose
    audio[0, marked * 2000] = 0.9
    write_film(tmp_path / "a.mp4", frames, audio=audio)
    with av.open(str(tmp_path / "a.mp4")) as container:
        video, sound = container.streams.video[0], container.streams.audio[0]
        assert video.duration * video.time_base == Fraction(num_frames, 8)
        assert sound.duration * sound.time_base == Fraction(num_frames, 8)
        assert [frame.pts * video.time_base for frame in container.decode(video)] == [
            Fraction(i, 8) for i in range(num_frames)
        ]
    clip = read_video(tmp_path / "a.mp4", num_frames=None)
    assert clip.frames.shape[1] == num_frames and clip.info.duration_s == num_frames / 8
    assert clip.frames.mean(dim=(0, 2, 3)).argmax() == marked
    heard = read_audio(tmp_path / "a.mp4").samples
    assert heard.shape == (1, num_samples)
    assert abs(int(heard.abs().argmax()) - marked * 2000) <= 4, "the click moved by more than a quarter millisecond"


def test_colours_survive_within_a_few_levels(tmp_path: Path) -> None:
    colours = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [0.2, -0.4, 0.6], [1, 1, 1]]).T
    frames = colours[:, :, None, None].expand(3, 5, 32, 32)
    write_film(tmp_path / "a.mp4", frames, crf=4)
    back = read_video(tmp_path / "a.mp4", num_frames=5).frames
    torch.testing.assert_close(back, frames, atol=5 / 127.5, rtol=0)  # 8-bit YUV and H.264 cost a few levels


def test_odd_sides_grow_by_repetition(tmp_path: Path) -> None:
    picture = torch.linspace(-1, 1, 17)[None, None, None, :].expand(3, 2, 15, 17)
    write_film(tmp_path / "a.mp4", picture, fps=Fraction(30000, 1001), crf=1)
    clip = read_video(tmp_path / "a.mp4", fps=Fraction(30000, 1001), num_frames=2)
    assert clip.frames.shape == (3, 2, 16, 18) and clip.held_frames == 0
    torch.testing.assert_close(clip.frames[:, :, :15, :17], picture, atol=0.15, rtol=0)  # chroma at half size
    torch.testing.assert_close(clip.frames[..., 17], clip.frames[..., 16], atol=0.06, rtol=0)
    assert clip.info.fps == pytest.approx(30000 / 1001)


@pytest.mark.parametrize(("sample_rate", "channels"), [(8000, 1), (16000, 2), (22222, 1), (48000, 2)])
def test_sound_of_any_rate_is_fitted_to_the_pictures(tmp_path: Path, sample_rate: int, channels: int) -> None:
    beep = torch.sin(2 * torch.pi * 440 * torch.arange(sample_rate) / sample_rate)  # 1 s under 2 s of pictures
    write_film(
        tmp_path / "a.mp4",
        torch.zeros(3, 16, 16, 16),
        audio=0.5 * beep.expand(channels, -1),
        sample_rate=sample_rate,
    )
    heard = read_audio(tmp_path / "a.mp4", channels=channels)
    assert heard.samples.shape == (channels, 32000) and heard.info.channels == channels
    wave = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(32000) / 16000)
    assert (heard.samples[:, 2000:12000] - wave[2000:12000]).abs().max() < 0.05
    assert heard.samples[:, 20000:].abs().max() < 0.01


@pytest.mark.parametrize("rate", [16000, 22222])
def test_a_film_in_blocks_equals_the_film_in_one(tmp_path: Path, rate: int) -> None:
    frames = torch.rand(3, 21, 18, 33, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sound = 0.3 * torch.sin(torch.arange(round(21 / 8 * rate)) / 9)
    write_film(tmp_path / "whole.mp4", frames, fps=8, audio=sound, sample_rate=rate)
    with video_module.FilmWriter(tmp_path / "blocks.mp4", fps=8, sample_rate=rate) as film:
        for start, stop in ((0, 5), (5, 13), (13, 21)):
            at = slice(round(start / 8 * rate), round(stop / 8 * rate))
            film.add(frames[:, start:stop], sound[at])
    whole, blocks = (read_video(tmp_path / name, num_frames=None) for name in ("whole.mp4", "blocks.mp4"))
    assert torch.equal(whole.frames, blocks.frames)
    heard = [read_audio(tmp_path / name, sample_rate=rate).samples for name in ("whole.mp4", "blocks.mp4")]
    assert heard[0].shape == heard[1].shape
    torch.testing.assert_close(heard[0], heard[1], atol=2e-2, rtol=0)


def test_blocks_of_a_film_must_be_alike_and_a_broken_film_leaves_nothing(tmp_path: Path) -> None:
    pictures = torch.zeros(3, 2, 16, 16)
    cases = [(pictures[..., :8], None), (pictures, torch.zeros(400))]
    for number, (frames, sound) in enumerate(cases):
        with (
            pytest.raises(ValueError, match="pictures of one size"),
            video_module.FilmWriter(tmp_path / f"{number}.mp4") as film,
        ):
            film.add(pictures)
            film.add(frames, sound)
    with pytest.raises(ValueError, match="no pictures were added"), video_module.FilmWriter(tmp_path / "a.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_wrong_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"frames must be \(3, t, h, w\), got \(17, 3, 8, 8\)"):
        write_film(tmp_path / "a.mp4", torch.zeros(17, 3, 8, 8))
    with pytest.raises(ValueError, match="pictures contain NaN"):
        write_film(tmp_path / "a.mp4", torch.full((3, 1, 8, 8), float("nan")))
    with pytest.raises(ValueError, match="audio contains NaN"):
        write_film(tmp_path / "a.mp4", torch.zeros(3, 1, 8, 8), audio=torch.full((1, 9), float("nan")))
    assert os.listdir(tmp_path) == []


def test_real_films_read_as_the_manifest_says(shared: Path) -> None:
    data = shared / "data"
    rows = list(csv.DictReader((data / "clips.csv").open(encoding="utf-8")))
    assert len(rows) > 100
    chosen = [row for row in rows if row["path"].startswith("formats/")] + rows[1:4] + rows[60:100:13]
    began = time.process_time()
    for row in chosen:
        clip = read_video(data / row["path"], num_frames=5, size=64)
        assert clip.frames.shape == (3, 5, 64, 64) and clip.frames.std() > 0.02, row["path"]
        assert clip.info.fps == pytest.approx(float(row["fps"]), abs=0.02), row["path"]
        if clip.info.num_frames is not None and "tiny_66x50" not in row["path"]:  # its header counts 5 hidden ones
            assert clip.info.num_frames == int(row["num_frames"]), row["path"]
        if "rotated" in row["path"]:
            assert (clip.info.height, clip.info.width, clip.info.rotation) == (568, 320, 90)
        if time.process_time() - began > 8:
            break


def test_every_picture_of_a_real_film_is_found(shared: Path) -> None:
    for name, count in [("tiny_66x50_60fps.mov", 82), ("odd_121x81_mpeg2.mp4", 10), ("nonzero_start.mp4", 12)]:
        film = shared / "data" / "formats" / name
        rate = probe(film).fps
        assert rate is not None
        assert read_video(film, fps=round(rate), num_frames=None, size=8).frames.shape[1] == count, name
