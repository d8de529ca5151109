"""Sampling of the output half: prefill the prefix once, then one place at a time from the cache.

The grammar is hard: the layout says which block (and which audio level) stands at each place, only that block's rows
of the head are evaluated, and markers and given codes are copied, not sampled. Guidance runs as one doubled batch; in
its null branch the text slots are closed to attention at the same places, exactly as text dropout closes them in
training, so that both branches have one length and one mask shape. Several candidates share one prefilled prefix.

Shape letters: b batch, n sequence, d width, v ids of a block; heads are spelled out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from llm.cache import KVCache
from llm.model import DecoderLayer, PrefixLM, rotary_tables
from llm.sampling import Generators, guide, sample
from llm.sequence import Layout
from llm.step_linear import HeadProduct, product
from mmtok.nn.norm import inverse_rms
from mmtok.vocabulary import Block


def _rms_norm(x: Tensor, weight: Tensor, eps: float, added: Tensor) -> Tensor:
    """``F.rms_norm``; on a CPU, where that is ten small operations, in half as many. ``added`` is ``eps``, a tensor."""
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return F.rms_norm(x, x.shape[-1:], None, eps) * weight
    return x * inverse_rms(x, added) * weight


class _StepLayer:
    """One layer's weights as a step uses them."""

    def __init__(self, layer: DecoderLayer):
        attention, mlp = layer.self_attn, layer.mlp
        self.norm_in = layer.input_layernorm.weight
        self.qkv = product(attention.q_proj, attention.k_proj, attention.v_proj)
        heads = [attention.q_norm.weight.expand(attention.num_heads, -1)]
        self.norm_qk = torch.cat([*heads, attention.k_norm.weight.expand(attention.num_kv_heads, -1)])
        self.out = product(attention.o_proj)
        self.norm_mlp = layer.post_attention_layernorm.weight
        self.gate_up = product(mlp.gate_proj, mlp.up_proj)
        self.down = product(mlp.down_proj)


