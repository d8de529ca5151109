"""Fréchet video distance: what the network of a user's file is asked for."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmtok.metrics.frechet import frechet_distance
from mmtok.metrics.fvd import I3D, Fvd


class Published(torch.nn.Module):
    """The options of the I3D file that FVD code ships."""

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        if rescale or resize or not return_features:
            return torch.zeros(len(x), 2)
        return x.mean((2, 3, 4))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_the_published_i3d_is_asked_for_features_of_finished_pictures() -> None:
    video = torch.rand(2, 3, 10, 16, 16) * 2 - 1
    got = I3D(torch.jit.script(Published())).features(video)
    torch.testing.assert_close(got, video.mean((2, 3, 4)), atol=1e-2, rtol=0)

    class Broken(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(7)

    with pytest.raises(RuntimeError):
        I3D(torch.jit.script(Broken())).features(video)


def test_the_distance_is_of_one_vector_a_clip() -> None:
    network = I3D(lambda clips: clips.mean((3, 4)).flatten(1), "means")
    real = torch.rand(5, 3, 10, 16, 16)
    metric = Fvd(network)
    for part in real.split(2):
        metric.update(part, 0.5 * part)
    vectors = [network.features(video) for video in (real, 0.5 * real)]
    assert metric.value() == pytest.approx(frechet_distance(*vectors), rel=1e-5)
    assert "5 + 5 vectors of width 30, means, frames resized to 224" in metric.protocol
    with pytest.raises(ValueError, match="at least 10 frames, got 9"):
        network.features(real[:, :, :9])


def test_a_file_that_is_no_network(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="I3D file"):
        I3D.from_file(tmp_path / "i3d.pt")
    (tmp_path / "i3d.pt").write_bytes(b"no")
    with pytest.raises(ValueError, match="is no TorchScript"):
        I3D.from_file(tmp_path / "i3d.pt")
