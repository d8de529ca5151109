"""The prefix language model: a decoder-only transformer over text vectors, visual and audio tokens.

VideoPoet (Kondratyuk et al. 2023, arXiv 2312.14125) publishes the sequence and says "decoder-only prefix LM"; the
layers are our choice: pre-norm RMSNorm, SwiGLU, rotary positions, normalised queries and keys, grouped key-value
heads, no biases. Weights of ``model.*`` and ``lm_head`` are named and shaped like transformers' Qwen3, so that
exports run elsewhere.

Unusual here:
- the prefix is read in both directions, the output causally, under one mask;
- text enters as frozen T5 vectors through one linear map (``text_proj``), not as ids;
- beside rotary positions learned vectors of (t, h, w) and (level, frame) are added, which prefix and output share, so
  that a place of a conditioning clip and the same place of the clip to be made look alike (``positions``);
- only the rows of the head that may stand at a place are evaluated, in training and in sampling;
- with ``visual_factors=2`` a visual code is two halves of nine bits, the high one scored given the low one.

Shape letters: b batch, n sequence, d width, v vocabulary, t h w grid, k audio levels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llm.attention import Attend, choose_attention
from llm.cache import KVCache
from llm.code_halves import HighGivenLow
from llm.compile_layers import compile_each
from llm.config import LMConfig
from llm.int8 import Int8Linear
from llm.sequence import Layout
from mmtok.audio.orders import flatten
from mmtok.nn.norm import RMSNorm
from mmtok.pretrained import PretrainedModule
from mmtok.vocabulary import Block, Vocabulary

FAMILY = "prefix-lm"


def rotary_tables(start: int, stop: int, *, head_dim: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the places ``start`` to ``stop``; the sine carries the sign of ``rotate``.

    Args:
        start: first place.
        stop: one past the last place.
        head_dim: width of a head.
        base: base of the frequencies.
        device: where the tables go.

    Returns:
        Two float32 tensors (stop - start, head_dim).
    """
    frequencies = base ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    angles = torch.arange(start, stop, device=device, dtype=torch.float32)[:, None] * frequencies
    sine = angles.sin()
    return angles.cos().repeat(1, 2), torch.cat((-sine, sine), dim=-1)


