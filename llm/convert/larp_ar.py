"""LARP's published generators as ours; the names of the weights agree."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from llm.larp_ar import LarpAR, LarpARConfig
from mmtok.convert.names import fill


def config_from_upstream(config: dict[str, Any]) -> LarpARConfig:
    """Our sizes."""
    for key, wanted in (("attn_dropout_p", 0.0), ("model_type", "class_cond")):
        if config.get(key, wanted) != wanted:
            raise ValueError(f"LARP generators with {key}={config[key]!r} are not supported; known: {wanted!r}")
    if config.get("ffn_dropout_p", 0.1) != config.get("resid_dropout_p", 0.1):
        raise ValueError("LARP generators with different ffn_dropout_p and resid_dropout_p are not supported")
    dim, tokens = config["dim"], config.get("max_seq_len", 1024)
    frame_prediction = config.get("frame_prediction", False)
    condition = tokens + 1 if frame_prediction else 1
    if config.get("cls_token_num", condition) != condition:
        raise ValueError(f"cls_token_num is {config['cls_token_num']}, {tokens} codes need {condition}")
    hidden = int(2 * 4 * dim / 3)
    if config.get("ffn_dim_multiplier") is not None:
        hidden = int(config["ffn_dim_multiplier"] * hidden)
    multiple = config.get("multiple_of", 256)
    return LarpARConfig(
        dim=dim,
        num_layers=config["n_layer"],
        num_heads=config["n_head"],
        num_kv_heads=config.get("n_kv_head"),
        hidden_dim=-(-hidden // multiple) * multiple,
        vocab_size=config.get("vocab_size", 8192),
        num_tokens=tokens,
        num_classes=config.get("num_classes", 101),
        class_dropout=config.get("class_dropout_prob", 0.1),
        frame_prediction=frame_prediction,
        fixed_positions=config.get("use_fixed_pe", False),
        eps=config.get("norm_eps", 1e-5),
        token_dropout=config.get("token_dropout_p", 0.1),
        residual_dropout=config.get("resid_dropout_p", 0.1),
        drop_path=config.get("drop_path_rate", 0.0),
    )


def infer_config(tensors: dict[str, Tensor]) -> LarpARConfig:
    """Our sizes from the shapes alone.

    Args:
        tensors: weights under published names.

    Returns:
        The config, with heads of 64 channels and no grouped heads; dropouts as published.

    Raises:
        ValueError: if this is no LARP generator.
    """
    try:
        vocab, dim = tensors["output.weight"].shape
        rows = tensors["tok_embeddings.weight"].shape[0]
        hidden = tensors["layers.0.feed_forward.w1.weight"].shape[0]
        places = tensors["abs_pe"].shape[1]
    except KeyError:
        raise ValueError("these weights are not a LARP generator: its first names are absent") from None
    frame_prediction = rows == vocab + 1
    classes = tensors.get("cls_embedding.embedding_table.weight")
    return LarpARConfig(
        dim=dim,
        num_layers=1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("layers.")),
        num_heads=max(1, dim // 64),
        hidden_dim=hidden,
        vocab_size=vocab,
        num_tokens=places // 2 if frame_prediction else places,
        num_classes=101 if classes is None else classes.shape[0] - 1,
        frame_prediction=frame_prediction,
    )


def from_upstream(tensors: dict[str, Tensor], config: dict[str, Any] | None) -> LarpAR:
    """Our module with published weights.

    Args:
        tensors: published name to tensor; KV caches that were saved along are left out.
        config: the published config.json, or None to read the sizes off the shapes.

    Returns:
        The generator in eval mode, float32.

    Raises:
        ValueError: if the weights do not fit.
    """
    live = {name: t for name, t in tensors.items() if ".kv_cache." not in name}
    model = LarpAR.empty(infer_config(live) if config is None else config_from_upstream(config))
    fill(model, live, {name: name for name in model.state_dict()}, family="a LARP generator")
    return model.eval()
