"""recipes/loop/perception.py: frozen networks by name, and what they say of frames."""

import pytest
import torch

from mmtok.features.vgg import LPIPS, VGG16
from recipes.loop.perception import LarpPerception, perceptual_network


def test_unknown_and_absent_networks_are_named():
    for name in ("vgg19:x", "squeezenet", "random:x"):
        with pytest.raises(ValueError, match="unknown perceptual_network"):
            perceptual_network(name)
    with pytest.raises(FileNotFoundError, match="no ResNet at"):
        perceptual_network("resnet50:/nowhere")


def test_resnet_logits_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
    torch.manual_seed(0)
    transformers.ResNetForImageClassification(config).eval().save_pretrained(tmp_path)
    network = perceptual_network(f"resnet50:{tmp_path}")
    images = torch.rand(2, 3, 40, 32) * 2 - 1
    (logits,) = network.layers(images)
    assert logits.shape == (2, 5, 1, 1) and not any(p.requires_grad for p in network.parameters())
    pixels = torch.nn.functional.interpolate(images, (224, 224), mode="bilinear", antialias=True) / 2 + 0.5
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    torch.testing.assert_close(logits[:, :, 0, 0], network.network((pixels - mean) / std).logits)


def test_lpips_judges_every_frame(tmp_path):
    torch.manual_seed(0)
    network = VGG16()
    torch.save(network.state_dict(), tmp_path / "vgg16.pth")
    names = [f"lin{i}.model.1.weight" for i in range(5)]
    widths = (64, 128, 256, 512, 512)
    torch.save({n: torch.rand(1, w, 1, 1) for n, w in zip(names, widths, strict=True)}, tmp_path / "linear.pth")
    perception = LarpPerception(f"lpips:{tmp_path / 'vgg16.pth'}:{tmp_path / 'linear.pth'}", torch.device("cpu"))
    assert isinstance(perception.network, LPIPS)
    video, other = (torch.rand(1, 3, 2, 32, 32) * 2 - 1 for _ in range(2))
    other.requires_grad_()
    term = perception(other, video)
    frames = [perception.network(other[:, :, i], video[:, :, i]).mean() for i in range(2)]
    torch.testing.assert_close(term, sum(frames) / 2)
    term.backward()
    assert other.grad.abs().sum() > 0 and float(perception(video, video)) == 0