def rotate(x: Tensor, cosine: Tensor, signed_sine: Tensor) -> Tensor:
    """Turn the two halves of every head against each other, as Llama and Qwen do."""
    return x * cosine + x.roll(x.shape[-1] // 2, dims=-1) * signed_sine


class Attention(nn.Module):
    """Self-attention with grouped key-value heads, normalised queries and keys, and rotary positions."""

    def __init__(self, *, dim: int, num_heads: int, num_kv_heads: int, head_dim: int, eps: float):
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.q_proj = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(dim, num_kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(dim, num_kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(num_heads * head_dim, dim, bias=False)
        self.q_norm = RMSNorm(head_dim, eps)
        self.k_norm = RMSNorm(head_dim, eps)

    def forward(
        self, x: Tensor, *, attend: Attend, cosine: Tensor, sine: Tensor, layer: int, cache: KVCache | None = None
    ) -> Tensor:
        """Mix places.

        Args:
            x: (b, n, dim).
            attend: attention under this pass's mask.
            cosine: (n, head_dim).
            sine: (n, head_dim), signed.
            layer: this layer's number, the cache's key.
            cache: earlier places, or None.

        Returns:
            (b, n, dim).
        """
        b, n, _ = x.shape
        q, k, v = (p(x).view(b, n, -1, self.head_dim).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        q = rotate(self.q_norm(q), cosine, sine).to(v.dtype)
        k = rotate(self.k_norm(k), cosine, sine).to(v.dtype)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        out = attend(q, k, v)
        return self.o_proj(out.transpose(1, 2).reshape(b, n, -1))


class MLP(nn.Module):
    """Gated feed-forward layer (SwiGLU)."""

    def __init__(self, *, dim: int, hidden_dim: int):
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden_dim, bias=False)
        self.up_proj = nn.Linear(dim, hidden_dim, bias=False)
        self.down_proj = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each place: (b, n, dim) to (b, n, dim)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Attention, then feed-forward, each behind a norm and beside a skip.

    Args:
        attention: mixes places.
        mlp: transforms each place.
        dim: width of the stream.
        eps: of the norms.
    """

    def __init__(self, *, attention: Attention, mlp: MLP, dim: int, eps: float):
        super().__init__()
        self.self_attn = attention
        self.mlp = mlp
        self.input_layernorm = RMSNorm(dim, eps)
        self.post_attention_layernorm = RMSNorm(dim, eps)

    def forward(
        self, x: Tensor, *, attend: Attend, cosine: Tensor, sine: Tensor, layer: int, cache: KVCache | None = None
    ) -> Tensor:
        """One layer.

        Args:
            x: (b, n, dim).
            attend: as in ``Attention``.
            cosine: as in ``Attention``.
            sine: as in ``Attention``.
            layer: as in ``Attention``.
            cache: as in ``Attention``.

        Returns:
            (b, n, dim).
        """
        x = x + self.self_attn(
            self.input_layernorm(x), attend=attend, cosine=cosine, sine=sine, layer=layer, cache=cache
        )
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding table, layers and last norm, named as in transformers."""

    def __init__(self, config: LMConfig):
        super().__init__()
        self.head_dim, self.rope_base = config.head_dim, config.rope_base
        self.recompute_every: int | None = None  # see ``PrefixLM.checkpoint_layers``
        self.embed_tokens = nn.Embedding(config.table_size, config.dim)
        self.layers = nn.ModuleList(
            DecoderLayer(
                attention=Attention(
                    dim=config.dim,
                    num_heads=config.num_heads,
                    num_kv_heads=config.num_kv_heads,
                    head_dim=config.head_dim,
                    eps=config.norm_eps,
                ),
                mlp=MLP(dim=config.dim, hidden_dim=config.hidden_dim),
                dim=config.dim,
                eps=config.norm_eps,
            )
            for _ in range(config.num_layers)
        )
        self.norm = RMSNorm(config.dim, config.norm_eps)

    def forward(self, x: Tensor, *, mask: Tensor, cache: KVCache | None = None) -> Tensor:
        """Run all layers.

        Args:
            x: (b, n, dim) embedded places, behind those in the cache.
            mask: (b or 1, 1, n, places in the cache and here) bool, True where reading is allowed.
            cache: earlier places; receives these and is advanced.

        Returns:
            (b, n, dim), normalised.
        """
        start = cache.position if cache is not None else 0
        n = x.shape[1]
        attend = choose_attention(mask)
        cosine, sine = rotary_tables(start, start + n, head_dim=self.head_dim, base=self.rope_base, device=x.device)
        every = self.recompute_every if cache is None and torch.is_grad_enabled() else None
        for number, layer in enumerate(self.layers):
            given: dict[str, Any] = {"attend": attend, "cosine": cosine, "sine": sine, "layer": number}
            if every is not None and number % every == 0:  # no layer draws random numbers
                x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False, **given)
            else:
                x = layer(x, cache=cache, **given)
        if cache is not None:
            cache.advance(n)
        return self.norm(x)


class Positions(nn.Module):
    """Learned factorised positions: the sum of a vector per axis.

    Args:
        dim: width.
        max_grid: most slices, rows and columns of a visual grid.
        audio_levels: levels of the sound tokenizer.
        max_audio_frames: most frames of a level.
    """

    def __init__(self, *, dim: int, max_grid: tuple[int, int, int], audio_levels: int, max_audio_frames: int):
        super().__init__()
        self.time = nn.Embedding(max_grid[0], dim)
        self.height = nn.Embedding(max_grid[1], dim)
        self.width = nn.Embedding(max_grid[2], dim)
        self.level = nn.Embedding(max(audio_levels, 1), dim)
        self.frame = nn.Embedding(max(max_audio_frames, 1), dim)

    def forward(self, layout: Layout) -> Tensor:
        """Vectors of all places; markers and text have zeros.

        Args:
            layout: the sequence.

        Returns:
            (n, dim).

        Raises:
            ValueError: if a grid or a number of frames exceeds the tables.
        """
        tables = {"visual": (self.time, self.height, self.width), "audio": (self.level, self.frame)}
        pieces = []
        for s in layout.stretches:
            if s.kind not in tables:
                pieces.append(self.time.weight.new_zeros(s.length, self.time.embedding_dim))
                continue
            axes = tables[s.kind]
            first = (s.offset, 0, 0) if s.kind == "visual" else (0, s.offset)
            stops = tuple(o + size for o, size in zip(first, s.shape, strict=True))
            limits = tuple(axis.num_embeddings for axis in axes)
            if any(stop > limit for stop, limit in zip(stops, limits, strict=True)):
                raise ValueError(f"{s.name} reaches to {stops}, this model's position tables to {limits}")
            total: Any = 0.0
            for number, (axis, o, stop) in enumerate(zip(axes, first, stops, strict=True)):
                shape = [1] * len(axes) + [-1]
                shape[number] = stop - o
                total = total + axis.weight[o:stop].reshape(shape)
            if s.kind == "audio":  # (levels, frames, dim) in the order of the codes; nothing at empty places
                pieces.append(flatten(total.movedim(-1, 0), s.order, pad=0.0).t())
            else:
                pieces.append(total.reshape(s.length, -1))
        return torch.cat(pieces)


class PrefixLM(PretrainedModule):
    """Text vectors, visual and audio tokens in one sequence; see ``llm.sequence`` for its places.

    Args:
        config: sizes.
    """

    family, params_class = FAMILY, LMConfig

    def __init__(self, config: LMConfig):
        super().__init__()
        self.config = self.params = config
        self.model = Decoder(config)
        self.text_proj = nn.Linear(config.text_dim, config.dim, bias=False)
        self.positions = Positions(
            dim=config.dim,
            max_grid=config.max_grid,
            audio_levels=config.audio_levels,
            max_audio_frames=config.max_audio_frames,
        )
        self.lm_head: nn.Linear | Int8Linear = nn.Linear(config.dim, config.table_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.factors = config.factors
        if self.factors is not None:
            self.high_given_low = HighGivenLow(self.factors.size, config.dim)
        self._initialise()

    def _initialise(self) -> None:
        """Normal weights of deviation 0.02; what writes into the stream is smaller the deeper the model (GPT-2)."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
        for name, weight in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * self.config.num_layers))

    @property
    def vocabulary(self) -> Vocabulary:
        """The unified vocabulary."""
        return self.config.vocabulary

    def embed_ids(self, ids: Tensor) -> Tensor:
        """Vectors (..., dim) of ids of any shape, without text and positions."""
        if self.factors is not None:
            return self.factors.embed(ids, self.model.embed_tokens.weight)
        return self.model.embed_tokens(ids)  # type: ignore[no-any-return]

    def embed(self, ids: Tensor, layout: Layout, *, text: Tensor | None = None) -> Tensor:
        """Vectors that enter the first layer.

        Args:
            ids: (b, n) ids; those under text slots are not read.
            layout: the sequence.
            text: (b, text_slots, text_dim) vectors, needed when the layout has slots.

        Returns:
            (b, n, dim).

        Raises:
            ValueError: if text is missing, superfluous or of another shape.
        """
        slots = layout.text_slots
        if (text is None) != (slots == 0):
            raise ValueError(f"the layout has {slots} text slots, text is {'absent' if text is None else 'given'}")
        x = self.embed_ids(ids)
        if text is not None:
            expected = (ids.shape[0], slots, self.config.text_dim)
            if tuple(text.shape) != expected:
                raise ValueError(f"text must have shape {expected}, got {tuple(text.shape)}")
            at = layout.stretch("text")
            vectors = self.text_proj(text.to(x.dtype))
            x = torch.cat((x[:, : at.start], vectors, x[:, at.stop :]), dim=1)
        return x + self.positions(layout)

    def forward(
        self, ids: Tensor, layout: Layout, *, text: Tensor | None = None, text_mask: Tensor | None = None
    ) -> Tensor:
        """Last hidden vectors of complete sequences; ``logits`` turns the rows that matter into scores.

        Args:
            ids: (b, n) ids.
            layout: the sequence, shared by the batch.
            text: (b, text_slots, text_dim) vectors, or None without slots.
            text_mask: (b, text_slots) bool, True where a vector is; None reads all slots.

        Returns:
            (b, n, dim); row i predicts the id of place i + 1.
        """
        x = self.embed(ids, layout, text=text)
        mask = layout.attention_mask(text_mask).to(x.device)
        return self.model(x, mask=mask)

    def logits(self, hidden: Tensor, block: Block | None = None) -> Tensor:
        """Scores of the ids of one block.

        Args:
            hidden: (..., dim) rows of ``forward``.
            block: ids to score; None scores the whole padded vocabulary.

        Returns:
            (..., len(block)); those of halved visual codes are logarithms of joint probabilities.

        Raises:
            ValueError: if the whole vocabulary is asked for and visual codes are halved.
        """
        if block is None:
            if self.factors is not None:
                raise ValueError("a model with visual_factors=2 has no scores over the whole vocabulary; name a block")
            return self.lm_head(hidden)  # type: ignore[no-any-return]
        if self.factors is None:
            return self._head_rows(hidden, block)
        if not self.factors.is_visual(block):
            return self._head_rows(hidden, self.factors.block(block))
        first = block.start - self.vocabulary.visual.start
        return self.high_given_low.joint(hidden, *self._halves())[..., first : first + len(block)]

    def _head_rows(self, hidden: Tensor, block: Block) -> Tensor:
        if isinstance(self.lm_head, Int8Linear):
            return self.lm_head.rows(hidden, block.start, block.stop)
        return F.linear(hidden, self.lm_head.weight[block.start : block.stop])

    def _halves(self) -> tuple[Tensor, Tensor]:
        """Rows of the head of the low and of the high halves."""
        assert self.factors is not None, "asked of halved codes only"
        head, low, high = self.lm_head.weight, self.factors.low, self.factors.high
        return head[low.start : low.stop], head[high.start : high.stop]

    @property
    def is_quantized(self) -> bool:
        """Whether weights are int8."""
        return isinstance(self.lm_head, Int8Linear)

    def quantize_weights(self, kind: str = "int8") -> None:
        """Replace the matrices of layers and head by ones of fewer bits, in place and for good; for sampling only.

        Tables, text projection and norms stay floats.

        Args:
            kind: "int8", one byte a weight with a scale for each output.

        Raises:
            ValueError: for an unknown kind, or if it was done before.
        """
        if kind != "int8":
            raise ValueError(f"unknown kind of weights {kind!r}; known: int8")
        if self.is_quantized:
            raise ValueError("this model's weights are int8 already")
        self.requires_grad_(False).eval()
        for layer in self.model.layers:
            assert isinstance(layer, DecoderLayer), "the decoder is made of DecoderLayer"
            for part in (layer.self_attn, layer.mlp):
                for name, child in list(part.named_children()):
                    if isinstance(child, nn.Linear):
                        setattr(part, name, Int8Linear.of(child.weight))
        self.lm_head = Int8Linear.of(self.lm_head.weight)

    def checkpoint_layers(self, every: int | None = 1) -> None:
        """Forget what layers computed in training and compute it again on the way back; gradients stay the same.

        Args:
            every: 1 recomputes each layer, 2 every other one and so on, so that memory and time can be traded; None
                keeps everything.

        Raises:
            ValueError: if ``every`` is less than 1.
        """
        if every is not None and every < 1:
            raise ValueError(f"every ({every}) must be at least 1; None recomputes no layer")
        self.model.recompute_every = every

    def compile_layers(self, *, backend: str = "inductor") -> bool:
        """Compile every layer by itself with ``torch.compile``; names and values of the weights stay.

        With fused attention two forms serve all lengths; a CPU's blocked attention makes one for each number of blocks
        of 128 places.

        Args:
            backend: of ``torch.compile``.

        Returns:
            As ``llm.compile_layers.compile_each``.
        """
        return compile_each(self.model.layers, backend=backend)

    @classmethod
    def empty(cls, params: LMConfig) -> PrefixLM:
        """A model to be loaded into; initialised, because memory without weights would forget a tied head."""
        return cls(params)

    def _beside(self) -> dict[str, Any]:
        if self.is_quantized:
            raise ValueError(
                "weights made int8 for sampling are not saved; "
                "save the float model, with dtype=torch.int8 where the file should be int8"
            )
        return {"vocabulary": self.vocabulary.to_json()}

    def _take(self, config: dict[str, Any], folder: Path) -> None:
        if Vocabulary.from_json(config["vocabulary"]) != self.vocabulary:
            raise ValueError(f"{folder} names another vocabulary than its sizes give: {config['vocabulary']}")

    def _tied(self) -> tuple[str, ...]:
        return ("lm_head.weight",) if self.config.tie_embeddings else ()


def count_weights(config: LMConfig) -> dict[str, int]:
    """How many weights a model of these sizes has, without taking memory for them.

    Args:
        config: sizes.

    Returns:
        "body" (the layers, what presets are named after), "tables" (embeddings and head; a tied head counts once),
        "other" (text projection, positions, last norm) and "total".
    """
    with torch.device("meta"):
        model = PrefixLM(config)
    total = sum(weight.numel() for weight in model.parameters())
    body = sum(weight.numel() for weight in model.model.layers.parameters())
    tables = {id(w): w.numel() for w in (model.model.embed_tokens.weight, model.lm_head.weight)}
    in_tables = sum(tables.values())
    return {"body": body, "tables": in_tables, "other": total - body - in_tables, "total": total}
