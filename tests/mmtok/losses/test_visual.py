"""Reconstruction terms."""

import pytest
import torch

from mmtok.losses.visual import edge_loss, reconstruction_losses


def test_a_constant_offset_costs_pixels_but_no_edges():
    video = torch.rand(1, 3, 3, 4, 4)
    terms = reconstruction_losses(video + 0.5, video)
    assert float(terms.l1) == pytest.approx(0.5)
    assert float(terms.l2) == pytest.approx(0.25)
    assert float(terms.edge) == pytest.approx(0.0, abs=1e-6)


def test_a_flickering_frame_costs_edges_in_time_only():
    video = torch.zeros(1, 3, 3, 4, 4)
    flicker = video.clone()
    flicker[:, :, 1] = 0.6
    assert float(edge_loss(flicker, video)) == pytest.approx(0.6 / 3)  # one of three axes
    assert float(edge_loss(flicker[:, :, 1:2], video[:, :, 1:2])) == 0.0


def test_terms_are_float32_for_low_precision_inputs():
    video = torch.rand(1, 3, 1, 4, 4)
    assert reconstruction_losses(video.bfloat16(), video).l2.dtype == torch.float32


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        reconstruction_losses(torch.zeros(1, 3, 1, 4, 4), torch.zeros(1, 3, 1, 4, 8))
