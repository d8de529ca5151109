"""Codecs of a few thousand weights, as transformers builds them, with codebooks that tell sounds apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmtok.audio.dac import Dac
from mmtok.audio.encodec import Encodec
from mmtok.audio.frozen_codec import FrozenCodec
from mmtok.audio.mimi import Mimi

CLASSES: dict[str, type[FrozenCodec]] = {"encodec": Encodec, "dac": Dac, "mimi": Mimi}
SIZES: dict[str, dict[str, Any]] = {
    # hop 40, 600 frames a second, 6 levels of 16 codes; the bandwidths offered are 1, 2 and 6 levels
    "encodec": {
        "num_filters": 2,
        "hidden_size": 8,
        "upsampling_ratios": [5, 4, 2],
        "num_lstm_layers": 1,
        "codebook_size": 16,
        "target_bandwidths": [2.4, 4.8, 14.4],
    },
    # hop 20 with an odd ratio, 800 frames a second, 4 levels
    "dac": {
        "encoder_hidden_size": 4,
        "decoder_hidden_size": 32,
        "downsampling_ratios": [2, 5, 2],
        "n_codebooks": 4,
        "codebook_size": 16,
        "codebook_dim": 4,
        "quantizer_dropout": 0.9,
    },
    # hop 16, 1500 frames a second, 5 levels
    "mimi": {
        "hidden_size": 16,
        "num_filters": 2,
        "upsampling_ratios": [4, 2],
        "codebook_size": 16,
        "codebook_dim": 8,
        "vector_quantization_hidden_dimension": 8,
        "upsample_groups": 16,
        "num_hidden_layers": 2,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_quantizers": 5,
        "layer_scale_initial_scale": 0.5,
    },
}


def fill_codebooks(layers: Any, latents: torch.Tensor, *, seed: int = 0) -> None:
    """Codebooks of vectors that occur: fresh ones of EnCodec and Mimi are zero, and every code would be 0.

    Args:
        layers: of a residual quantizer, of transformers or of the encodec package.
        latents: (b, d, t) what it quantizes.
        seed: of the choice.
    """
    draw = torch.Generator().manual_seed(seed)
    for layer in layers:
        book = layer.codebook if isinstance(layer.codebook, torch.nn.Module) else layer._codebook
        table = book.embed_sum if hasattr(book, "embed_sum") else book.embed
        rows = latents.transpose(1, 2).flatten(0, 1)
        chosen = rows[torch.randperm(len(rows), generator=draw)[: len(table)]]
        table.copy_(chosen + 0.1 * rows.std() * torch.randn(chosen.shape, generator=draw))
        latents = latents - layer.decode(layer.encode(latents))


@torch.no_grad()
def fill(model: Any, seed: int) -> None:
    """All codebooks of a model of transformers."""
    noise = torch.rand(4, 1, 4000, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9
    if model.config.model_type == "encodec":
        fill_codebooks(model.quantizer.layers, model.encoder(noise), seed=seed)
    elif model.config.model_type == "mimi":
        latents, quantizer = model.encoder(noise).latents, model.quantizer
        for half in (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer):
            fill_codebooks(half.layers, half.input_proj(latents), seed=seed)


@pytest.fixture
def build() -> Callable[..., Any]:
    """A model of transformers by family, with some sizes changed."""

    def make(family: str, seed: int = 0, **changes: Any) -> Any:
        config_class, model_class = CLASSES[family]._classes()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = model_class(config_class(**{**SIZES[family], **changes})).eval()
        fill(model, seed)
        return model

    return make


@pytest.fixture(params=sorted(CLASSES))
def codec(request: pytest.FixtureRequest, build: Callable[..., Any]) -> FrozenCodec:
    """Each family in turn, with all its levels."""
    return CLASSES[request.param](build(request.param))
