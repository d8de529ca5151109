"""Cosmos DV: the steps of its levels, and sizes that cannot be."""

import pytest
import torch

from mmtok.visual.cosmos import PRESETS, CosmosDV, CosmosParams, _norm
from mmtok.visual.fsq_grid import Attention


@pytest.mark.parametrize("name", PRESETS)
def test_the_levels_make_the_stride(name):
    params = PRESETS[name]
    for step in (params.down_step, params.up_step):
        taken = [step(level) for level in range(len(params.channel_multipliers))]
        if step == params.down_step:
            taken = taken[:-1]  # nothing lies behind the deepest
        times, spaces = (sum(which) for which in zip(*taken, strict=True))
        assert (params.patch_size * 2**times, params.patch_size * 2**spaces) == params.stride[:2]
    with torch.device("meta"):
        assert CosmosDV(params).codebook_size == 64_000


def test_attention_over_time_reads_no_later_frame():
    torch.manual_seed(0)
    layer = Attention(8, norm=_norm, over_time=True)
    x = torch.randn(1, 8, 5, 2, 2, requires_grad=True)
    layer(x)[:, :, 2].sum().backward()
    assert x.grad[:, :, 3:].abs().max() == 0 and x.grad[:, :, :3].abs().min() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride": (4, 8, 16)}, r"stride \(4, 8, 16\) must be the same in height and width"),
        ({"patch_size": 3}, r"patch_size \(3\) must be a power of two"),
        ({"stride": (2, 8, 8)}, r"stride \(2\) must be a power of two, at least the patch \(4\)"),
        ({"stride": (64, 64, 64)}, "needs more than 3 levels"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CosmosParams(**changes)
