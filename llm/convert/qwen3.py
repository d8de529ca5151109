"""The prefix language model in transformers' Qwen3 format, and text models as a start of its body.

Qwen3 (arXiv 2505.09388) has our layers to the letter, so an export is exact. What it has no place for goes beside it:

    config.json, model.safetensors    Qwen3ForCausalLM: embedding table, layers, last norm, head
    cinepoet/config.json              our sizes and the vocabulary
    cinepoet/extra.safetensors        text_proj and the position tables

A Qwen3 reads ids, and our model reads ids plus text vectors plus positions. With tables of zeros and no text the two
are one function; otherwise a program gives Qwen3 ``model.embed(...)`` as ``inputs_embeds`` and gets our logits again
(docs/export.md).

Text models warm-start the body: their layers are taken, their words are not. Qwen3's layers fit as they are. Llama
(arXiv 2302.13971) has no norm on queries and keys, and no weights make ours the same function; see ``warm_start``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llm.config import LMConfig
from llm.model import FAMILY, PrefixLM
from mmtok.files import write_json, write_tensors
from mmtok.pretrained import (
    load_strictly,
    load_tensors,
    params_from_config,
    read_config,
    resolve_folder,
    save_config,
    weight_files,
)
from mmtok.vocabulary import Vocabulary

SHAPES = ("qwen3", "llama")
_OURS = "cinepoet"
_EXTRA = ("text_proj.", "positions.")
_WORDS = ("model.embed_tokens.weight", "lm_head.weight")
_BODY = ("dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "hidden_dim", "rope_base", "norm_eps")


def _longest(config: LMConfig) -> int:
    """Places of the longest sequence that the position tables allow: condition and output, and every marker."""
    t, h, w = config.max_grid
    return 2 * (t * h * w + config.audio_levels * config.max_audio_frames) + config.text_slots + 32


def qwen3_sizes(config: LMConfig) -> dict[str, Any]:
    """The fields of transformers' ``Qwen3Config`` that say how large a model is, name to value."""
    return {
        "vocab_size": config.table_size,
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "tie_word_embeddings": config.tie_embeddings,
    }


