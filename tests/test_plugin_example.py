"""docs/examples/cinepoet-haar: a package that is only installed adds a tokenizer, a metric and a corpus."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmtok.media.video import write_film
from mmtok.metrics.table import make_metrics
from recipes.cli import main
from recipes.corpora.shapes import ShapesCorpus, render_video

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "cinepoet-haar"
Run = Callable[..., str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built from a copy of its sources and installed without a network."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("*.egg-info", "build"))
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
    words = [sys.executable, "-m", "pip", "install", *offline, "--target", str(folder / "site"), str(source)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def run(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """The command line where the package is installed, in this process; gives what it printed."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*words: object, code: int = 0) -> str:
        assert main([str(word) for word in words]) == code, (words, capsys.readouterr().err)
        shown = capsys.readouterr()
        return shown.out + shown.err

    return run


def test_an_installed_tokenizer_goes_from_films_to_a_model_that_makes_films(run: Run) -> None:
    shown = run("prepare", "gratings", "--visual", "haar", "--size", 32, "--num-frames", 5, "--out", "tokens")
    assert "64 clips of 16 films" in shown and "64 with captions" in shown
    sizes = ("tokens_per_step=400", "steps=2", "validation_rows=1", "validate_every=2")
    words = ("--data", "tokens", "--visual", "haar", "--device", "cpu", "--out", "run", *sizes)
    assert "ready" in run("train", "lm", *words)
    shown = run("assemble", "--lm", "run/model", "--visual", "haar", "--out", "mine", "upscaled_size=0")
    assert "visual          haar" in shown and "5 frames of 32x32" in shown
    shown = run("generate", "red stripes", "--model", "mine", "--no-sound", "--out", "film.mp4")
    assert "film.mp4: 5 frames of 32x32 at 8 fps" in shown


def test_what_a_package_adds_is_listed(run: Run) -> None:
    shown = run("models")
    assert "haar: a visual tokenizer (haar)" in shown and "haar                    haar-4x8x8 0.0" in shown
    assert "gratings     stripes that drift" in shown
    assert (
        "haar         tokenizers   cinepoet-haar 0.1.0" in shown
        and "gratings     corpora" in shown
        and "edges        metrics" in shown
    )
    shown = run("doctor")
    assert "plug-in haar" in shown and "cinepoet.tokenizers of cinepoet-haar 0.1.0" in shown and "BROKEN" not in shown


def test_an_installed_metric_is_measured(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site)
    edges = make_metrics("pictures").ready["edges"]
    real = torch.zeros(2, 3, 1, 4, 4)
    again = torch.zeros_like(real)
    again[1, ..., 2:] = 1.0  # one step of 1 among three to the right, none among those down
    edges.update(real, again)
    assert edges.value() == pytest.approx((0 + 1 / 3 / 2) / 2) and "steps to the right" in edges.protocol


def test_it_keeps_the_promises_of_a_tokenizer(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mmtok

    testing = pytest.importorskip("mmtok.testing")
    monkeypatch.syspath_prepend(site)
    tokenizer = mmtok.load("haar")
    testing.check_tokenizer(tokenizer)
    corpus = ShapesCorpus(0, "heldout")
    clips = torch.stack([render_video(corpus.scene(i), size=64, num_frames=17) for i in range(8)])
    error = float((tokenizer.decode(tokenizer.encode(clips)) - clips).pow(2).mean())
    assert error < 0.3 * float((clips - clips.mean((2, 3, 4), keepdim=True)).pow(2).mean()), "it keeps what is seen"


def test_a_broken_package_breaks_nothing_else(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    info = tmp_path / "bad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cinepoet.tokenizers]\nbad = bad_nowhere:ROW\nmagvit2 = bad_nowhere:ROW\n")
    clip = tmp_path / "clip.mp4"
    write_film(clip, render_video(ShapesCorpus(0).scene(0), size=32, num_frames=5), fps=8)
    shown = run("reconstruct", clip, "--tokenizer", "haar", "--size", 32, "--out", "again.mp4")
    assert "PSNR" in shown and "bad" not in shown
    shown = run("doctor", code=1)
    assert (
        "BROKEN plug-in bad" in shown
        and "bad 1.0 adds the tokenizer 'magvit2', which is left out: cinepoet has" in shown
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"family": "bad", "params": {}}')
    shown = run("reconstruct", clip, "--tokenizer", "model", "--out", "x.mp4", code=2)
    assert shown.startswith("cinepoet: bad 1.0 adds the tokenizer 'bad', which is left out") and shown.count("\n") == 1
