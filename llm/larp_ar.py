"""LARP's generators: a Llama-like decoder over the codes of one clip, given a class or the codes of its first frames.

Wang et al. 2024, arXiv 2410.21264, section 4; the published "llama-abs" models. There are no rotary positions: one
table runs over condition and codes. Names of the weights are the published ones.
Shape letters: b batch, n codes, c condition places, d width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm.cache import KVCache
from llm.sampling import guide, sample
from mmtok.contract import require_range
from mmtok.find import find
from mmtok.nn.linear import Linear
from mmtok.nn.norm import RMSNorm
from mmtok.nn.transformer import attend, sine_table
from mmtok.pretrained import PretrainedModule, read_config, resolve_folder


@dataclass(frozen=True)
class LarpARConfig:
    """Sizes and options of a generator; the defaults are the published class-conditional model.

    Attributes:
        dim: width.
        num_layers: layers.
        num_heads: query heads.
        num_kv_heads: key and value heads; None for as many.
        hidden_dim: inner width of the feed-forward layers.
        vocab_size: codes of the tokenizer.
        num_tokens: codes of a clip.
        num_classes: class labels.
        class_dropout: share of labels replaced by the null class in training.
        frame_prediction: the condition is ``num_tokens`` codes and a separator instead of a class.
        fixed_positions: a sine table instead of a trained one.
        eps: of the norms.
        token_dropout: of the input vectors, in training.
        residual_dropout: of what attention and feed-forward layers add.
        drop_path: share of samples that skip a layer's branch, growing linearly over the layers to this.
    """

    dim: int = 1280
    num_layers: int = 30
    num_heads: int = 20
    num_kv_heads: int | None = None
    hidden_dim: int = 3584
    vocab_size: int = 8192
    num_tokens: int = 1024
    num_classes: int = 101
    class_dropout: float = 0.1
    frame_prediction: bool = False
    fixed_positions: bool = False
    eps: float = 1e-5
    token_dropout: float = 0.1
    residual_dropout: float = 0.1
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of num_heads ({self.num_heads})")
        if self.num_heads % self.kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.kv_heads})")

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.dim // self.num_heads

    @property
    def num_condition(self) -> int:
        """Places before the first code: a class, or codes and a separator."""
        return self.num_tokens + 1 if self.frame_prediction else 1


SIZES = {  # layers, heads, width, inner width
    "S": (12, 6, 384, 1024),
    "B": (12, 12, 768, 2048),
    "L": (24, 16, 1024, 2816),
    "LP": (30, 20, 1280, 3584),
    "XL": (36, 20, 1280, 3584),
    "XXL": (48, 24, 1536, 4096),
    "XXXL": (48, 40, 2560, 6912),
}


def larp_ar_config(size: str, **changes: Any) -> LarpARConfig:
    """A published size.

    Args:
        size: a key of ``SIZES``.
        changes: fields that differ.

    Returns:
        The config.

    Raises:
        ValueError: for an unknown size.
    """
    layers, heads, dim, hidden = find(SIZES, size, "LARP generator")
    sizes = {"num_layers": layers, "num_heads": heads, "dim": dim, "hidden_dim": hidden}
    return LarpARConfig(**(sizes | changes))


class LarpAttention(nn.Module):
    """Causal attention with grouped key-value heads in one fused projection."""

    def __init__(self, config: LarpARConfig):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.num_heads, config.kv_heads, config.head_dim
        self._grouped = config.kv_heads != config.num_heads
        self.wqkv = Linear(config.dim, (config.num_heads + 2 * config.kv_heads) * config.head_dim, bias=False)
        self.wo = Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, layer: int, cache: KVCache | None) -> Tensor:
        """Attend to the past and the present.

        Args:
            x: (b, n, d).
            layer: this layer's number, the cache's key.
            cache: earlier places, or None.

        Returns:
            (b, n, d).
        """
        b, n, d = x.shape
        width = self.kv_heads * self.head_dim
        q, k, v = (
            y.view(b, n, -1, self.head_dim).transpose(1, 2) for y in self.wqkv(x).split([d, width, width], dim=-1)
        )
        if cache is not None:
            k, v = cache.append(layer, k, v)
        if n == k.shape[2]:
            k, v = (y.repeat_interleave(self.heads // self.kv_heads, 1) if self._grouped else y for y in (k, v))
            y = attend(q, k, v, causal=n > 1)
        else:  # one place behind a cache
            y = F.scaled_dot_product_attention(q, k, v, is_causal=n > 1, enable_gqa=self._grouped)
        return self.wo(y.transpose(1, 2).reshape(b, n, d))  # type: ignore[no-any-return]


class LarpFeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, config: LarpARConfig):
        super().__init__()
        self.w1 = Linear(config.dim, config.hidden_dim, bias=False)
        self.w3 = Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = Linear(config.hidden_dim, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each place: (b, n, d) to (b, n, d)."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))  # type: ignore[no-any-return]


class LarpLayer(nn.Module):
    """Attention and feed-forward, each behind a norm and beside the identity.

    Args:
        config: sizes and dropouts.
        drop_path: share of samples whose branch is left out in training.
    """

    def __init__(self, config: LarpARConfig, drop_path: float):
        super().__init__()
        self.dropout, self.drop_path = config.residual_dropout, drop_path
        self.attention, self.feed_forward = LarpAttention(config), LarpFeedForward(config)
        self.attention_norm, self.ffn_norm = RMSNorm(config.dim, config.eps), RMSNorm(config.dim, config.eps)

    def forward(self, x: Tensor, layer: int, cache: KVCache | None) -> Tensor:
        """One layer.

        Args:
            x: (b, n, d).
            layer: its number.
            cache: earlier places, or None.

        Returns:
            (b, n, d).
        """
        x = x + self._branch(self.attention(self.attention_norm(x), layer, cache))
        return x + self._branch(self.feed_forward(self.ffn_norm(x)))

    def _branch(self, y: Tensor) -> Tensor:
        if not self.training:
            return y
        y = F.dropout(y, self.dropout)
        if self.drop_path:
            kept = torch.rand(len(y), 1, 1, device=y.device) >= self.drop_path
            y = y * kept / (1 - self.drop_path)
        return y


class _ClassTable(nn.Module):
    """Class vectors; the last one is the null class."""

    def __init__(self, num_classes: int, dim: int):
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, dim)


class LarpAR(PretrainedModule):
    """The generator.

    Args:
        config: sizes and options.
    """

    params_class = LarpARConfig
    abs_pe: Tensor

    def __init__(self, config: LarpARConfig):
        super().__init__()
        self.config = self.params = config
        self.family = "larp-ar-fp" if config.frame_prediction else "larp-ar"
        self.classes: tuple[str, ...] = ()  # names of the labels, where they are known
        self.given_frames = 5  # frames that a frame prediction model was trained to start from, 5 as published
        separator = int(config.frame_prediction)
        self.tok_embeddings = nn.Embedding(config.vocab_size + separator, config.dim)
        if not config.frame_prediction:
            self.cls_embedding = _ClassTable(config.num_classes, config.dim)
        places = config.num_condition + config.num_tokens - 1
        if config.fixed_positions:
            self.register_buffer("abs_pe", sine_table(torch.arange(places), config.dim)[None])
        else:
            self.abs_pe = nn.Parameter(torch.empty(1, places, config.dim))
        rates = torch.linspace(0, config.drop_path, config.num_layers, device="cpu").tolist()
        self.layers = nn.ModuleList(LarpLayer(config, rate) for rate in rates)
        self.norm = RMSNorm(config.dim, config.eps)
        self.output = Linear(config.dim, config.vocab_size, bias=False)
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.02)
        nn.init.zeros_(self.output.weight)

    def condition_vectors(self, condition: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """What stands before the codes.

        Args:
            condition: (b,) class labels, negative for none; or (b, num_tokens) codes for frame prediction.
            generator: of the label dropout in training, on the CPU.

        Returns:
            (b, c, d).

        Raises:
            ValueError: for another shape, or labels or codes out of range.
        """
        config = self.config
        if config.frame_prediction:
            _require_integers("codes of the condition", condition)
            separated = condition.ndim == 2 and condition.shape[1] == config.num_tokens + 1
            if separated and bool((condition[:, -1] == config.vocab_size).all()):  # as upstream hands it over
                condition = condition[:, :-1]
            if condition.ndim != 2 or condition.shape[1] != config.num_tokens:
                raise ValueError(
                    f"frame prediction needs (b, {config.num_tokens}) codes of the first frames, got "
                    f"{tuple(condition.shape)}"
                )
            require_range(condition, config.vocab_size, "codes of the condition")
            ids = F.pad(condition, (0, 1), value=config.vocab_size)  # the separator
            return self.tok_embeddings(ids)  # type: ignore[no-any-return]
        _require_integers("class labels", condition)
        if condition.ndim != 1 or not len(condition):
            raise ValueError(f"class labels have shape (b,), got {tuple(condition.shape)}")
        if condition.numel() and int(condition.max()) >= config.num_classes:
            raise ValueError(f"class {int(condition.max())} is unknown; known: 0 to {config.num_classes - 1}")
        labels = torch.where(condition < 0, config.num_classes, condition)
        if self.training and config.class_dropout:
            dropped = torch.rand(labels.shape, generator=generator).to(labels.device) < config.class_dropout
            labels = torch.where(dropped, config.num_classes, labels)
        return self.cls_embedding.embedding_table(labels)[:, None]  # type: ignore[no-any-return]

    def forward(self, ids: Tensor, condition: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Scores of the first ``n + 1`` codes.

        Args:
            ids: (b, n) codes, fewer than ``num_tokens``.
            condition: see ``condition_vectors``.
            generator: of the label dropout.

        Returns:
            (b, n + 1, v); place i scores code i.

        Raises:
            ValueError: for ids out of range or too many of them.
        """
        require_range(ids, self.config.vocab_size, "codes")
        if ids.ndim != 2 or len(ids) != len(condition):
            raise ValueError(f"codes have shape ({len(condition)}, n) beside that condition, got {tuple(ids.shape)}")
        if ids.shape[1] >= self.config.num_tokens:
            raise ValueError(f"{ids.shape[1]} codes leave none to predict of {self.config.num_tokens}")
        before = self.condition_vectors(condition, generator=generator)
        x = torch.cat((before, self.tok_embeddings(ids)), 1)
        x = F.dropout(x, self.config.token_dropout, self.training)
        return self.output(self._run(x)[:, before.shape[1] - 1 :])  # type: ignore[no-any-return]

    def _run(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        first = 0 if cache is None else cache.position
        x = x + self.abs_pe[:, first : first + x.shape[1]].to(x.dtype)
        for number, layer in enumerate(self.layers):
            x = layer(x, number, cache)
        if cache is not None:
            cache.advance(x.shape[1])
        return self.norm(x)  # type: ignore[no-any-return]

    def loss(
        self, ids: Tensor, condition: Tensor, *, valid: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean cross entropy of all codes.

        Args:
            ids: (b, num_tokens) codes.
            condition: see ``condition_vectors``.
            valid: (b,) weights of the clips, or None for ones.
            generator: of the label dropout.

        Returns:
            Scalar, nats a code.
        """
        require_range(ids, self.config.vocab_size, "codes")
        scores = self(ids[:, :-1], condition, generator=generator)
        each = F.cross_entropy(scores.flatten(0, 1).float(), ids.flatten(), reduction="none").view(ids.shape)
        if valid is None:
            return each.mean()
        weights = valid.to(each.dtype)[:, None].expand_as(each)
        return (each * weights).sum() / weights.sum().clamp_min(1)

    @torch.inference_mode()
    def generate(
        self,
        condition: Tensor,
        *,
        num_tokens: int | None = None,
        cfg_scale: float = 1.0,
        cfg_steps: int | None = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Draw the codes of clips one after the other.

        Args:
            condition: see ``condition_vectors``.
            num_tokens: codes to draw, None for a whole clip.
            cfg_scale: guidance by the class, 1.0 is off; both halves run as one doubled batch.
            cfg_steps: steps behind the first code that are still guided, None for all. (Upstream's interval ``k`` is
                ``k + 1`` here.)
            temperature: divides the scores; 0.0 takes the best code.
            top_k: keep only that many best codes.
            top_p: keep only the best codes of that total probability.
            generator: source of randomness.
            on_step: called with the number of each code and its guided scores (b, v).

        Returns:
            (b, num_tokens) int64.

        Raises:
            ValueError: if guidance is asked of a frame prediction model, or a number is out of range.
            FloatingPointError: if the type of the weights is too narrow for them.
        """
        config = self.config
        count = config.num_tokens if num_tokens is None else num_tokens
        if not 1 <= count <= config.num_tokens:
            raise ValueError(f"num_tokens ({count}) must lie in [1, {config.num_tokens}]")
        if config.frame_prediction and cfg_scale != 1.0:
            raise ValueError("frame prediction has no null condition to guide against; use cfg_scale 1.0")
        if cfg_steps is not None and cfg_scale == 1.0:
            raise ValueError("cfg_steps says how long guidance lasts; give cfg_scale too")
        if cfg_steps is not None and cfg_steps < 0:
            raise ValueError(f"cfg_steps ({cfg_steps}) must not be negative")
        b = len(condition)
        guided = cfg_scale != 1.0
        given = torch.cat((condition, torch.full_like(condition, -1))) if guided else condition
        x = self.condition_vectors(given)
        cache = KVCache(
            num_layers=config.num_layers,
            batch_size=len(given),
            num_kv_heads=config.kv_heads,
            max_length=x.shape[1] + count - 1,
            head_dim=config.head_dim,
            device=x.device,
            dtype=x.dtype,
        )
        ids: list[Tensor] = []
        for step in range(count):
            scores = self.output(self._run(x, cache)[:, -1]).float()
            if guided:
                scores = guide(scores[:b], scores[b:], cfg_scale)
            if not bool(torch.isfinite(scores).all()):
                raise FloatingPointError(f"scores of code {step} are not finite in {x.dtype}; sample in float32")
            if on_step is not None:
                on_step(step, scores)
            ids.append(sample(scores, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator))
            if guided and cfg_steps is not None and step >= cfg_steps:
                guided = False
                cache.keys, cache.values = cache.keys[:, :b], cache.values[:, :b]
            x = self.tok_embeddings(ids[-1])[:, None]
            x = torch.cat((x, x)) if guided else x
        return torch.stack(ids, 1)

    def _beside(self) -> dict[str, Any]:
        named: dict[str, Any] = {"classes": list(self.classes)} if self.classes else {}
        return named | ({"given_frames": self.given_frames} if self.config.frame_prediction else {})

    def _take(self, config: dict[str, Any], folder: Path) -> None:
        self.classes, self.given_frames = tuple(config.get("classes", ())), int(config.get("given_frames", 5))

    @classmethod
    def from_pretrained(cls, name: str | Path) -> LarpAR:
        """Load a saved model in float32, ready to use; ``llm.loading.load_larp`` takes published ones too.

        Args:
            name: folder or hub id.

        Returns:
            The model in eval mode.

        Raises:
            ValueError: if the folder holds something else.
        """
        folder = resolve_folder(name)
        values = read_config(folder)
        if values["family"] not in ("larp-ar", "larp-ar-fp"):
            raise ValueError(f"{folder} holds a {values['family']!r} model, expected 'larp-ar' or 'larp-ar-fp'")
        return cls._loaded(values, folder)


def _require_integers(what: str, ids: Tensor) -> None:
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"{what} must be integers, got {ids.dtype}")
