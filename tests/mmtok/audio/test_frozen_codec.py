"""The contract of AudioTokenizer, kept by every codec of transformers; and how each is saved, loaded and refused."""

import itertools
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import mmtok
import mmtok.pretrained
from mmtok.audio.dac import Dac
from mmtok.audio.encodec import Encodec
from mmtok.audio.frozen_codec import FrozenCodec
from mmtok.audio.mimi import Mimi
from mmtok.contract import AudioTokenizer
from mmtok.table import FAMILIES
from mmtok.vocabulary import Vocabulary

DECLARED = {
    "encodec": (24_000, 40, 600.0, 6, 16),
    "dac": (16_000, 20, 800.0, 4, 16),
    "mimi": (24_000, 16, 1500.0, 5, 16),
}


def sound(batch: int, samples: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(batch, 1, samples, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9


def numbers(codec: FrozenCodec) -> tuple[int, int, float, int, int]:
    return codec.sample_rate, codec.hop_length, codec.frame_rate, codec.num_codebooks, codec.codebook_size


def test_declared_numbers(codec):
    assert isinstance(codec, AudioTokenizer)
    assert numbers(codec) == DECLARED[codec.family]
    assert codec.bitrate_kbps == pytest.approx(codec.num_codebooks * codec.frame_rate * 4 / 1000)


@pytest.mark.parametrize(
    ("family", "changes", "expected"),
    [
        ("encodec", {}, (24_000, 320, 75.0, 32, 1024)),
        (
            "encodec",
            {"sampling_rate": 32_000, "upsampling_ratios": [8, 5, 4, 4], "codebook_size": 2048, "target_bandwidths": [2.2], "use_causal_conv": False},
            (32_000, 640, 50.0, 4, 2048),
        ),
        ("dac", {"downsampling_ratios": [2, 4, 5, 8], "n_codebooks": 12}, (16_000, 320, 50.0, 12, 1024)),
        ("dac", {"sampling_rate": 44_100}, (44_100, 512, 44_100 / 512, 9, 1024)),
        ("mimi", {}, (24_000, 1920, 12.5, 32, 2048)),
        ("mimi", {"frame_rate": 12.5}, (24_000, 1920, 12.5, 32, 2048)),
    ],
)  # fmt: skip
def test_numbers_of_published_sizes(family, changes, expected):
    cls = {"encodec": Encodec, "dac": Dac, "mimi": Mimi}[family]
    config, model = cls._classes()
    with torch.device("meta"):
        codec = cls(model(config(**changes)))
    assert numbers(codec) == expected


@pytest.mark.parametrize("rest", [0, 1, -1])
@pytest.mark.parametrize("frames", [1, 2, 9, 40])
def test_encode_drops_the_tail_and_decode_gives_any_length_back(codec, frames, rest):
    samples = frames * codec.hop_length + (rest if rest >= 0 else codec.hop_length - 1)
    audio = sound(2, samples)
    codes = codec.encode(audio)
    assert codes.shape == (2, codec.num_codebooks, frames) and codes.dtype == torch.int64
    assert codec.decode(codes).shape == (2, 1, frames * codec.hop_length)
    for wanted in (1, samples // 2 + 1, samples):
        again = codec.decode(codes, wanted)
        assert again.shape == (2, 1, wanted) and again.dtype == torch.float32
        assert again.abs().max() <= 1 and again.isfinite().all()


def test_codes_and_sound_are_those_of_transformers(codec):
    audio, model = sound(2, 20 * codec.hop_length), codec.model
    with torch.no_grad():
        if codec.family == "encodec":
            theirs = model.encode(audio, bandwidth=14.4).audio_codes[0]
            heard = model.decode(theirs[None], [None]).audio_values
        elif codec.family == "dac":
            theirs = model.encode(audio).audio_codes
            heard = model.decode(audio_codes=theirs).audio_values[:, None]
        else:
            theirs = model.encode(audio).audio_codes
            heard = model.decode(theirs).audio_values
    assert torch.equal(codec.encode(audio), theirs)
    assert torch.equal(codec.decode(theirs, heard.shape[-1]), heard.clamp(-1, 1))


def test_videopoets_clip_is_106_frames_where_transformers_rounds_up(build):
    model = build("encodec", sampling_rate=16_000, upsampling_ratios=[8, 5, 4, 2], target_bandwidths=[0.8])
    codec, audio = Encodec(model), sound(1, 34_000)
    with torch.no_grad():
        assert model.encode(audio).audio_codes.shape[-1] == 107
    codes = codec.encode(audio)
    assert codes.shape == (1, 4, 106)
    assert codec.decode(codes, 34_000).shape == (1, 1, 34_000)


def test_codes_depend_on_whole_hops_only(codec):
    audio, other = sound(1, 9 * codec.hop_length + 7), sound(1, 9 * codec.hop_length + 7, seed=2)
    other[..., : 9 * codec.hop_length] = audio[..., : 9 * codec.hop_length]
    assert torch.equal(codec.encode(audio), codec.encode(other))
    assert torch.equal(codec.encode(audio), codec.encode(audio[..., : 9 * codec.hop_length]))


def test_filled_codebooks_tell_sounds_apart(codec):
    codes = codec.encode(sound(2, 60 * codec.hop_length))
    assert min(codes[:, level].unique().numel() for level in range(codec.num_codebooks)) >= 3
    assert not torch.equal(codes[0], codes[1])
    assert not torch.equal(codec.decode(codes[:1]), codec.decode(codes[1:]))


def test_the_same_for_the_same_input_alone_or_in_a_batch_also_after_train(codec):
    audio = sound(3, 20 * codec.hop_length)
    together = codec.encode(audio)
    codec.train()
    assert not codec.training and not codec.model.training
    assert torch.equal(together, codec.encode(audio))
    for i in range(3):
        assert torch.equal(together[i : i + 1], codec.encode(audio[i : i + 1]))
        assert_close(codec.decode(together)[i : i + 1], codec.decode(together[i : i + 1]), atol=1e-5, rtol=1e-5)


def test_shorter_lengths_are_prefixes_and_the_tail_repeats_the_last_frame(codec):
    codes = codec.encode(sound(1, 12 * codec.hop_length))
    whole = codec.decode(codes)
    assert torch.equal(codec.decode(codes, 13), whole[..., :13])
    held = torch.cat([codes, codes[..., -1:].expand(-1, -1, 2)], -1)
    longest = codec.decode(codes, 13 * codec.hop_length - 1)
    own = 12 * codec.hop_length - (2 if codec.family == "dac" else 0)  # its ratio of 5 costs a sample, then doubled
    assert torch.equal(longest[..., :own], whole[..., :own])
    assert_close(longest[..., own:], codec.decode(held)[..., own : 13 * codec.hop_length - 1])


def test_fewer_levels_are_the_first_ones_and_decode_to_a_coarser_sound(codec):
    codes = codec.encode(sound(1, 40 * codec.hop_length))
    for levels in range(1, codec.num_codebooks + 1):
        few = type(codec)(codec.model, num_codebooks=levels)
        assert few.num_codebooks == levels
        assert few.bitrate_kbps == pytest.approx(codec.bitrate_kbps * levels / codec.num_codebooks)
        assert torch.equal(few.encode(sound(1, 40 * codec.hop_length)), codes[:, :levels])
        assert torch.equal(few.decode(codes[:, :levels]), codec.decode(codes[:, :levels]))
    sounds = [codec.decode(codes[:, :levels]) for levels in range(1, codec.num_codebooks + 1)]
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(sounds))
    with pytest.raises(
        ValueError, match=rf"num_codebooks must lie in 1..{codec.num_codebooks} for this {codec.family}"
    ):
        type(codec)(codec.model, num_codebooks=codec.num_codebooks + 1)


@pytest.mark.parametrize("family", ["encodec", "mimi"])
def test_causal_codecs_keep_their_codes_when_the_sound_goes_on(build, family):
    codec = {"encodec": Encodec, "mimi": Mimi}[family](build(family))
    audio = sound(1, 60 * codec.hop_length)
    codes = codec.encode(audio)
    for frames in (7, 30):  # of EnCodec fewer would not do: its last convolution mirrors six frames
        assert torch.equal(codes[..., :frames], codec.encode(audio[..., : frames * codec.hop_length]))


def test_vocabulary_follows_the_levels_in_use(codec):
    class Pictures:
        num_codebooks, codebook_size = 1, 64

    few = type(codec)(codec.model, num_codebooks=3)
    vocabulary = Vocabulary.of(Pictures(), few)
    assert (vocabulary.audio_levels, vocabulary.audio_codes) == (3, 16)
    codes = few.encode(sound(2, 5 * codec.hop_length))
    assert torch.equal(vocabulary.ids_to_audio(vocabulary.audio_to_ids(codes)), codes)


def test_code_vectors_are_those_of_the_codebooks(codec):
    vectors = type(codec)(codec.model, num_codebooks=2).code_vectors()
    assert len(vectors) == 2 and all(v.shape[0] == 16 and v.std() > 0 for v in vectors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cast_codec_still_encodes_and_decodes_and_comes_back(codec, dtype):
    audio = sound(1, 20 * codec.hop_length)
    codes, again = codec.encode(audio), codec.decode(codec.encode(audio))  # Mimi now keeps vectors that must follow
    cast = codec.to(dtype)
    assert cast.encode(audio).shape == codes.shape
    assert cast.decode(codes).dtype == torch.float32
    assert_close(cast.decode(codes), again, atol=0.1, rtol=0.1)
    assert_close(codec.float().decode(codes), again, atol=0.1, rtol=0.1)


def test_autocast_changes_nothing(codec):
    audio = sound(1, 20 * codec.hop_length)
    codes = codec.encode(audio)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(codec.encode(audio), codes)
        inside = codec.decode(codes)
    assert torch.equal(inside, codec.decode(codes))


def test_save_and_load_keep_codes_levels_and_the_format_of_transformers(codec, tmp_path):
    audio = sound(2, 20 * codec.hop_length)
    few = type(codec)(codec.model, num_codebooks=3)
    few.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = mmtok.load(tmp_path)
    assert type(loaded) is type(codec) and numbers(loaded) == numbers(few) and not loaded.training
    assert torch.equal(loaded.encode(audio), few.encode(audio))
    assert torch.equal(loaded.decode(few.encode(audio)), few.decode(few.encode(audio)))
    assert numbers(mmtok.load(tmp_path, num_codebooks=4))[3] == 4  # all levels are in the file
    theirs = type(codec)._classes()[1].from_pretrained(tmp_path)
    assert torch.equal(type(codec)(theirs, num_codebooks=3).encode(audio), few.encode(audio))
    loaded.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()
        assert (tmp_path / name).stat().st_mode & 0o444 == 0o444


def test_half_precision_on_disk_halves_the_file_and_loads_as_float32(codec, tmp_path):
    codec.save_pretrained(tmp_path / "full")
    codec.save_pretrained(tmp_path / "half", dtype=torch.float16)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.float16}
    loaded = mmtok.load(tmp_path / "half")
    assert {t.dtype for t in loaded.state_dict().values() if t.is_floating_point()} == {torch.float32}
    codes = codec.encode(sound(1, 20 * codec.hop_length))
    assert_close(loaded.decode(codes), codec.decode(codes), atol=0.05, rtol=0.05)
    with pytest.raises(ValueError, match=r"stored in a floating type, got torch.int8"):
        codec.save_pretrained(tmp_path / "tiny", dtype=torch.int8)


@pytest.mark.parametrize(
    ("hub_id", "family"), [(i, f) for f in ("encodec", "dac", "mimi") for i in FAMILIES[f].hub.split(", ")]
)
def test_a_hub_id_needs_no_change_of_code(build, tmp_path, monkeypatch, hub_id, family):
    """No hub is reached here: its answer is a folder as transformers writes it, without any key of ours."""
    model = build(family)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    asked = []
    monkeypatch.setattr(mmtok.pretrained, "snapshot_download", lambda name, **_: asked.append(name) or str(tmp_path))
    codec = mmtok.load(hub_id, num_codebooks=2)
    assert asked == [hub_id] and codec.family == family and codec.num_codebooks == 2
    assert mmtok.load(hub_id).num_codebooks == DECLARED[family][3]
    audio = sound(1, 10 * codec.hop_length)
    assert torch.equal(codec.encode(audio), FAMILY_CODEC[family](model, num_codebooks=2).encode(audio))


FAMILY_CODEC = {"encodec": Encodec, "dac": Dac, "mimi": Mimi}


def test_loading_says_nothing_on_the_terminal(codec, tmp_path, capfd):
    codec.save_pretrained(tmp_path)
    mmtok.load(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_damaged_folders_are_told_in_one_line(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    values, whole = json.loads(config.read_text()), weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"weights in .* cannot be read as {codec.family}: [^\n]*$"):
        mmtok.load(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model.safetensors; published pickles are not read"):
        mmtok.load(tmp_path)
    weights.write_bytes(whole)
    config.write_text(json.dumps({**values, "codebook_size": 32}))
    with pytest.raises(ValueError, match=rf"weights in .* cannot be read as {codec.family}: [^\n]*$"):
        mmtok.load(tmp_path)
    config.write_text(json.dumps({**values, "sampling_rate": "fast"}))
    with pytest.raises(ValueError, match=rf"config.json is no config of {codec.family}: [^\n]*$"):
        mmtok.load(tmp_path)
    config.write_text(json.dumps({**values, "cinepoet": {"num_codebooks": 9}}))
    with pytest.raises(ValueError, match="num_codebooks must lie in"):
        mmtok.load(tmp_path)
    other = "dac" if codec.family != "dac" else "mimi"
    with pytest.raises(ValueError, match=f"does not hold a model of model_type '{other}'"):
        FAMILY_CODEC[other].from_pretrained(tmp_path)


def test_weights_of_fewer_layers_are_refused(build, tmp_path):
    build("dac", n_codebooks=3).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for levels, kind in ((4, "missing"), (2, "unexpected")):
        (tmp_path / "config.json").write_text(json.dumps({**config, "n_codebooks": levels}))
        with pytest.raises(ValueError, match=rf"weights do not fit: {kind} \['quantizer.quantizers"):
            mmtok.load(tmp_path)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda c: c.encode(torch.zeros(1, 2, 500)), r"audio must be a float tensor \(b, 1, n\)"),
        (lambda c: c.encode(torch.zeros(1, 1, 500, dtype=torch.long)), "audio must be a float tensor"),
        (lambda c: c.encode(torch.full((1, 1, 500), 2.0)), r"audio must lie in \[-1, 1\]"),
        (lambda c: c.encode(torch.full((1, 1, 500), math.nan)), r"audio must lie in \[-1, 1\]"),
        (lambda c: c.encode(torch.zeros(1, 1, 3)), "shorter than one hop"),
        (lambda c: c.encode(torch.zeros(0, 1, 500)), "audio is empty"),
        (lambda c: c.decode(torch.zeros(1, 9, 4, dtype=torch.long)), "codes must be integers of shape"),
        (lambda c: c.decode(torch.zeros(1, 4, dtype=torch.long)), "codes must be integers of shape"),
        (lambda c: c.decode(torch.zeros(1, 2, 4)), "codes must be integers of shape"),
        (lambda c: c.decode(torch.full((1, 2, 4), 16)), r"codes must lie in \[0, 16\)"),
        (lambda c: c.decode(torch.zeros(1, 2, 4, dtype=torch.long), 5 * c.hop_length), "num_samples must lie in"),
        (lambda c: c.decode(torch.zeros(1, 2, 4, dtype=torch.long), 0), "num_samples must lie in"),
    ],
)
def test_errors(codec, bad, message):
    with pytest.raises(ValueError, match=message):
        bad(codec)


def test_levels_are_chosen_only_where_there_is_a_choice(tmp_path):
    from mmtok.visual.magvit2 import Magvit2, Magvit2Params

    params = Magvit2Params(
        channels=4,
        channel_multipliers=(1,),
        num_res_blocks=1,
        num_mid_blocks=1,
        norm_groups=2,
        spatial_downsample=(),
        temporal_downsample=(),
        bits=4,
    )
    Magvit2(params).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"num_codebooks is a choice of sound tokenizers, and .* of family magvit2"):
        mmtok.load(tmp_path, num_codebooks=2)
