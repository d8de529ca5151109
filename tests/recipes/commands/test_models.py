"""cinepoet models: parts, sizes, families and where they come from."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

Cinepoet = Callable[..., tuple[int, str, str]]


def test_models_lists_parts_sizes_and_families(cinepoet: Cinepoet, bundle: Path) -> None:
    code, shown, _ = cinepoet("models", bundle)
    assert code == 0
    assert "17 frames of 32x32 at 8 fps, then 64x64" in shown and "Apache-2.0" in shown
    assert "tasks: text_to_video, text_to_image" in shown and "continue_av" in shown
    assert "further lengths: 25; aspects: portrait; sources: clean, raw" in shown
    for part in ("visual", "audio", "text", "lm", "superres"):
        assert re.search(rf"^    {part} .*M parameters", shown, re.M), shown
    code, shown, _ = cinepoet("models")
    assert code == 0
    for word in ("magvit2-base", "soundstream-16k", "8b", "sr1-1b", "families"):
        assert word in shown


def test_models_lists_the_families_with_their_hub_ids(cinepoet: Cinepoet) -> None:
    code, shown, _ = cinepoet("models")
    assert code == 0
    for line in ("encodec      audio", "dac          audio", "mimi         audio"):
        assert line in shown
    assert "published weights: CC-BY 4.0 (kyutai/mimi)" in shown
    assert "published weights: MIT (descript/dac_16khz, " in shown
    assert "(facebook/encodec_24khz, facebook/encodec_32khz)" in shown
