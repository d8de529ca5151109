"""VidTok's published causal FSQ tokenizers (microsoft/VidTok, weights MIT) as our ``VidTokFSQ``.

Upstream stores space and time convolutions as 2-D and 1-D kernels; ours are the same numbers with axes of length 1.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from mmtok.convert.names import Rule, fill, rename
from mmtok.visual.vidtok import VidTokFSQ, VidTokParams

_EXTRA = re.compile(r"^(loss|regularization)\.")
_TO_UPSTREAM: tuple[Rule, ...] = (
    (r"(?<=\.)(norm\w*)\.(weight|bias)$", r"\1.norm.\2"),
    # 2-D convolutions are bare; the others are wrapped
    (r"^((?:encoder\.down|decoder\.up)\.\d+\..*)$", r"2d:\1"),
    (r"^(?!2d:)(.*?)(?<!\.norm)\.(weight|bias)$", r"\1.conv.\2"),
    (r"^2d:", ""),
)


def upstream_names(model: VidTokFSQ) -> dict[str, str]:
    """Published name of every weight to ours."""
    return {rename(ours, _TO_UPSTREAM): ours for ours in model.state_dict()}


def params_from_upstream(config: dict[str, Any]) -> VidTokParams:
    """Sizes from the upstream constructor's arguments, as stored with the golden files."""
    network = config["encoder_decoder"]
    count = len(network["ch_mult"])
    return VidTokParams(
        version=config["version"],
        channels=network["ch"],
        channel_multipliers=tuple(network["ch_mult"]),
        num_res_blocks=network["num_res_blocks"],
        temporal_down=tuple(network.get("tempo_ds", (count - 3, count - 2))),
        temporal_up=tuple(network.get("tempo_us", (1, 2))),
        levels=tuple(config["levels"]),
    )


def infer_config(tensors: dict[str, Tensor], *, version: str) -> dict[str, Any]:
    """The upstream constructor's arguments, from the shapes alone.

    Args:
        tensors: weights under published names.
        version: "v1_0" or "v1_1"; it has no trace in the weights.

    Returns:
        The config.

    Raises:
        ValueError: if this is no VidTok FSQ tokenizer.
    """
    try:
        channels = tensors["encoder.conv_in.conv.weight"].shape[0]
        count = 1 + max(int(m[1]) for n in tensors if (m := re.match(r"encoder\.down\.(\d+)\.block", n)))
        blocks = 1 + max(int(m[1]) for n in tensors if (m := re.match(r"encoder\.down\.0\.block\.(\d+)", n)))
        widths = [tensors[f"encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(count)]
        z = tensors["encoder.conv_out.conv.weight"].shape[0]
    except (KeyError, ValueError):
        raise ValueError("these weights are not a VidTok tokenizer: its first names are absent") from None

    def steps(half: str, step: str) -> list[int]:
        return [i for i in range(count) if f"{half}.{i}.{step}.mix_factor" in tensors]

    network = {
        "ch": channels,
        "ch_mult": [w // channels for w in widths],
        "num_res_blocks": blocks,
        "tempo_ds": steps("encoder.down_temporal", "downsample"),
        "tempo_us": steps("decoder.up_temporal", "upsample"),
    }
    return {"version": version, "levels": [8] * z, "encoder_decoder": network}


def from_upstream(tensors: dict[str, Tensor], config: dict[str, Any] | None) -> VidTokFSQ:
    """Our module with published weights.

    Args:
        tensors: published name to tensor, as under ``state_dict`` of the file.
        config: the upstream constructor's arguments; without ``encoder_decoder`` the sizes are read off the shapes and
            only ``version`` ("v1_0" unless it says "v1_1") is taken from it.

    Returns:
        The tokenizer in eval mode, float32.

    Raises:
        ValueError: if the weights do not fit.
    """
    live = {n: t for n, t in tensors.items() if not _EXTRA.match(n)}
    if config is None or "encoder_decoder" not in config:
        config = infer_config(live, version=(config or {}).get("version", "v1_0"))
    model = VidTokFSQ.empty(params_from_upstream(config))
    fill(model, live, upstream_names(model), family="VidTok FSQ")
    return model.eval()
