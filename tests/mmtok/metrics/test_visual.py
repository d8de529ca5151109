"""PSNR, SSIM, LPIPS, sharpness and seams."""

import math

import pytest
import torch

from mmtok.features.vgg import LPIPS, VGG16
from mmtok.metrics.visual import Lpips, Psnr, Sharpness, Ssim, gradient_energy, psnr_db, seam_ratio, ssim


def test_psnr_of_a_known_error():
    video = torch.zeros(2, 3, 1, 4, 4)
    wrong = video.clone()
    wrong[0] += 0.2
    wrong[1] += 0.02
    torch.testing.assert_close(psnr_db(wrong, video), torch.tensor([20.0, 40.0]), rtol=1e-5, atol=1e-4)
    assert math.isinf(float(psnr_db(video, video)[0]))


def slow_ssim(x: torch.Tensor, y: torch.Tensor) -> float:
    """One grey picture, window by window, in double precision."""
    offsets = torch.arange(11, dtype=torch.double) - 5
    window = torch.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / 4.5)
    window /= window.sum()
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11].double(), y[i : i + 11, j : j + 11].double()
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            c1, c2 = 0.02**2, 0.06**2
            top = (2 * ma * mb + c1) * (2 * cov + c2)
            values.append(float(top / ((ma**2 + mb**2 + c1) * (va + vb + c2))))
    return sum(values) / len(values)


def test_ssim_equals_the_definition():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 1, 14, 15, generator=generator) * 2 - 1
    y = (x + 0.3 * torch.randn(x.shape, generator=generator)).clamp(-1, 1)
    assert float(ssim(y, x)) == pytest.approx(slow_ssim(y[0, 0, 0], x[0, 0, 0]), abs=1e-4)


def test_ssim_is_one_for_equal_clips_and_works_clip_by_clip():
    x = torch.rand(2, 3, 2, 16, 16)
    y = torch.cat((x[:1], torch.rand(1, 3, 2, 16, 16)))
    got = ssim(y, x)
    assert float(got[0]) == pytest.approx(1.0, abs=1e-4)
    assert float(got[1]) < 0.5


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        psnr_db(torch.zeros(1, 3, 1, 4, 4), torch.zeros(1, 3, 2, 4, 4))
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(torch.zeros(1, 3, 1, 8, 8), torch.zeros(1, 3, 1, 8, 8))


def test_gradient_energy_of_an_edge():
    video = torch.zeros(1, 3, 2, 4, 4)
    video[:, :, 1, :, 2:] = 0.5
    energy = gradient_energy(video)
    assert energy.shape == (1, 2, 4, 4) and not energy[:, 0].any()
    assert energy[0, 1].tolist() == [[0.0, 0.25, 0.0, 0.0]] * 4


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_seams_are_found_along_any_axis(dim):
    steady = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(2, 3, 8, 8, 8).transpose(2, dim) * 0.1
    torch.testing.assert_close(seam_ratio(steady, [3, 6], dim=dim), torch.ones(2), atol=1e-5, rtol=0)
    jump = steady.clone()
    jump[1].narrow(dim - 1, 3, 5).add_(0.2)  # the third change of the second film is three times as large
    torch.testing.assert_close(seam_ratio(jump, [3], dim=dim), torch.tensor([1.0, 3.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(seam_ratio(jump, [3, 6], dim=dim), torch.tensor([1.0, 2.0]), atol=1e-5, rtol=0)
    for wrong in ([], [0], [8], range(1, 8)):
        with pytest.raises(ValueError, match="joints must be some of the places 1 to 7"):
            seam_ratio(steady, list(wrong), dim=dim)


def test_metrics_of_pictures_are_means_over_clips():
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(3, 3, 2, 16, 16, generator=generator) * 2 - 1
    again = (real + 0.2 * torch.randn(real.shape, generator=generator)).clamp(-1, 1)
    torch.manual_seed(0)
    network = LPIPS(VGG16())
    for metric, wanted in (
        (Psnr(), psnr_db(again, real).mean()),
        (Ssim(), ssim(again, real).mean()),
        (Lpips(network), torch.stack([network(again[:, :, i], real[:, :, i]) for i in range(2)]).mean()),
        (Sharpness(), gradient_energy(again).sum() / gradient_energy(real).sum()),
    ):
        for part in ((real[:2], again[:2]), (real[2:], again[2:])):
            metric.update(*part)
        assert metric.value() == pytest.approx(float(wanted), rel=1e-4), metric
        assert metric.protocol and math.isnan(metric.another().value())


def test_pictures_below_the_window_of_ssim_say_so():
    metric = Ssim()
    metric.update(torch.zeros(2, 3, 1, 8, 8), torch.zeros(2, 3, 1, 8, 8))
    assert math.isnan(metric.value()) and "11 pixels is larger" in metric.protocol
