"""Open-MAGVIT2's video and image tokenizers (TencentARC/SEED-Voken, code and weights Apache-2.0) as our ``Magvit2``.

The paper's network in another reading: norm statistics over the whole clip, one adaptive scale a clip, and of the two
frames that time-doubling makes from the first one, the second is dropped. Not causal, hence its image codes are not the
first slice of its video codes. The published files hold the live weights and a running average; evaluation uses the
average.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from mmtok.convert.names import Rule, check_names, fill, rename
from mmtok.visual.magvit2 import Magvit2, Magvit2Params

EMA = "model_ema."
_EXTRA = re.compile(r"^(loss\.|quantize\.|model_ema\.(decay|num_updates|loss|quantize))")
_TO_UPSTREAM: tuple[Rule, ...] = (  # from our names, which are the ones we know completely
    (r"^(encoder|decoder)\.mid\.", r"\1.mid_block."),
    (r"^encoder\.levels\.(\d+)\.(\d+)\.", r"encoder.down.\1.block.\2."),
    (r"^decoder\.levels\.(\d+)\.(\d+)\.", r"decoder.up.\1.block.\2."),
    (r"^encoder\.downs\.(\d+)\.", r"encoder.down.\1.downsample."),
    (r"^decoder\.ups\.(\d+)\.conv\.", lambda m: f"decoder.up.{int(m[1]) + 1}.upsample.conv1."),
    (r"^decoder\.norms\.(\d+)\.", r"decoder.adaptive.\1."),
    (r"\.shortcut\.", ".nin_shortcut."),
)
_CONV = re.compile(r"\.(conv\w*|nin_shortcut|downsample)\.(weight|bias)$")


def upstream_names(model: Magvit2) -> dict[str, str]:
    """Published name of every weight to ours; the image model's names when ``temporal_kernel`` is 1."""
    video = model.params.temporal_kernel == 3
    names = {}
    for ours in model.state_dict():
        theirs = rename(ours, _TO_UPSTREAM)
        names[_CONV.sub(r".\1.conv_1.\2", theirs) if video else theirs] = ours
    return names


def params_from_upstream(config: dict[str, Any], *, video: bool) -> Magvit2Params:
    """Sizes from the upstream constructor's arguments.

    Args:
        config: with ``ddconfig`` and ``embed_dim``.
        video: the video model, or the image model.

    Returns:
        Ours; levels of multiplier 1 are not halved in time (upstream's rule).
    """
    network = config["ddconfig"]
    multipliers = tuple(network["ch_mult"])
    steps = len(multipliers) - 1
    return Magvit2Params(
        channels=network["ch"],
        channel_multipliers=multipliers,
        num_res_blocks=network["num_res_blocks"],
        num_mid_blocks=network["num_res_blocks"],
        spatial_downsample=(True,) * steps,
        temporal_downsample=tuple(video and m != 1 for m in multipliers[:-1]),
        bits=network["z_channels"],
        temporal_kernel=3 if video else 1,
        norm_scope="clip",
        dropped_frame=1,
        stem_channels=network["ch"],
    )


def infer_config(tensors: dict[str, Tensor]) -> tuple[dict[str, Any], bool]:
    """The upstream constructor's arguments, from the shapes alone.

    Args:
        tensors: live weights under published names.

    Returns:
        The config, and whether it is a video model.

    Raises:
        ValueError: if this is no Open-MAGVIT2 tokenizer.
    """
    video = "encoder.conv_in.conv_1.weight" in tensors
    tail = ".conv_1.weight" if video else ".weight"
    try:
        ch = tensors[f"encoder.conv_in{tail}"].shape[0]
        blocks = 1 + max(int(m[1]) for n in tensors if (m := re.match(r"encoder\.mid_block\.(\d+)\.", n)))
        levels = 1 + max(int(m[1]) for n in tensors if (m := re.match(r"encoder\.down\.(\d+)\.block", n)))
        widths = [tensors[f"encoder.down.{i}.block.0.conv2{tail}"].shape[0] for i in range(levels)]
        z = tensors[f"encoder.conv_out{tail}"].shape[0]
    except (KeyError, ValueError):
        raise ValueError("these weights are not an Open-MAGVIT2 tokenizer: its first names are absent") from None
    network = {"z_channels": z, "ch": ch, "ch_mult": [w // ch for w in widths], "num_res_blocks": blocks}
    return {"ddconfig": network, "n_embed": 2**z, "embed_dim": z}, video


def from_upstream(
    tensors: dict[str, Tensor], config: dict[str, Any] | None, *, video: bool, ema: bool = True
) -> Magvit2:
    """Our module with published weights.

    Args:
        tensors: published name to tensor, as under ``state_dict`` of the file.
        config: the upstream constructor's arguments, or None to read the sizes off the shapes.
        video: the video model, or the image model.
        ema: take the running average where the file has one.

    Returns:
        The tokenizer in eval mode.

    Raises:
        ValueError: if the weights do not fit.
    """
    live = {n: t for n, t in tensors.items() if not n.startswith(EMA) and not _EXTRA.match(n)}
    if config is None:
        config, found = infer_config(live)
        if found != video:
            raise ValueError(f"these weights are an Open-MAGVIT2 {'video' if found else 'image'} tokenizer")
    model = Magvit2.empty(params_from_upstream(config, video=video))
    names = upstream_names(model)
    family = f"Open-MAGVIT2 {'video' if video else 'image'}"
    if ema and any(n.startswith(EMA) for n in tensors):
        check_names(live, names, family=family)
        averaged = {EMA + n.replace(".", ""): n for n in names}
        copies = {n: t for n, t in tensors.items() if n.startswith(EMA) and not _EXTRA.match(n)}
        check_names(copies, averaged, family=f"{family} (its running average)")
        live = {averaged[n]: t for n, t in copies.items()}
    fill(model, live, names, family=family)
    return model.eval()