class StepDecoder:
    """One place at a time: the model's layers with small products joined and everything constant computed beforehand.

    Rotary tables, position vectors and the bias that closes empty text slots exist for all places before the first
    step. Weights may be float32, bfloat16 or int8 (``PrefixLM.quantize_weights``).

    Args:
        model: the language model.
        layout: the sequence.
        readable: (b, n) bool, places that may be attended to; None opens all.
        batch_size: b.
    """

    def __init__(self, model: PrefixLM, layout: Layout, readable: Tensor | None, batch_size: int):
        config, weight = model.config, model.model.embed_tokens.weight
        self.model, self.layout, self.batch_size = model, layout, batch_size
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.eps, self.added = config.norm_eps, torch.tensor(config.norm_eps, device=weight.device)
        self.cache = KVCache(
            num_layers=config.num_layers,
            batch_size=batch_size,
            num_kv_heads=config.num_kv_heads,
            max_length=layout.length,
            head_dim=config.head_dim,
            device=weight.device,
            dtype=weight.dtype,
        )
        cosine, sine = rotary_tables(
            0, layout.length, head_dim=config.head_dim, base=config.rope_base, device=weight.device
        )
        self.cosine, self.sine = cosine.to(weight.dtype), sine.to(weight.dtype)
        self.positions = model.positions(layout).detach()
        self.bias = None
        if readable is not None and not bool(readable.all()):
            bias = torch.zeros(batch_size, 1, 1, layout.length, device=weight.device, dtype=weight.dtype)
            self.bias = bias.masked_fill_(~readable[:, None, None, :], float("-inf"))
        self.layers = []
        for layer in model.model.layers:
            assert isinstance(layer, DecoderLayer), "the decoder is made of DecoderLayer"
            self.layers.append(_StepLayer(layer))
        self.head = HeadProduct(model.lm_head)

    def prefill(self, x: Tensor, mask: Tensor) -> Tensor:
        """Run the first places together.

        Args:
            x: (b, m, d) embedded places from the start of the sequence.
            mask: (b or 1, 1, m, m) bool.

        Returns:
            (b, m, d) hidden vectors.
        """
        return self.model.model(x, mask=mask, cache=self.cache)

    def step(self, ids: Tensor) -> Tensor:
        """Run the next place: (b,) ids that stand there to (b, d) hidden vectors, which predict the place behind."""
        position = self.cache.position
        bias = None if self.bias is None else self.bias[..., : position + 1]
        cosine, sine = self.cosine[position], self.sine[position]
        b, heads, kv_heads, head_dim = self.batch_size, self.num_heads, self.num_kv_heads, self.head_dim
        x = self.model.embed_ids(ids) + self.positions[position]
        for number, layer in enumerate(self.layers):
            joined = layer.qkv(_rms_norm(x, layer.norm_in, self.eps, self.added)).view(b, -1, head_dim)
            turned, v = joined.split((heads + kv_heads, kv_heads), dim=1)
            turned = _rms_norm(turned, layer.norm_qk, self.eps, self.added)
            turned = torch.addcmul(turned * cosine, turned.roll(head_dim // 2, -1), sine)
            k, v = self.cache.append(number, turned[:, heads:, None], v[:, :, None])
            # heads that share keys stand as rows of one small matrix
            q = turned[:, :heads].view(b, kv_heads, heads // kv_heads, head_dim)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            x = layer.out.plus(x, mixed.reshape(b, -1))
            gate, up = layer.gate_up(_rms_norm(x, layer.norm_mlp, self.eps, self.added)).chunk(2, dim=-1)
            x = layer.down.plus(x, F.silu(gate) * up)
        self.cache.advance(1)
        return _rms_norm(x, self.model.model.norm.weight, self.eps, self.added)

    def fork(self, times: int) -> None:
        """Go on with every row ``times`` times, next to each other."""
        self.cache = self.cache.fork(times)
        self.bias = None if self.bias is None else self.bias.repeat_interleave(times, dim=0)
        self.batch_size *= times

    def keep(self, batch_size: int) -> None:
        """Go on with the first ``batch_size`` rows alone."""
        self.cache.keep(batch_size)
        self.bias = None if self.bias is None else self.bias[:batch_size]
        self.batch_size = batch_size

    def logits(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        """Scores of the ids ``start`` to ``stop`` only.

        Args:
            hidden: (b, d) from ``step``.
            start: first id.
            stop: one past the last id.

        Returns:
            (b, stop - start); those of halved visual codes are logarithms of joint probabilities.
        """
        if self.model.factors is not None:
            return self.model.logits(hidden, Block(start, stop))
        return self.head(hidden, start, stop)


def _doubled(text: Tensor, mask: Tensor, negative: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Conditional rows, then the null rows: the negative text, or closed slots."""
    null_text, null_mask = negative if negative is not None else (text, torch.zeros_like(mask))
    return torch.cat((text, null_text)), torch.cat((mask, null_mask))


@torch.inference_mode()
def generate(
    model: PrefixLM,
    layout: Layout,
    ids: Tensor,
    known: Tensor,
    *,
    text: Tensor | None = None,
    text_mask: Tensor | None = None,
    negative: tuple[Tensor, Tensor] | None = None,
    cfg_scale: float = 1.0,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    candidates: int = 1,
    generator: Generators = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Sample all unknown places of a batch of sequences.

    Args:
        model: the language model, in evaluation mode.
        layout: the sequence.
        ids: (b, n) ids from ``Layout.fill``; unknown places are not read.
        known: (n,) bool from ``Layout.fill``; the whole prefix is known.
        text: (b, text_slots, text_dim) vectors, needed when the layout has slots.
        text_mask: (b, text_slots) bool, True where a vector is; all False is "no caption".
        negative: vectors and mask of a negative prompt, which takes the place of the null branch.
        cfg_scale: guidance by the text; 1.0 is off.
        guidance_interval: shares of the output, from its first sampled place to its last, between which guidance works
            (Kynkäänniemi et al. 2024); behind it the null branch is not computed any more.
        temperature: 0.0 is greedy.
        top_k: keep only that many best ids of the block; None is off.
        top_p: keep only the best ids of that total probability; None is off.
        candidates: completions of each sequence, from one prefilled prefix.
        generator: source of randomness, one for all or one for each of the ``b * candidates`` rows. A row with its own
            generator gets the same draws in any batch.
        on_step: called with (places done, places in all) after each sampled place.

    Returns:
        (b * candidates, n) complete ids, the candidates of a sequence next to each other.

    Raises:
        ValueError: if the prefix is not wholly known, text and slots do not match, the interval is none, or there are
            no candidates.
    """
    if not bool(known[: layout.prefix_length].all()):
        raise ValueError("the prefix must be known as a whole; fill the layout with its inputs first")
    slots = layout.text_slots
    if (text is None) != (slots == 0) or (text is None) != (text_mask is None):
        raise ValueError(f"the layout has {slots} text slots; text and text_mask must match them")
    begin, end = guidance_interval
    if not 0 <= begin < end <= 1:
        raise ValueError(f"guidance_interval must be two shares with 0 <= first < last <= 1, got {guidance_interval}")
    if candidates < 1:
        raise ValueError(f"candidates must be at least 1, got {candidates}")
    b = ids.shape[0]
    out = ids.repeat_interleave(candidates, dim=0)
    free = (~known).nonzero().flatten().tolist()
    if not free:
        return out

    # guidance: only where there is something to guide by
    readable = None
    guided = False
    if text is not None and text_mask is not None:
        guided = cfg_scale != 1.0 and (negative is not None or bool(text_mask.any()))
        if guided:
            text, text_mask = _doubled(text, text_mask, negative)
        readable = layout.readable(text_mask)
    copies = 2 if guided else 1

    # the prefix, and what is given right behind it, in one pass
    first, stop = free[0], free[-1] + 1
    mask = layout.attention_mask(text_mask).to(ids.device)[:, :, :first, :first]
    decoder = StepDecoder(model, layout, readable, b * copies)
    embedded = model.embed(ids.repeat(copies, 1), layout, text=text)
    hidden = decoder.prefill(embedded[:, :first], mask)[:, -1]
    rows = b * candidates
    if candidates > 1:
        decoder.fork(candidates)
        hidden = hidden.repeat_interleave(candidates, dim=0)

    # one place at a time; a known place is fed without evaluating the head
    blocks = layout.blocks.tolist()
    free_places = set(free)
    for place in range(first, stop):
        share = (place - first) / (stop - first)
        if guided and share >= end:
            guided, hidden = False, hidden[:rows]
            decoder.keep(rows)
        if place in free_places:
            low, high = blocks[place]
            logits = decoder.logits(hidden, low, high)
            if guided:
                conditional, null = logits[:rows], logits[rows:]
                logits = guide(conditional, null, cfg_scale) if share >= begin else conditional
            out[:, place] = low + sample(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
            if on_step is not None:
                on_step(place + 1 - first, stop - first)
        if place < stop - 1:
            hidden = decoder.step(out[:, place].repeat(2) if guided else out[:, place])
    return out
