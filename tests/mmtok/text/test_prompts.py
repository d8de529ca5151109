"""Prompts in any script are read, and what a vocabulary lacks is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmtok.text.t5 import TextTokenizer, read_prompts
from recipes.bundle.folder import open_bundle


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.from_folder(Path(open_bundle("tiny").part("text")))


def test_known_words_need_no_note(tokenizer: TextTokenizer) -> None:
    notes: list[str] = []
    prompt = "a red circle moves left on a dark plain background"
    assert read_prompts(tokenizer, [prompt], most=32, notes=notes) == [prompt] and notes == []


@pytest.mark.parametrize(("prompt", "strange"), [("красный круг", "красный"), ("红色", "红色"), ("a 🙂 star", "🙂")])
def test_other_scripts_are_read_and_told(tokenizer: TextTokenizer, prompt: str, strange: str) -> None:
    notes: list[str] = []
    assert strange in tokenizer.tokenize(prompt).unknown.split()
    assert read_prompts(tokenizer, [prompt], most=64, notes=notes) == [prompt]
    assert len(notes) == 1 and repr(strange) in notes[0] and "'star'" not in notes[0]
    notes.clear()
    (kept,) = read_prompts(tokenizer, [f"{prompt} " * 12], most=16, notes=notes)
    assert kept and any("left out" in note for note in notes)
