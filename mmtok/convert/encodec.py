"""EnCodec of the ``encodec`` package (and its published ``.th`` files) as our ``Encodec``, which runs in transformers.

Both name the same layers alike and differ in wrappers; weight normalisation is kept, so that nothing is computed here.
"""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor

from mmtok.audio.encodec import Encodec
from mmtok.convert.names import Rule, rename
from mmtok.pretrained import load_strictly

_RULES: tuple[Rule, ...] = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.(conv|convtr)\.\1\.", r".conv."),
    (r"\.(conv|convtr)\.norm\.", r".norm."),
    (r"\.weight_g$", r".parametrizations.weight.original0"),
    (r"\.weight_v$", r".parametrizations.weight.original1"),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
)
_BANDWIDTHS = (1.5, 3.0, 6.0, 12.0, 24.0)  # of the published 24 kHz model
_SETTINGS = ("sample_rate", "target_bandwidths", "causal", "pad_mode", "trim_right_ratio", "audio_normalize", "segment")


def _sizes(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What the shapes tell, as fields of transformers' ``EncodecConfig``."""
    kernels = {n: t for n, t in tensors.items() if re.search(r"\.conv\.conv\.weight(_v)?$", n)}
    # the encoder's own convolutions in order: the first, one for each ratio, the last
    outer = {int(m[1]): t for n, t in kernels.items() if (m := re.match(r"encoder\.model\.(\d+)\.conv\.conv\.", n))}
    first, *strided, last = (outer[i] for i in sorted(outer))
    inner = {(int(m[1])): n for n in kernels if (m := re.match(r"encoder\.model\.(\d+)\.block\.1\.", n))}
    block = kernels[inner[min(inner)]]
    books = [t for n, t in tensors.items() if n.endswith("._codebook.embed")]
    lstm = {m[1] for n in tensors if (m := re.match(r"encoder\.model\.\d+\.lstm\.weight_ih_l(\d+)", n))}
    return {
        "audio_channels": first.shape[1],
        "num_filters": first.shape[0],
        "kernel_size": first.shape[2],
        "last_kernel_size": last.shape[2],
        "hidden_size": last.shape[0],
        "upsampling_ratios": [t.shape[2] // 2 for t in reversed(strided)],
        "num_residual_layers": len(inner) // len(strided),
        "residual_kernel_size": block.shape[2],
        "compress": block.shape[1] // block.shape[0],
        "num_lstm_layers": len(lstm),
        "norm_type": "weight_norm" if any(n.endswith("weight_v") for n in kernels) else "time_group_norm",
        "use_conv_shortcut": any(".shortcut." in n for n in tensors),
        "codebook_size": books[0].shape[0],
        "codebook_dim": books[0].shape[1],
    }


def from_upstream(
    tensors: dict[str, Tensor], config: dict[str, Any] | None = None, *, num_codebooks: int | None = None
) -> Encodec:
    """Build our module from the package's weights.

    Args:
        tensors: the package's state dict.
        config: what shapes do not tell, under the package's names: sample_rate, target_bandwidths, causal, pad_mode,
            trim_right_ratio, audio_normalize, segment. None means the 24 kHz model's.
        num_codebooks: residual levels to use; None uses all.

    Returns:
        In eval mode, float32.

    Raises:
        ValueError: for unknown settings, weights that do not fit, or a model that the contract cannot hold.
    """
    settings = dict(config or {})
    if unknown := sorted(set(settings) - set(_SETTINGS)):
        raise ValueError(f"unknown settings of EnCodec {unknown}; known: {', '.join(_SETTINGS)}")
    try:
        sizes = _sizes(tensors)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as fault:
        raise ValueError("these weights are not EnCodec's of this layout") from fault
    sample_rate = settings.get("sample_rate", 24_000)
    levels = sum(n.endswith("._codebook.embed") for n in tensors)
    frame_rate = math.ceil(sample_rate / math.prod(sizes["upsampling_ratios"]))
    level_kbps = frame_rate * math.ceil(math.log2(sizes["codebook_size"])) / 1000
    usual = _BANDWIDTHS if levels == _BANDWIDTHS[-1] // level_kbps else (round(levels * level_kbps, 6),)
    config_class, model_class = Encodec._classes()
    made = config_class(
        **sizes,
        sampling_rate=sample_rate,
        target_bandwidths=list(settings.get("target_bandwidths", usual)),
        use_causal_conv=settings.get("causal", sizes["norm_type"] == "weight_norm"),
        pad_mode=settings.get("pad_mode", "reflect"),
        trim_right_ratio=settings.get("trim_right_ratio", 1.0),
        normalize=settings.get("audio_normalize", sizes["audio_channels"] == 2),
        chunk_length_s=settings.get("segment"),
    )
    Encodec._require_usable(made)
    if made.num_quantizers != levels:
        raise ValueError(
            f"target_bandwidths {made.target_bandwidths} mean {made.num_quantizers} levels at {sample_rate} Hz, and "
            f"the weights have {levels}"
        )
    model = model_class(made)
    load_strictly(model, {rename(name, _RULES): tensor.float() for name, tensor in tensors.items()})
    return Encodec(model, num_codebooks=num_codebooks)


def from_package(model: Any, *, num_codebooks: int | None = None) -> Encodec:
    """Build our module from a model of the package.

    Args:
        model: an ``encodec.EncodecModel``.
        num_codebooks: residual levels to use; None uses all.

    Returns:
        In eval mode, float32, with copies of the weights.

    Raises:
        ValueError: as ``from_upstream``.
    """
    first = model.encoder.model[0]
    up = next(layer for layer in model.decoder.model if "trim_right_ratio" in vars(layer))
    settings = {
        "sample_rate": model.sample_rate,
        "target_bandwidths": model.target_bandwidths,
        "causal": first.causal,
        "pad_mode": first.pad_mode,
        "trim_right_ratio": up.trim_right_ratio,
        "audio_normalize": model.normalize,
        "segment": model.segment,
    }
    tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return from_upstream(tensors, settings, num_codebooks=num_codebooks)
