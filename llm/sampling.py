"""From scores to ids: pure functions of logits and a generator.

Shape letters: b batch, v ids of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmtok.find import find

Generators = torch.Generator | Sequence[torch.Generator] | None
"""Where draws come from: one generator for all rows, one a row (a row's draws then do not depend on its neighbours), or
None for torch's global one."""


def noise(kind: str, shape: Sequence[int], generator: Generators, *, device: torch.device) -> Tensor:
    """Random numbers, drawn on the generator's own device, so that a CPU generator gives the same ones everywhere.

    Args:
        kind: "uniform" in [0, 1), or "exponential" of mean 1.
        shape: (b, ...).
        generator: one for all, or b of them, one a row.
        device: of the result, and of the draws without a generator.

    Returns:
        (b, ...) float32.

    Raises:
        ValueError: for another kind, or another number of generators than rows.
    """
    kinds: dict[str, Callable[..., Tensor]] = {
        "exponential": torch.Tensor.exponential_,
        "uniform": torch.Tensor.uniform_,
    }
    fill = find(kinds, kind, "kind of noise")
    if generator is None or isinstance(generator, torch.Generator):
        out = torch.empty(tuple(shape), device=generator.device if generator is not None else device)
        return fill(out, generator=generator).to(device)
    if len(generator) != shape[0]:
        raise ValueError(f"there are {shape[0]} rows and {len(generator)} generators; give one a row, or one for all")
    out = torch.empty(tuple(shape), device=generator[0].device)
    for row, own in zip(out, generator, strict=True):
        fill(row, generator=own)
    return out.to(device)


def guide(conditional: Tensor, unconditional: Tensor, cfg_scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): ``uncond + cfg_scale * (cond - uncond)``.

    Args:
        conditional: (b, v) scores with the text.
        unconditional: (b, v) scores without it.
        cfg_scale: 1.0 is off.

    Returns:
        (b, v) scores.
    """
    return torch.lerp(unconditional, conditional, cfg_scale)


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Scores with everything below the ``top_k`` best at minus infinity; ties with the last one stay."""
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}; None is off")
    if top_k >= logits.shape[-1]:
        return logits
    least = logits.topk(top_k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, float("-inf"))


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Scores with all but the smallest set of best ids of total probability ``top_p`` at minus infinity."""
    # Source: Holtzman et al. 2020, nucleus sampling.
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p}; None is off")
    ordered, order = logits.softmax(-1).sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered  # probability of all better ids
    dropped = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
    return logits.masked_fill(dropped, float("-inf"))


def sample(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: Generators = None,
) -> Tensor:
    """Draw one id per row.

    Temperature is applied first, then top-k, then top-p. Randomness is drawn on the generator's device, so that a CPU
    generator gives the same draws for models on any device.

    Args:
        logits: (b, v) scores.
        temperature: divides the scores; 0.0 takes the best id.
        top_k: keep only that many best ids; None is off.
        top_p: keep only the best ids of that total probability; None is off.
        generator: source of randomness, one for all rows or one a row; None is torch's global one.

    Returns:
        (b,) int64 positions in v.

    Raises:
        ValueError: if a setting is out of range.
    """
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, got {temperature}")
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None and top_p != 1:
        logits = keep_top_p(logits, top_p)
    # Gumbel-max draws from softmax(logits) exactly: argmax(logits - log(exponential)) (Maddison et al. 2014)
    drawn = noise("exponential", logits.shape, generator, device=logits.device)
    return (logits - drawn.log()).argmax(-1)


def film_generators(
    generator: torch.Generator | Sequence[torch.Generator] | None, films: int, candidates: int
) -> list[torch.Generator]:
    """A generator of its own for every film and candidate.

    Film i takes the i-th number of one generator, or its own generator where there is a list; candidate j of a film
    takes the j-th number of that. So a film depends neither on how many others are made beside it, nor on what they
    are.

    Args:
        generator: one for all, one a film, or None for seed 0.
        films: how many.
        candidates: how many of each.

    Returns:
        films * candidates generators on the CPU, the candidates of a film next to each other.

    Raises:
        ValueError: if the list has another length.
    """
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    if isinstance(generator, torch.Generator):
        own = [_child(generator) for _ in range(films)]
    else:
        own = list(generator)
        if len(own) != films:
            raise ValueError(f"there are {films} films and {len(own)} generators; give one a film, or one for all")
    return [_child(g) for g in own for _ in range(candidates)]


def _child(generator: torch.Generator) -> torch.Generator:
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))


def each_row(x: Tensor, count: int) -> Tensor:
    """Every film as often as it has candidates, next to each other.

    Args:
        x: (b, ...).
        count: rows wanted, a multiple of b.

    Returns:
        (count, ...).
    """
    return x if len(x) == count else x.repeat_interleave(count // len(x), dim=0)
