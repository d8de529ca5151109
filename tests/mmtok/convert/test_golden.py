"""Published families against tensors that the upstream code made (``../shared/golden/magvit``)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mmtok.convert import from_upstream

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
    if inferred and config.get("version") == "v1_1":
        pytest.skip("VidTok's versions have the same shapes, so 1.1 must be named")
    model = from_upstream(family, weights, None if inferred else config)
    video = tensors[f"input.{kind}"]
    codes = model.encode(video)
    assert torch.equal(codes[:, 0], tensors[f"output.{kind}.indices"])
    with torch.inference_mode():
        torch.testing.assert_close(model.encode_latents(video), tensors[f"output.{kind}.latent"], atol=1e-4, rtol=0)
    again = model.decode(codes, clamp=False)
    torch.testing.assert_close(again, tensors[f"output.{kind}.recon"], atol=2e-4, rtol=0)
    assert model.decode(codes).abs().max() <= 1
