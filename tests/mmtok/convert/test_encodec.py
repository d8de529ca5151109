"""The encodec package's models as ours: the same codes and the same sound for the same weights, also out of a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

import mmtok
from mmtok.audio.encodec import Encodec
from mmtok.convert import from_upstream, identify
from mmtok.convert.encodec import from_package
from recipes.cli import main

encodec = pytest.importorskip("encodec")
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")  # the package's own


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are fastest on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def fill_codebooks(model: Any) -> None:
    """Vectors that occur, at every level: a model without weights from the web has zeros only."""
    draw = torch.Generator().manual_seed(0)
    latents = model.encoder(noise(4, 40 * 320)[:, : model.channels])
    for layer in model.quantizer.vq.layers:
        rows, table = latents.transpose(1, 2).flatten(0, 1), layer._codebook.embed
        chosen = rows[torch.randint(len(rows), (len(table),), generator=draw)]
        table.copy_(chosen + 0.1 * rows.std() * torch.randn(chosen.shape, generator=draw))
        latents = latents - layer.decode(layer.encode(latents))


def noise(batch: int, samples: int) -> torch.Tensor:
    return torch.rand(batch, 1, samples, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9


def small(**changes: Any) -> Any:
    """A model of the package's classes: hop 40 at 24 kHz, 6 levels of 16 codes."""
    from encodec import modules, quantization

    sizes = {"dimension": 8, "n_filters": 2, "ratios": [5, 4, 2], "lstm": 1, "norm": "weight_norm", "causal": True}
    sizes |= changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        quantizer = quantization.ResidualVectorQuantizer(dimension=8, n_q=6, bins=16)
        model = encodec.EncodecModel(
            modules.SEANetEncoder(**sizes), modules.SEANetDecoder(**sizes), quantizer, [2.4, 4.8, 14.4], 24_000, 1
        ).eval()
    fill_codebooks(model)
    return model


@torch.no_grad()
def their_codes(model: Any, audio: torch.Tensor, bandwidth: float) -> torch.Tensor:
    model.set_target_bandwidth(bandwidth)
    [(codes, scale)] = model.encode(audio)
    assert scale is None
    return codes


@pytest.mark.parametrize(
    "changes",
    [{}, {"causal": False, "true_skip": True}, {"n_residual_layers": 2, "lstm": 2, "kernel_size": 5, "last_kernel_size": 3}],
    ids=["like 24 kHz", "like 32 kHz", "other sizes"],
)  # fmt: skip
def test_package_and_transformers_give_the_same_codes_and_sound(changes):
    model, audio = small(**changes), noise(2, 30 * 40)
    ours = from_package(model)
    theirs = their_codes(model, audio, 14.4)
    assert theirs.shape == (2, 6, 30) and min(theirs[:, q].unique().numel() for q in range(6)) >= 5
    assert torch.equal(ours.encode(audio), theirs)
    with torch.no_grad():
        assert_close(ours.decode(theirs), model.decode([(theirs, None)]).clamp(-1, 1), atol=1e-6, rtol=1e-5)
    assert torch.equal(from_package(model, num_codebooks=2).encode(audio), their_codes(model, audio, 4.8))


def test_the_published_24_khz_model_at_full_size():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = encodec.EncodecModel.encodec_model_24khz(pretrained=False)
    fill_codebooks(model)
    audio = noise(1, 20 * 320)
    ours = from_upstream("encodec", model.state_dict())  # as from the file, which tells sizes only
    numbers = (ours.sample_rate, ours.hop_length, ours.frame_rate, ours.num_codebooks, ours.codebook_size)
    assert numbers == (24_000, 320, 75.0, 32, 1024) and ours.bitrate_kbps == 24.0
    assert ours.model.config.target_bandwidths == model.target_bandwidths
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in model.parameters())
    theirs = their_codes(model, audio, 3.0)
    assert theirs[0, 0].unique().numel() > 10
    four = Encodec(ours.model, num_codebooks=4)
    assert four.bitrate_kbps == 3.0
    assert torch.equal(four.encode(audio), theirs)


def test_a_copy_does_not_follow_the_package(tmp_path):
    model, audio = small(), noise(1, 400)
    ours = from_package(model)
    before = ours.encode(audio)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert torch.equal(ours.encode(audio), before)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
def test_a_th_file_is_converted_by_the_command(tmp_path, capsys, legacy):
    model, audio = small(), noise(1, 403)
    file, out = tmp_path / "encodec.th", tmp_path / "out"
    torch.save(model.state_dict(), file, _use_new_zipfile_serialization=not legacy)
    assert main(["convert", str(file), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "16 codes, 6 levels, 600 frames a second of 40 samples" in shown and "CC-BY-NC 4.0" in shown
    assert torch.equal(mmtok.load(out).encode(audio), their_codes(model, audio, 14.4)[..., :10])


def test_a_folder_of_the_packages_weights_loads_too(tmp_path):
    model, audio = small(), noise(1, 400)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    assert torch.equal(mmtok.load(tmp_path).encode(audio), their_codes(model, audio, 14.4))
    assert torch.equal(mmtok.load(tmp_path, num_codebooks=1).encode(audio), their_codes(model, audio, 2.4))


def test_the_stereo_model_is_refused_wherever_it_comes_from(tmp_path):
    stereo = encodec.EncodecModel.encodec_model_48khz(pretrained=False)
    message = r"^this EnCodec is stereo, scales every chunk by its loudness .* use the 24 or the 32 kHz model$"
    with pytest.raises(ValueError, match=message):
        from_package(stereo)
    with pytest.raises(ValueError, match=message):
        from_upstream("encodec", stereo.state_dict())
    config = {"model_type": "encodec", "audio_channels": 2, "normalize": True, "chunk_length_s": 1.0, "overlap": 0.01}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=message):  # before its weights are read
        mmtok.load(tmp_path)


@pytest.mark.parametrize("setting", [{"audio_normalize": True}, {"segment": 1.0}], ids=["loudness", "chunks"])
def test_what_makes_the_stereo_model_hard_is_refused_in_mono_too(setting):
    with pytest.raises(ValueError, match="this EnCodec is stereo, scales"):
        from_upstream("encodec", small().state_dict(), setting)


def test_errors(tmp_path: Path):
    tensors = small().state_dict()
    assert identify(tensors) == "encodec"
    with pytest.raises(ValueError, match=r"unknown settings of EnCodec \['rate'\]; known: sample_rate"):
        from_upstream("encodec", tensors, {"rate": 1})
    with pytest.raises(ValueError, match=r"mean 3 levels at 24000 Hz, and the weights have 6"):
        from_upstream("encodec", tensors, {"target_bandwidths": [7.2]})
    cut = {k: v for k, v in tensors.items() if not k.startswith("encoder.")}
    with pytest.raises(ValueError, match="these weights are not EnCodec's of this layout"):
        from_upstream("encodec", cut)
    missing = {k: v for k, v in tensors.items() if "decoder.model.0." not in k}
    with pytest.raises(ValueError, match=r"weights do not fit: missing \['decoder.layers.0"):
        from_upstream("encodec", missing)