def export_qwen3(model: PrefixLM, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a folder that ``transformers.AutoModelForCausalLM.from_pretrained`` loads, with what is ours beside it.

    Args:
        model: the language model.
        folder: created when absent.
        dtype: of the weights on disk, or None for the model's own.

    Raises:
        ValueError: for a model with halved visual codes or int8 weights, which Qwen3 does not have.
    """
    folder, config = Path(folder), model.config
    if config.visual_factors != 1:
        raise ValueError("a model with halved visual codes has no Qwen3 form: its head is two softmaxes")
    if model.is_quantized:
        raise ValueError("int8 weights are for sampling only; export the model that they were made from")
    (folder / _OURS).mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().to(dtype or v.dtype).contiguous() for k, v in model.state_dict().items()}
    if config.tie_embeddings:
        del tensors["lm_head.weight"]
    extra = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_EXTRA)}
    values = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **qwen3_sizes(config),
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "rope_theta": config.rope_base,  # for readers from before transformers 5
        "max_position_embeddings": _longest(config),
        "bos_token_id": config.vocabulary.bos_id,
        "eos_token_id": config.vocabulary.eos_id,
        "pad_token_id": config.vocabulary.pad_id,
        "dtype": str(tensors["model.norm.weight"].dtype).removeprefix("torch."),
    }
    write_tensors(extra, folder / _OURS / "extra.safetensors")
    save_config(folder / _OURS, family=FAMILY, params=config, vocabulary=config.vocabulary.to_json())
    write_tensors(tensors, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", values)


def reads_positions(model: PrefixLM) -> bool:
    """Whether the position tables do anything, so that other programs have to add them to the embeddings.

    Args:
        model: the language model.

    Returns:
        False when all tables are zero.
    """
    return any(bool(table.any()) for table in model.positions.parameters())


def is_export(folder: str | Path) -> bool:
    """Whether a folder was written by ``export_qwen3``."""
    return (Path(folder) / _OURS / "config.json").is_file() and (Path(folder) / _OURS / "extra.safetensors").is_file()


def import_qwen3(folder: str | Path) -> PrefixLM:
    """An exported model back, with whatever other programs made of its weights meanwhile.

    Args:
        folder: that ``export_qwen3`` wrote.

    Returns:
        The model, in float32, in evaluation mode.

    Raises:
        FileNotFoundError: if there are no weights.
        ValueError: if it is a text model, or its sizes are no longer those of the export.
    """
    folder = Path(folder)
    if not is_export(folder):
        raise ValueError(
            f"{folder} has no {_OURS} folder, so it is a text model: it can start a training, but it speaks no media"
        )
    config, tensors = _read_ours(folder)
    model = PrefixLM(config)
    load_strictly(model, tensors, tied=("lm_head.weight",) if config.tie_embeddings else ())
    return model.eval()


def body_sizes(name: str | Path) -> dict[str, Any]:
    """The sizes that a language model must have to be warm-started from a folder.

        model = PrefixLM(preset("300m", **body_sizes("Qwen3-0.6B")))

    Args:
        name: folder or hub id of a Qwen3, a Llama or a language model of ours.

    Returns:
        Fields of ``LMConfig``.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if its layers are of another kind.
    """
    folder = resolve_folder(name)
    values = _config_of(folder)
    if values.get("family") == FAMILY:
        config = params_from_config(LMConfig, values["params"])
        return {field: getattr(config, field) for field in _BODY}
    return _sizes_of(values, folder)[0]


@dataclass(frozen=True)
class WarmStart:
    """What a start took over.

    Attributes:
        source: where from.
        taken: names of the weights that were copied.
        fresh: names of those that stayed as they were.
        notes: what is not as it was there, one line each.
    """

    source: str
    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    notes: tuple[str, ...] = ()


def warm_start(model: PrefixLM, name: str | Path) -> WarmStart:
    """Copy the layers and the last norm of another model of the same sizes; of ours also what else fits.

    Of text models the embedding table and the head are left alone, as they are about words. After Qwen3 the layers are
    the same function of their input. After Llama they are not: its queries and keys have any length, ours are brought
    to one. Their norms start at the length that the projection's weights give a typical input, so that scores are of
    the size they had there, and differ by how much a query is longer or shorter than usual.

    Args:
        model: made with ``body_sizes`` of the same folder; changed in place.
        name: folder or hub id of a Qwen3, a Llama, an export or a language model of ours.

    Returns:
        What was taken.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if its layers are of another kind, its sizes differ (naming each), or weights are missing.
    """
    folder = resolve_folder(name)
    values = _config_of(folder)
    notes: tuple[str, ...] = ()
    own = model.state_dict()
    if values.get("family") == FAMILY or is_export(folder):
        config, tensors = _read_ours(folder)
        _require_sizes(model.config, {field: getattr(config, field) for field in _BODY}, folder)
        if config.vocabulary != model.vocabulary:
            tensors = {k: v for k, v in tensors.items() if k not in _WORDS}
            notes = ("its vocabulary is another one: embeddings and head start anew",)
        tensors = {k: v for k, v in tensors.items() if not k.startswith(_EXTRA) or own[k].shape == v.shape}
    else:
        sizes, notes = _sizes_of(values, folder)
        _require_sizes(model.config, sizes, folder)
        tensors = _read_body(folder)
        if values["model_type"] == "llama":
            tensors |= _norms_for(tensors, num_layers=sizes["num_layers"], head_dim=sizes["head_dim"])
            notes += ("Llama does not normalise queries and keys: scores have their typical size, not their values",)
    missing = [k for k in own if k.startswith("model.") and k not in _WORDS and k not in tensors]
    unknown = [k for k in tensors if k not in own and k != "lm_head.weight"]
    if missing or unknown:
        raise ValueError(f"{folder} does not fit: missing {missing[:3]}, unknown {unknown[:3]}")
    tensors = {k: v for k, v in tensors.items() if k in own}
    model.load_state_dict(tensors, strict=False)
    tied = {"lm_head.weight"} if model.config.tie_embeddings else set()
    fresh = tuple(k for k in own if k not in tensors and not (k in tied and _WORDS[0] in tensors))
    return WarmStart(str(name), tuple(tensors), fresh, notes)


def _config_of(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a model folder")
    try:
        values = json.loads(file.read_text())
    except ValueError as fault:
        raise ValueError(f"{file} is not valid JSON: {fault}") from fault
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold a table")
    return values


def _sizes_of(values: dict[str, Any], folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Sizes of a Qwen3 or Llama by its config.json, and what of it we do not have."""
    kind = values.get("model_type")
    if kind not in SHAPES:
        raise ValueError(f"{folder} is a {kind!r} model; those that fit: {', '.join((*SHAPES, FAMILY))}")
    rope = {**(values.get("rope_scaling") or {}), **(values.get("rope_parameters") or {})}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    wanted = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "use_sliding_window": False}
    for key, value in wanted.items():
        if values.get(key, value) != value:
            raise ValueError(f"{folder} has {key}={values[key]!r}; our layers have {value!r}")
    try:
        heads, dim = values["num_attention_heads"], values["hidden_size"]
        sizes = {
            "dim": dim,
            "num_layers": values["num_hidden_layers"],
            "num_heads": heads,
            "num_kv_heads": values.get("num_key_value_heads") or heads,
            "head_dim": values.get("head_dim") or (128 if kind == "qwen3" else dim // heads),
            "hidden_dim": values["intermediate_size"],
            "rope_base": float(rope.get("rope_theta", values.get("rope_theta", 10_000.0))),
            "norm_eps": values.get("rms_norm_eps", 1e-6),
        }
    except KeyError as fault:
        raise ValueError(f"{folder / 'config.json'} has no {fault}") from fault
    if rope_type == "default":
        return sizes, ()
    base = sizes["rope_base"]
    return sizes, (f"its rotary frequencies are scaled ({rope_type}); ours are those of its base {base:g}",)


def _require_sizes(config: LMConfig, theirs: dict[str, Any], folder: Path) -> None:
    differing = [f"{k} is {v} there, {getattr(config, k)} here" for k, v in theirs.items() if getattr(config, k) != v]
    if differing:
        raise ValueError(f"{folder} does not fit this model: {'; '.join(differing)}")


def _read_body(folder: Path) -> dict[str, Tensor]:
    """Layers and last norm of a text model, float32."""
    files = weight_files(folder)
    if not files:
        raise FileNotFoundError(f"{folder} has no model.safetensors; pickled weights are not loaded")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 (not a mapping)
                    if name.startswith("model.") and name not in _WORDS and not name.endswith("rotary_emb.inv_freq"):
                        tensors[name] = weights.get_tensor(name).float()
        except SafetensorError as fault:
            raise ValueError(f"{file} is damaged: {fault}") from fault
    return tensors


def _read_ours(folder: Path) -> tuple[LMConfig, dict[str, Tensor]]:
    """Sizes and all weights of a language model of ours, or of an export of one."""
    exported = is_export(folder)
    stored = read_config(folder / _OURS if exported else folder, FAMILY)
    config = params_from_config(LMConfig, stored["params"])
    if Vocabulary.from_json(stored["vocabulary"]) != config.vocabulary:
        raise ValueError(f"{folder} names another vocabulary than its sizes give: {stored['vocabulary']}")
    if not exported:
        return config, load_tensors(folder)
    values = _config_of(folder)
    _require_sizes(config, _sizes_of(values, folder)[0], folder)
    now = (values.get("vocab_size"), values.get("tie_word_embeddings", False))
    if now != (config.vocabulary.vocab_size, config.tie_embeddings):
        raise ValueError(f"{folder} was exported with another vocabulary or head than its config.json has now: {now}")
    tensors = load_tensors(folder / _OURS, "extra.safetensors")
    for file in weight_files(folder):
        tensors |= load_tensors(folder, file.name)
    if config.tie_embeddings:
        tensors.pop("lm_head.weight", None)
    return config, tensors


def _norms_for(tensors: dict[str, Tensor], *, num_layers: int, head_dim: int) -> dict[str, Tensor]:
    """Norms of queries and keys that give back the length a projection has for inputs of independent entries."""
    norms = {}
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}."
        try:
            gain = tensors[f"{prefix}input_layernorm.weight"]
            for kind in ("q", "k"):
                weight = tensors[f"{prefix}self_attn.{kind}_proj.weight"] * gain  # (heads * head_dim, dim)
                length = weight.square().sum(1).mean().sqrt()  # root of the mean square of an entry
                norms[f"{prefix}self_attn.{kind}_norm.weight"] = length.expand(head_dim).clone()
        except KeyError as fault:
            raise ValueError(f"layer {layer} has no {fault}") from fault
    return norms
