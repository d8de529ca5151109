"""VidTok: what tells its versions apart."""

import pytest
import torch

from mmtok.visual.vidtok import VidTokFSQ, VidTokParams

SIZES = {"channels": 8, "channel_multipliers": (1, 1, 1, 1), "num_res_blocks": 1, "levels": (4, 4)}


@pytest.mark.parametrize(("version", "frames"), [("v1_0", 0), ("v1_1", 3)])
def test_the_newer_decoder_looks_three_frames_ahead(version, frames):
    torch.manual_seed(0)
    model = VidTokFSQ(VidTokParams(version=version, **SIZES)).eval()
    values = torch.randn(1, 2, 4, 2, 2, requires_grad=True)
    video = model.decode_latents(values)  # frames 0, 1-4, 5-8, 9-12
    assert video.shape[2] == 13
    first = 0
    while not (torch.autograd.grad(video[:, :, first].sum(), values, retain_graph=True)[0][:, :, 2:] != 0).any():
        first += 1
    assert first == 5 - frames  # the first frame that slice 2 changes


def test_versions_and_steps_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="unknown VidTok version '2'; known: v1_0, v1_1"):
        VidTokParams(version="2")
    with pytest.raises(ValueError, match="differ in length"):
        VidTokParams(temporal_down=(0,), temporal_up=(1, 2))
