"""Fill a grid of high-resolution codes by parallel decoding, guided by text and by the low-resolution codes.

Decoding after MaskGIT (Chang et al. 2022) as in MAGVIT (Yu et al. 2022): every step draws all hidden codes and keeps
the most confident. Guidance on two conditions after InstructPix2Pix (Brooks et al. 2022); VideoPoet (appendix A.5.2)
takes 24 steps with text scale 4.0 and low-resolution scale 1.0 in its first stage, 8.0 and 2.0 in its second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llm.sampling import Generators, noise
from mmtok.find import require_known
from superres.corrupt import mask_ratio
from superres.model import SuperResTransformer, merge_codes

# Name to (text scale, low-resolution scale): no guidance, and the two published settings.
GUIDANCE: dict[str, tuple[float, float]] = {"none": (1.0, 1.0), "stage1": (4.0, 1.0), "stage2": (8.0, 2.0)}
# Name to the hidden share at a progress in [0, 1]. The first three are MaskGIT's; "root" shows many codes early.
SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {
    "cosine": mask_ratio,
    "linear": lambda progress: 1 - progress,
    "square": lambda progress: 1 - progress**2,
    "root": lambda progress: 1 - progress**0.5,
}


@dataclass(frozen=True)
class Decoding:
    """How a grid is filled; the defaults are those of VideoPoet's first stage.

    Attributes:
        num_steps: decoding steps.
        text_scale: strength of the text, 1.0 is neutral.
        low_scale: strength of the low-resolution codes, 1.0 is neutral.
        temperature: of the codes' distribution in the first step; 0.0 takes the likeliest.
        final_temperature: in the last step, on a straight line between; None stays at ``temperature``.
        choice_temperature: scale of the noise on the scores in the first step; 0.0 makes the order certain.
        schedule: how many codes stay hidden after each step, a name of ``SCHEDULES``.
    """

    num_steps: int = 24
    text_scale: float = 4.0
    low_scale: float = 1.0
    temperature: float = 1.0
    final_temperature: float | None = None
    choice_temperature: float = 4.5
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be positive, got {self.num_steps}")
        temperatures = [self.temperature, self.choice_temperature]
        temperatures += [] if self.final_temperature is None else [self.final_temperature]
        if any(value < 0 for value in temperatures):
            raise ValueError(f"temperatures must not be negative, got {' and '.join(map(str, temperatures))}")
        require_known(self.schedule, SCHEDULES, "schedule")

    def hidden_share(self, step: int) -> float:
        """Share of the codes that is hidden behind a step."""
        return float(SCHEDULES[self.schedule](torch.tensor((step + 1) / self.num_steps)))

    def temperature_at(self, step: int) -> float:
        """Temperature of the draws of a step."""
        if self.final_temperature is None or self.num_steps == 1:
            return self.temperature
        return self.temperature + (self.final_temperature - self.temperature) * step / (self.num_steps - 1)


def guidance_terms(text_scale: float, low_scale: float, *, has_text: bool) -> dict[tuple[bool, bool], float]:
    """The forward passes that guidance needs and the factor of each one's logits.

    With ``l(low, text)`` for logits under both conditions and ``0`` for a dropped one, the guided logits are
    ``l(0, 0) + low_scale * (l(low, 0) - l(0, 0)) + text_scale * (l(low, text) - l(low, 0))``. Passes whose factors
    cancel are left out: scales of 1.0 leave ``l(low, text)`` alone.

    Args:
        text_scale: strength of the text, 1.0 is neutral.
        low_scale: strength of the low-resolution codes, 1.0 is neutral.
        has_text: False when there is no text, so that ``text`` and ``0`` are the same.

    Returns:
        (low kept, text kept) to factor, only those that are not 0; the factors sum to 1.
    """
    terms = {(True, True): text_scale, (True, False): low_scale - text_scale, (False, False): 1.0 - low_scale}
    if not has_text:
        terms = {(True, False): low_scale, (False, False): 1.0 - low_scale}
    return {kept: factor for kept, factor in terms.items() if factor != 0.0}


def guided_logits(
    model: SuperResTransformer,
    low: Tensor,
    text: Tensor | None = None,
    text_mask: Tensor | None = None,
    *,
    text_scale: float = 4.0,
    low_scale: float = 1.0,
) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    """Logits under guidance as a function of (codes, masked): one (b, t, h, w, size) float32 tensor a factor."""
    # what is the same in every step is laid out once, and all passes of a step run as one batch
    terms = guidance_terms(text_scale, low_scale, has_text=text is not None)
    passes, weights = len(terms), tuple(terms.values())
    kept = torch.tensor(list(terms), device=low.device).repeat_interleave(len(low), dim=0)  # (passes * b, 2)
    context = model.encode_context(
        low.repeat(passes, 1, 1, 1),
        None if text is None else text.repeat(passes, 1, 1),
        None if text_mask is None else text_mask.repeat(passes, 1),
        keep_low=kept[:, 0],
        keep_text=kept[:, 1],
    )

    def logits_of(codes: Tensor, masked: Tensor) -> tuple[Tensor, ...]:
        logits = model.decode(codes.repeat(passes, 1, 1, 1), masked.repeat(passes, 1, 1, 1), context)
        return tuple(_weighted(factor_logits.float().chunk(passes), weights) for factor_logits in logits)

    return logits_of


def _weighted(parts: tuple[Tensor, ...], weights: tuple[float, ...]) -> Tensor:
    out = weights[0] * parts[0]
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        out = out + weight * part
    return out


def _draw(logits: Tensor, temperature: float, generator: Generators) -> tuple[Tensor, Tensor]:
    """Codes (...) drawn from logits (..., v), and their log-probabilities at temperature 1."""
    log_probs = logits.log_softmax(-1)
    if temperature == 0:
        choice = logits.argmax(-1, keepdim=True)
    else:
        # One uniform number a token, looked up in the cumulative distribution.
        bounds = (logits / temperature).softmax(-1).cumsum(-1)
        place = noise("uniform", bounds.shape[:-1], generator, device=bounds.device).to(bounds)
        choice = torch.searchsorted(bounds, place[..., None] * bounds[..., -1:], right=True)
        choice = choice.clamp(max=bounds.shape[-1] - 1)
    return choice[..., 0], log_probs.gather(-1, choice)[..., 0]


@torch.no_grad()
def sample(
    model: SuperResTransformer,
    low: Tensor,
    text: Tensor | None = None,
    text_mask: Tensor | None = None,
    *,
    pinned: Tensor | None = None,
    pinned_mask: Tensor | None = None,
    generator: Generators = None,
    on_step: Callable[[int, int], None] | None = None,
    **decoding: Any,
) -> Tensor:
    """High-resolution codes for low-resolution ones.

    Every step draws the factors of all hidden codes independently, scores a code by the sum of its factors'
    log-probabilities plus Gumbel noise that fades out, and hides the lowest-scored again, as many as the
    schedule says; a code is shown or hidden with all its factors. Run it under autocast for low precision.

    Args:
        model: the transformer, in eval mode.
        low: (b, t, h, w) low-resolution codes.
        text: (b, n, d) text embeddings, or None for no text.
        text_mask: (b, n) bool, True where ``text`` holds a token, or None for everywhere.
        pinned: (b, t, 2h, 2w) codes that are already known, or None.
        pinned_mask: the same shape, bool, True where ``pinned`` is to be kept.
        generator: source of all draws, one for the batch or one a row; None takes torch's global one.
        on_step: called with (steps done, steps in all).
        decoding: fields of ``Decoding`` that differ from its defaults, such as ``num_steps``.

    Returns:
        (b, t, 2h, 2w) int64 codes.

    Raises:
        ValueError: for settings that ``Decoding`` refuses, or a grid or pinned codes of the wrong shape.
    """
    settings = Decoding(**decoding)
    num_steps = settings.num_steps
    if (pinned is None) != (pinned_mask is None):
        raise ValueError("pinned and pinned_mask must be given together")
    if low.ndim != 4:
        raise ValueError(f"low must have shape (b, t, h, w), got {tuple(low.shape)}")
    batch, t, h, w = low.shape
    shape = (batch, t, 2 * h, 2 * w)

    codes = torch.zeros(shape, dtype=torch.int64, device=low.device)
    masked = torch.ones(shape, dtype=torch.bool, device=low.device)
    if pinned is not None and pinned_mask is not None:
        if pinned.shape != shape or pinned_mask.shape != shape:
            raise ValueError(
                f"pinned codes must have shape {shape}, got {tuple(pinned.shape)}, {tuple(pinned_mask.shape)}"
            )
        codes, masked = torch.where(pinned_mask, pinned, codes), ~pinned_mask
    at_start = masked.flatten(1).sum(1, keepdim=True)  # (b, 1)

    scales = {"text_scale": settings.text_scale, "low_scale": settings.low_scale}
    logits_of = guided_logits(model, low, text, text_mask, **scales)
    for step in range(num_steps):
        logits = logits_of(codes, masked)
        warmth = settings.temperature_at(step)
        drawn, log_probs = zip(*(_draw(logit, warmth, generator) for logit in logits), strict=True)
        codes = torch.where(masked, merge_codes(drawn, model.config.factor_sizes), codes)
        if on_step is not None:
            on_step(step + 1, num_steps)
        if step == num_steps - 1:
            break

        # Keep the most confident; at least one code becomes known and at least one stays hidden.
        progress = (step + 1) / num_steps
        uniform = noise("uniform", shape, generator, device=low.device)
        gumbel = -(-uniform.clamp(min=1e-20).log()).log()
        score = sum(log_probs) + settings.choice_temperature * (1 - progress) * gumbel
        score = score.masked_fill(~masked, math.inf).flatten(1)
        now = masked.flatten(1).sum(1, keepdim=True)
        hide = torch.minimum((at_start * settings.hidden_share(step)).floor().long().clamp(min=1), now - 1)
        rank = score.argsort(1).argsort(1)
        masked = (rank < hide).view(shape)
    return codes
