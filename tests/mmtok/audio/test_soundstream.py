"""SoundStream: contract, lengths, causality, saving, learning."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import mmtok
from mmtok.audio import soundstream
from mmtok.audio.soundstream import PRESETS, SoundStream, SoundStreamParams, build_soundstream
from mmtok.contract import AudioTokenizer
from mmtok.losses.audio import MultiScaleMelLoss
from mmtok.nn.streaming import Stream, streaming
from mmtok.quantize.residual import CodebookLearning

SMALL = SoundStreamParams(
    sample_rate=16_000,
    encoder_channels=2,
    decoder_channels=3,
    dim=6,
    strides=(2, 4),
    dilations=(1, 3),
    num_codebooks=3,
    codebook_size=16,
)


SPECTRAL = dataclasses.replace(SMALL, spectral_window=24, hidden_dim=12, encoder_layers=1, decoder_layers=2)


ENDS = pytest.mark.parametrize("model", [SMALL, SPECTRAL], ids=["convolutions", "spectral"], indirect=True)


def held(stream):
    """Bytes that a stream keeps from chunk to chunk."""
    return sum(tensor.numel() * tensor.element_size() for tensor in stream.kept.values())


@pytest.fixture
def model(request: pytest.FixtureRequest) -> SoundStream:
    torch.manual_seed(0)
    return SoundStream(getattr(request, "param", SMALL)).eval()


def sound(batch: int, samples: int) -> torch.Tensor:
    return torch.rand(batch, 1, samples, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8


def test_published_numbers() -> None:
    with torch.device("meta"):
        model = build_soundstream("soundstream-16k")
    assert isinstance(model, AudioTokenizer)
    assert (model.hop_length, model.frame_rate, model.num_codebooks, model.codebook_size) == (320, 50.0, 4, 1024)
    # both halves of the network written out by hand: widths 32 64 128 256 512, three units a block
    unit = lambda c: 7 * c * c + c + c * c + c  # noqa: E731
    widths, strides = (32, 64, 128, 256), (2, 4, 5, 8)
    blocks = sum(3 * unit(c) for c in widths)
    down = sum(2 * s * c * 2 * c + 2 * c for c, s in zip(widths, strides, strict=True))
    up = sum(2 * s * c * 2 * c + c for c, s in zip(widths, strides, strict=True))
    encoder = 7 * 32 + 32 + blocks + down + 3 * 512 * 128 + 128
    decoder = 7 * 128 * 512 + 512 + blocks + up + 7 * 32 + 1
    assert sum(p.numel() for p in model.parameters()) == encoder + decoder == 9_838_721
    assert sum(b.numel() for b in model.state_dict().values()) == encoder + decoder + 4 * 1024 * 128


def test_the_papers_own_setting_has_eight_levels_of_6_kbps() -> None:
    with torch.device("meta"):
        model = build_soundstream("soundstream-24k")
    assert (model.frame_rate, model.num_codebooks, model.bitrate_kbps) == (75.0, 8, 6.0)


def test_tiny_fits_the_shipped_bundle() -> None:
    with torch.device("meta"):
        saved = build_soundstream("tiny").state_dict()
    assert sum(t.numel() for t in saved.values()) < 1_500_000
    assert not [name for name in saved if "running" in name or "started" in name]


@ENDS
@pytest.mark.parametrize("samples", [8, 9, 15, 16, 100, 103])
def test_encode_drops_the_tail_and_decode_gives_any_length_back(model: SoundStream, samples: int) -> None:
    audio = sound(2, samples)
    codes = model.encode(audio)
    assert codes.shape == (2, 3, samples // 8) and codes.dtype == torch.int64
    assert model.decode(codes).shape == (2, 1, samples // 8 * 8)
    restored = model.decode(codes, samples)
    assert restored.shape == audio.shape
    assert restored.abs().max() <= 1


def test_videopoet_clip_is_106_frames_and_34000_samples() -> None:
    model = build_soundstream("smoke").eval()
    codes = model.encode(sound(1, 34_000))
    assert codes.shape == (1, 4, 106)
    assert model.decode(codes, 34_000).shape == (1, 1, 34_000)


@ENDS
def test_missing_tail_is_the_last_frame_repeated_and_shorter_lengths_are_prefixes(model: SoundStream) -> None:
    codes = model.encode(sound(1, 40))
    longer = model.decode(torch.cat([codes, codes[..., -1:]], -1))
    assert_close(model.decode(codes, 45), longer[..., :45])
    assert_close(model.decode(codes, 13), model.decode(codes)[..., :13])


@ENDS
def test_encode_is_deterministic_and_batching_changes_nothing(model: SoundStream) -> None:
    audio = sound(3, 64)
    together = model.encode(audio)
    assert torch.equal(together, model.encode(audio))
    for i in range(3):
        assert torch.equal(together[i : i + 1], model.encode(audio[i : i + 1]))


def test_gradients_to_later_samples_are_zero(model: SoundStream) -> None:
    audio = sound(1, 64).requires_grad_(True)
    latents = model.encoder(audio)
    (grad,) = torch.autograd.grad(latents[0, :, 3].sum(), audio)
    assert grad[0, 0, 32:].eq(0).all() and grad[0, 0, 31] != 0
    frames = torch.randn(1, 6, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(model.decoder(frames)[0, 0, 31], frames)
    assert grad[0, :, 4:].eq(0).all() and grad[0, :, 3].abs().sum() > 0


def test_longer_sound_does_not_change_earlier_codes_nor_samples(model: SoundStream) -> None:
    audio = sound(1, 96)
    codes, early = model.encode(audio), model.encode(audio[..., :48])
    assert torch.equal(codes[..., :6], early)
    assert_close(model.decode(codes)[..., :48], model.decode(early))


@ENDS
def test_fewer_levels_decode_to_a_coarser_sound(model: SoundStream) -> None:
    codes = model.encode(sound(1, 64))
    one, all_levels = model.decode(codes[:, :1]), model.decode(codes)
    assert one.shape == all_levels.shape
    assert not torch.equal(one, all_levels)


@ENDS
def test_the_bitrate_is_chosen_at_run_time(model: SoundStream) -> None:
    codes = model.encode(sound(1, 64))
    for levels in (1, 2, 3):
        assert torch.equal(model.encode(sound(1, 64), levels), codes[:, :levels])
    with pytest.raises(ValueError, match=r"num_codebooks must lie in 1\.\.3, got 4"):
        model.encode(sound(1, 64), 4)


@settings(max_examples=40, deadline=None)
@given(
    params=st.sampled_from([SMALL, SPECTRAL]),
    cuts=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    levels=st.integers(1, 3),
)
def test_streamed_codes_and_sound_are_those_of_the_whole(
    params: SoundStreamParams, cuts: list[int], levels: int
) -> None:
    torch.manual_seed(0)
    model = SoundStream(params).eval()
    audio = sound(2, sum(cuts))
    parts = list(model.encode_stream(audio.split(cuts, -1), levels))
    if sum(cuts) < 8:
        assert not parts
        return
    codes = model.encode(audio, levels)
    assert torch.equal(torch.cat(parts, -1), codes)
    assert_close(torch.cat(list(model.decode_stream(parts)), -1), model.decode(codes), atol=1e-5, rtol=0)


def test_streamed_latents_of_the_published_network_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    model = build_soundstream("soundstream-16k").eval()
    audio = sound(1, 320 * 9)
    stream, parts = Stream(), []
    with torch.no_grad():
        for chunk in audio.split(320, -1):  # 20 ms
            with streaming(stream):
                parts.append(model.encoder(chunk))
        whole = model.encoder(audio)
    assert_close(torch.cat(parts, -1), whole, atol=1e-5 * float(whole.abs().max()), rtol=0)


def test_a_stream_remembers_a_bounded_past(model: SoundStream) -> None:
    stream, sizes = Stream(), []
    with torch.no_grad():
        for chunk in sound(1, 800).split(8, -1):
            with streaming(stream):
                model.decoder(model.encoder(chunk))
            sizes.append(held(stream))
    assert sizes[0] == sizes[-1] < 10_000


def test_what_the_tiny_preset_remembers() -> None:
    tiny, encoding, decoding = build_soundstream("tiny").eval(), Stream(), Stream()
    with torch.no_grad():
        with streaming(encoding):
            latents = tiny.encoder(sound(1, 3200))
        with streaming(decoding):
            tiny.decoder(latents)
    assert (held(encoding), held(decoding)) == (41_496, 59_424)  # as docs/audio.md tells


@ENDS
def test_long_sounds_are_coded_in_pieces(model: SoundStream, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = sound(2, 8 * 21 + 5)
    codes = model.encode(audio)
    whole = model.decode(codes, audio.shape[-1])
    most = []
    forward = model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda x: (most.append(x.shape[-1]), forward(x))[1])
    monkeypatch.setattr(soundstream, "PIECE_S", 5 * 8 / 16_000)  # five frames
    assert torch.equal(model.encode(audio), codes) and max(most) == 40
    assert_close(model.decode(codes, audio.shape[-1]), whole, atol=1e-5, rtol=0)


@ENDS
def test_save_and_load_give_the_same_model(model: SoundStream, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["family"] == "soundstream"
    again = SoundStream.from_pretrained(tmp_path)
    assert again.params == model.params and not again.training
    audio = sound(2, 64)
    codes = model.encode(audio)
    assert torch.equal(again.encode(audio), codes)
    assert torch.equal(again.decode(codes), model.decode(codes))


def test_fewer_levels_are_chosen_when_loading(model: SoundStream, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    coarse = mmtok.load(tmp_path, num_codebooks=2)
    codes = model.encode(sound(1, 64))
    assert coarse.num_codebooks == 2 and len(coarse.code_vectors()) == 2
    assert coarse.bitrate_kbps == pytest.approx(2 * 2000 * 4 / 1000)
    assert torch.equal(coarse.encode(sound(1, 64)), codes[:, :2])
    assert torch.equal(coarse.decode(codes[:, :2]), model.decode(codes[:, :2]))
    coarse.save_pretrained(tmp_path / "again")
    assert torch.equal(SoundStream.from_pretrained(tmp_path / "again").encode(sound(1, 64)), codes[:, :2])
    with pytest.raises(ValueError, match=r"num_codebooks must lie in 1\.\.3, got 4"):
        mmtok.load(tmp_path, num_codebooks=4)


def test_half_precision_on_disk_halves_the_file(model: SoundStream, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "full")
    model.save_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    full, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.75 * full  # the rest is the header
    again = SoundStream.from_pretrained(tmp_path / "half")
    assert_close(again.decode(model.encode(sound(1, 64))), model.decode(model.encode(sound(1, 64))), atol=0.02, rtol=0)


@ENDS
def test_a_model_cast_to_bfloat16_still_encodes_and_decodes(model: SoundStream) -> None:
    cast = model.to(torch.bfloat16)
    codes = cast.encode(sound(1, 64))
    assert codes.shape == (1, 3, 8)
    assert cast.decode(codes).dtype == torch.float32


def test_autocast_spares_the_units_at_the_full_sampling_rate(model: SoundStream) -> None:
    codes = model.encode(sound(1, 64))
    seen: list[torch.dtype] = []
    for module in model.decoder:
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        restored = model.decode(codes)
    assert seen[-4:] == [torch.float32] * 4  # two units, ELU, convolution
    assert seen[0] == torch.bfloat16
    assert_close(restored, model.decode(codes), atol=0.02, rtol=0.1)


@pytest.mark.parametrize(
    ("params", "noise", "steps"),
    [
        (dataclasses.replace(SMALL, encoder_channels=4, decoder_channels=6, num_codebooks=4), 0.0, 80),
        # exact silence between tones is hard for windows: their phases must cancel
        (
            dataclasses.replace(
                SPECTRAL,
                strides=(16, 20),
                spectral_window=640,
                encoder_channels=32,
                decoder_channels=64,
                hidden_dim=128,
                num_codebooks=4,
            ),
            0.02,
            60,
        ),
    ],
    ids=["convolutions", "spectral"],
)
def test_one_batch_is_overfitted(params: SoundStreamParams, noise: float, steps: int) -> None:
    torch.manual_seed(0)
    model = SoundStream(params).train()
    model.quantizer.learning = CodebookLearning(decay=0.9, level_dropout=0.0)
    time_s = torch.arange(5 * 320 if noise == 0 else 12 * 320) / 16_000
    tones = torch.tensor([200.0, 500.0, 900.0, 1500.0])
    audio = 0.5 * torch.sin(2 * torch.pi * tones[:, None, None] * time_s)
    audio = audio + noise * torch.randn(audio.shape)
    mel_loss = MultiScaleMelLoss(sample_rate=16_000, windows=(256, 1024), num_mels=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(steps):
        result = model(audio)
        loss = mel_loss(result.audio, audio) + 0.25 * result.commitment_loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-10:]) < 0.4 * losses[0], (losses[0], losses[-10:])

    # the codes carry the sound: swapping them between examples is clearly worse
    model.eval()
    codes = model.encode(audio)
    own, swapped = mel_loss(model.decode(codes), audio), mel_loss(model.decode(codes.roll(1, 0)), audio)
    assert own < 0.7 * swapped, (float(own), float(swapped))


def test_bad_arguments_are_named(model: SoundStream) -> None:
    with pytest.raises(ValueError, match=r"float tensor \(b, 1, n\), got torch.float32 of \(1, 2, 16\)"):
        model.encode(torch.zeros(1, 2, 16))
    with pytest.raises(ValueError, match=r"must lie in \[-1, 1\], got values in \[3, 3\]"):
        model.encode(torch.full((1, 1, 16), 3.0))
    with pytest.raises(ValueError, match=r"must lie in \[-1, 1\]"):
        model.encode(torch.full((1, 1, 16), float("nan")))
    with pytest.raises(ValueError, match="7 samples is shorter than one hop of 8"):
        model.encode(torch.zeros(1, 1, 7))
    with pytest.raises(ValueError, match="17 samples is not a multiple of the hop of 8"):
        model(torch.zeros(1, 1, 17))
    with pytest.raises(ValueError, match=r"num_samples must lie in 1\.\.23 for 2 frames, got 24"):
        model.decode(torch.zeros(1, 3, 2, dtype=torch.long), 24)
    with pytest.raises(
        ValueError, match="unknown SoundStream preset 'huge'; known: smoke, soundstream-16k, soundstream-24k"
    ):
        build_soundstream("huge")
    with pytest.raises(ValueError, match="dim must be positive, got 0"):
        dataclasses.replace(PRESETS["tiny"], dim=0)
    with pytest.raises(ValueError, match="spectral_window \\(20\\) must be 0 or an even multiple of the hop of 8"):
        dataclasses.replace(SPECTRAL, spectral_window=20)
    with pytest.raises(ValueError, match="needs hidden_dim, encoder_layers and decoder_layers"):
        dataclasses.replace(SPECTRAL, hidden_dim=0)
    with pytest.raises(ValueError, match="strides must be positive numbers"):
        dataclasses.replace(PRESETS["tiny"], strides=())
