"""Length groups: every step trains one task, so that nothing is padded (AGD, Akbari et al. 2023; VideoPoet 4.2).

The group of a step is drawn from weights with a generator that depends on the seed and the step only: every rank
draws the same group without talking to the others, and a resumed run draws what it would have drawn. Batches have the
same number of tokens, so a step holds more images than clips.

Shape letters: b batch, n sequence, d text width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llm.sequence import Layout
from llm.tasks import TASKS, Clip, find_task, task_layout
from mmtok.vocabulary import Vocabulary


@dataclass(frozen=True)
class Batch:
    """Sequences of one layout.

    Attributes:
        layout: their places.
        ids: (b, n) int64.
        text: (b, text_slots, d) vectors, or None when the layout has no text span.
        text_mask: (b, text_slots) bool, True where a vector is; None without text.
        inputs: (b, n) int64 that the model reads in place of ``ids``, see ``drop_context``; None reads ``ids``.
    """

    layout: Layout
    ids: Tensor
    text: Tensor | None = None
    text_mask: Tensor | None = None
    inputs: Tensor | None = None


@dataclass(frozen=True)
class Group:
    """Tasks of one sequence length.

    Attributes:
        task: a key of ``TASKS``.
        given: slices given, for tasks that continue a clip.
        layout: places of all its sequences.
        weight: share of steps, before normalisation.
        clip: shape of its clips; without audio frames where the sound is left out.
    """

    task: str
    given: int | None
    layout: Layout
    weight: float
    clip: Clip

    @property
    def is_image(self) -> bool:
        """True when only one picture is written."""
        return TASKS[self.task].visual_out == "first"

    def batch_size(self, tokens_per_step: int) -> int:
        """Sequences that hold about ``tokens_per_step`` places, at least one.

        Args:
            tokens_per_step: places wanted.

        Returns:
            b.
        """
        return max(1, tokens_per_step // self.layout.length)


def make_groups(
    weights: dict[str, float],
    vocabulary: Vocabulary,
    clip: Clip,
    *,
    text_slots: int,
    given: tuple[int, ...] | None = None,
    silent_share: float = 0.0,
    audio_order: str = "level",
) -> list[Group]:
    """The groups of a mixture; a task that continues a clip becomes one group per number of given slices.

    Args:
        weights: task to share of steps, not negative; tasks of weight 0 are left out.
        vocabulary: where ids come from.
        clip: shape of the clips.
        text_slots: places for text.
        given: numbers of given slices, None for all from 1 to t - 1. Each task divides its weight among them.
        silent_share: part of the weight of tasks that write picture and sound which goes to writing the picture alone.
            Such sequences are a prefix of the whole ones but for <eos>, and much shorter.
        audio_order: in which audio codes stand, one of ``mmtok.audio.orders.ORDERS``.

    Returns:
        The groups, in the order of ``weights``.

    Raises:
        ValueError: for unknown tasks or orders, negative weights, a share outside [0, 1], or when nothing is left.
    """
    if not 0 <= silent_share <= 1:
        raise ValueError(f"silent_share ({silent_share}) must lie in [0, 1]")
    groups = []
    for name, weight in weights.items():
        task = find_task(name)
        if weight < 0:
            raise ValueError(f"the weight of {name} must not be negative, got {weight}")
        if weight == 0:
            continue
        choices = (given or tuple(range(1, clip.grid[0]))) if task.visual_in == "past" else (None,)
        can_be_silent = clip.audio_frames > 0 and task.audio_out == "whole" and not task.needs_audio
        silent = silent_share if can_be_silent else 0.0
        for part, shape in ((1 - silent, clip), (silent, Clip(clip.grid))):
            for choice in choices if part else ():
                layout = task_layout(
                    name, vocabulary, shape, text_slots=text_slots, given=choice, audio_order=audio_order
                )
                groups.append(Group(name, choice, layout, part * weight / len(choices), shape))
    if not groups:
        raise ValueError("no task has a positive weight")
    return groups


def group_shares(groups: list[Group], *, progress: float, image_share: tuple[float, float] | None = None) -> Tensor:
    """Probabilities of the groups at a moment of training.

    Args:
        groups: the mixture.
        progress: part of the training that is done, in [0, 1].
        image_share: share of image steps in the first quarter of training and afterwards, (0.9, 0.1) in VideoPoet; None
            takes the groups' weights as they are.

    Returns:
        (groups,) float64, summing to 1.

    Raises:
        ValueError: if ``image_share`` is given and there are only images, or none.
    """
    weights = torch.tensor([g.weight for g in groups], dtype=torch.float64)
    if image_share is None:
        return weights / weights.sum()
    image = torch.tensor([g.is_image for g in groups])
    if bool(image.all()) or not bool(image.any()):
        raise ValueError("image_share needs at least one image task and one other task")
    share = image_share[0] if progress < 0.25 else image_share[1]
    images, others = weights * image, weights * ~image
    return share * images / images.sum() + (1 - share) * others / others.sum()


def draw_group(groups: list[Group], shares: Tensor, generator: torch.Generator) -> Group:
    """One group at random.

    Args:
        groups: the mixture.
        shares: probabilities from ``group_shares``.
        generator: of this step, the same on every rank.

    Returns:
        The group.
    """
    return groups[int(torch.multinomial(shares, 1, generator=generator))]


def drop_context(ids: Tensor, layout: Layout, *, share: float, generator: torch.Generator) -> Tensor:
    """Overwrite part of what was already written, in the inputs only (word dropout, Bowman et al. 2016).

    A model that sees every earlier token learns to continue long before it learns to choose: what the caption says is
    told again by the first few tokens, so that reading the caption pays a hundredth of a nat. Where tokens are missing
    the caption is the only source, and a model used to wrong tokens is less led astray by its own. Half of the
    sequences stay whole; the others lose a share of their output content drawn from [0, ``share``], replaced by ids
    drawn from the place's own block.

    Args:
        ids: (b, n) sequences.
        layout: their places.
        share: largest share that is overwritten, in [0, 1].
        generator: decides everything.

    Returns:
        (b, n) int64, equal to ``ids`` in the prefix and at markers.

    Raises:
        ValueError: if ``share`` lies outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"context dropout ({share}) must lie in [0, 1]")
    b, n = ids.shape
    first, stop = layout.blocks.unbind(1)
    content = (torch.arange(n) >= layout.prefix_length) & (stop - first > 1)
    rate = share * (2 * torch.rand(b, 1, generator=generator) - 1)  # negative for half of them
    dropped = (torch.rand(b, n, generator=generator) < rate) & content
    other = first + (torch.rand(b, n, generator=generator) * (stop - first)).long()
    return torch.where(dropped, other, ids)


def fit_text(vectors: Tensor, mask: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Bring a text encoder's output to a layout's number of slots.

    Args:
        vectors: (b, m, d).
        mask: (b, m) bool, True where a vector is.
        slots: places wanted.

    Returns:
        Vectors (b, slots, d), zero where the mask is False, and the mask (b, slots).

    Raises:
        ValueError: if a text is longer than the slots.
    """
    longest = int(mask.sum(1).max()) if mask.numel() else 0
    if longest > slots:
        raise ValueError(f"a text has {longest} tokens, the model's sequences have {slots} text slots; shorten it")
    b, m, d = vectors.shape
    out, out_mask = vectors.new_zeros(b, slots, d), mask.new_zeros(b, slots)
    kept = min(m, slots)
    out[:, :kept] = vectors[:, :kept] * mask[:, :kept, None]
    out_mask[:, :kept] = mask[:, :kept]
    return out, out_mask
