"""Flow and depth as a clip."""

import pytest
import torch
import torch.nn.functional as F

from mmtok.conditions.structure import DepthAnything, OpenCVFlow, make_structure, saturation_depth, structure_video
from mmtok.visual.magvit2 import magvit2


def test_channels_are_flow_right_flow_down_and_nearness():
    flow = torch.zeros(1, 2, 2, 4, 4)
    flow[0, 0, 0] = 3.0
    flow[0, 1, 1] = -4.0
    depth = torch.linspace(10, 30, 16).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    clip = structure_video(flow, depth)
    assert clip.shape == (1, 3, 3, 4, 4) and clip.dtype == torch.float32
    assert torch.allclose(clip[0, 0, :, 0, 0], torch.tensor([0.75, 0.0, 0.0]))
    assert torch.allclose(clip[0, 1, :, 0, 0], torch.tensor([0.0, -1.0, -1.0]))  # the last field stands twice
    assert clip[0, 2].min() == -1 and clip[0, 2].max() == 1 and clip[0, 2, 0, 3, 3] == 1


def test_clips_of_a_batch_are_normalised_alone():
    flow, depth = torch.randn(2, 4, 2, 8, 8), torch.rand(2, 5, 8, 8)
    both = structure_video(flow * torch.tensor([1.0, 50.0]).view(2, 1, 1, 1, 1), depth * 9 + 2)
    torch.testing.assert_close(
        both, torch.cat([structure_video(flow[i : i + 1], depth[i : i + 1]) for i in (0, 1)]), atol=1e-5, rtol=0
    )
    assert torch.allclose(both[:, :2].square().sum(1).amax((1, 2, 3)), torch.ones(2))


def test_a_clip_that_stands_still_and_is_flat_is_grey():
    assert not structure_video(torch.zeros(1, 4, 2, 8, 8), torch.full((1, 5, 8, 8), 7.0)).any()
    image = make_structure(torch.rand(1, 3, 1, 8, 8), flow=_no_flow, depth=lambda frames: frames.mean(1))
    assert image.shape == (1, 3, 1, 8, 8) and not image[:, :2].any() and image[:, 2].any()


def _no_flow(frames):
    raise AssertionError("one frame has no flow")


@pytest.mark.parametrize(
    ("flow", "depth", "message"),
    [
        (torch.zeros(1, 5, 2, 8, 8), torch.zeros(1, 5, 8, 8), r"needs flow \(1, 4, 2, 8, 8\), got \(1, 5, 2, 8, 8\)"),
        (torch.zeros(1, 4, 3, 8, 8), torch.zeros(1, 5, 8, 8), "needs flow"),
        (torch.full((1, 4, 2, 8, 8), torch.nan), torch.zeros(1, 5, 8, 8), "must be finite"),
        (torch.zeros(1, 4, 2, 8, 8), torch.full((1, 5, 8, 8), torch.inf), "must be finite"),
    ],
)
def test_what_does_not_belong_together_is_refused(flow, depth, message):
    with pytest.raises(ValueError, match=message):
        structure_video(flow, depth)


def texture(shift: int, size: int = 64) -> torch.Tensor:
    """Frames (2, 3, size, size) whose picture moves ``shift`` pixels to the right and half of it down."""
    noise = torch.randn(1, 3, size + 32, size + 32, generator=torch.Generator().manual_seed(0))
    smooth = F.avg_pool2d(noise, 5, 1, 2).mul(2).clamp(-1, 1)
    down = shift // 2
    return torch.cat(
        (
            smooth[..., 16 : 16 + size, 16 : 16 + size],
            smooth[..., 16 - down : 16 - down + size, 16 - shift : 16 - shift + size],
        )
    )


@pytest.mark.parametrize("method", ["dis", "farneback"])
def test_opencv_flow_points_where_the_picture_goes(method):
    pytest.importorskip("cv2")
    flow = OpenCVFlow(method)(texture(4))
    assert flow.shape == (1, 2, 64, 64)
    inner = flow[0, :, 8:-8, 8:-8].flatten(1).median(1).values
    torch.testing.assert_close(inner, torch.tensor([4.0, 2.0]), atol=0.5, rtol=0)


def test_unknown_methods_and_absent_libraries_are_told(monkeypatch):
    with pytest.raises(ValueError, match="known: dis, farneback"):
        OpenCVFlow("raft")
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(ImportError, match=r"cinepoet\[structure\]"):
        OpenCVFlow()


@pytest.fixture(scope="module")
def depth_anything(tmp_path_factory):
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    import mmtok.compat  # noqa: F401

    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
        out_features=["stage1", "stage2", "stage2", "stage2"][:2], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, reassemble_factors=[2, 1], neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8, head_hidden_size=4,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("depth")
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    return DepthAnything.from_pretrained(str(folder))


def test_depth_of_any_size_comes_back_at_that_size(depth_anything):
    depth_anything.side = 56
    depth = depth_anything(torch.rand(2, 3, 40, 72) * 2 - 1)
    assert depth.shape == (2, 40, 72) and depth.dtype == torch.float32 and bool(depth.isfinite().all())


def test_absent_depth_networks_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no Depth Anything at"):
        DepthAnything.from_pretrained(str(tmp_path / "nothing"))


def test_a_tokenizer_takes_the_structure_of_a_clip(depth_anything):
    pytest.importorskip("cv2")
    depth_anything.side = 28
    video = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    clip = make_structure(video, flow=OpenCVFlow(), depth=depth_anything)
    assert clip.shape == video.shape and float(clip.abs().max()) <= 1
    assert magvit2("tiny").eval().encode(clip).shape == (1, 1, 2, 4, 4)


def test_the_more_saturated_the_nearer():
    frames = torch.tensor([[0.5, 0.5, 0.5], [1.0, -1.0, -1.0], [0.2, 0.0, -0.2]]).T.reshape(1, 3, 1, 3)
    torch.testing.assert_close(saturation_depth(frames), torch.tensor([[[0.0, 2.0, 0.4]]]))
