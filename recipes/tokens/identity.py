"""Which tokenizers made tokens: sizes and hashes of weights."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from mmtok.contract import declared_sizes, family_name
from mmtok.visual.holistic import TokensAsGrid


def tokenizer_facts(tokenizer: Any) -> dict[str, Any]:
    """What tells whether two tokenizers give the same codes.

    The decoder's weights are left out of the hash, because a decoder that learns on behind fixed codes changes none.

    Args:
        tokenizer: a ``VisualTokenizer`` or ``AudioTokenizer`` that is an ``nn.Module``.

    Returns:
        Plain values for dataset.json.
    """
    inner = tokenizer.tokenizer if isinstance(tokenizer, TokensAsGrid) else tokenizer
    digest = hashlib.sha256()
    for name, tensor in sorted(inner.state_dict().items()):
        if not name.startswith("decoder."):
            raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + raw.tobytes())
    return {"family": family_name(inner), **declared_sizes(tokenizer), "weights": digest.hexdigest()[:16]}


def weights_hash(module: Any) -> str:
    """16 hexadecimal digits, equal for models (``nn.Module``) of equal tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
