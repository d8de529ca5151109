"""recipes/pipeline/larp.py: clips of classes and behind first frames, what samples in which precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from llm.larp_ar import LarpAR
from recipes.pipeline.larp import LarpPipeline
from recipes.tokens.larp_codes import first_frames


def test_a_clip_is_the_one_piece_of_its_stream(larp_pair: dict[str, Path]) -> None:
    pipe = LarpPipeline.from_pretrained(larp_pair["class"], device="cpu")
    assert repr(pipe) == "LarpPipeline(16 pictures of 32x32 at 8 fps from classes, on cpu)"
    whole = pipe(classes=["star spins", 3], generator=torch.Generator().manual_seed(1))
    assert whole.frames.shape == (2, 3, 16, 32, 32) and set(pipe.seconds) == {"condition", "codes", "decode picture"}
    (piece,) = pipe.stream(classes=["star spins", 3], generator=torch.Generator().manual_seed(1))
    assert piece.frames.equal(whole.frames) and piece.audio is None and piece.codes["low"].equal(whole.codes["low"])
    assert 1 <= piece.look.codes <= 8


def test_first_frames_go_on(larp_pair: dict[str, Path]) -> None:
    pipe = LarpPipeline.from_pretrained(larp_pair["frames"], device="cpu")
    video = torch.rand(1, 3, 16, 32, 32) * 2 - 1
    seen: list[Tensor] = []
    generate = pipe.model.generate
    pipe.model.generate = lambda condition, **kw: (seen.append(condition), generate(condition, **kw))[1]  # type: ignore[method-assign]
    pipe(video=video[:, :, :5])
    assert torch.equal(seen[0], pipe.tokenizer.encode(first_frames(video, 5))[:, 0])


def test_large_generators_sample_in_half_precision(larp_pair: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    exact = LarpPipeline.from_pretrained(larp_pair["class"], device="cpu")
    assert exact.model.output.weight.dtype == torch.float32
    monkeypatch.setattr("recipes.pipeline.larp.LARGE", 1)
    half = LarpPipeline.from_pretrained(larp_pair["class"], device="cpu")
    assert half.model.output.weight.dtype == torch.float16
    labels, ids = torch.tensor([3]), torch.randint(32, (1, 7))
    torch.testing.assert_close(half.model(ids, labels).float(), exact.model(ids, labels), atol=0.02, rtol=0.02)
    assert half(classes=[3]).frames.shape == (1, 3, 16, 32, 32)
    given = LarpPipeline.from_pretrained(larp_pair["class"], device="cpu", dtype=torch.bfloat16)
    assert given.model.output.weight.dtype == torch.bfloat16


def test_a_model_knows_how_many_frames_it_starts_from(larp_pair: dict[str, Path], tmp_path: Path) -> None:
    model = LarpAR.from_pretrained(larp_pair["frames"])
    assert model.given_frames == 5
    model.given_frames = 9
    model.save_pretrained(tmp_path)
    assert LarpAR.from_pretrained(tmp_path).given_frames == 9
