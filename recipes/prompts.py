"""Prompts as a text encoder reads them, and what a user should know about that."""

from __future__ import annotations

from collections.abc import Sequence

from mmtok.text.t5 import TextTokenizer


def read_prompts(tokenizer: TextTokenizer, prompts: Sequence[str], *, most: int, notes: list[str]) -> list[str]:
    """The parts of prompts that fit, with notes about what was cut and about words that the vocabulary lacks.

    Args:
        tokenizer: of the text encoder.
        prompts: texts.
        most: ids that a prompt may have, the end token included.
        notes: receives one line for each thing that a user should know.

    Returns:
        The prompts, cut to whole words.
    """
    kept = []
    for prompt in prompts:
        read = tokenizer.tokenize(prompt, most)
        kept.append(read.kept)
        if read.cut:
            notes.append(f"the prompt is longer than {most} tokens; left out: {read.cut!r}")
        if strange := read.unknown.split():
            notes.append(f"the text encoder has no pieces for {', '.join(map(repr, strange))}: it hardly knows them")
    return kept
