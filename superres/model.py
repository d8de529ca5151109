"""A bidirectional transformer that predicts high-resolution codes from low-resolution ones.

VideoPoet (Kondratyuk et al. 2023), section 3.3 and appendix A.5.2. Blocks of three layers look along one axis each;
a layer attends inside high-resolution windows, to the low-resolution window under each, and to the text. Widths,
heads, positions and the feed-forward part are unpublished: here pre-norm RMSNorm, query-key norm, SwiGLU and learned
positions, one table an axis.

Unusual here:
- nothing is autoregressive: all hidden codes are predicted at once, from both sides;
- windows are long along one axis in turn, so that three layers, not one attention over all, reach the whole clip;
- a code is its digits (factors), summed on the way in and with a head of its own each on the way out;
- what is attended to beside the high-resolution codes stays the same while they are decoded, so its keys and values are
  made once (``encode_context``) and every step of decoding reads them (``decode``).

Letters: b batch, t h w grid, d width, n tokens of a window or of the text, e width of a head. Codes lack the codebook
axis here: (b, t, h, w).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llm.compile_layers import compile_each
from mmtok.nn.norm import RMSNorm
from mmtok.pretrained import PretrainedModule
from superres.config import SuperResConfig
from superres.windows import Size, Windows, fit_window, low_size, merge_windows, partition, windows_for

FAMILY = "superres"
KeysValues = tuple[Tensor, Tensor]  # (b, heads, m, e) each, keys already normalised


def split_codes(codes: Tensor, factor_sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Write every code as digits, the least significant first.

    With sizes (512, 512) factor 0 holds the low and factor 1 the high nine bits of an 18-bit code.

    Args:
        codes: integers from 0 to the product of the sizes, any shape.
        factor_sizes: values of each factor.

    Returns:
        One tensor a factor, each shaped like ``codes``.

    Source: token factorization, MAGVIT-v2 (Yu et al. 2023), section 3.2.
    """
    factors = []
    for size in factor_sizes[:-1]:
        factors.append(codes % size)
        codes = codes // size
    return (*factors, codes)


