"""MAGVIT-v2 written down as the figure says it, with nothing done for speed: the reference of the benchmark.

Contiguous tensors, explicit padding, per-frame norms by reshaping, the adaptive norm's maps on the enlarged latent.
Takes the weights of ``mmtok.visual.magvit2.Magvit2`` (strictly causal, without a Haar patch).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from mmtok.visual.magvit2 import Magvit2Params


class PlainMagvit2:
    """Encoder and decoder as functions of a table of weights.

    Args:
        params: sizes; norms per frame, temporal kernel 3, no patch.
        weights: the state dict of ``Magvit2``.

    Raises:
        ValueError: for options that the plain form does not have.
    """

    def __init__(self, params: Magvit2Params, weights: dict[str, Tensor]):
        if (params.patch_size, params.norm_scope, params.temporal_kernel) != ((1, 1, 1), "frame", 3):
            raise ValueError("the plain form is the paper's network: no patch, norms per frame, temporal kernel 3")
        self.params, self.weights = params, weights

    def _conv(self, name: str, x: Tensor, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        t, h, w = weight.shape[2:]
        x = F.pad(x, (w // 2, w // 2, h // 2, h // 2, t - 1, 0))
        return F.conv3d(x, weight, self.weights.get(f"{name}.bias"), stride)

    def _norm(self, x: Tensor, name: str | None = None) -> Tensor:
        weight, bias = (None, None) if name is None else (self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        frames = F.group_norm(frames, self.params.norm_groups, weight, bias, 1e-6)
        return rearrange(frames, "(b t) c h w -> b c t h w", b=len(x))

    def _block(self, name: str, x: Tensor) -> Tensor:
        y = self._conv(f"{name}.conv1", F.silu(self._norm(x, f"{name}.norm1")))
        y = self._conv(f"{name}.conv2", F.silu(self._norm(y, f"{name}.norm2")))
        return y + (self._conv(f"{name}.shortcut", x) if f"{name}.shortcut.weight" in self.weights else x)

    def _blocks(self, name: str, x: Tensor) -> Tensor:
        count = 0
        while f"{name}.{count}.conv1.weight" in self.weights:
            x = self._block(f"{name}.{count}", x)
            count += 1
        return x

    def encode_latents(self, video: Tensor) -> Tensor:
        """(b, bits, t', h', w') latents before the sign, of (b, 3, t, h, w) in [-1, 1]."""
        x = self._conv("encoder.conv_in", video)
        levels = len(self.params.widths)
        for i in range(levels):
            x = self._blocks(f"encoder.levels.{i}", x)
            if i + 1 < levels:
                x = self._conv(f"encoder.downs.{i}", x, self.params.step_factor(i))
        x = self._blocks("encoder.mid", x)
        latents = self._conv("encoder.conv_out", F.silu(self._norm(x, "encoder.norm_out")))
        if self.params.normalize_latents:
            latents = latents * (latents.square().mean(1, keepdim=True) + 1e-6).rsqrt()
        return latents

    def decode_signs(self, signs: Tensor) -> Tensor:
        """(b, 3, t', h', w') pixels, not clamped, of (b, bits, t, h, w) of +-1."""
        x = self._blocks("decoder.mid", self._conv("decoder.conv_in", signs))
        for i in reversed(range(len(self.params.widths))):
            x = self._adaptive(i, x, signs)
            x = self._blocks(f"decoder.levels.{i}", x)
            if i > 0:
                x = self._up(i - 1, x)
        return self._conv("decoder.conv_out", F.silu(self._norm(x, "decoder.norm_out")))

    def _adaptive(self, level: int, x: Tensor, signs: Tensor) -> Tensor:
        ft, fh, fw = self.params.factor_from(level)
        latent = repeat(signs, "b c t h w -> b (t ft) (h fh) (w fw) c", ft=ft, fh=fh, fw=fw)[:, ft - 1 :]
        names, w = (f"decoder.norms.{level}.{part}" for part in ("gamma", "beta")), self.weights
        maps = [F.linear(latent, w[f"{name}.weight"], w[f"{name}.bias"]) for name in names]
        gamma, beta = (rearrange(one, "b t h w c -> b c t h w") for one in maps)
        return self._norm(x) * (1 + gamma) + beta

    def _up(self, step: int, x: Tensor) -> Tensor:
        ft, fh, fw = self.params.step_factor(step)
        x = self._conv(f"decoder.ups.{step}.conv", x)
        x = rearrange(x, "b (ft fh fw c) t h w -> b c (t ft) (h fh) (w fw)", ft=ft, fh=fh, fw=fw)
        return x[:, :, ft - 1 :] if self.params.dropped_frame == 0 else torch.cat((x[:, :, :1], x[:, :, ft:]), 2)
