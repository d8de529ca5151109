"""LARP written down as the published forward passes compute it, with nothing done for speed: the benchmark's reference.

The tokenizer's transformers run every block over all positions and drop the context at the end. The generator keeps
keys and values in a table of the full length, attends to all of it behind a mask at every step, and doubles the batch
for guidance. Weights are those of ``mmtok.visual.larp.Larp`` and ``llm.larp_ar.LarpAR``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from llm.larp_ar import LarpARConfig
from mmtok.visual.larp import LarpParams


class PlainLarp:
    """Encoder and decoder as functions of a table of weights.

    Args:
        params: sizes, published options.
        weights: the state dict of ``Larp``.

    Raises:
        ValueError: for options that the published models do not have.
    """

    def __init__(self, params: LarpParams, weights: dict[str, Tensor]):
        plain = params.normalized and not (params.code_norm or params.learned_patch_table or params.patch_type)
        if not plain or params.learned_patch_queries or params.query_type or params.token_type:
            raise ValueError("the plain form has the published options only")
        self.params, self.weights = params, weights

    def _blocks(self, half: str, x: Tensor, heads: int, depth: int) -> Tensor:
        w = self.weights
        for number in range(depth):
            name = f"{half}.blocks.{number}"
            b, n, d = x.shape
            y = F.layer_norm(x, (d,), w[f"{name}.norm1.weight"], w[f"{name}.norm1.bias"], 1e-5)
            qkv = F.linear(y, w[f"{name}.attn.qkv.weight"]).reshape(b, n, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2]).transpose(1, 2).reshape(b, n, d)
            x = x + F.linear(y, w[f"{name}.attn.proj.weight"], w[f"{name}.attn.proj.bias"])
            y = F.layer_norm(x, (d,), w[f"{name}.norm2.weight"], w[f"{name}.norm2.bias"], 1e-5)
            y = F.gelu(F.linear(y, w[f"{name}.mlp.fc1.weight"], w[f"{name}.mlp.fc1.bias"]))
            x = x + F.linear(y, w[f"{name}.mlp.fc2.weight"], w[f"{name}.mlp.fc2.bias"])
        return x

    def encode(self, video: Tensor) -> Tensor:
        """(b, 1, n) int64 nearest codes of (b, 3, t, h, w) in [-1, 1], the size of training."""
        w, params = self.weights, self.params
        stride = (params.temporal_patch_size, params.patch_size, params.patch_size)
        patches = F.conv3d((video + 1) / 2, w["patch_embed.weight"], w["patch_embed.bias"], stride)
        patches = patches.flatten(2).transpose(1, 2) + w["patch_table.table"]
        queries = w["queries"].expand(len(video), -1, -1)
        x = self._blocks("encoder", torch.cat((patches, queries), 1), params.encoder_heads, params.encoder_depth)
        z = F.normalize(F.linear(x[:, -queries.shape[1] :], w["to_code.weight"], w["to_code.bias"]), dim=-1)
        return (z @ F.normalize(w["codebook"], dim=-1).T / 0.03).softmax(-1).argmax(-1)[:, None]

    def decode(self, codes: Tensor) -> Tensor:
        """Pixels (b, 3, t, h, w) in [-1, 1] of codes (b, 1, n)."""
        w, params = self.weights, self.params
        latents = F.normalize(w["codebook"], dim=-1)[codes[:, 0]]
        tokens = F.linear(latents, w["from_code.weight"], w["from_code.bias"]) + w["token_table"]
        asks = (w["patch_queries.table"] + w["patch_query_type"]).expand(len(codes), -1, -1)
        x = self._blocks("decoder", torch.cat((tokens, asks), 1), params.decoder_heads, params.decoder_depth)
        x = F.layer_norm(x[:, -asks.shape[1] :], (x.shape[-1],), w["norm_out.weight"], w["norm_out.bias"], 1e-6)
        x = F.linear(x, w["to_pixels.weight"], w["to_pixels.bias"])
        (t, h, width), pt, p = params.patches, params.temporal_patch_size, params.patch_size
        x = x.view(-1, t, h, width, pt, p, p, 3).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return (x.reshape(-1, 3, t * pt, h * p, width * p) * 2 - 1).clamp(-1, 1)


class PlainLarpAR:
    """Class-conditional sampling, one code after the other.

    Args:
        config: sizes; as many key-value heads as heads.
        weights: the state dict of ``LarpAR``.
    """

    def __init__(self, config: LarpARConfig, weights: dict[str, Tensor]):
        self.config, self.weights = config, weights

    def generate(
        self, labels: Tensor, *, num_tokens: int, cfg_scale: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw codes at temperature 1.

        Args:
            labels: (b,) classes.
            num_tokens: codes to draw.
            cfg_scale: guidance, 1.0 is off.
            generator: of the draws.

        Returns:
            (b, num_tokens) int64.
        """
        config, w = self.config, self.weights
        if cfg_scale != 1.0:
            labels = torch.cat((labels, torch.full_like(labels, config.num_classes)))
        b, length = len(labels), -(-(config.num_tokens + 1) // 8) * 8
        shape = (config.num_layers, b, config.num_heads, length, config.head_dim)
        dtype = w["output.weight"].dtype
        keys, values = (torch.zeros(shape, dtype=dtype, device=labels.device) for _ in range(2))
        causal = torch.ones(length, length, dtype=torch.bool, device=labels.device).tril()
        x = w["cls_embedding.embedding_table.weight"][labels][:, None]
        out = []
        for place in range(num_tokens):
            x = x + w["abs_pe"][:, place : place + 1]
            for layer in range(config.num_layers):
                x = self._layer(x, layer, place, keys[layer], values[layer], causal[place][None, None, None])
            x = self._norm(x, "norm")
            scores = F.linear(x[:, -1], w["output.weight"]).float()
            if cfg_scale != 1.0:
                asked, null = scores.chunk(2)
                scores = null + cfg_scale * (asked - null)
            code = torch.multinomial(scores.softmax(-1).cpu(), 1, generator=generator)[:, 0].to(labels.device)
            out.append(code)
            both = torch.cat((code, code)) if cfg_scale != 1.0 else code
            x = w["tok_embeddings.weight"][both][:, None]
        return torch.stack(out, 1)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.config.eps)
        return wide.to(x.dtype) * self.weights[f"{name}.weight"]

    def _layer(self, x: Tensor, layer: int, place: int, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        w, name, heads = self.weights, f"layers.{layer}", self.config.num_heads
        b, _, d = x.shape
        qkv = F.linear(self._norm(x, f"{name}.attention_norm"), w[f"{name}.attention.wqkv.weight"])
        q, k, v = (y.view(b, 1, heads, -1).transpose(1, 2) for y in qkv.split(d, -1))
        keys[:, :, place : place + 1], values[:, :, place : place + 1] = k, v
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        x = x + F.linear(y.transpose(1, 2).reshape(b, 1, d), w[f"{name}.attention.wo.weight"])
        y = self._norm(x, f"{name}.ffn_norm")
        gate = F.silu(F.linear(y, w[f"{name}.feed_forward.w1.weight"]))
        return x + F.linear(
            gate * F.linear(y, w[f"{name}.feed_forward.w3.weight"]), w[f"{name}.feed_forward.w2.weight"]
        )
