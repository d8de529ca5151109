"""The page of promises: who offers what, and what is refused in which words."""

import pytest
import torch

from mmtok.audio.soundstream import SoundStream, build_soundstream
from mmtok.contract import (
    AudioTokenizer,
    HasCodeVectors,
    NeedsSize,
    Stored,
    Streaming,
    VisualTokenizer,
    bitrate_kbps,
    check_codes,
    declared_sizes,
    decode_clip,
    family_name,
    needs_size,
    require_audio,
    require_one_shape,
    require_video,
    wanted_samples,
    whole_hops,
)
from mmtok.visual.cosmos import CosmosDV, CosmosParams
from mmtok.visual.larp import PRESETS, Larp
from mmtok.visual.tiling import TiledTokenizer

COSMOS = CosmosParams(stride=(4, 4, 4), patch_size=2, z_channels=4, channels=8, num_res_blocks=1, levels=(4, 4))
PROMISES = (VisualTokenizer, AudioTokenizer, Streaming, HasCodeVectors, NeedsSize, Stored)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: CosmosDV(COSMOS), {VisualTokenizer, Streaming, Stored}),
        (lambda: Larp(PRESETS["larp-nano"]), {VisualTokenizer, HasCodeVectors, NeedsSize, Stored}),
        (lambda: build_soundstream("smoke"), {AudioTokenizer, Streaming, HasCodeVectors, Stored}),
        (lambda: TiledTokenizer(CosmosDV(COSMOS), tile=16, overlap=8), {VisualTokenizer}),
        (lambda: torch.nn.Linear(1, 1), set()),
    ],
)
def test_what_is_offered_is_known_without_a_base_class(make, expected):
    with torch.device("meta"):
        model = make()
    assert {promise for promise in PROMISES if isinstance(model, promise)} == expected
    assert needs_size(model) == (NeedsSize in expected)


def test_a_promise_may_be_taken_back():
    with torch.device("meta"):
        model = Larp(PRESETS["larp-nano"])
    model.needs_size = False
    assert isinstance(model, NeedsSize) and not needs_size(model)


def test_what_a_tokenizer_declares_fits_into_json():
    with torch.device("meta"):
        visual, audio = CosmosDV(COSMOS), SoundStream(build_soundstream("smoke").params)
    assert declared_sizes(visual) == {"codebook_size": 16, "num_codebooks": 1, "stride": [4, 4, 4], "fps": 24.0}
    assert declared_sizes(audio) == {"codebook_size": 16, "num_codebooks": 4, "sample_rate": 16_000, "hop_length": 320}
    assert (family_name(visual), family_name(audio)) == ("cosmos-dv", "SoundStream")


def test_only_codes_without_a_size_are_told_one():
    class Noting:
        clip_size = (1, 2, 3)

        def __init__(self, needs):
            self.needs_size = needs

        def decode(self, codes, *, size=None):
            return size

    assert decode_clip(Noting(True), torch.zeros(1), (4, 5, 6)) == (4, 5, 6)
    assert decode_clip(Noting(False), torch.zeros(1), (4, 5, 6)) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: require_video(torch.zeros(1, 3, 1, 4)),
            r"a float tensor \(b, 3, t, h, w\), got torch.float32 of \(1, 3, 1, 4\)",
        ),
        (lambda: require_video(torch.zeros(1, 3, 0, 4, 4)), "video is empty"),
        (lambda: require_video(torch.full((1, 3, 1, 4, 4), 255.0)), r"got values in \[255, 255\]; scale x / 127.5 - 1"),
        (lambda: require_video(torch.full((1, 3, 1, 4, 4), float("nan"))), "must lie in"),
        (lambda: require_audio(torch.zeros(1, 2, 8)), r"a float tensor \(b, 1, n\)"),
        (lambda: require_audio(torch.full((1, 1, 8), 3.0)), "divide by the peak"),
        (lambda: whole_hops(torch.zeros(1, 1, 7), 8), "audio of 7 samples is shorter than one hop of 8"),
        (lambda: wanted_samples(2, 8, 24), r"num_samples must lie in 1\.\.23 for 2 frames, got 24"),
        (lambda: wanted_samples(2, 8, 0), "got 0"),
        (
            lambda: check_codes(torch.zeros(1, 2, 3).long(), num_codebooks=1, codebook_size=4, axes="t"),
            r"integers of shape \(b, 1, t\)",
        ),
        (
            lambda: check_codes(torch.full((1, 1, 3), 4), num_codebooks=1, codebook_size=4, axes="t"),
            r"codes must lie in \[0, 4\), got \[4, 4\]",
        ),
        (
            lambda: check_codes(torch.zeros(1, 1, 0).long(), num_codebooks=1, codebook_size=4, axes="t"),
            "codes are empty",
        ),
        (
            lambda: require_one_shape(torch.zeros(1), torch.zeros(2)),
            r"output \(1,\) and target \(2,\) must have one shape",
        ),
    ],
)
def test_bad_input_is_told_with_the_way_out(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_numbers():
    assert whole_hops(torch.zeros(1, 1, 23), 8).shape[-1] == 16
    assert (wanted_samples(2, 8, None), wanted_samples(2, 8, 23)) == (16, 23)
    assert bitrate_kbps(frame_rate=50, num_codebooks=4, codebook_size=1024) == 2.0
