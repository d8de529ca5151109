"""``cinepoet evaluate tokenizer``: every figure with its protocol, and against a second way of computing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from mmtok.features.squeezenet import SqueezeNet
from mmtok.features.vgg import VGG16, WIDTHS
from mmtok.media.video import read_video, write_film
from mmtok.metrics.frechet import frechet_distance
from mmtok.metrics.fvd import I3D
from mmtok.visual.larp import Larp, LarpParams
from recipes.cli import main
from recipes.evaluate.backbones import load_backbones
from recipes.evaluate.contract import Subject, weights_of
from recipes.evaluate.held_out import Clips
from recipes.evaluate.visual_tokenizer import evaluate_visual

SUBJECT = Subject("darker", "", "abc", "0")


class Darker(nn.Module):
    """A tokenizer of one code that loses a tenth of the contrast."""

    codebook_size, num_codebooks, stride, fps, is_causal = 16, 1, (1, 8, 8), 8.0, True

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.9))
        self.seen: list[Tensor] = []

    def grid(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        return num_frames, height // 8, width // 8

    def encode(self, video: Tensor) -> Tensor:
        self.seen.append(video)
        return torch.arange(video[:, :1, :, ::8, ::8].numel()).view_as(video[:, :1, :, ::8, ::8]) % 4

    def decode(self, codes: Tensor) -> Tensor:
        return self.seen[-1] * self.scale


class Moments(nn.Module):
    """Stands in for an I3D file."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean((2, 3, 4)), x.std((2, 3, 4))], 1)


