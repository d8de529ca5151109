"""LARP's published tokenizer as ours: names, options, and a prior that may be absent."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from torch import Tensor

from mmtok.convert.names import Rule, fill, rename
from mmtok.visual.larp import PRIORS, Larp, LarpParams
from mmtok.visual.larp_prior import LarpPriorParams

_ABSENT = {"none", "no", "null", ""}
RULES: tuple[Rule, ...] = (
    (r"^patch_embed\.", "x_embedder.proj."),
    (r"^prior\.", "prior_model."),
    (r"^to_code\.", "bottleneck.in_linear."),
    (r"^from_code\.", "bottleneck.out_linear."),
    (r"^code_norm\.", "bottleneck.norm_layer."),
    (r"^codebook$", "bottleneck.regularizer.embedding.weight"),
    (r"^norm_out\.", "final_layer.norm_final."),
    (r"^to_pixels\.", "final_layer.linear."),
    (r"^queries$", "encoder_latent_query_embed"),
    (r"^token_table$", "decoder_latent_pe"),
    (r"^patch_table\.table$", "encoder_patch_pe"),
    (r"^patch_queries\.table$", "decoder_patch_query_embed"),
    (r"^patch_table\.over_w$", "encode_w_embed"),  # sic
    (r"^patch_table\.over_([th])$", r"encoder_\1_embed"),
    (r"^patch_queries\.over_([thw])$", r"decoder_\1_embed"),
    (r"^patch_type$", "encoder_patch_token_type_embed"),
    (r"^query_type$", "encoder_latent_query_token_type_embed"),
    (r"^token_type$", "decoder_latent_token_type_embed"),
    (r"^patch_query_type$", "decoder_patch_query_token_type_embed"),
)


def _is_absent(value: Any) -> bool:
    return value is None or str(value).lower() in _ABSENT


def _only(config: dict[str, Any], key: str, *wanted: Any) -> None:
    if key in config and config[key] not in wanted:
        raise ValueError(f"LARP with {key}={config[key]!r} is not supported; known: {', '.join(map(repr, wanted))}")


def prior_from_upstream(config: dict[str, Any] | None) -> LarpPriorParams | None:
    """Sizes and training of the prior."""
    if config is None or _is_absent(config.get("name")):
        return None
    if dims := config.get("gptc_dims"):
        sizes = LarpPriorParams(
            num_layers=dims["n_layer"], num_heads=dims["n_head"], dim=dims["n_embd"], max_tokens=dims["max_seq_len"]
        )
    elif config["name"] in PRIORS:
        sizes = PRIORS[config["name"]]
    else:
        raise ValueError(f"unknown LARP prior {config['name']!r}; known: {', '.join(PRIORS)}")
    _only(config.get("args", {}), "l2_normalized", True)
    return replace(
        sizes,
        dropout=0.0 if config.get("no_dropout") else 0.1,
        rounds=config.get("n_rounds", 1),
        max_sampled_share=config.get("mix_ss_max_ratio", 0.5) if config.get("use_mix_ss", True) else 1.0,
        ramp=config.get("mix_ss_peak_steps_ratio", 0.3) if config.get("use_mix_ss", True) else 0.0,
        all_rounds=config.get("avg_loss_over_rounds", True),
        detach_rounds=config.get("no_grad_before_last_round", False),
        temperature=config.get("latent_ce_temperature", 1.0),
    )


def params_from_upstream(config: dict[str, Any]) -> LarpParams:
    """Our sizes and options.

    Args:
        config: the upstream constructor's arguments, as in the published config.json.

    Returns:
        The params.

    Raises:
        ValueError: for options that we do not have, each by name.
    """
    bottleneck = config["bottleneck"]["args"]
    regularizer = bottleneck["regularizer"]
    quantizer = regularizer["args"]
    _only(regularizer, "name", "vq")
    _only(bottleneck, "norm", "none", "no", None, "ln_d", "ln_d_na")
    _only(config, "in_channels", 3)
    for half in ("transformer_name", "encoder_name", "decoder_name"):
        if not _is_absent(config.get(half)):
            _only(config, half, "transformer_encoder_parallel")
    for key in ("patch_size", "temporal_patch_size"):
        _only(config, f"decoder_{key}", config[key])
    _only(quantizer, "entropy_loss_weight", 0, 0.0)
    stochastic = quantizer.get("stochastic", False)
    if stochastic and quantizer["stochastic_temperature"] <= 0:
        raise ValueError("LARP with a learned stochastic_temperature is not supported")
    return LarpParams(
        num_tokens=config["bottleneck_token_num"],
        size=config["input_size"],
        num_frames=config["frame_num"],
        patch_size=config["patch_size"],
        temporal_patch_size=config["temporal_patch_size"],
        encoder_dim=config["encoder_hidden_size"],
        encoder_heads=config["encoder_num_heads"],
        encoder_depth=config["encoder_depth"],
        decoder_dim=config["decoder_hidden_size"],
        decoder_heads=config["decoder_num_heads"],
        decoder_depth=config["decoder_depth"],
        code_dim=bottleneck["bottleneck_dim"],
        codebook_size=quantizer["codebook_size"],
        normalized=quantizer["l2_normalized"],
        temperature=quantizer["stochastic_temperature"] if stochastic else None,
        code_norm=bottleneck.get("norm") == "ln_d",
        commitment_weight=quantizer["commitment_loss_weight"],
        codebook_weight=quantizer["codebook_loss_weight"],
        table_scale=config.get("latent_pe_scale_factor", 10000),
        learned_queries=config.get("learned_encoder_latent_query_embed", True),
        learned_patch_table=config.get("learned_encoder_patch_pe", False),
        learned_token_table=config.get("learned_decoder_latent_pe", False),
        learned_patch_queries=config.get("learned_decoder_patch_query_embed", False),
        patch_type=config.get("use_encoder_patch_token_type_embed", False),
        query_type=config.get("use_encoder_latent_query_token_type_embed", False),
        token_type=config.get("use_decoder_latent_token_type_embed", False),
        patch_query_type=config.get("use_decoder_patch_query_token_type_embed", True),
        prior=prior_from_upstream(config.get("prior_model")),
    )


def infer_config(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The upstream constructor's arguments, from the shapes and names; what leaves no trace is as published.

    Args:
        tensors: weights under published names.

    Returns:
        The config. Heads are of 64 channels, the clip is square, codes are chosen by angle at 0.03.

    Raises:
        ValueError: if this is no LARP tokenizer.
    """
    try:
        patch = tensors["x_embedder.proj.weight"].shape
        tokens, wide = tensors["encoder_latent_query_embed"].shape
        narrow = tensors["bottleneck.out_linear.weight"].shape[0]
        codes, code_dim = tensors["bottleneck.regularizer.embedding.weight"].shape
    except (KeyError, ValueError):
        raise ValueError("these weights are not a LARP tokenizer: its first names are absent") from None

    def depth(half: str) -> int:
        return 1 + max((int(m[1]) for n in tensors if (m := re.match(rf"{half}\.blocks\.(\d+)\.", n))), default=-1)

    pt = patch[2] if len(patch) == 5 else 1
    p = patch[-1]
    if "encoder_h_embed" in tensors:
        side, frames = tensors["encoder_h_embed"].shape[2], tensors["encoder_t_embed"].shape[1]
    else:  # 16 frames, as published
        frames = max(1, 16 // pt)
        side = round((tensors["encoder_patch_pe"].shape[1] / frames) ** 0.5)
        if frames * side * side != tensors["encoder_patch_pe"].shape[1]:
            raise ValueError("the clip's length and size cannot be read off these weights; give LARP's config.json")
    quantizer = {
        "codebook_size": codes,
        "commitment_loss_weight": 0.25,
        "codebook_loss_weight": 1.0,
        "l2_normalized": True,
        "stochastic": True,
        "stochastic_temperature": 0.03,
    }
    normed = "bottleneck.norm_layer.weight" in tensors
    bottleneck = {"bottleneck_dim": code_dim, "norm": "ln_d" if normed else "none"}
    prior: dict[str, Any] = {"name": "none"}
    if "prior_model.pos_emb" in tensors:
        _, most, dim = tensors["prior_model.pos_emb"].shape
        layers = depth("prior_model")
        prior = {"name": "gptc", "n_rounds": 2}
        prior["gptc_dims"] = {"n_layer": layers, "n_head": max(1, dim // 64), "n_embd": dim, "max_seq_len": most}
    return {
        "bottleneck_token_num": tokens,
        "input_size": side * p,
        "frame_num": frames * pt,
        "patch_size": p,
        "temporal_patch_size": pt,
        "encoder_hidden_size": wide,
        "encoder_num_heads": max(1, wide // 64),
        "encoder_depth": depth("encoder"),
        "decoder_hidden_size": narrow,
        "decoder_num_heads": max(1, narrow // 64),
        "decoder_depth": depth("decoder"),
        "learned_encoder_patch_pe": "encoder_h_embed" in tensors,
        "learned_decoder_patch_query_embed": "decoder_h_embed" in tensors,
        "use_encoder_patch_token_type_embed": "encoder_patch_token_type_embed" in tensors,
        "use_encoder_latent_query_token_type_embed": "encoder_latent_query_token_type_embed" in tensors,
        "use_decoder_latent_token_type_embed": "decoder_latent_token_type_embed" in tensors,
        "use_decoder_patch_query_token_type_embed": "decoder_patch_query_token_type_embed" in tensors,
        "bottleneck": {"args": {**bottleneck, "regularizer": {"name": "vq", "args": quantizer}}},
        "prior_model": prior,
    }


def from_upstream(tensors: dict[str, Tensor], config: dict[str, Any] | None) -> Larp:
    """Our module with published weights.

    Args:
        tensors: published name to tensor. A prior that the config names may be absent; the model then has none.
        config: the upstream constructor's arguments (the published config.json); None reads them off the weights.

    Returns:
        The tokenizer in eval mode, float32.

    Raises:
        ValueError: if the weights do not fit.
    """
    params = params_from_upstream(infer_config(tensors) if config is None else config)
    if not any(name.startswith("prior_model.") for name in tensors):
        params = replace(params, prior=None)
    model = Larp.empty(params)
    fill(model, tensors, {rename(name, RULES): name for name in model.state_dict()}, family="LARP")
    return model.eval()
