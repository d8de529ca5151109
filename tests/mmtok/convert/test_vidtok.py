"""What only VidTok's files need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import mmtok
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


@pytest.mark.parametrize("words", [(), ("--version",)], ids=["by name", "told"])
def test_the_version_of_vidtok_is_never_silent(case, words, tmp_path, capsys):
    family, config, weights, tensors = case
    if family != "vidtok-fsq":
        pytest.skip("one version only")
    name = f"vidtok_fsq{'_v1_1' if config['version'] == 'v1_1' else ''}.ckpt"
    torch.save({"state_dict": weights}, tmp_path / name)
    told = (*words, config["version"]) if words else ()
    assert main(["convert", str(tmp_path / name), "--out", str(tmp_path / "model"), *told]) == 0
    note = capsys.readouterr().err
    assert (f"taken as VidTok {config['version']}" in note) == (not words)
    codes = mmtok.load(tmp_path / "model").encode(tensors["input.image"])
    assert torch.equal(codes[:, 0], tensors["output.image.indices"])
