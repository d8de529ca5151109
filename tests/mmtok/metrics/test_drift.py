"""Statistics of a film's pieces."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mmtok.metrics.drift import Look, drift_note, drift_table, look_at


def test_numbers_of_pictures_that_can_be_checked_by_eye() -> None:
    frames = torch.full((1, 3, 2, 4, 4), -1.0)
    frames[:, :, 1] = 1.0  # black, then white
    codes = torch.arange(4).view(1, 1, 1, 2, 2)
    look = look_at(frames, codes)
    assert (look.brightness, look.contrast, look.colour, look.sharpness, look.motion) == (0.5, 0.0, 0.0, 0.0, 1.0)
    assert look.codes == pytest.approx(4.0)
    stripes = torch.full((1, 3, 1, 4, 4), -1.0)
    stripes[:, 0, :, :, ::2] = 1.0  # red and black columns
    look = look_at(stripes, torch.zeros(1, 1, 1, 2, 2, dtype=torch.long))
    assert look.brightness == pytest.approx(1 / 6) and look.colour == pytest.approx(0.5 * (2 / 3 + 2 / 3) / 3)
    assert look.sharpness == pytest.approx(1 / 6) and look.motion == 0.0 and look.codes == pytest.approx(1.0)


def test_a_film_that_blurs_is_told() -> None:
    first = Look(brightness=0.5, contrast=0.2, colour=0.1, sharpness=0.04, motion=0.02, codes=50.0)
    last = dataclasses.replace(first, sharpness=0.02, motion=0.0)
    assert drift_note([first]) is None and drift_note([first, first]) is None
    assert drift_note([first, first, last]) == "the film drifts: sharpness -50 % after 2 extensions"
    table = drift_table([first, last])
    assert len(table.splitlines()) == 4 and "-50 %" in table and "brightness" in table