@pytest.fixture
def clips() -> Tensor:
    return torch.randint(256, (6, 3, 10, 16, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_figures_and_protocols(clips: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.jit.script(Moments()).save(str(tmp_path / "i3d.pt"))
    np.savez(tmp_path / "squeeze.npz", **{k: v.numpy() for k, v in SqueezeNet().state_dict().items()})
    torch.save(VGG16().state_dict(), tmp_path / "vgg.pth")
    torch.save({f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1) for i, w in enumerate(WIDTHS)}, tmp_path / "lin.pth")
    networks = load_backbones(
        squeezenet=tmp_path / "squeeze.npz",
        vgg=tmp_path / "vgg.pth",
        lpips=tmp_path / "lin.pth",
        i3d=tmp_path / "i3d.pt",
    )
    told = evaluate_visual(
        SUBJECT, Darker(), Clips(clips, "noise"), networks=networks, batch_size=4, sheet=tmp_path / "sheet.png"
    )
    result, protocol = told.figures, told.protocol
    video = clips.float() / 127.5 - 1
    error = (0.1 * video).square().flatten(1).mean(1)
    assert result["psnr_db"] == pytest.approx(float((10 * torch.log10(4 / error)).mean()), abs=1e-3)
    assert 0.9 < result["ssim"] < 1 and result["lpips"] > 0
    assert result["codes_used"] == 0.25 and result["entropy_bits"] == pytest.approx(2)
    assert result["tokens_per_clip"] == 60
    assert result["bits_per_pixel"] == pytest.approx(60 * 4 / (10 * 16 * 24), abs=1e-5)
    vectors = [
        Moments()(v)
        for v in (
            nn.functional.interpolate(video.transpose(1, 2).flatten(0, 1), (224, 224), mode="bilinear")
            .unflatten(0, (6, 10))
            .transpose(1, 2)
            * s
            for s in (1, 0.9)
        )
    ]
    assert result["rfvd"] == pytest.approx(frechet_distance(*vectors), abs=1e-3)
    frames = video.transpose(1, 2).flatten(0, 1)
    expected = frechet_distance(*(networks["squeezenet"].features(frames * s) for s in (1, 0.9)))
    assert result["frechet_squeezenet_frames"] == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert told.material == "6 clips of 10 frames of 16x24; noise" and told.subject == SUBJECT
    for name in ("psnr_db", "ssim", "lpips", "rfvd", "frechet_squeezenet_frames", "frechet_squeezenet_differences"):
        assert protocol[name] and not protocol[name].startswith("left out")
    assert "6 + 6 vectors" in protocol["rfvd"] and "sha256" in protocol["rfvd"]
    assert Image.open(tmp_path / "sheet.png").size == (24 * 5, 16 * 2 * 2)


def test_what_cannot_be_measured(clips: Tensor) -> None:
    result = evaluate_visual(SUBJECT, Darker(), Clips(clips[..., :8, :8], "noise"))
    assert "11 pixels is larger" in result.protocol["ssim"] and "ssim" not in result.figures
    assert "--squeezenet" in result.protocol["frechet_squeezenet_frames"]
    with pytest.raises(ValueError, match="at least 10 frames, got 9"):
        evaluate_visual(SUBJECT, Darker(), Clips(clips[:, :, :9], "x"), networks={"i3d": I3D(Moments())})
    with pytest.raises(ValueError, match="nothing to measure: 0 clips"):
        evaluate_visual(SUBJECT, Darker(), Clips(clips[:0], "x"))


def test_the_command(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "evaluate",
        "tokenizer",
        "--tokenizer",
        str(bundle),
        "--scenes",
        "3",
        "--size",
        "32",
        "--out",
        str(tmp_path),
    ]
    assert main(words) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((tmp_path / "visual_tokenizer.json").read_text())
    assert shown["material"].startswith("3 clips of 17 frames of 32x32; held-out scenes")
    assert shown["subject"]["name"] == str(bundle) and shown["subject"]["weights"] == weights_of(bundle / "visual")
    assert math.isfinite(shown["figures"]["psnr_db"]) and (tmp_path / "reconstructions.png").is_file()
    for bad, told in (
        (["--frames", "16"], "num_frames (16) must be 1 + a multiple of 4"),
        (["--squeezenet", str(tmp_path / "no.npz")], "do not exist"),
        (["--prompts", "3"], "unknown option --prompts"),
    ):
        assert main([*words, *bad]) == 2
        fault = capsys.readouterr().err
        assert told in fault and fault.count("\n") == 1


def test_the_command_in_tiles_and_with_tokens_that_have_no_grid(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "tokenizer", "--tokenizer", str(bundle), "--scenes", "2", "--size", "64", "--tile", "32"]
    assert main(words) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "in tiles of 32 px, neighbours sharing 8" in shown["protocol"]["tiles"]
    torch.manual_seed(0)
    Larp(LarpParams(**LARP)).save_pretrained(tmp_path / "larp")
    assert main(["evaluate", "tokenizer", "--tokenizer", str(tmp_path / "larp"), "--scenes", "2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["material"].startswith("2 clips of 16 frames of 32x32")
    assert shown["figures"]["bits_per_pixel"] == pytest.approx(8 * 6 / (16 * 32 * 32), rel=1e-2)
    film = tmp_path / "long.mp4"
    write_film(film, torch.rand(3, 21, 48, 48) * 2 - 1, fps=8.0)
    codes, again = tmp_path / "codes.safetensors", tmp_path / "again.mp4"
    options = ["--tokenizer", str(tmp_path / "larp"), "--size", "48"]
    assert main(["tokenize", str(film), *options, "--out", str(codes)]) == 0
    assert {k: tuple(v.shape) for k, v in load_file(codes).items()} == {"visual.0": (1, 8), "visual.1": (1, 8)}
    assert main(["tokenize", "--decode", str(codes), "--out", str(again)]) == 0
    assert main(["reconstruct", str(film), *options, "--out", str(tmp_path / "direct.mp4")]) == 0
    assert again.read_bytes() == (tmp_path / "direct.mp4").read_bytes()
    assert read_video(again, fps=8.0, num_frames=21).frames.shape == (3, 21, 48, 48)


LARP = {
    "num_tokens": 8, "size": 32, "encoder_dim": 16, "encoder_heads": 2, "encoder_depth": 1,
    "decoder_dim": 16, "decoder_heads": 2, "decoder_depth": 1, "codebook_size": 64, "fps": 8.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("tokenizer", "--model", "tiny"),
            "unknown option --model; cinepoet evaluate prompts, cinepoet evaluate tasks",
        ),
        (("tokenizer", "--seed", "5"), "unknown option --seed"),
        (("tokenizer", "--fps", "30"), "--fps is for --media"),
        (("card", "--seed", "1"), "unknown option --seed"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *words]) == 2
    assert told in capsys.readouterr().err
