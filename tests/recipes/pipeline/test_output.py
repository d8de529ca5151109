"""recipes/pipeline/output.py: what a result says of itself, and films of a batch."""

from __future__ import annotations

import dataclasses

import torch

from recipes.pipeline.output import Block, Output

FRAMES, SOUND, CODES = torch.zeros(2, 3, 17, 8, 16), torch.zeros(2, 1, 900), {"low": torch.zeros(2, 1, 5, 4, 4)}


def test_a_result_is_told_in_a_line_and_not_in_tensors() -> None:
    output = Output(FRAMES, 8.0, SOUND, 16000, CODES)
    assert repr(output) == "Output(2 films of 17 pictures of 16x8, with sound, codes: low (2, 1, 5, 4, 4), 8 fps)"
    picture = dataclasses.replace(output.film(1), frames=FRAMES[:1, :, :1], audio=None, codes={})
    assert repr(picture) == "Output(1 film of 1 picture of 16x8, silent, codes: none, 8 fps)"
    arrays = dataclasses.replace(output, frames=FRAMES.permute(0, 2, 3, 4, 1).numpy())
    assert repr(arrays) == repr(output)
    assert repr(Block(FRAMES, None, {}, None, [])) == "Block(17 pictures of 16x8, silent, codes: none)"  # type: ignore[arg-type]
