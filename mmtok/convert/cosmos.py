"""Cosmos' published DV tokenizers (weights under NVIDIA's Open Model License) as our ``CosmosDV``.

Reads the names of ``autoencoder.jit`` (or of encoder.jit and decoder.jit together) and those of the training file
``model.pt``. Buffers that TorchScript writes out (wavelets, quantiser tables) are recomputed, never read.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from mmtok.convert.names import Rule, fill, rename
from mmtok.visual.cosmos import CosmosDV, CosmosParams

_BUFFER = re.compile(r"(^|\.)(patcher3d|unpatcher3d|quantizer)\.")
_TO_UPSTREAM: tuple[Rule, ...] = (
    (r"(?<=\.)(norm\w*)\.(weight|bias)$", r"\1.norm.\2"),
    (r"(?<!\.norm)\.(weight|bias)$", r".conv3d.\1"),
)


def upstream_names(model: CosmosDV) -> dict[str, str]:
    """Published name of every weight to ours."""
    names = {}
    for ours in model.state_dict():
        theirs = rename(ours, _TO_UPSTREAM)
        names[re.sub(r"downsample\.conv1\.conv3d\.conv3d", "downsample.conv1.conv3d", theirs)] = ours
    return names


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of autoencoder.jit: without buffers, prefixes and running averages."""
    named = {}
    for name, tensor in tensors.items():
        if name.startswith("ema."):
            continue
        plain = name.removeprefix("network.")
        if not _BUFFER.search(plain):
            named[plain] = tensor
    return named


def params_from_upstream(config: dict[str, Any]) -> CosmosParams:
    """Sizes from the upstream constructor's arguments, as stored with the golden files."""
    space, time = config["spatial_compression"], config["temporal_compression"]
    return CosmosParams(
        stride=(time, space, space),
        patch_size=config["patch_size"],
        z_channels=config["z_channels"],
        channels=config["channels"],
        channel_multipliers=tuple(config["channels_mult"]),
        num_res_blocks=config["num_res_blocks"],
        levels=tuple(config["levels"]),
    )


def infer_config(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The upstream constructor's arguments, from the shapes alone; the levels are those of every release.

    Args:
        tensors: weights under published names.

    Returns:
        The config.

    Raises:
        ValueError: if this is no Cosmos DV tokenizer.
    """
    plain = _plain(tensors)
    try:
        channels, bands = plain["encoder.conv_in.0.conv3d.weight"].shape[:2]
        count = 1 + max(int(m[1]) for n in plain if (m := re.match(r"encoder\.down\.(\d+)\.block", n)))
        blocks = 1 + max(int(m[1]) for n in plain if (m := re.match(r"encoder\.down\.0\.block\.(\d+)", n)))
        widths = [plain[f"encoder.down.{i}.block.0.conv2.0.conv3d.weight"].shape[0] for i in range(count)]
        z = plain["quant_conv.conv3d.weight"].shape[1]
    except (KeyError, ValueError):
        raise ValueError("these weights are not a Cosmos DV tokenizer: its first names are absent") from None
    patch = round((bands / 3) ** (1 / 3))
    halved = {
        conv: sum(f"encoder.down.{i}.downsample.{conv}.conv3d.weight" in plain for i in range(count))
        for conv in ("conv1", "conv2")
    }
    return {
        "spatial_compression": patch * 2 ** halved["conv1"],
        "temporal_compression": patch * 2 ** halved["conv2"],
        "patch_size": patch,
        "z_channels": z,
        "channels": channels,
        "channels_mult": [w // channels for w in widths],
        "num_res_blocks": blocks,
        "levels": [8, 8, 8, 5, 5, 5],
    }


def from_upstream(tensors: dict[str, Tensor], config: dict[str, Any] | None) -> CosmosDV:
    """Our module with published weights.

    Args:
        tensors: published name to tensor.
        config: the upstream constructor's arguments, or None to read the sizes off the shapes.

    Returns:
        The tokenizer in eval mode, float32.

    Raises:
        ValueError: if the weights do not fit.
    """
    model = CosmosDV.empty(params_from_upstream(config or infer_config(tensors)))
    fill(model, _plain(tensors), upstream_names(model), family="Cosmos DV")
    return model.eval()
