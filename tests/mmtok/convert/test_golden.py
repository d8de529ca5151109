"""Published families against tensors that the upstream code made (``../shared/golden/magvit``)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import mmtok
from mmtok.convert import from_upstream, identify
from recipes.cli import main

FAMILIES = {"open_magvit2": "open-magvit2-video", "cosmos_dv": "cosmos-dv", "vidtok": "vidtok-fsq"}


CASES = (
    "cosmos_dv4x8x8_b",
    "cosmos_dv8x16x16_a",
    "open_magvit2_video_a",
    "open_magvit2_video_b",
    "vidtok_fsq_488_v1_0_a",
    "vidtok_fsq_488_v1_1_b",
)


@pytest.fixture(params=CASES)
def case(request, shared):
    with safe_open(Path(shared) / "golden" / "magvit" / f"{request.param}.safetensors", "pt") as file:
        meta = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    weights = {n.removeprefix("state_dict."): t for n, t in tensors.items() if n.startswith("state_dict.")}
    return FAMILIES[meta["family"]], json.loads(meta["config"]), weights, tensors


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize("inferred", [False, True])
def test_codes_are_identical_and_pictures_close(case, kind, inferred):
    family, config, weights, tensors = case
    if inferred:  # VidTok's versions have the same shapes, so 1.1 must be named
        config = {"version": "v1_1"} if config.get("version") == "v1_1" else None
    model = from_upstream(family, weights, config)
    video = tensors[f"input.{kind}"]
    codes = model.encode(video)
    assert torch.equal(codes[:, 0], tensors[f"output.{kind}.indices"])
    with torch.inference_mode():
        torch.testing.assert_close(model.encode_latents(video), tensors[f"output.{kind}.latent"], atol=1e-4, rtol=0)
    again = model.decode(codes, clamp=False)
    torch.testing.assert_close(again, tensors[f"output.{kind}.recon"], atol=2e-4, rtol=0)
    assert model.decode(codes).abs().max() <= 1


def test_streams_equal_whole_clips(case):
    family, config, weights, tensors = case
    model = from_upstream(family, weights, config)
    video = tensors["input.video"]
    st = model.stride[0]
    whole = model.encode(video)
    if not model.is_causal:
        with pytest.raises(ValueError, match="cannot stream"):
            list(model.encode_stream([video[:, :, :1]]))
        return
    for first in (1, 1 + st):
        cuts = [video[:, :, :first], *video[:, :, first:].split(st, 2)]
        assert torch.equal(torch.cat(list(model.encode_stream(cuts)), 2), whole)
    for size in (1, 2):
        pictures = torch.cat(list(model.decode_stream(whole.split(size, 2), clamp=False)), 2)
        torch.testing.assert_close(pictures, model.decode(whole, clamp=False), atol=1e-4, rtol=0)


def test_wrong_weights_are_told_in_their_own_names(case):
    family, config, weights, _ = case
    first, *rest = sorted(weights)
    damaged = {n: weights[n] for n in rest[:-1]} | {"stranger.weight": torch.ones(2), rest[-1]: torch.ones(3, 3, 3)}
    with pytest.raises(ValueError, match="are not") as fault:
        from_upstream(family, damaged, config)
    told = str(fault.value)
    assert first in told and "stranger.weight" in told and f"{rest[-1]} is (3, 3, 3), expected" in told
    whole = weights | {first: weights[first].to(torch.int32)}
    with pytest.raises(ValueError, match=r"holds torch\.int32, expected floats"):
        from_upstream(family, whole, config)
    for other in sorted(set(FAMILIES.values()) - {family}):
        with pytest.raises(ValueError, match=f"these weights are {family}, not {other}"):
            from_upstream(other, weights)
    assert identify(weights) == family and identify({"other": weights[first]}) is None


def test_saved_and_loaded_again(case, tmp_path):
    family, config, weights, tensors = case
    from_upstream(family, weights, config).save_pretrained(tmp_path)
    model = mmtok.load(tmp_path)
    assert torch.equal(model.encode(tensors["input.video"])[:, 0], tensors["output.video.indices"])


def test_the_command(case, tmp_path, capsys):
    family, config, weights, tensors = case
    torch.save({"state_dict": weights}, tmp_path / "a.ckpt")
    words = ["convert", str(tmp_path / "a.ckpt"), "--out", str(tmp_path / "model")]
    if family == "vidtok-fsq":
        words += ["--version", config["version"]]
    assert main(words) == 0
    assert f"model: {family}, " in capsys.readouterr().out
    model = mmtok.load(tmp_path / "model")
    assert torch.equal(model.encode(tensors["input.image"])[:, 0], tensors["output.image.indices"])
    assert main([*words[:4], "--family", "open-magvit2-image"]) == 2
    assert f"these weights are {family}" in capsys.readouterr().err


def averaged(weights, factor):
    """The weights with a running average beside them, as Open-MAGVIT2's files have it."""
    return weights | {"model_ema." + n.replace(".", ""): t * factor for n, t in weights.items()}


def test_the_running_average_is_taken_and_checked(case):
    family, config, weights, _ = case
    if not family.startswith("open-magvit2"):
        pytest.skip("other families have no average beside the weights")
    both = averaged(weights, 0.5)
    name = next(n for n in sorted(weights) if n.startswith("decoder.mid"))
    ours = "encoder.conv_out.weight"
    model = from_upstream(family, both, config)
    live = from_upstream(family, both, config, ema=False)
    got, want = (m.state_dict()[ours] for m in (model, live))
    torch.testing.assert_close(got, 0.5 * want)
    copy = "model_ema." + name.replace(".", "")
    for changed, told in (
        ({n: t for n, t in both.items() if n != name}, f"missing: {name}"),
        (both | {"encoder.extra": torch.zeros(1)}, "unknown: encoder.extra"),
        ({n: t for n, t in both.items() if n != copy}, "its running average.*missing"),
        (both | {"model_ema.extra": torch.zeros(1)}, "unknown: model_ema.extra"),
    ):
        with pytest.raises(ValueError, match=told):
            from_upstream(family, changed, config)


def test_what_is_no_number_or_turned_round_is_refused(case):
    family, config, weights, _ = case
    name = max(weights, key=lambda n: weights[n].numel())
    spoiled = weights[name].clone()
    spoiled.view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        from_upstream(family, weights | {name: spoiled}, config)
