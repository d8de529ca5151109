"""Published weights as our modules.

model = mmtok.convert.from_upstream("cosmos-dv", read_checkpoint("autoencoder.jit"))
model.save_pretrained("cosmos-dv4x8x8")          # from then on mmtok.load("cosmos-dv4x8x8")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def _cosmos(tensors: dict[str, Tensor], config: dict[str, Any] | None) -> Any:
    from mmtok.convert.cosmos import from_upstream

    return from_upstream(tensors, config)


def _open_magvit2(video: bool) -> Callable[[dict[str, Tensor], dict[str, Any] | None], Any]:
    def build(tensors: dict[str, Tensor], config: dict[str, Any] | None) -> Any:
        from mmtok.convert.open_magvit2 import from_upstream

        return from_upstream(tensors, config, video=video)

    return build


def _vidtok(tensors: dict[str, Tensor], config: dict[str, Any] | None) -> Any:
    from mmtok.convert.vidtok import from_upstream

    return from_upstream(tensors, config)


_BUILDERS: dict[str, Callable[[dict[str, Tensor], dict[str, Any] | None], Any]] = {
    "cosmos-dv": _cosmos,
    "open-magvit2-video": _open_magvit2(True),
    "open-magvit2-image": _open_magvit2(False),
    "vidtok-fsq": _vidtok,
}
FAMILIES = tuple(sorted(_BUILDERS))


_MARKS = {  # names that only this family has
    "cosmos-dv": ("encoder.conv_in.0.conv3d.weight", "network.encoder.conv_in.0.conv3d.weight"),
    "open-magvit2-video": ("encoder.conv_out.conv_1.weight",),
    "open-magvit2-image": ("decoder.adaptive.0.gamma.weight",),
    "vidtok-fsq": ("encoder.down_temporal.0.block.0.conv1.conv.weight",),
}


def identify(state_dict: Mapping[str, Tensor]) -> str | None:
    """Family of published weights, by their names.

    Args:
        state_dict: published name to tensor.

    Returns:
        One of ``FAMILIES``, or None.
    """
    return next((family for family, marks in _MARKS.items() if any(m in state_dict for m in marks)), None)


def from_upstream(family: str, state_dict: Mapping[str, Tensor], config: dict[str, Any] | None = None) -> Any:
    """Build our module from published weights.

    Args:
        family: one of ``FAMILIES``.
        state_dict: published name to tensor.
        config: the upstream constructor's arguments; None reads the sizes off the shapes.

    Returns:
        A tokenizer of ``mmtok.contract`` in eval mode, float32.

    Raises:
        ValueError: for an unknown family, or weights that do not fit (all missing and unknown names are listed).
    """
    if family not in _BUILDERS:
        raise ValueError(f"unknown family {family!r}; known: {', '.join(FAMILIES)}")
    found = identify(state_dict)
    if found not in (None, family):
        raise ValueError(f"these weights are {found}, not {family}")
    return _BUILDERS[family](dict(state_dict), config)
