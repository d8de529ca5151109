"""Published T5 files as an encoder of ours: the decoder left on disk, pickles read without running them.

``google/t5-v1_1-xl`` ships ``pytorch_model.bin``, a pickle of 11.4 GB in float32 whose encoder is 2.4 GB in bfloat16.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from mmtok.convert.checkpoints import read_checkpoint
from mmtok.text.t5 import T5TextEncoder, TextTokenizer, is_encoder_weight


def is_t5(file: Path) -> bool:
    """Whether the config.json beside a file of weights is a T5's; False also where there is none."""
    config = file.parent / "config.json"
    try:
        values = json.loads(config.read_text()) if config.is_file() else None
    except ValueError:
        return False
    return isinstance(values, dict) and values.get("model_type") == "t5"


def encoder_from_files(files: list[Path], *, dtype: torch.dtype = torch.bfloat16) -> T5TextEncoder:
    """The encoder in published files, with config.json and spiece.model (or tokenizer.json) beside them.

    Args:
        files: .bin, .safetensors or .pt, all parts of one model.
        dtype: of the weights; float16 overflows in T5 and is refused.

    Returns:
        The encoder on the CPU.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: if one is damaged, asks to run code, is no T5's, or a part is missing.
    """
    if dtype == torch.float16:
        raise ValueError("dtype float16 overflows in T5; use bfloat16 or float32")
    folder = files[0].parent
    if not is_t5(files[0]):
        raise ValueError(f"{folder} has no config.json of a T5 (model_type t5); put it beside the weights")
    tokenizer = TextTokenizer.from_folder(folder)
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= read_checkpoint(file, is_encoder_weight, dtype)
    if not tensors:
        raise ValueError(f"{files[0]} holds no encoder of a T5")
    return T5TextEncoder.from_tensors(
        tensors, json.loads((folder / "config.json").read_text()), tokenizer, name=folder.resolve().name
    )
