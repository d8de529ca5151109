"""recipes/runtime/seeds.py: numbers depend on seed, step and place only."""

import itertools

import torch

from recipes.runtime.seeds import step_generator


def _draw(*place: int | None) -> list[float]:
    return torch.rand(4, generator=step_generator(*place)).tolist()


def test_the_same_place_draws_the_same_numbers_whatever_came_before() -> None:
    first = _draw(3, 7, 2)
    _draw(3, 8, 2)
    torch.rand(5)
    assert _draw(3, 7, 2) == first


def test_seeds_steps_and_examples_draw_numbers_of_their_own() -> None:
    places = [*itertools.product(range(3), range(5), (None, 0, 1, 2))]
    drawn = {tuple(_draw(*place)) for place in places}
    assert len(drawn) == len(places)


def test_large_seeds_are_taken() -> None:
    assert _draw(2**63 - 1, 10**6, 10**4) != _draw(2**63 - 2, 10**6, 10**4)
