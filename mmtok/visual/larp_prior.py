"""LARP's learned prior: a small causal transformer that predicts the next quantised latent while the tokenizer trains.

Wang et al. 2024, arXiv 2410.21264, sections 3.2 and 3.3. It works on vectors, not on codes: its prediction is
normalised and compared with every codebook entry, so its logits are cosines in [-1, 1] and its cross entropy can only
move about one nat. Gradients reach the encoder through the latents that it reads. It is thrown away when the tokenizer
is trained.
Shape letters: b batch, n tokens, d latent width, k codebook entries, r rounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.nn.transformer import attend


@dataclass(frozen=True)
class LarpPriorParams:
    """Sizes of the prior and how it is trained.

    Attributes:
        num_layers: blocks.
        num_heads: heads.
        dim: width.
        max_tokens: longest sequence.
        dropout: on inputs, attention and branches, while training. Upstream applies it to attention in evaluation too.
        rounds: passes; from the second on, inputs are partly samples of the pass before (scheduled sampling).
        max_sampled_share: of places that are sampled, once the ramp is over.
        ramp: share of the training over which that share grows; 0 samples that share from the first step on.
        all_rounds: the loss is the mean over the rounds instead of the last one's.
        detach_rounds: rounds before the last are run without gradients and leave the loss.
        temperature: divides the cosines.
    """

    num_layers: int = 12
    num_heads: int = 6
    dim: int = 384
    max_tokens: int = 1024
    dropout: float = 0.1
    rounds: int = 2
    max_sampled_share: float = 0.5
    ramp: float = 0.3
    all_rounds: bool = True
    detach_rounds: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.rounds < 1 or not self.temperature > 0 or self.ramp < 0 or self.dim % self.num_heads:
            raise ValueError(
                f"a prior needs at least one round, a positive temperature, a ramp not below 0 and a width that its "
                f"heads divide, got {self}"
            )


class PriorAttention(nn.Module):
    """Causal attention with a projection and a bias for each of query, key and value."""

    def __init__(self, dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query, self.key, self.value, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Attend to the past and the present: (b, n, d) to (b, n, d)."""
        b, n, d = x.shape
        q, k, v = (f(x).view(b, n, self.num_heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        drop = self.dropout if self.training else 0.0
        y = (
            F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=drop)
            if drop
            else attend(q, k, v, causal=True)
        )
        return F.dropout(self.proj(y.transpose(1, 2).reshape(b, n, d)), self.dropout, self.training)


class PriorBlock(nn.Module):
    """Causal attention and MLP."""

    def __init__(self, dim: int, num_heads: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = PriorAttention(dim, num_heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Refine: (b, n, d) to (b, n, d)."""
        x = x + self.attn(self.ln1(x))
        return x + F.dropout(self.mlp(self.ln2(x)), self.dropout, self.training)


@dataclass(frozen=True)
class PriorOutput:
    """One evaluation of the prior.

    Attributes:
        loss: cross entropy in nats, scalar.
        logits: (r, b, n - 1, k) of the rounds that count.
        sampled: (b, n - 1, 1) bool, places that the later rounds drew from samples.
        last_input: (b, n, d) what the last round read.
    """

    loss: Tensor
    logits: Tensor
    sampled: Tensor
    last_input: Tensor

    def accuracy(self, ids: Tensor, top: int) -> Tensor:
        """Share of tokens among the first round's best, the first token left out.

        Args:
            ids: (b, n) codes.
            top: how many guesses count.

        Returns:
            Scalar in [0, 1].
        """
        return (self.logits[0].topk(top, -1).indices == ids[:, 1:, None]).any(-1).float().mean()


class LarpPrior(nn.Module):
    """The prior network and its loss.

    Args:
        params: sizes and training.
        code_dim: width of a latent.
    """

    def __init__(self, params: LarpPriorParams, code_dim: int):
        super().__init__()
        self.params = params
        self.input_proj = nn.Linear(code_dim, params.dim)
        self.pos_emb = nn.Parameter(torch.zeros(1, params.max_tokens, params.dim))
        self.blocks = nn.ModuleList(
            PriorBlock(params.dim, params.num_heads, params.dropout) for _ in range(params.num_layers)
        )
        self.ln_f, self.head = nn.LayerNorm(params.dim), nn.Linear(params.dim, code_dim)

    def forward(self, latents: Tensor) -> Tensor:
        """Predictions of every latent but the first from those before it.

        Args:
            latents: (b, n, d), at least two.

        Returns:
            (b, n, d) of unit length; place 0 is the first latent itself.
        """
        n = latents.shape[1]
        x = self.input_proj(latents[:, :-1]) + self.pos_emb[:, : n - 1]
        x = F.dropout(x, self.params.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return F.normalize(torch.cat((latents[:, :1], self.head(self.ln_f(x))), 1), dim=-1)

    def sampled_share(self, progress: float) -> float:
        """Share of sampled places in the later rounds."""
        most, ramp = self.params.max_sampled_share, self.params.ramp
        return most * min(1.0, max(0.0, progress) / ramp) if ramp else most

    def loss(
        self,
        latents: Tensor,
        ids: Tensor,
        codebook: Tensor,
        *,
        progress: float = 0.0,
        generator: torch.Generator | None = None,
        uniform: Tensor | None = None,
        samples: Tensor | None = None,
    ) -> PriorOutput:
        """Cross entropy of the next codes over all rounds.

        Args:
            latents: (b, n, d) quantised latents with their straight-through gradient.
            ids: (b, n) codes.
            codebook: (k, d) of unit length; no gradient reaches it.
            progress: of the training, 0 to 1; decides the share of sampled inputs.
            generator: draws places and samples.
            uniform: (b, n - 1, 1) numbers in [0, 1) instead of drawn ones; a place is sampled where they are below the
                share.
            samples: (rounds - 1, b, n - 1) codes instead of drawn ones.

        Returns:
            Loss, logits and what was sampled.
        """
        params, codebook = self.params, codebook.detach()
        b, n = ids.shape
        share = self.sampled_share(progress)
        if uniform is None:
            uniform = torch.rand(b, n - 1, 1, generator=generator).to(latents.device)
        sampled = uniform < share
        inputs, logits = latents, []
        for number in range(params.rounds):
            last = number == params.rounds - 1
            with torch.set_grad_enabled(torch.is_grad_enabled() and (last or not params.detach_rounds)):
                read = inputs if last or not params.detach_rounds else inputs.detach()
                cosines = self(read)[:, 1:] @ codebook.T / params.temperature
            if last or not params.detach_rounds:
                logits.append(cosines)
            if not last:
                drawn = samples[number] if samples is not None else _draw(cosines, generator)
                mixed = torch.where(sampled, codebook[drawn], latents[:, 1:])
                inputs = torch.cat((latents[:, :1], mixed), 1)
        kept = logits if params.all_rounds else logits[-1:]
        loss = torch.stack([F.cross_entropy(x.flatten(0, 1), ids[:, 1:].flatten()) for x in kept]).mean()
        return PriorOutput(loss, torch.stack(logits), sampled, inputs)


def _draw(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """(b, n) codes from (b, n, k) logits; a generator stays on the CPU whatever the device."""
    p = logits.detach().float().softmax(-1).flatten(0, 1)
    if generator is not None and generator.device != p.device:
        p = p.to(generator.device)
    return torch.multinomial(p, 1, generator=generator).view(logits.shape[:2]).to(logits.device)
