"""LPIPS and the perceptual loss."""

from pathlib import Path

import pytest
import torch

from mmtok.features.squeezenet import SqueezeNet
from mmtok.features.vgg import LPIPS, VGG16, WIDTHS, perceptual_loss


def test_lpips(shared: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = VGG16()
    whole = network.state_dict() | {"classifier.0.weight": torch.zeros(2, 2)}
    torch.save(whole, tmp_path / "vgg16.pth")
    metric = LPIPS.from_files(tmp_path / "vgg16.pth", shared / "models" / "lpips_lin_v0.1" / "vgg.pth")
    assert [len(w) for w in metric.weights] == list(WIDTHS) and all(float(w.min()) >= 0 for w in metric.weights)
    a, b = torch.rand(2, 2, 3, 32, 40) * 2 - 1
    assert metric(a, a).tolist() == [0, 0]
    assert (metric(a, b) > 0).all()
    torch.testing.assert_close(metric(a, b), metric(b, a))
    # a second way: by hand for one layer
    x, y = (network.layers(v)[2] for v in (a, b))
    unit = [v / v.norm(dim=1, keepdim=True).clamp(min=1e-10) for v in (x, y)]
    only = LPIPS(network)
    for i, weight in enumerate(only.weights):
        weight.data.fill_(float(i == 2))
    torch.testing.assert_close(only(a, b), (unit[0] - unit[1]).square().sum(1).mean((1, 2)))
    with pytest.raises(ValueError, match="does not hold LPIPS's five layers"):
        LPIPS.from_files(tmp_path / "vgg16.pth", tmp_path / "vgg16.pth")


def test_perceptual_loss_trains_the_reconstruction_only() -> None:
    torch.manual_seed(0)
    network = SqueezeNet()
    video = torch.rand(1, 3, 3, 32, 32) * 2 - 1
    guess = (torch.rand(1, 3, 3, 32, 32) * 2 - 1).requires_grad_()
    assert float(perceptual_loss(network, video, video)) == 0
    frames = torch.tensor([1])
    perceptual_loss(network, guess, video, frames=frames).backward()
    assert guess.grad[:, :, 1].abs().sum() > 0 and guess.grad[:, :, [0, 2]].abs().sum() == 0
    assert all(p.grad is None for p in network.parameters())
