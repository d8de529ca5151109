"""Published weights as our modules.

model = mmtok.convert.from_upstream("cosmos-dv", read_checkpoint("autoencoder.jit"))
model.save_pretrained("cosmos-dv4x8x8")          # from then on mmtok.load("cosmos-dv4x8x8")
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtok.pretrained import read_names


@dataclass(frozen=True)
class _Upstream:
    """Where a published family is built, and how its weights are known.

    Attributes:
        module: in this package, with ``from_upstream(tensors, config)``.
        marks: names that only this family has; one of them is enough.
        family: what it becomes, a key of ``mmtok.table.FAMILIES``.
        options: further arguments of ``from_upstream``.
    """

    module: str
    marks: tuple[str, ...]
    family: str
    options: dict[str, Any] = field(default_factory=dict)


_UPSTREAM = {
    "cosmos-dv": _Upstream(
        "cosmos", ("encoder.conv_in.0.conv3d.weight", "network.encoder.conv_in.0.conv3d.weight"), "cosmos-dv"
    ),
    "encodec": _Upstream("encodec", ("quantizer.vq.layers.0._codebook.embed",), "encodec"),
    "larp": _Upstream("larp", ("encoder_latent_query_embed",), "larp"),
    "open-magvit2-video": _Upstream("open_magvit2", ("encoder.conv_out.conv_1.weight",), "magvit2", {"video": True}),
    "open-magvit2-image": _Upstream("open_magvit2", ("decoder.adaptive.0.gamma.weight",), "magvit2", {"video": False}),
    "vidtok-fsq": _Upstream("vidtok", ("encoder.down_temporal.0.block.0.conv1.conv.weight",), "vidtok-fsq"),
}
FAMILIES = tuple(sorted(_UPSTREAM))


def identify(state_dict: Container[str]) -> str | None:
    """Family of published weights, by their names.

    Args:
        state_dict: published names, or a table with them as keys.

    Returns:
        One of ``FAMILIES``, or None.
    """
    return next((family for family, known in _UPSTREAM.items() if any(m in state_dict for m in known.marks)), None)


def from_upstream(
    family: str, state_dict: Mapping[str, Tensor], config: dict[str, Any] | None = None, *, ema: bool = True
) -> Any:
    """Build our module from published weights.

    Args:
        family: one of ``FAMILIES``.
        state_dict: published name to tensor.
        config: the upstream constructor's arguments; None reads the sizes off the shapes.
        ema: take the running average of the weights where the file has one beside them (Open-MAGVIT2).

    Returns:
        A tokenizer of ``mmtok.contract`` in eval mode, float32.

    Raises:
        ValueError: for an unknown family, or weights that do not fit (all missing and unknown names are listed).
    """
    if family in ("larp-ar", "larp-ar-fp"):
        raise ValueError(f"{family} is a generator, not a tokenizer: llm.convert.from_upstream builds it")
    if family not in _UPSTREAM:
        raise ValueError(f"unknown family {family!r}; known: {', '.join(FAMILIES)}")
    found = identify(state_dict)
    if found not in (None, family):
        raise ValueError(f"these weights are {found}, not {family}")
    upstream = _UPSTREAM[family]
    build = importlib.import_module(f"mmtok.convert.{upstream.module}").from_upstream
    options = upstream.options | ({"ema": ema} if upstream.module == "open_magvit2" else {})
    with told_config(family):
        return build(dict(state_dict), config, **options)


@contextlib.contextmanager
def told_config(family: str) -> Iterator[None]:
    """Turn what a config of another kind causes into one line.

    Args:
        family: for the message.

    Yields:
        Nothing.

    Raises:
        ValueError: where a key is missing or of another type.
    """
    try:
        yield
    except KeyError as fault:
        raise ValueError(f"this is no config of {family}: it has no {fault}") from fault
    except (TypeError, AttributeError) as fault:
        raise ValueError(f"this is no config of {family}: a value has a wrong type ({fault})") from fault


def published_family(folder: Path) -> str | None:
    """What the published weights in a folder become, without reading them.

    Args:
        folder: as upstream ships it: model.safetensors under published names, with a config.json of upstream's or none.

    Returns:
        A key of ``mmtok.table.FAMILIES``, or None if the folder holds something else.
    """
    found = identify(read_names(folder))
    return None if found is None else _UPSTREAM[found].family


def load_published(folder: Path) -> Any:
    """The tokenizer of a published folder.

    Args:
        folder: see ``published_family``.

    Returns:
        As from ``from_upstream``.

    Raises:
        ValueError: if the weights are of no family known here, or do not fit.
    """
    from mmtok.convert.checkpoints import read_checkpoint

    tensors = read_checkpoint(folder / "model.safetensors")
    found = identify(tensors)
    if found is None:
        raise ValueError(f"{folder} holds weights of no family known here; known: {', '.join(FAMILIES)}")
    config = folder / "config.json"
    return from_upstream(found, tensors, json.loads(config.read_text()) if config.is_file() else None)
