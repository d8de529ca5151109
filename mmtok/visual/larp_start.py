"""A LARP that begins as a linear autoencoder of patches, so that a laptop sees pictures after a hundred steps.

With the published random start every query begins with the mean of all patches, and the decoder's tokens are a tenth
of the tables that are added to them: it takes some 10,000 steps until attention finds places. Here the first block of
each half starts as a copy: query i looks at one patch and takes its content over, patch query p does so with a token.
Everything else starts as the identity. Nothing is tied: training is free to make the tokens as holistic as it likes.
This is ours, not the paper's; compare the mimetic start of Trockman and Kolter 2023 (arXiv 2305.09828).
Shape letters: n tokens, p patches, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmtok.nn.transformer import Block, Transformer
from mmtok.visual.larp import Larp

SHARPNESS = 6.0  # of the first attention: its logit at the right place is about 17, elsewhere 0 +- 3
TABLE_SIZE = 0.7  # root mean square of the tables' rows, as of sine tables
CONTENT_GAIN = 5.0  # patches enter as large as their table
LATENT_GAIN = 7.0  # latents enter the decoder as large as theirs


def _rows(count: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, width, generator=generator)


class _Spaces:
    """Orthogonal parts of a width: places as keys, places as questions, content."""

    def __init__(self, dim: int, generator: torch.Generator):
        basis = torch.linalg.qr(_rows(dim, dim, generator)).Q
        quarter = dim // 4
        self.keys, self.asks, rest = basis[:quarter], basis[quarter : 2 * quarter], basis[2 * quarter :]
        self.content = rest.T @ rest  # (d, d), symmetric
        self.turn = self.keys.T @ self.asks + self.asks.T @ self.keys + self.content  # swaps keys and questions
        self.scale = TABLE_SIZE * (dim / quarter) ** 0.5

    def places(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, d) nearly orthogonal rows among the keys."""
        return _rows(count, len(self.keys), generator) @ self.keys * self.scale


def _copying(half: Transformer, turn: Tensor, generator: torch.Generator) -> None:
    """The first attention finds the place that is asked for and copies; the other branches start at zero."""
    for block in half.blocks:
        assert isinstance(block, Block)
        block.attn.proj.weight.zero_()
        block.mlp.fc2.weight.zero_()
    assert isinstance(half.blocks[0], Block)
    first = half.blocks[0].attn
    weight = first.qkv.weight
    d = weight.shape[1]
    weight[:d] = SHARPNESS * weight[d : 2 * d] @ turn
    copy = torch.linalg.qr(_rows(d, d, generator)).Q
    weight[2 * d :] = copy
    first.proj.weight.copy_(copy.T)


@torch.no_grad()
def start_local(model: Larp, generator: torch.Generator) -> None:
    """Change the weights of a new model as described above.

    Args:
        model: with fixed tables for patches and tokens and learned queries, as published.
        generator: of the random directions.

    Raises:
        ValueError: if the model has other tables.
    """
    params = model.params
    if params.learned_patch_table or params.learned_patch_queries or not params.learned_queries:
        raise ValueError("a local start needs fixed patch tables and learned queries, as published")
    count, patches = params.num_tokens, model.patch_table.table.shape[1]
    at = ((torch.arange(count) + 0.5) / count * patches).long()  # token to patch, evenly over the clip
    back = ((torch.arange(patches) + 0.5) / patches * count).long()  # patch to token

    spaces = _Spaces(params.encoder_dim, generator)
    keys = spaces.places(patches, generator)
    model.patch_table.table.copy_(keys[None])
    model.queries.copy_(keys[at] @ spaces.turn)
    _copying(model.encoder, spaces.turn, generator)
    embed = model.patch_embed.weight.flatten(1)
    model.patch_embed.weight.copy_((CONTENT_GAIN * spaces.content @ embed).view_as(model.patch_embed.weight))
    assert model.patch_embed.bias is not None
    model.patch_embed.bias.copy_(-0.5 * model.patch_embed.weight.flatten(1).sum(1))  # grey is zero
    model.to_code.weight.copy_(model.to_code.weight @ spaces.content)

    spaces = _Spaces(params.decoder_dim, generator)
    keys = spaces.places(count, generator)
    model.token_table.copy_(keys.view_as(model.token_table))
    model.patch_queries.table.copy_((keys[back] @ spaces.turn)[None])
    _copying(model.decoder, spaces.turn, generator)
    model.from_code.weight.copy_(LATENT_GAIN * spaces.content @ model.from_code.weight)
