"""recipes/runtime/progress.py: bars stand on standard error, tell how much is done, and hand everything through."""

import pytest

from recipes.runtime.progress import blocks_bar, counting, sampling_bar, track


def test_everything_comes_through_and_results_stay_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(3), title="scenes")) == [0, 1, 2]
    assert list(track((i for i in "ab"), title="letters", total=2)) == ["a", "b"]
    with counting(title="clips", total=10, done=4, unit="clips") as advance:
        advance(6)
    with blocks_bar("sound") as on_block:
        on_block(1, 2)
        on_block(2, 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    for told in ("scenes", "3/3", "letters", "2/2", "10/10", "sound"):
        assert told in shown.err, told


def test_stages_are_reported_without_a_terminal_too(capsys: pytest.CaptureFixture[str]) -> None:
    with sampling_bar() as on_step:
        for done in (1, 2):
            on_step("language_model", done, 2)
        on_step("language_model", 1, 5)  # an extension starts the stage anew
    assert capsys.readouterr().out == ""


def test_a_fault_inside_ends_the_bar() -> None:
    with pytest.raises(KeyError), blocks_bar("sound") as on_block:
        on_block(1, 3)
        raise KeyError
