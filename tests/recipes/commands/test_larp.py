"""LARP on the command line: train both halves and generate with what was trained, published folders, mistakes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import mmtok
from llm.loading import load_larp
from mmtok.media.container import probe
from mmtok.media.video import write_film
from mmtok.visual.larp import PRESETS, Larp
from recipes.cli import main
from recipes.corpora.shapes import ShapesCorpus, render_video
from recipes.loop.run import Run
from recipes.runtime.device import Compute
from recipes.tokens.larp_codes import (
    SHAPES_CLASSES,
    LarpCodes,
    encode_clips,
    folder_classes,
    folder_clips,
    shapes_clips,
)

Cinepoet = Callable[..., tuple[int, str, str]]
CPU = Compute(torch.device("cpu"), torch.float32, "tests")
TOKENIZER = dataclasses.replace(
    PRESETS["larp-nano"],
    num_tokens=8,
    codebook_size=32,
    encoder_dim=32,
    encoder_heads=2,
    encoder_depth=1,
    decoder_dim=32,
    decoder_heads=2,
    decoder_depth=1,
    prior=None,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = Larp(TOKENIZER)
    torch.nn.init.normal_(model.to_pixels.weight, std=0.1)
    folder = tmp_path_factory.mktemp("larp") / "tokenizer"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def generators(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A class-conditional and a frame prediction generator, trained for a moment by the command."""
    root = tmp_path_factory.mktemp("generators")
    sizes = ("dim=32", "num_layers=1", "num_heads=2", "hidden_dim=32", "clips=24", "validation_rows=4", "steps=3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "plot", lambda self: None)
        for name, more in (("class", ()), ("frames", ("frame_prediction=true",))):
            words = ["train", "larp-ar", "--tokenizer", str(tokenizer), *sizes, *more, "--out", str(root / name)]
            assert main(words) == 0
    return {name: root / name / "model" for name in ("class", "frames")}


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "given.mp4"
    write_film(path, render_video(ShapesCorpus().scene(0), size=64, num_frames=17), fps=8.0)
    return path


def test_the_tokenizer_trains_and_loads(cinepoet: Cinepoet, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("train", "larp", "preset=larp-nano", "num_tokens=16", "steps=3", "batch_size=2", "--out", out)
    code, shown, _ = cinepoet(*words)
    assert code == 0 and "ready" in shown and (out / "curves.png").exists()
    model = mmtok.load(out / "model")
    assert model.params.num_tokens == 16 and model.prior is not None
    assert model.encode(torch.zeros(1, 3, 16, 32, 32)).shape == (1, 1, 16)
    told = (out / "config.yaml").read_text()
    code, _, fault = cinepoet(*words[:-2], "optim.lr=0.5", "--out", out)
    assert code == 2 and "another config" in fault and (out / "config.yaml").read_text() == told
    code, _, fault = cinepoet(*words[:-2], "learning_rate=0.5", "--out", out)
    assert code == 2 and fault == "cinepoet: learning_rate is now optim.lr\n"


def test_real_clips_train_the_tokenizer(cinepoet: Cinepoet, film: Path, tmp_path: Path) -> None:
    code, _, _ = cinepoet(
        "train",
        "larp",
        "preset=larp-nano",
        "steps=1",
        "batch_size=2",
        "--media",
        film.parent,
        "--out",
        tmp_path / "run",
    )
    assert code == 0 and (tmp_path / "run" / "model" / "config.json").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("larp-ar",), "--tokenizer FOLDER"),
        (("larp", "--tokenizer", "TOKENIZER"), "unknown option --tokenizer; cinepoet train tiny"),
        (("larp-ar", "--media-list", "x.csv"), "unknown option --media-list; cinepoet train tiny"),
        (
            ("larp", "--stages", "visual"),
            "unknown option --stages; cinepoet train tiny, cinepoet train smoke have it",
        ),
        (("larp", "stepz=3"), "did you mean steps"),
        (("larp", "--init", "x", "local_start=true"), "local_start is a new model's"),
        (("larp", "init=x", "local_start=true"), "local_start is a new model's"),
        (("larp", "num_tokens=0"), "num_tokens must be at least 1"),
        (("larp", "init=TOKENIZER", "local_start=false"), "has no prior to train with"),
        (("larp-ar", "--tokenizer", "TOKENIZER", "given_frames=16", "frame_prediction=true"), "must lie in [1, 15]"),
        (("larp-ar", "--tokenizer", "VISUAL"), "is not a LARP tokenizer"),
    ],
)
def test_training_refuses(
    cinepoet: Cinepoet, tokenizer: Path, bundle: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    names = {"TOKENIZER": tokenizer, "VISUAL": bundle / "visual"}
    given = (w.replace("TOKENIZER", str(tokenizer)) if "=" in w else names.get(w, w) for w in words)
    code, _, fault = cinepoet("train", *given, "--out", tmp_path / "run")
    assert code == 2 and told in fault and fault.count("\n") == 1
    if {"VISUAL", "init=TOKENIZER"} & set(words):  # what it needs is wrong, so nothing is begun
        assert not (tmp_path / "run").exists()


def test_a_tokenizer_goes_on_and_keeps_its_films(cinepoet: Cinepoet, film: Path, tmp_path: Path) -> None:
    few = ("train", "larp", "preset=larp-nano", "steps=1", "batch_size=2", "--out")
    assert cinepoet(*few, tmp_path / "first")[0] == 0
    code, _, fault = cinepoet(
        *few, tmp_path / "second", "--init", tmp_path / "first" / "model"
    )  # the preset's start is no hindrance
    assert code == 0, fault
    code, _, fault = cinepoet(*few, tmp_path / "first", "--media", film.parent)
    assert code == 2 and "was started with other data" in fault


def test_a_class_becomes_a_film(cinepoet: Cinepoet, generators: dict[str, Path], tmp_path: Path) -> None:
    films = [tmp_path / f"{n}.mp4" for n in "abc"]
    model = generators["class"]
    assert (model / "tokenizer" / "config.json").exists()
    for out, words in zip(films, (("star spins",), (SHAPES_CLASSES.index("star spins"),), ("star left",)), strict=True):
        code, shown, _ = cinepoet("generate", "--model", model, "--class", *words, "--out", out, "--profile")
        assert code == 0 and "16 frames of 32x32 at 8 fps" in shown and "peak memory" in shown
    info = probe(films[0])
    assert (info.width, info.height, info.has_audio) == (32, 32, False)
    assert films[0].read_bytes() == films[1].read_bytes()  # a name is its number, the seed decides


def test_codes_of_films_have_the_folders_as_classes(tokenizer: Path, tmp_path: Path) -> None:
    model = Larp.from_pretrained(tokenizer)
    for number, name in enumerate(("run", "bend", "run")):
        (tmp_path / name).mkdir(exist_ok=True)
        film = render_video(ShapesCorpus().scene(number), size=32, num_frames=40)
        write_film(tmp_path / name / f"{number}.mp4", film, fps=8.0)
    (tmp_path / "run" / "broken.mp4").write_bytes(b"no film")
    clips = list(folder_clips(model, tmp_path))
    assert sorted(name for _, name in clips) == ["bend"] * 2 + ["run"] * 4
    assert clips[0][0].shape == (3, 16, 32, 32)
    assert folder_classes(tmp_path) == ("bend", "run")
    data = encode_clips(model, iter(clips), count=6, classes=folder_classes(tmp_path), given_frames=None, compute=CPU)
    assert data.classes == ("bend", "run") and sorted(data.condition.tolist()) == [0, 0, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="holds no films"):
        list(folder_clips(model, tokenizer))


def test_the_order_is_drawn_and_codes_stay_with_their_class(tokenizer: Path) -> None:
    model = Larp.from_pretrained(tokenizer)
    clips = list(shapes_clips(model, first=5, count=7))
    data = encode_clips(
        model, iter(clips), count=7, classes=SHAPES_CLASSES, given_frames=None, compute=CPU, batch_size=3
    )
    rows = {SHAPES_CLASSES.index(name): model.encode(clip[None])[0, 0] for clip, name in clips}
    assert data.condition.tolist() != [SHAPES_CLASSES.index(name) for _, name in clips]
    for codes, label in zip(data.codes, data.condition.tolist(), strict=True):
        if [SHAPES_CLASSES.index(n) for _, n in clips].count(label) == 1:
            assert torch.equal(codes, rows[label])


def test_published_folders_load_as_they_are(shared: Path, cinepoet: Cinepoet, tmp_path: Path) -> None:
    """config.json and model.safetensors as the authors' repositories hold them."""

    def publish(case: str) -> tuple[Path, dict[str, Tensor]]:
        with safe_open(shared / "golden" / "larp" / f"{case}.safetensors", "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            config = json.loads(file.metadata()["config"])
        folder = tmp_path / case
        folder.mkdir()
        weights = {n.removeprefix("state_dict."): t for n, t in tensors.items() if n.startswith("state_dict.")}
        save_file(weights, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
        return folder, tensors

    folder, tensors = publish("larp_tokenizer_a")
    model = mmtok.load(folder)
    assert torch.equal(model.encode(tensors["input.video"] * 2 - 1)[:, 0], tensors["output.token_ids"])
    assert mmtok.load(folder, dtype=torch.bfloat16).codebook.dtype == torch.bfloat16
    generator, tensors = publish("larp_ar_a")
    greedy = load_larp(generator).generate(tensors["input.cond"], temperature=0.0)
    assert torch.equal(greedy, tensors["output.greedy_tokens"])
    out = tmp_path / "film.mp4"
    code, _, fault = cinepoet("generate", "--model", generator, "--class", 1, "--tokenizer", folder, "--out", out)
    assert code == 0, fault
    with pytest.raises(ValueError, match="holds a LARP generator, not a tokenizer"):
        mmtok.load(generator)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "input_size"}))
    with pytest.raises(ValueError, match="no config of larp: it has no 'input_size'"):
        mmtok.load(folder)


