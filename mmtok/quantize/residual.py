"""Residual vector quantization: level after level codes what the levels before it left over.

SoundStream (arXiv 2107.03312, 3.3) with codebooks that are running means of the vectors assigned to them (VQ-VAE-2,
arXiv 1906.00446), started by k-means, with quantizer dropout per example. Two deviations, both measured to matter when
a step sees fewer vectors than there are codes:

- A code is dead when its running count falls below ``revival_threshold`` times the mean count of its codebook. The
  paper's absolute threshold of 2 would rewrite most of the book every step.
- Revival resets the running sum and the running count together with the code. Resetting the code alone, as widely
  copied code does, has no effect: the next update computes the code from the old sum again.

Dropped levels are left out of the sum but go on learning, so that high levels do not starve. An untrained encoder gives
nearly the same vector everywhere, so the k-means start can wait until enough vectors of several batches were gathered.

Processes that train together see one batch: every codebook learns from the vectors of all of them, and all draw the
same random numbers, so global generators must be seeded alike and examples shared in turn.

Shape letters: b batch, k levels, t frames, d width, n = b t vectors, v codes of one level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class CodebookLearning:
    """How codebooks follow the vectors they see in training; nothing here affects a trained model.

    Attributes:
        decay: share of the running sum and count that one step keeps.
        revival_threshold: a code whose running count is below this times the mean count is replaced; 0 never replaces.
        kmeans_iterations: rounds of k-means on the first vectors; 0 starts from random ones of them.
        start_vectors: vectors gathered before k-means, over as many batches as it takes; until then nothing is
            quantized. 0 starts with the first batch.
        level_dropout: probability that an example uses only its first n levels, n uniform in 1..num_codebooks.
        waits: True while codebooks that have not started shall not start either: latents pass as they are, and nothing
            is gathered. An encoder that is quantized before it hears anything learns to say what few codes can.
    """

    decay: float = 0.99
    revival_threshold: float = 0.5
    kmeans_iterations: int = 10
    start_vectors: int = 0
    level_dropout: float = 1.0
    waits: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {self.decay}")
        if not 0 <= self.revival_threshold < 1:
            raise ValueError(f"revival_threshold is relative to the mean use, in [0, 1), got {self.revival_threshold}")
        for name in ("kmeans_iterations", "start_vectors"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.level_dropout <= 1:
            raise ValueError(f"level_dropout is a probability, got {self.level_dropout}")


@dataclass(frozen=True)
class ResidualOutput:
    """What the quantizer returns in training.

    Attributes:
        quantized: (b, d, t) sum of the codes of the active levels; gradients pass straight through to the input.
        codes: (b, k, t) int64 of all levels.
        commitment_loss: () mean squared distance of every level's input to its code, relative to the latents' power, so
            that it neither outgrows the other losses where latents are large nor crushes them.
        active_levels: (b,) int64, levels that entered the sum.
    """

    quantized: Tensor
    codes: Tensor
    commitment_loss: Tensor
    active_levels: Tensor


def _world() -> tuple[int, int]:
    """Number of this process and how many train together."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def _of_all(value: Tensor) -> Tensor:
    """Examples (b, ...) of all processes in the order of the whole batch, which was shared in turn."""
    _, world = _world()
    if world == 1:
        return value
    parts = [torch.empty_like(value) for _ in range(world)]
    dist.all_gather(parts, value.contiguous())
    return torch.stack(parts, 1).flatten(0, 1)