def merge_codes(factors: tuple[Tensor, ...], factor_sizes: tuple[int, ...]) -> Tensor:
    """Put the digits of ``split_codes`` back together.

    Args:
        factors: one integer tensor a factor, all of one shape.
        factor_sizes: values of each factor.

    Returns:
        Codes of that shape.
    """
    codes = factors[-1]
    for factor, size in zip(reversed(factors[:-1]), reversed(factor_sizes[:-1]), strict=True):
        codes = codes * size + factor
    return codes


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention.

    For training on a CPU in bfloat16 the plain products are taken: with windows of a few hundred tokens a step is 1.2
    (with matrix units) to about 3 times as fast as with the fused kernel, whose forward pass alone is 1.5 to 4 times
    faster. Their scores are small.

    Args:
        q: (b, heads, n, head_dim).
        k: (b, heads, m, head_dim).
        v: (b, heads, m, head_dim).
        mask: (b, m) bool, True where a position may be attended to, or None for all.

    Returns:
        (b, heads, n, head_dim).
    """
    allowed = None if mask is None else mask[:, None, None, :]
    if not (q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1) @ v


class Attention(nn.Module):
    """Multi-head attention without biases, with normalised queries and keys.

    Args:
        dim: width of queries and result.
        context_dim: width of what is attended to.
        num_heads: heads; must divide ``dim``.
        eps: for the norms.
    """

    def __init__(self, dim: int, *, context_dim: int, num_heads: int, eps: float):
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.kv_proj = nn.Linear(context_dim, 2 * dim, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)
        self.q_norm = RMSNorm(dim // num_heads, eps=eps)
        self.k_norm = RMSNorm(dim // num_heads, eps=eps)

    def keys_values(self, context: Tensor) -> KeysValues:
        """What ``forward`` attends to: keys and values, each (b, heads, m, e), of a context (b, m, context_dim)."""
        k, v = rearrange(self.kv_proj(context), "b m (two heads e) -> two b heads m e", two=2, heads=self.num_heads)
        return self.k_norm(k), v

    def forward(self, x: Tensor, context: KeysValues, mask: Tensor | None = None) -> Tensor:
        """Attend from ``x`` to a context.

        Args:
            x: (b, n, dim).
            context: of ``keys_values``.
            mask: (b, m) bool, True where a position may be attended to, or None for all.

        Returns:
            (b, n, dim).
        """
        q = rearrange(self.q_proj(x), "b n (heads e) -> b heads n e", heads=self.num_heads)
        out = attend(self.q_norm(q), *context, mask)
        return self.o_proj(rearrange(out, "b heads n e -> b n (heads e)"))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020) without biases."""

    def __init__(self, dim: int, *, hidden_dim: int):
        super().__init__()
        self.gate_up_proj = nn.Linear(dim, 2 * hidden_dim, bias=False)
        self.down_proj = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class AxisLayer(nn.Module):
    """One layer: high-resolution window, low-resolution window, text, feed-forward; each pre-norm with a residual.

    Args:
        dim: width.
        num_heads: attention heads.
        hidden_dim: inner width of the feed-forward part.
        eps: for the norms.
    """

    def __init__(self, *, dim: int, num_heads: int, hidden_dim: int, eps: float):
        super().__init__()
        self.self_norm = RMSNorm(dim, eps=eps)
        self.self_attn = Attention(dim, context_dim=dim, num_heads=num_heads, eps=eps)
        self.low_norm = RMSNorm(dim, eps=eps)
        self.low_attn = Attention(dim, context_dim=dim, num_heads=num_heads, eps=eps)
        self.text_norm = RMSNorm(dim, eps=eps)
        self.text_attn = Attention(dim, context_dim=dim, num_heads=num_heads, eps=eps)
        self.mlp_norm = RMSNorm(dim, eps=eps)
        self.mlp = FeedForward(dim, hidden_dim=hidden_dim)

    def keys_values(self, low: Tensor, text: Tensor) -> tuple[KeysValues, KeysValues]:
        """What this layer attends to beside the high-resolution vectors.

        Args:
            low: (b, windows, m, d) low-resolution vectors, window i under window i of ``forward``.
            text: (b, length, d).

        Returns:
            Keys and values of the low-resolution windows, (b * windows, heads, m, e), and of the text.
        """
        return self.low_attn.keys_values(low.flatten(0, 1)), self.text_attn.keys_values(text)

    def forward(self, x: Tensor, low: KeysValues, text: KeysValues, text_mask: Tensor) -> Tensor:
        """Work on a grid that is already cut into windows.

        Args:
            x: (b, windows, n, d) high-resolution vectors.
            low: keys and values of the low-resolution windows.
            text: keys and values of the text.
            text_mask: (b, length) bool.

        Returns:
            (b, windows, n, d).
        """
        b, windows = x.shape[:2]
        x = x.flatten(0, 1)
        inside = self.self_norm(x)
        x = x + self.self_attn(inside, self.self_attn.keys_values(inside))
        x = x + self.low_attn(self.low_norm(x), low)
        # Text is the same for every window and has no place in the grid, so all windows of a clip ask at once.
        x = rearrange(x, "(b windows) n d -> b (windows n) d", b=b)
        x = x + self.text_attn(self.text_norm(x), text, text_mask)
        x = x + self.mlp(self.mlp_norm(x))
        return rearrange(x, "b (windows n) d -> b windows n d", windows=windows)


class CodeEmbedding(nn.Module):
    """Codes of a grid as vectors: the factors' embeddings and the three axes' positions, summed."""

    def __init__(self, factor_sizes: tuple[int, ...], *, grid: Size, dim: int):
        super().__init__()
        self.factor_sizes = factor_sizes
        self.factors = nn.ModuleList(nn.Embedding(size, dim) for size in factor_sizes)
        self.position_t = nn.Parameter(torch.empty(grid[0], dim))
        self.position_h = nn.Parameter(torch.empty(grid[1], dim))
        self.position_w = nn.Parameter(torch.empty(grid[2], dim))
        self.replacement = nn.Parameter(torch.empty(dim))

    def forward(self, codes: Tensor, known: Tensor) -> Tensor:
        """Embed the known codes; every other position gets the one replacement vector.

        Args:
            codes: (b, t, h, w); values where ``known`` is False are never looked at.
            known: bool that broadcasts to ``codes``.

        Returns:
            (b, t, h, w, d).
        """
        _, t, h, w = codes.shape
        parts = split_codes(codes.masked_fill(~known, 0), self.factor_sizes)
        x = self.factors[0](parts[0])
        for table, part in zip(self.factors[1:], parts[1:], strict=True):
            x = x + table(part)
        x = torch.where(known[..., None], x, self.replacement)
        return x + self.position_t[:t, None, None] + self.position_h[:h, None] + self.position_w[:w]


@dataclass(frozen=True)
class SuperResContext:
    """All that a clip's high-resolution codes are predicted from but themselves.

    Attributes:
        batch: clips.
        grid: (t, h, w) high-resolution tokens of a clip.
        layers: for each layer, keys and values of its low-resolution windows and of the text.
        text_mask: (b, length) bool, True where the text may be attended to.
        underneath: (b, t, h / 2, w / 2, d) what is added to the four positions above each low-resolution code, or None.
    """

    batch: int
    grid: Size
    layers: tuple[tuple[KeysValues, KeysValues], ...]
    text_mask: Tensor
    underneath: Tensor | None