def test_codes_of_another_tokenizer_are_not_taken(
    cinepoet: Cinepoet, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "plot", lambda self: None)
    shutil.copytree(tokenizer, tmp_path / "tok")
    sizes = ("dim=32", "num_layers=1", "num_heads=2", "hidden_dim=32", "clips=8", "validation_rows=2", "steps=1")
    words = ("train", "larp-ar", "--tokenizer", tmp_path / "tok", *sizes, "--out", tmp_path / "run")
    assert cinepoet(*words)[0] == 0
    torch.manual_seed(1)
    Larp(TOKENIZER).save_pretrained(tmp_path / "tok")  # trained anew at the same place
    code, _, fault = cinepoet(*words)
    assert code == 2 and "codes of other clips or of another tokenizer" in fault


def test_fewer_clips_than_there_are_come_from_all_classes(
    cinepoet: Cinepoet, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "plot", lambda self: None)
    for number, name in enumerate("abcabcabc"):
        (tmp_path / "media" / name).mkdir(exist_ok=True, parents=True)
        film = render_video(ShapesCorpus().scene(number), size=32, num_frames=16)
        write_film(tmp_path / "media" / name / f"{number}.mp4", film, fps=8.0)
    sizes = ("dim=32", "num_layers=1", "num_heads=2", "hidden_dim=32", "validation_rows=1", "steps=1")
    for clips, count in ((5, 5), ("null", 9)):
        out = tmp_path / str(clips)
        words = ("train", "larp-ar", "--tokenizer", tokenizer, "--media", tmp_path / "media", *sizes)
        assert cinepoet(*words, f"clips={clips}", "--out", out)[0] == 0
        data = LarpCodes.load(out / "codes.safetensors")
        assert len(data.codes) == count and data.classes == ("a", "b", "c")
        assert len(set(data.condition.tolist())) > 1
    code, _, fault = cinepoet("train", "larp-ar", "--tokenizer", tokenizer, "clips=null", "--out", tmp_path / "no")
    assert code == 2 and "the corpus is endless" in fault
