"""superres/passes.py: how a film comes to a size, found out without any weights."""

from __future__ import annotations

import pytest

from superres.config import SuperResConfig
from superres.passes import Stage, describe_passes, plan_clip, plan_film, plan_passes, reachable_sizes
from superres.sample import Decoding
from superres.windows import windows_for


class Tokenizer:
    """Eight pixels a token, four pictures a slice; no weights."""

    stride = (4, 8, 8)

    def grid(self, t: int, h: int, w: int) -> tuple[int, int, int]:
        if h % 8 or w % 8:
            raise ValueError(f"{h} x {w} pixels are no whole tokens")
        return 1 + (t - 1) // 4, h // 8, w // 8


def stage(grid: tuple[int, int, int], **decoding: float) -> Stage:
    sizes = {"dim": 16, "num_blocks": 1, "num_heads": 2, "hidden_dim": 16, "text_dim": 16}
    config = SuperResConfig(grid=grid, windows=windows_for(grid), factor_sizes=(8, 8), **sizes)

    def load() -> None:
        raise AssertionError("a plan needs no weights")

    return Stage(config, Decoding(**({"num_steps": 2} | decoding)), load)  # type: ignore[arg-type]


ONE = {"superres": stage((5, 8, 8), text_scale=1.0)}
TWO = ONE | {"superres2": stage((5, 16, 16), num_steps=3, text_scale=8.0, low_scale=2.0)}


def test_a_film_keeps_as_much_of_itself_as_it_can() -> None:
    def way(size: tuple[int, int], to: int = 64, **options: object) -> str:
        return describe_passes(plan_film(ONE, Tokenizer(), size, base=32, to=to, **options))  # type: ignore[arg-type]

    assert way((32, 32)) == way((500, 500)) == "32x32 -> 64x64 (superres, 2 steps)"
    assert way((50, 50), to=128) == "32x32 -> 64x64 (superres, 2 steps) -> 128x128 (superres in 9 tiles, 2 steps)"
    assert way((70, 70), to=128) == "64x64 -> 128x128 (superres in 9 tiles, 2 steps)"
    assert way((90, 160)) == "56x32 -> 112x64 (superres in 2 tiles, 2 steps)"
    assert way((160, 90)) == "32x56 -> 64x112 (superres in 2 tiles, 2 steps)"
    assert way((160, 90), ratio=1.0) == "32x32 -> 64x64 (superres, 2 steps)"
    assert way((50, 50), ratio=1.75, changes={"num_steps": 7}).endswith("64x112 (superres in 2 tiles, 7 steps)")
    for to, changes, message in (
        (100, {}, "100 pixels cannot be reached: this model doubles 32 to one of 64, 128, 256, 512"),
        (32, {}, "32 pixels cannot be reached"),
        (64, {"num_steps": 0}, "num_steps must be positive, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            way((50, 50), to=to, changes=changes)


def test_stages_take_turns_and_the_last_one_goes_on() -> None:
    passes = plan_film(TWO, Tokenizer(), (40, 40), base=32, to=256)
    assert [step.part for step in passes] == ["superres", "superres2", "superres2"]
    assert [step.tiles for step in passes] == [1, 1, 9]
    assert [step.num_steps for step in passes] == [2, 3, 27]
    assert [step.decoding.text_scale for step in passes] == [1.0, 8.0, 8.0]
    large = plan_film(TWO, Tokenizer(), (64, 64), base=32, to=128)
    assert [step.part for step in large] == ["superres2"]  # large enough to begin there
    assert [step.part for step in plan_film(TWO, Tokenizer(), (64, 64), base=32, to=64)] == ["superres"]
    assert [step.part for step in plan_passes(TWO, Tokenizer(), (64, 64), 1, done=1)] == ["superres2"]


def test_a_clip_takes_all_doublings_of_its_model() -> None:
    passes = plan_clip(TWO, Tokenizer(), (56, 32), base=32, to=128)
    assert [(step.part, step.low, step.high) for step in passes] == [
        ("superres", (56, 32), (112, 64)),
        ("superres2", (112, 64), (224, 128)),
    ]
    for to in (96, 32, 0):
        with pytest.raises(ValueError, match=rf"upscaled_size \({to}\) must be 32 doubled once or several times"):
            plan_clip(ONE, Tokenizer(), (32, 32), base=32, to=to)
    with pytest.raises(ValueError, match="36 x 32 pixels are no whole tokens"):
        plan_clip(ONE, Tokenizer(), (36, 32), base=32, to=64)


def test_sizes_are_doublings() -> None:
    assert reachable_sizes(64) == [128, 256, 512, 1024]
