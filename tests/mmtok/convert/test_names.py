"""Published names become ours, and all that does not fit is in one message."""

import pytest
import torch
from torch import nn

from mmtok.convert.names import alike, check_names, fill, rename


def test_rules_apply_in_turn():
    rules = ((r"^net\.", ""), (r"block(\d+)", lambda found: f"levels.{int(found[1]) - 1}"))
    assert rename("net.block2.weight", rules) == "levels.1.weight"


def test_only_axes_of_length_one_may_be_left_out():
    assert alike((4, 3), (4, 3, 1, 1)) and alike((4, 3, 1), (4, 3))
    assert not alike((3, 4), (4, 3)) and not alike((4, 3), (3, 4, 1)) and not alike((4, 1), (1, 4))


def test_all_faults_are_in_one_message():
    names = [f"w{i}" for i in range(10)]
    with pytest.raises(ValueError, match=r"not toys of this layout; missing: w0, .*w7 and 2 more; unknown: x") as fault:
        check_names(["x"], names, family="toys")
    assert "misshapen" not in str(fault.value)


def test_a_linear_map_fills_a_pointwise_convolution_and_nothing_else():
    module = nn.Conv1d(3, 4, 1, bias=False)
    weight = torch.randn(4, 3)
    fill(module, {"theirs": weight}, {"theirs": "weight"}, family="toys")
    assert torch.equal(module.weight[..., 0], weight)
    for bad, message in (
        (weight.T, r"theirs is \(3, 4\), expected \(4, 3, 1\)"),
        (weight.long(), "theirs holds torch.int64, expected floats"),
        (weight * float("nan"), "theirs holds values that are not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            fill(module, {"theirs": bad}, {"theirs": "weight"}, family="toys")
