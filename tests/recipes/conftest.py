"""A complete bundle with random weights and real media files, made in seconds, for pipeline and command-line tests."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from llm.config import preset as lm_preset
from llm.larp_ar import LarpAR, LarpARConfig
from llm.model import PrefixLM
from llm.tasks import TASKS
from mmtok.audio.soundstream import build_soundstream
from mmtok.media.image import write_png
from mmtok.media.video import write_film
from mmtok.text.t5 import TextTokenizer
from mmtok.visual.larp import PRESETS as LARP_PRESETS
from mmtok.visual.larp import Larp
from mmtok.visual.magvit2 import Magvit2, Magvit2Params
from recipes.bundle.config import BundleConfig
from recipes.bundle.folder import write_bundle
from recipes.bundle.named import TOKENIZER_FOLDER
from recipes.cli import main
from recipes.corpora.shapes import ShapesCorpus, render_audio, render_video
from recipes.tokens.larp_codes import SHAPES_CLASSES
from recipes.train.t5 import T5TrainConfig, build_t5, keep_encoder, train_vocabulary
from superres.config import SuperResConfig
from superres.model import SuperResTransformer
from superres.windows import windows_for

CONFIG = BundleConfig(
    size=32,
    num_frames=17,
    fps=8.0,
    upscaled_size=64,
    guidance_scale=1.5,
    sr_steps=2,
    tasks=tuple(TASKS),
    more_num_frames=(25,),
    aspects=("square", "portrait"),
    sources=("clean", "raw"),
)
TEXT_SLOTS = 16


def _build(folder: Path) -> Path:
    torch.manual_seed(0)
    visual = Magvit2(
        Magvit2Params(
            channels=4,
            channel_multipliers=(1, 2),
            num_res_blocks=1,
            num_mid_blocks=0,
            spatial_downsample=(True,),
            temporal_downsample=(False,),
            bits=6,
            patch_size=(4, 4, 4),
            norm_groups=2,
            normalize_latents=True,
        )
    )
    audio = build_soundstream("smoke")
    corpus = ShapesCorpus(0, "all")
    captions = [corpus.scene(i).caption for i in range(60)]
    vocabulary = train_vocabulary(captions, vocab_size=400, seed=0)
    sizes = T5TrainConfig(dim=16, hidden_dim=16, num_heads=2, num_layers=1, num_decoder_layers=1)
    tokenizer = TextTokenizer.from_bytes("spiece.model", vocabulary)
    text = keep_encoder(build_t5(sizes, tokenizer.vocab_size), tokenizer, sizes.max_length)
    lm = PrefixLM(
        lm_preset(
            "tiny",
            dim=16,
            num_layers=1,
            num_heads=2,
            num_kv_heads=1,
            head_dim=8,
            hidden_dim=16,
            visual_codes=visual.codebook_size,
            audio_levels=audio.num_codebooks,
            audio_codes=audio.codebook_size,
            text_dim=text.dim,
            text_slots=TEXT_SLOTS,
            max_grid=(7, 7, 4),
            max_audio_frames=156,
        )
    )
    grid = visual.grid(CONFIG.num_frames, CONFIG.upscaled_size, CONFIG.upscaled_size)
    superres = SuperResTransformer(
        SuperResConfig(
            grid=grid,
            windows=windows_for(grid),
            factor_sizes=(8, 8),
            dim=16,
            num_blocks=1,
            num_heads=2,
            hidden_dim=16,
            text_dim=text.dim,
        )
    )
    parts = {"visual": visual, "audio": audio, "text": text, "lm": lm, "superres": superres}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    write_bundle(folder, CONFIG, {"name": "random", "licence": "Apache-2.0"})
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole model with random weights: 17 frames of 32x32 at 8 fps, then 64x64, with sound."""
    return _build(tmp_path_factory.mktemp("model") / "random")


@pytest.fixture(scope="session")
def larp_pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a LARP "tokenizer" and two generators that carry it, "class" and "frames", with random weights."""
    root = tmp_path_factory.mktemp("larp_pair")
    torch.manual_seed(0)
    sizes = {"num_tokens": 8, "codebook_size": 32, "prior": None}
    layers = {
        f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("dim", 32), ("heads", 2), ("depth", 1))
    }
    tokenizer = Larp(dataclasses.replace(LARP_PRESETS["larp-nano"], **sizes, **layers))
    torch.nn.init.normal_(tokenizer.to_pixels.weight, std=0.1)
    tokenizer.save_pretrained(root / "tokenizer")
    for name in ("class", "frames"):
        config = LarpARConfig(
            dim=32,
            num_layers=1,
            num_heads=2,
            hidden_dim=32,
            vocab_size=32,
            num_tokens=8,
            num_classes=len(SHAPES_CLASSES),
            frame_prediction=name == "frames",
        )
        model = LarpAR(config)
        model.classes = SHAPES_CLASSES if name == "class" else ()
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name / TOKENIZER_FOLDER)
    return {name: root / name for name in ("tokenizer", "class", "frames")}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are fastest on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cinepoet(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process; gives exit code, standard output and standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def two_processes() -> Callable[[str, Path], None]:
    """Run a test's own file as two processes that find each other; it trains into the folder when it is the main one."""

    def run(file: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        words = [sys.executable, file, str(folder)]
        pair = [subprocess.Popen(words, env=os.environ | where | {"RANK": str(rank)}) for rank in range(2)]
        assert [process.wait(timeout=400) for process in pair] == [0, 0]

    return run


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A film of 3 s with sound."""
    scene = ShapesCorpus(0).scene(0)
    path = tmp_path / "clip.mp4"
    sound = render_audio(scene, num_samples=48000)
    write_film(path, render_video(scene, size=48, num_frames=24), fps=8, audio=sound, sample_rate=16000)
    return path


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    soundfile.write(path, 0.5 * np.sin(np.arange(44100) / 20), 44100)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    write_png(path, render_video(ShapesCorpus(0).scene(1), size=50, num_frames=1)[:, 0, :33])
    return path


@pytest.fixture
def film_facts() -> Callable[[Path], tuple[int, float, tuple[int, int], float | None]]:
    """How PyAV decodes a film."""

    def look(path: Path) -> tuple[int, float, tuple[int, int], float | None]:
        """Frames, pictures per second, width and height, and seconds of sound (None when silent), as PyAV decodes them."""
        with av.open(str(path)) as film:
            stream = film.streams.video[0]
            assert stream.codec_context.name == "h264"
            frames = [frame.pts * stream.time_base for frame in film.decode(stream)]
            assert all(b - a == 1 / stream.average_rate for a, b in itertools.pairwise(frames))
            size = (stream.width, stream.height)
            fps = float(stream.average_rate)
        with av.open(str(path)) as film:
            if not film.streams.audio:
                return len(frames), fps, size, None
            sound = film.streams.audio[0]
            assert sound.codec_context.name == "aac"
            return len(frames), fps, size, float(sound.duration * sound.time_base)

    return look


@pytest.fixture
def assert_refused() -> Callable[[tuple[int, str, str], str], None]:
    """A mistake is exit code 2 and one line that says it."""

    def check(result: tuple[int, str, str], pattern: str) -> None:
        code, out, err = result
        assert code == 2, (code, out, err)
        errors = [line for line in err.splitlines() if not line.startswith("note: ")]
        assert len(errors) == 1, err
        assert errors[0].startswith("cinepoet: ")
        assert re.search(pattern, errors[0]), errors[0]
        assert "Traceback" not in err

    return check