class SuperResTransformer(PretrainedModule):
    """Masked high-resolution codes, low-resolution codes and text to logits of every high-resolution code's factors.

    Args:
        config: the sizes.

    Attributes:
        recompute: True computes each layer again for its gradients instead of keeping what is inside it.
    """

    family, params_class = FAMILY, SuperResConfig

    def __init__(self, config: SuperResConfig):
        super().__init__()
        self.config = self.params = config
        self.recompute = False
        # The replacement vector of ``embed`` stands for a masked code, that of ``low_embed`` for a dropped condition.
        self.embed = CodeEmbedding(config.factor_sizes, grid=config.grid, dim=config.dim)
        self.low_embed = CodeEmbedding(config.factor_sizes, grid=config.low_grid, dim=config.dim)
        self.low_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.text_proj = nn.Linear(config.text_dim, config.dim, bias=False)
        self.text_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.null_text = nn.Parameter(torch.empty(config.dim))
        # Layer i looks along axis i % 3; three layers are one block of the paper.
        self.layers = nn.ModuleList(
            AxisLayer(dim=config.dim, num_heads=config.num_heads, hidden_dim=config.hidden_dim, eps=config.norm_eps)
            for _ in range(3 * config.num_blocks)
        )
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.heads = nn.ModuleList(nn.Linear(config.dim, size, bias=False) for size in config.factor_sizes)
        self._initialise()

    def _initialise(self) -> None:
        """Normal weights of scale 0.02, smaller where a layer's four branches join the residual stream (GPT-2)."""
        joins = math.sqrt(4 * len(self.layers))
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(parameter)
            else:
                scale = 0.02 / joins if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
                nn.init.normal_(parameter, std=scale)

    def forward(
        self,
        codes: Tensor,
        masked: Tensor,
        low: Tensor,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        *,
        keep_low: Tensor | None = None,
        keep_text: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Predict every factor of every high-resolution code.

        Args:
            codes: (b, t, h, w) high-resolution codes; values under the mask are ignored.
            masked: (b, t, h, w) bool, True where the code is hidden, in all of its factors.
            low: (b, t, h / 2, w / 2) low-resolution codes of the same clip.
            text: (b, n, text_dim) text embeddings, or None for no text.
            text_mask: (b, n) bool, True where ``text`` holds a token, or None for everywhere.
            keep_low: (b,) bool, False where the low-resolution condition is dropped, or None to keep all.
            keep_text: (b,) bool, False where the text is dropped, or None to keep all.

        Returns:
            Logits (b, t, h, w, size), one tensor a factor.

        Raises:
            ValueError: if shapes disagree, or the grid is larger than the model's or not tiled by its windows.
        """
        context = self.encode_context(low, text, text_mask, keep_low=keep_low, keep_text=keep_text)
        return self.decode(codes, masked, context)

    def encode_context(
        self,
        low: Tensor,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        *,
        keep_low: Tensor | None = None,
        keep_text: Tensor | None = None,
    ) -> SuperResContext:
        """Keys and values of the low-resolution codes and of the text, for any number of calls of ``decode``.

        They take 2 * 3 * num_blocks * dim numbers a low-resolution token: 0.3 GB a clip for ``sr1-1b`` in bfloat16, 0.9
        for ``sr2-500m``.

        Args:
            low: (b, t, h / 2, w / 2) low-resolution codes.
            text: as in ``forward``.
            text_mask: as in ``forward``.
            keep_low: as in ``forward``.
            keep_text: as in ``forward``.

        Returns:
            The context.

        Raises:
            ValueError: if shapes disagree, or the grid is larger than the model's or not tiled by its windows.
        """
        if low.ndim != 4 or low.is_floating_point():
            raise ValueError(f"low must be integers (b, t, h, w), got {low.dtype} of {tuple(low.shape)}")
        grid = (low.shape[1], 2 * low.shape[2], 2 * low.shape[3])
        if any(size > most for size, most in zip(grid, self.config.grid, strict=True)):
            raise ValueError(f"the grid {grid} exceeds the model's {self.config.grid}; see with_grid()")
        windows = [low_size(window) for window in self._windows(grid)]

        if keep_low is None:
            keep_low = torch.ones(len(low), dtype=torch.bool, device=low.device)
        embedded = self.low_embed(low, keep_low[:, None, None, None].expand_as(low))
        below = self.low_norm(embedded)
        words, words_mask = self._text(len(low), text, text_mask, keep_text)
        cut = [partition(below, window) for window in windows]
        layers = cast(Iterable[AxisLayer], self.layers)
        return SuperResContext(
            batch=len(low),
            grid=grid,
            layers=tuple(layer.keys_values(cut[i % 3], words) for i, layer in enumerate(layers)),
            text_mask=words_mask,
            underneath=embedded if self.config.low_residual else None,
        )

    def decode(self, codes: Tensor, masked: Tensor, context: SuperResContext) -> tuple[Tensor, ...]:
        """Predict every factor of every high-resolution code under a context.

        Args:
            codes: as in ``forward``.
            masked: as in ``forward``.
            context: of ``encode_context``.

        Returns:
            Logits (b, t, h, w, size), one tensor a factor.

        Raises:
            ValueError: if shapes disagree.
        """
        self._require_codes(codes, masked, context)
        windows = self._windows(context.grid)

        # The high-resolution stream, cut along one axis after the other.
        x = self.embed(codes, ~masked)
        if context.underneath is not None:
            x = x + context.underneath.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        for i, (layer, (low, text)) in enumerate(zip(self.layers, context.layers, strict=True)):
            cut = partition(x, windows[i % 3])
            if self.recompute and torch.is_grad_enabled():
                cut = checkpoint(layer, cut, low, text, context.text_mask, use_reentrant=False)
            else:
                cut = layer(cut, low, text, context.text_mask)
            x = merge_windows(cut, windows[i % 3], context.grid)
        x = self.norm(x)
        return tuple(head(x) for head in self.heads)

    def _windows(self, grid: Size) -> list[Size]:
        return [fit_window(window, grid) for window in self.config.windows]

    def _text(
        self, batch: int, text: Tensor | None, text_mask: Tensor | None, keep_text: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Projected text behind one null position, which is visible exactly where no text is."""
        null = self.text_norm(self.null_text).expand(batch, 1, -1)
        if text is None:
            return null, torch.ones(batch, 1, dtype=torch.bool, device=null.device)
        if text.ndim != 3 or len(text) != batch or text.shape[2] != self.config.text_dim:
            expected = f"({batch}, n, {self.config.text_dim})"
            raise ValueError(f"text must have shape {expected}, got {tuple(text.shape)}")
        if text_mask is None:
            text_mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        if text_mask.shape != text.shape[:2]:
            raise ValueError(f"text_mask must have shape {tuple(text.shape[:2])}, got {tuple(text_mask.shape)}")
        if keep_text is not None:
            text_mask = text_mask & keep_text[:, None]
        words = torch.cat((null, self.text_norm(self.text_proj(text))), dim=1)
        return words, torch.cat((~text_mask.any(1, keepdim=True), text_mask), dim=1)

    @staticmethod
    def _require_codes(codes: Tensor, masked: Tensor, context: SuperResContext) -> None:
        if codes.ndim != 4 or codes.is_floating_point():
            raise ValueError(f"codes must be integers (b, t, h, w), got {codes.dtype} of {tuple(codes.shape)}")
        if masked.shape != codes.shape or masked.dtype != torch.bool:
            raise ValueError(
                f"masked must be bool of {tuple(codes.shape)}, got {masked.dtype} of {tuple(masked.shape)}"
            )
        if tuple(codes.shape) != (context.batch, *context.grid):
            raise ValueError(
                f"codes of {tuple(codes.shape)} do not lie on {context.batch} clips of low-resolution codes "
                f"{low_size(context.grid)}, whose grid is {context.grid}"
            )

    def compile_layers(self, *, backend: str = "inductor") -> bool:
        """Compile every layer by itself with ``torch.compile``; names and values of the weights stay.

        Each window, batch and length of the text is a form of its own, so let few of them occur.

        Args:
            backend: of ``torch.compile``.

        Returns:
            As ``llm.compile_layers.compile_each``.
        """
        return compile_each(self.layers, backend=backend)

    @torch.no_grad()
    def with_grid(self, grid: Size, windows: Windows | None = None) -> SuperResTransformer:
        """A copy for another grid: positions are interpolated linearly, all other weights kept.

        Args:
            grid: (t, h, w) high-resolution tokens of the copy.
            windows: its vertical, horizontal and temporal window, or None for those of ``windows_for``.

        Returns:
            A new model, meant to be trained further on that shape.

        Raises:
            ValueError: if no windows tile the grid.
        """
        windows = windows_for(grid) if windows is None else windows
        other = SuperResTransformer(dataclasses.replace(self.config, grid=grid, windows=windows))
        own = other.state_dict()
        for name, tensor in self.state_dict().items():
            if tensor.shape != own[name].shape:  # only position tables (length, d) depend on the grid
                tensor = F.interpolate(tensor.T[None], size=len(own[name]), mode="linear", align_corners=False)[0].T
            own[name] = tensor.clone()
        other.load_state_dict(own)
        return other.to(self.null_text)