def nearest_codes(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest code, by ``|x - e|^2 = |x|^2 - 2 x e + |e|^2`` without an (n, v, d) tensor.

    Args:
        vectors: (n, d) float32.
        codebook: (v, d) float32.

    Returns:
        (n,) int64; the lowest index on ties.
    """
    return torch.addmm(codebook.square().sum(-1), vectors, codebook.T, alpha=-2).argmin(-1)


def random_rows(vectors: Tensor, count: int) -> Tensor:
    """``count`` rows drawn from the global CPU generator, without repetition while there are enough."""
    if count == 0:
        return vectors[:0]
    n = vectors.shape[0]
    rounds = [torch.randperm(n) for _ in range(-(-count // n))]
    return vectors[torch.cat(rounds)[:count].to(vectors.device)]


def kmeans(vectors: Tensor, num_codes: int, iterations: int) -> Tensor:
    """Lloyd's algorithm from random rows; an emptied cluster restarts at a random row."""
    count = min(num_codes, vectors.shape[0])
    centres = random_rows(vectors, count)
    for _ in range(iterations):
        assigned = nearest_codes(vectors, centres)
        sizes = torch.bincount(assigned, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, assigned, vectors)
        empty = sizes == 0
        centres = sums / sizes.clamp(min=1).unsqueeze(-1)
        centres[empty] = random_rows(vectors, int(empty.sum()))
    surplus = random_rows(vectors, num_codes - count)
    jitter = 0.01 * vectors.std(0, correction=0) * torch.randn(surplus.shape).to(vectors.device)
    return torch.cat([centres, surplus + jitter])


class Codebook(nn.Module):
    """One level: codes that are running means. The running sum and count exist for training only and are not saved.

    Args:
        size: codes.
        dim: width of a code.
    """

    codes: Tensor
    running_sum: Tensor
    running_count: Tensor
    started: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("codes", torch.randn(size, dim) / dim**0.5)
        self.register_buffer("running_sum", self.codes.clone(), persistent=False)
        self.register_buffer("running_count", torch.ones(size), persistent=False)
        self.register_buffer("started", torch.zeros((), dtype=torch.bool), persistent=False)
        self.register_load_state_dict_post_hook(_restart_means)

    def restart_means(self, count: float = 1.0) -> None:
        """Take the present codes as learned."""
        self.running_sum.copy_(self.codes * count)
        self.running_count.fill_(count)
        self.started.fill_(True)

    @torch.no_grad()
    def start(self, vectors: Tensor, iterations: int) -> None:
        """Place the codes by k-means.

        Args:
            vectors: (n, d) float32 of a first batch.
            iterations: rounds of k-means.
        """
        self.codes.copy_(kmeans(vectors, self.codes.shape[0], iterations))
        self.restart_means(vectors.shape[0] / self.codes.shape[0])  # the mean use to come

    @torch.no_grad()
    def learn(self, vectors: Tensor, assigned: Tensor, learning: CodebookLearning) -> int:
        """Move the codes towards the vectors (n, d) assigned to them; how many dead ones were revived at others."""
        sizes = torch.bincount(assigned, minlength=self.running_count.shape[0]).float()
        sums = torch.zeros_like(self.running_sum).index_add_(0, assigned, vectors)
        self.running_count.lerp_(sizes, 1 - learning.decay)
        self.running_sum.lerp_(sums, 1 - learning.decay)

        mean_count = self.running_count.mean()
        dead = self.running_count < learning.revival_threshold * mean_count
        revived = int(dead.sum())
        if revived:
            self.running_count[dead] = mean_count
            self.running_sum[dead] = mean_count * random_rows(vectors, revived)

        count = self.running_count.unsqueeze(-1)
        # without revival the count of an unused code decays towards 0: such a code stays where it is
        self.codes.copy_(torch.where(count > 1e-6, self.running_sum / count.clamp(min=1e-6), self.codes))
        return revived


def _restart_means(module: nn.Module, _incompatible: object) -> None:
    """After weights were loaded, the running means start from them."""
    assert isinstance(module, Codebook), "registered on codebooks only"
    module.restart_means()


class ResidualVQ(nn.Module):
    """Residual quantizer of (b, d, t) latents into (b, k, t) codes. Distances and codes stay float32 under autocast.

    ``state_dict`` holds the codes only; ``training_state`` the rest that an exact resume needs. In training mode every
    forward pass updates the codebooks; random draws come from the global CPU generator.

    Args:
        dim: width of a latent.
        num_codebooks: levels.
        codebook_size: codes of one level.
        learning: how the codebooks learn; may be replaced between steps.
    """

    def __init__(self, *, dim: int, num_codebooks: int, codebook_size: int, learning: CodebookLearning | None = None):
        super().__init__()
        if min(dim, num_codebooks, codebook_size) < 1:
            raise ValueError(
                f"dim ({dim}), num_codebooks ({num_codebooks}) and codebook_size ({codebook_size}) must be positive"
            )
        self.dim, self.num_codebooks, self.codebook_size = dim, num_codebooks, codebook_size
        self.learning = learning or CodebookLearning()
        self.revived = [0] * num_codebooks  # codes revived in the last training step, by level
        self.gathered: list[Tensor] = []  # (n, d) vectors of the batches before the k-means start
        self.levels = nn.ModuleList(Codebook(codebook_size, dim) for _ in range(num_codebooks))

    def _books(self) -> list[Codebook]:
        return [level for level in self.levels if isinstance(level, Codebook)]

    def forward(self, latents: Tensor) -> ResidualOutput:
        """Quantize (b, d, t) of any float type to float32; in training mode also learn, and drop levels."""
        b, _, t = latents.shape
        with torch.autocast(latents.device.type, enabled=False):
            vectors = latents.float().transpose(1, 2).reshape(b * t, self.dim)  # (n, d)
            active = self._draw_active(b, vectors.device)  # (b,)
            if self.training and not self._books()[0].started and not self._start(vectors.detach(), t):
                return self._unquantized(latents, active)
            used = active.repeat_interleave(t).unsqueeze(-1)  # (n, 1)
            residual, total = vectors, torch.zeros_like(vectors)
            codes, losses = [], []
            power = vectors.detach().reshape(b, -1).square().mean(1)  # (b,)
            power = (_of_all(power) if self.training else power).mean().clamp(min=1e-6)
            for i, book in enumerate(self._books()):
                fixed = residual.detach()
                assigned = nearest_codes(fixed, book.codes)
                chosen = book.codes[assigned]  # a copy: the update below does not change it
                losses.append(F.mse_loss(residual, chosen) / power)
                total = total + chosen * (used > i)
                residual = residual - chosen
                codes.append(assigned)
                if self.training:
                    seen, theirs = (_of_all(x.view(b, t, -1)).flatten(0, 1) for x in (fixed, assigned))
                    self.revived[i] = book.learn(seen, theirs[:, 0], self.learning)
            # straight through: the value is the code sum, the gradient that of the identity
            quantized = vectors + (total - vectors).detach()
        return ResidualOutput(
            quantized=quantized.view(b, t, self.dim).transpose(1, 2),
            codes=torch.stack(codes, 1).view(b, t, -1).transpose(1, 2).contiguous(),
            commitment_loss=torch.stack(losses).mean(),
            active_levels=active,
        )

    def _start(self, vectors: Tensor, t: int) -> bool:
        """Gather the vectors of a batch, and place all levels by k-means once there are enough."""
        if self.learning.waits:
            return False
        self.gathered.append(_of_all(vectors.view(-1, t, self.dim)).flatten(0, 1))
        if sum(map(len, self.gathered)) < self.learning.start_vectors:
            return False
        residual = torch.cat(self.gathered)
        for book in self._books():
            book.start(residual, self.learning.kmeans_iterations)
            residual = residual - book.codes[nearest_codes(residual, book.codes)]
        self.gathered.clear()
        return True

    def _unquantized(self, latents: Tensor, active: Tensor) -> ResidualOutput:
        """Latents as they are, while the codebooks wait."""
        b, _, t = latents.shape
        return ResidualOutput(
            quantized=latents.float(),
            codes=torch.zeros(b, self.num_codebooks, t, dtype=torch.long, device=latents.device),
            commitment_loss=latents.new_zeros((), dtype=torch.float32),
            active_levels=active,
        )

    def _draw_active(self, b: int, device: torch.device) -> Tensor:
        """Levels in use by example: all outside training, else uniform in 1..k with probability ``level_dropout``."""
        active = torch.full((b,), self.num_codebooks)
        if self.training and self.learning.level_dropout > 0:
            rank, world = _world()
            dropped = (torch.rand(b * world) < self.learning.level_dropout)[rank::world]
            drawn = torch.randint(1, self.num_codebooks + 1, (b * world,))[rank::world]
            active = torch.where(dropped, drawn, active)
        return active.to(device)

    @torch.no_grad()
    def encode(self, latents: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Codes of latents; never learns, in training mode neither.

        Args:
            latents: (b, d, t).
            num_codebooks: first levels to compute, or None for all.

        Returns:
            (b, k, t) int64.

        Raises:
            ValueError: if ``num_codebooks`` is not in 1..k.
        """
        wanted = self.num_codebooks if num_codebooks is None else num_codebooks
        if not 1 <= wanted <= self.num_codebooks:
            raise ValueError(f"num_codebooks must lie in 1..{self.num_codebooks}, got {num_codebooks}")
        with torch.autocast(latents.device.type, enabled=False):
            b, _, t = latents.shape
            residual = latents.float().transpose(1, 2).reshape(b * t, self.dim)
            codes = []
            for book in self._books()[:wanted]:
                codes.append(nearest_codes(residual, book.codes.float()))
                residual = residual - book.codes[codes[-1]].float()
        return torch.stack(codes, 1).view(b, t, wanted).transpose(1, 2).contiguous()

    def decode(self, codes: Tensor) -> Tensor:
        """Sum of the codes of the given levels.

        Args:
            codes: (b, k, t) int64; k may be smaller than the number of levels, then the first levels are meant.

        Returns:
            (b, d, t) float32.

        Raises:
            ValueError: for a wrong shape or type, or a code outside the codebook.
        """
        if codes.ndim != 3 or codes.is_floating_point() or not 1 <= codes.shape[1] <= self.num_codebooks:
            raise ValueError(
                f"codes must be integers (b, k, t) with k in 1..{self.num_codebooks}, got {codes.dtype} of "
                f"{tuple(codes.shape)}"
            )
        if codes.numel() and (codes.min() < 0 or codes.max() >= self.codebook_size):
            raise ValueError(
                f"codes must lie in 0..{self.codebook_size - 1}, got {int(codes.min())}..{int(codes.max())}"
            )
        parts = [
            book.codes[codes[:, i]].float() for i, book in enumerate(self._books()[: codes.shape[1]])
        ]  # (b, t, d) each
        return torch.stack(parts).sum(0).transpose(1, 2)

    def training_state(self) -> dict[str, Tensor]:
        """Running means, start flags and gathered vectors by name, which ``state_dict`` leaves out."""
        state = {
            f"{i}.{name}": getattr(book, name).clone()
            for i, book in enumerate(self._books())
            for name in ("running_sum", "running_count", "started")
        }
        if self.gathered:
            state["gathered"] = torch.cat(self.gathered)
        return state

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Put back what ``training_state`` gave; call after ``load_state_dict``, which restarts the means.

        Args:
            state: name to tensor.

        Raises:
            ValueError: if the names do not match this quantizer.
        """
        own = self.training_state()
        if {*own, "gathered"} != {*state, "gathered"}:
            raise ValueError(f"training state does not fit: {sorted(set(own) ^ set(state))}")
        self.gathered = [state["gathered"].to(self._books()[0].codes.device)] if "gathered" in state else []
        for i, book in enumerate(self._books()):
            for name in ("running_sum", "running_count", "started"):
                getattr(book, name).copy_(state[f"{i}.{name}"])
