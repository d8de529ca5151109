"""Full-size published models: every name, shape and count of the listings, on the meta device."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from mmtok.convert import cosmos, open_magvit2, vidtok
from mmtok.convert.names import alike
from mmtok.visual.cosmos import PRESETS as COSMOS
from mmtok.visual.cosmos import CosmosDV
from mmtok.visual.magvit2 import PRESETS as MAGVIT2
from mmtok.visual.magvit2 import Magvit2
from mmtok.visual.vidtok import PRESETS as VIDTOK
from mmtok.visual.vidtok import VidTokFSQ

LISTINGS = {
    "cosmos_0_1_dv4x8x8": "cosmos-0.1-dv4x8x8",
    "cosmos_0_1_dv8x8x8": "cosmos-0.1-dv8x8x8",
    "cosmos_dv8x16x16": "cosmos-dv8x16x16",
    "cosmos_tokenize1_dv4x8x8_360p": "cosmos-tokenize1-dv4x8x8-360p",
    "open_magvit2_image_128_262144": "open-magvit2-image-128",
    "open_magvit2_image_256_16384": "open-magvit2-image-256-16384",
    "open_magvit2_image_256_262144": "open-magvit2-image-256",
    "open_magvit2_video_128_262144": "open-magvit2-video",
    "vidtok_fsq_causal_41616_262144": "vidtok-fsq-41616-262144",
    "vidtok_fsq_causal_41616_262144_v1_1": "vidtok-fsq-41616-262144-v1.1",
    "vidtok_fsq_causal_488_262144": "vidtok-fsq-488-262144",
    "vidtok_fsq_causal_488_32768": "vidtok-fsq-488-32768",
    "vidtok_fsq_causal_488_32768_v1_1": "vidtok-fsq-488-32768-v1.1",
    "vidtok_fsq_causal_488_4096": "vidtok-fsq-488-4096",
    "vidtok_fsq_causal_888_32768_v1_1": "vidtok-fsq-888-32768-v1.1",
}


@pytest.mark.parametrize("name", LISTINGS)
def test_names_shapes_and_counts(name: str, shared: Path) -> None:
    listing = json.loads((shared / "golden" / "magvit" / "keys" / f"{name}.json").read_text())
    config, shapes = listing["config"], {k: tuple(v[1]) for k, v in listing["keys"].items()}
    empty = {k: torch.empty(s, device="meta") for k, s in shapes.items()}
    if name.startswith("cosmos"):
        params = cosmos.params_from_upstream(config)
        assert params == COSMOS[LISTINGS[name]] == cosmos.params_from_upstream(cosmos.infer_config(empty))
        with torch.device("meta"):
            model = CosmosDV(params)
        names = cosmos.upstream_names(model)
    elif name.startswith("vidtok"):
        params = vidtok.params_from_upstream(config)
        inferred = vidtok.infer_config(empty, version=config["version"])
        assert params == VIDTOK[LISTINGS[name]] == vidtok.params_from_upstream(inferred)
        with torch.device("meta"):
            model = VidTokFSQ(params)
        names = vidtok.upstream_names(model)
    else:
        video = "video" in name
        params = open_magvit2.params_from_upstream(config, video=video)
        live = {k: t for k, t in empty.items() if not k.startswith(open_magvit2.EMA)}
        inferred, found = open_magvit2.infer_config(live)
        assert found == video and open_magvit2.params_from_upstream(inferred, video=video) == params
        assert MAGVIT2[LISTINGS[name]] == params
        with torch.device("meta"):
            model = Magvit2(params)
        names = open_magvit2.upstream_names(model)
        shapes = {k: s for k, s in shapes.items() if not k.startswith(open_magvit2.EMA)}
        averaged = {open_magvit2.EMA + k.replace(".", "") for k in names}
        assert listing["ema_key_to_key"].keys() == averaged if isinstance(listing["ema_key_to_key"], dict) else True
    assert set(names) == set(shapes)
    own = model.state_dict()
    for theirs, ours in names.items():
        assert alike(shapes[theirs], tuple(own[ours].shape)), theirs
    assert sum(p.numel() for p in model.parameters()) == listing["n_parameters"] == sum(map(math.prod, shapes.values()))
