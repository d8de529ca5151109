"""Every tokenizer of ours keeps its promises, and each broken promise is named."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import nn

import mmtok
from mmtok.audio.soundstream import PRESETS as SOUNDSTREAMS
from mmtok.audio.soundstream import SoundStream
from mmtok.contract import check_codes, require_video, wanted_samples, whole_hops
from mmtok.testing import ContractError, check_audio_tokenizer, check_text_encoder, check_tokenizer, main
from mmtok.visual.cosmos import CosmosDV, CosmosParams
from mmtok.visual.holistic import TokensAsGrid
from mmtok.visual.larp import PRESETS as LARPS
from mmtok.visual.larp import Larp
from mmtok.visual.magvit2 import Magvit2, Magvit2Params, image_params
from mmtok.visual.tiling import TiledTokenizer
from mmtok.visual.vidtok import VidTokFSQ, VidTokParams

TINY = Path(__file__).parents[2] / "recipes" / "pretrained" / "tiny"
MAGVIT2 = Magvit2Params(
    channels=8,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    num_mid_blocks=1,
    spatial_downsample=(True,),
    temporal_downsample=(True,),
    bits=6,
    norm_groups=4,
)
PATCHED = dataclasses.replace(MAGVIT2, patch_size=(2, 2, 2), patch_normalize=True)
COSMOS = CosmosParams(stride=(4, 4, 4), patch_size=2, z_channels=4, channels=8, num_res_blocks=1, levels=(4, 4))
VIDTOK = VidTokParams(channels=8, channel_multipliers=(1, 1, 1, 1), num_res_blocks=1, levels=(4, 4))
LARP = dataclasses.replace(LARPS["larp-nano"], encoder_depth=1, decoder_depth=1, prior=None)
VISUAL = {
    "magvit2": lambda: Magvit2(MAGVIT2),
    "magvit2 behind a patch": lambda: Magvit2(PATCHED),
    "magvit2 of clip norms": lambda: Magvit2(dataclasses.replace(MAGVIT2, norm_scope="clip", dropped_frame=1)),
    "magvit2 of images": lambda: Magvit2(image_params(MAGVIT2)),
    "cosmos": lambda: CosmosDV(COSMOS),
    "vidtok": lambda: VidTokFSQ(VIDTOK),
    "vidtok 1.1": lambda: VidTokFSQ(dataclasses.replace(VIDTOK, version="v1_1")),
    "larp": lambda: Larp(LARP),
    "tiles": lambda: TiledTokenizer(randomised(CosmosDV(COSMOS)), tile=16, overlap=8),
}


def randomised(model):
    """Weights that use every slice of every kernel, unlike those of a fresh model."""
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        if p.ndim > 1:
            p.data = torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5
        elif p.data.unique().numel() > 1:
            p.data = torch.randn(p.shape, generator=generator) / 10
    return model.eval()


@pytest.mark.parametrize("name", VISUAL)
def test_our_visual_tokenizers_keep_their_promises(name):
    model = VISUAL[name]()
    report = check_tokenizer(randomised(model) if isinstance(model, nn.Module) else model)
    assert len(report.kept) > 35
    proved = "is_causal: later frames do not change earlier codes" in report.kept
    assert proved == model.is_causal
    assert not {"causality of codes", "causality of pictures"} & set(report.skipped)
    assert ("decode_stream gives the pictures of the whole" in report.kept) == (proved and name != "tiles")


def test_holistic_tokens_as_a_grid_keep_them_too():
    report = check_tokenizer(TokensAsGrid(randomised(Larp(LARP)), (12, 32, 32)), size=(12, 32, 32))
    assert set(report.skipped) == {"single pictures", "causality", "streams", "files"}


@pytest.mark.parametrize("preset", ["smoke", "tiny", "spectral"])
def test_soundstream_keeps_its_promises(preset):
    torch.manual_seed(0)
    report = check_audio_tokenizer(SoundStream(SOUNDSTREAMS[preset]).eval())
    assert "decode_stream gives the sound of the whole" in report.kept and not report.skipped


def test_frozen_codecs_keep_their_promises(codec):
    report = check_audio_tokenizer(codec)
    assert set(report.skipped) == {"streams and causality"}


def test_the_embedded_model_keeps_its_promises():
    assert not check_tokenizer(mmtok.load(TINY / "visual")).skipped
    assert not check_audio_tokenizer(mmtok.load(TINY / "audio")).skipped
    assert "a text has its vectors beside any other" in check_text_encoder(mmtok.load(TINY / "text")).kept


def test_bfloat16_weights_pass_with_its_tolerance():
    check_tokenizer(randomised(Magvit2(MAGVIT2)).bfloat16(), tolerance=0.2)


class Means(nn.Module):
    """A whole tokenizer in forty lines: the brightness of 4 x 4 pixels, the first frame alone and then two at a time."""

    codebook_size, num_codebooks, stride, fps, is_causal = 32, 1, (2, 4, 4), 8.0, True

    def grid(self, num_frames, height, width):
        if num_frames % 2 != 1 or height < 4 or width < 4 or height % 4 or width % 4:
            raise ValueError(f"no grid for {(num_frames, height, width)}")
        return (1 + (num_frames - 1) // 2, height // 4, width // 4)

    def valid_num_frames(self, num_frames):
        return num_frames - (num_frames + 1) % 2

    def encode(self, video):
        require_video(video)
        self.grid(*video.shape[2:])
        return self.codes(self.whole(video))

    def whole(self, video):
        return torch.cat((video[:, :, :1], video), 2)

    def codes(self, pairs):
        means = reduce(pairs, "b c (t pt) (h ph) (w pw) -> b 1 t h w", "mean", pt=2, ph=4, pw=4)
        return (torch.tanh(4 * means) * 16 + 16).clamp(0, 31).long()

    def pictures(self, codes):
        return repeat((codes.float() - 15.5) / 16, "b 1 t h w -> b 3 (t pt) (h ph) (w pw)", pt=2, ph=4, pw=4)

    def decode(self, codes):
        check_codes(codes, num_codebooks=1, codebook_size=32)
        return self.pictures(codes)[:, :, 1:]

    def encode_stream(self, chunks):
        first = True
        for chunk in chunks:
            if (chunk.shape[2] - first) % 2 or chunk.shape[2] <= 0:
                raise ValueError(f"a chunk of {chunk.shape[2]} frames")
            yield self.codes(self.whole(chunk) if first else chunk)
            first = False

    def decode_stream(self, chunks):
        for number, chunk in enumerate(chunks):
            yield self.pictures(chunk)[:, :, 0 if number else 1 :]

    def code_vectors(self):
        return torch.arange(32.0)[:, None]


class LooksAhead(Means):
    def codes(self, pairs):
        return super().codes((pairs - 0.5 * pairs.mean((2, 3, 4), keepdim=True)).clamp(-1, 1))


class DrawsAhead(Means):
    def pictures(self, codes):
        return (super().pictures(codes) - 0.1 * codes.float().mean((1, 2, 3, 4), keepdim=True) / 32).clamp(-1, 1)


class ForgetsInStreams(Means):
    """Each slice minus half of the one before, which the stream does not carry over."""

    def codes(self, pairs):
        before = F.pad(pairs, (0, 0, 0, 0, 2, 0))[:, :, :-2]
        return super().codes(pairs - 0.5 * before)


class ReadsAll(Means):
    def encode_stream(self, chunks):
        return iter(list(super().encode_stream(list(chunks))))


class DrawsOtherwiseInStreams(Means):
    def decode_stream(self, chunks):
        return (0.9 * part for part in super().decode_stream(chunks))


class Short(Means):
    def codes(self, pairs):
        return super().codes(pairs).int()


class Beyond(Means):
    def codes(self, pairs):
        return super().codes(pairs) + 8


class Transposed(Means):
    def codes(self, pairs):
        return rearrange(super().codes(pairs), "b k t h w -> b k t w h")


class Restless(Means):
    def codes(self, pairs):
        return super().codes((pairs + 0.3 * torch.randn(())).clamp(-1, 1))


class Mixing(Means):
    def codes(self, pairs):
        return super().codes(pairs - pairs.mean(0, keepdim=True))


class Loud(Means):
    def pictures(self, codes):
        return 127 * super().pictures(codes)


class Cropping(Means):
    def pictures(self, codes):
        return super().pictures(codes)[..., :-1]


class Crashing(Means):
    def encode(self, video):
        if video.ndim != 5:
            raise RuntimeError("size mismatch")
        return super().encode(video)


class Trusting(Means):
    def encode(self, video):
        require_video(video.clamp(-1, 1))
        return self.codes(self.whole(video))


class Folding(Means):
    def decode(self, codes):
        check_codes(codes % 32, num_codebooks=1, codebook_size=32)
        return self.pictures(codes % 32)[:, :, 1:]


class TooLong(Means):
    def valid_num_frames(self, num_frames):
        return num_frames + (num_frames + 1) % 2


class NoPictures(Means):
    def valid_num_frames(self, num_frames):
        return super().valid_num_frames(num_frames)

    def encode(self, video):
        if video.shape[2] < 3:
            raise ValueError("at least 3 frames")
        return super().encode(video)


class OtherGrid(Means):
    def grid(self, num_frames, height, width):
        t, h, w = super().grid(num_frames, height, width)
        return t, w, h


class FewVectors(Means):
    def code_vectors(self):
        return torch.zeros(31, 1)


class Forgetful(Means):
    """Its file does not hold what it learned."""

    shift = 0.0

    def codes(self, pairs):
        return super().codes((pairs + self.shift).clamp(-1, 1))

    def save_pretrained(self, folder):
        pass

    @classmethod
    def from_pretrained(cls, name):
        return cls()


def learned():
    model = Forgetful()
    model.shift = 0.2
    return model


def without(name):
    kept = {n: v for n, v in vars(Means).items() if n != name and not n.startswith("__")}
    return type("Without", (nn.Module,), kept)()


def with_value(name, value):
    model = Means()
    setattr(model, name, value)
    return model


BROKEN = {
    "causal only in words": (
        LooksAhead,
        "is_causal: later frames do not change earlier codes; .* % of the codes differ",
    ),
    "a decoder that reads on": (DrawsAhead, "is_causal: later codes do not change the pictures"),
    "a stream without memory": (ForgetsInStreams, "encode_stream gives the codes of the whole; .* % of the codes"),
    "a stream that waits": (ReadsAll, "encode_stream answers before the end; it read all 5 chunks first"),
    "another stream of pictures": (
        DrawsOtherwiseInStreams,
        "decode_stream gives the pictures of the whole; they differ by",
    ),
    "int32": (Short, "codes are int64; they are torch.int32"),
    "out of range": (Beyond, r"codes lie in \[0, codebook_size\); they lie in \[\d+, \d+\] with 32"),
    "another shape": (
        Transposed,
        r"codes have the shape that the sizes tell; .* gave \(2, 1, 5, 3, 2\), not \(2, 1, 5, 2, 3\)",
    ),
    "chance": (Restless, "encode gives the same for the same; two calls with one input differ"),
    "batches that mix": (Mixing, "a batch has the codes of its clips"),
    "pictures up to 127": (Loud, r"pictures lie in \[-1, 1\]; they lie in \[-\d\d"),
    "smaller pictures": (Cropping, "pictures have the size that was encoded or asked for"),
    "an error of torch": (
        Crashing,
        "refuses a video without its axis of time with a ValueError; it raised RuntimeError: size mis",
    ),
    "nothing refused": (Trusting, "refuses pictures in .0, 255. with a ValueError; it took it silently"),
    "codes folded": (Folding, "refuses codes beyond the codebook with a ValueError; it took it silently"),
    "lengths up": (TooLong, "valid_num_frames is at least 1 and at most what it was given; 3 for 2"),
    "no single pictures": (
        NoPictures,
        "a video of one frame is an image of one slice; it raised ValueError: at least 3",
    ),
    "another grid": (OtherGrid, r"grid is 1 \+ \(t - 1\) / stride, h / stride, w / stride; \(1, 3, 2\) for 1 frames"),
    "too few vectors": (FewVectors, r"code_vectors has a finite vector for every code; it has tables of \[\(31, 1\)\]"),
    "a file that forgets": (learned, "from_pretrained gives back what save_pretrained wrote; .* % of the codes differ"),
    "no decode": (lambda: without("decode"), "is a VisualTokenizer; it lacks decode"),
    "no fps": (lambda: without("fps"), "is a VisualTokenizer; it lacks fps"),
    "half a stride": (
        lambda: with_value("stride", (2, 4.0, 4)),
        "declares whole positive sizes; it declares stride 4.0",
    ),
    "still pictures": (lambda: with_value("fps", 0.0), "fps is a positive number; it is 0.0"),
    "perhaps causal": (lambda: with_value("is_causal", "yes"), "is_causal is True or False; it is 'yes'"),
}


def test_a_good_tokenizer_passes():
    report = check_tokenizer(Means())
    assert set(report.skipped) == {"files"}
    assert str(report).startswith(f"Means: {len(report.kept)} promises hold\n  holds    is a VisualTokenizer\n")
    assert str(report).endswith("\n  skipped  files: it has no save_pretrained and from_pretrained")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_promises_are_named(name):
    make, message = BROKEN[name]
    with pytest.raises(ContractError, match=f"breaks a promise of mmtok/contract.py: {message}") as caught:
        check_tokenizer(make())
    assert isinstance(caught.value, ValueError) and caught.value.promise in str(caught.value)


def test_a_network_of_ours_that_only_claims_to_be_causal_is_caught():
    model = randomised(Magvit2(dataclasses.replace(MAGVIT2, norm_scope="clip")))
    model.is_causal = True
    with pytest.raises(ContractError, match=r"Magvit2 breaks .* of the codes differ"):
        check_tokenizer(model)


def test_what_ignores_its_input_proves_nothing():
    class Blind(Means):
        def codes(self, pairs):
            return super().codes(pairs) * 0 + 3

        def pictures(self, codes):
            return super().pictures(codes) * 0

    assert {"causality of codes", "causality of pictures"} <= set(check_tokenizer(Blind()).skipped)


class Levels(nn.Module):
    """A whole codec: the mean of a hop of 8 samples in two levels."""

    sample_rate, hop_length, frame_rate, num_codebooks, codebook_size = 800, 8, 100.0, 2, 16

    def means(self, sound):
        return reduce(sound, "b 1 (t hop) -> b t", "mean", hop=8)

    def encode(self, audio):
        steps = ((self.means(whole_hops(audio, 8)) + 1) * 127.99).long().clamp(0, 255)
        return torch.stack((steps // 16, steps % 16), 1)

    def decode(self, codes, num_samples=None):
        check_codes(codes, num_codebooks=2, codebook_size=16, axes="t")
        wanted = wanted_samples(codes.shape[-1], 8, num_samples)
        codes = torch.cat((codes, codes[..., -1:]), -1)
        sound = (16 * codes[:, 0] + codes[:, 1]).float() / 128 - 1
        return repeat(sound, "b t -> b 1 (t hop)", hop=8)[..., :wanted]

    def encode_stream(self, chunks):
        waiting = torch.zeros(0)
        for chunk in chunks:
            waiting = torch.cat((waiting, chunk), -1) if waiting.numel() else chunk
            full = waiting.shape[-1] // 8 * 8
            if full:
                yield self.encode(waiting[..., :full])
            waiting = waiting[..., full:]

    def decode_stream(self, chunks):
        return (self.decode(chunk) for chunk in chunks)


class Normalising(Levels):
    def means(self, sound):
        return super().means(sound) / sound.abs().mean((1, 2))[:, None].clamp(min=1)  # never above 1

    def encode(self, audio):
        return super().encode(whole_hops(audio, 8) / audio.abs().amax((1, 2), keepdim=True))


class Reading(Levels):
    def encode_stream(self, chunks):
        yield self.encode(torch.cat(list(chunks), -1))


class Dropping(Levels):
    def encode_stream(self, chunks):
        for chunk in chunks:
            if chunk.shape[-1] >= 8:
                yield self.encode(chunk)


class Padding(Levels):
    def encode(self, audio):
        whole_hops(audio, 8)
        return super().encode(F.pad(audio, (0, -audio.shape[-1] % 8)))


class WholeHops(Levels):
    def decode(self, codes, num_samples=None):
        return super().decode(codes)


class OneTable(Levels):
    def code_vectors(self):
        return torch.zeros(16, 1)


BROKEN_CODECS = {
    "a loudness of the whole": (
        Normalising,
        "it streams, so a later sound does not change earlier codes; .* differ|tail below one hop",
    ),
    "a stream that waits": (Reading, "encode_stream answers before the end; it read all"),
    "a stream that drops": (Dropping, "encode_stream gives the codes of the whole; shapes are"),
    "a hop too many": (
        Padding,
        r"codes have the shape that the sizes tell; 132 samples at a hop of 8 gave \(2, 2, 17\), not \(2, 2, 16\)",
    ),
    "whole hops only": (
        WholeHops,
        r"sounds have the size that was encoded or asked for; \(2, 1, 128\), not \(2, 1, 1\)",
    ),
    "one table": (OneTable, r"code_vectors has a finite vector for every code; it has tables of \[\(16, 1\)\]"),
    "a rounded rate": (lambda: with_rate(101.0), r"frame_rate is sample_rate / hop_length; 101.0, not 100.0"),
}


def with_rate(rate):
    model = Levels()
    model.frame_rate = rate
    return model


def test_a_good_codec_passes():
    assert set(check_audio_tokenizer(Levels()).skipped) == {"code vectors", "files"}


@pytest.mark.parametrize("name", BROKEN_CODECS)
def test_broken_promises_of_codecs_are_named(name):
    make, message = BROKEN_CODECS[name]
    with pytest.raises(ContractError, match=message):
        check_audio_tokenizer(make())


class Letters:
    """A text encoder: a vector a letter."""

    dim, max_length = 4, 8

    def encode(self, texts):
        cut = [text[:8] for text in texts]
        length = max(map(len, cut))
        vectors = torch.zeros(len(texts), length, 4)
        mask = torch.zeros(len(texts), length, dtype=torch.bool)
        for row, text in enumerate(cut):
            mask[row, : len(text)] = True
            for place, letter in enumerate(text):
                vectors[row, place] = ord(letter) * torch.arange(4)
        return vectors, mask


def test_broken_promises_of_text_encoders_are_named():
    check_text_encoder(Letters())
    mixing = type(
        "Mixing",
        (Letters,),
        {"encode": lambda self, texts: (Letters.encode(self, texts)[0] / len(texts), Letters.encode(self, texts)[1])},
    )
    with pytest.raises(ContractError, match=r"Mixing breaks .* a text has its vectors beside any other"):
        check_text_encoder(mixing())
    long = type("Long", (Letters,), {"max_length": 4})
    with pytest.raises(ContractError, match="at most max_length positions"):
        check_text_encoder(long())


def test_the_command_checks_a_folder(capsys, tmp_path):
    assert main([str(TINY / "visual")]) == 0 and "Magvit2: 48 promises hold" in capsys.readouterr().out
    assert main([str(tmp_path / "none")]) == 2 and "is not a folder" in capsys.readouterr().err
    done = subprocess.run([sys.executable, "-m", "mmtok.testing"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: python -m mmtok.testing")
