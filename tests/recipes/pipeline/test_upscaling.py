"""recipes/pipeline/upscaling.py: the upscaler of a bundle, with one stage, two, and another tokenizer."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from mmtok.visual.magvit2 import Magvit2
from recipes.bundle.folder import BUNDLE_FILE, open_bundle
from recipes.corpora.shapes import ShapesCorpus, render_video
from recipes.pipeline.cinepoet import CinePoetPipeline
from superres.config import SuperResConfig
from superres.model import SuperResTransformer
from superres.passes import describe_passes
from superres.windows import windows_for

PROMPT = "a red circle moves left on a dark plain background"


def film(frames: int = 30, size: int = 32) -> torch.Tensor:
    return render_video(ShapesCorpus(0).scene(4), size=size, num_frames=frames)[None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def pipe(bundle: Path) -> CinePoetPipeline:
    return CinePoetPipeline.from_pretrained(bundle, device="cpu")


def second_stage(bundle: Path, folder: Path, *, factor_sizes: tuple[int, ...] = (8, 8)) -> Path:
    """The bundle with a stage for 64 to 128 pixels."""
    shutil.copytree(bundle, folder)
    stored = json.loads((folder / BUNDLE_FILE).read_text())
    stored["config"] |= {"upscaled_size": 128, "sr2_steps": 3, "sr2_text_scale": 8.0, "sr2_low_scale": 2.0}
    (folder / BUNDLE_FILE).write_text(json.dumps(stored))
    torch.manual_seed(1)
    grid = (5, 16, 16)
    sizes = {"dim": 16, "num_blocks": 1, "num_heads": 2, "hidden_dim": 16, "text_dim": 16}
    config = SuperResConfig(grid=grid, windows=windows_for(grid), factor_sizes=factor_sizes, **sizes)
    SuperResTransformer(config).save_pretrained(folder / "superres2")
    return folder


@pytest.fixture(scope="module")
def cascade(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> CinePoetPipeline:
    folder = second_stage(bundle, tmp_path_factory.mktemp("cascade") / "two")
    return CinePoetPipeline.from_pretrained(folder, device="cpu")


def test_forms_and_sizes_are_the_bundles(pipe: CinePoetPipeline) -> None:
    def way(**options: object) -> str:
        return describe_passes(pipe.plan_film((50, 50), **options))

    assert way() == "32x32 -> 64x64 (superres, 2 steps)"
    assert way(aspect="portrait", changes={"num_steps": 7}).endswith("64x112 (superres in 2 tiles, 7 steps)")
    with pytest.raises(ValueError, match="unknown aspect 'wide'; known: own, square, portrait"):
        way(aspect="wide")
    assert repr(pipe.upscaler) == "FilmUpscaler(32 -> 64 pixels by superres)"


def test_only_the_tokenizer_is_loaded_for_a_plan(bundle: Path) -> None:
    fresh = CinePoetPipeline.from_pretrained(bundle, device="cpu")
    assert fresh.plan_film((50, 50)) and "superres" not in vars(fresh.parts) and "visual" in vars(fresh.parts)


def test_a_film_in_blocks_is_the_film_of_upscale(pipe: CinePoetPipeline) -> None:
    from llm.sampling import film_generators

    whole = pipe.upscale(film(20), generator=seeded())
    draws = film_generators(seeded(), 1, 1)
    pieces = pipe.upscale_stream([film(20)[:, :, :7], film(20)[:, :, 7:]], None, draws, passes=pipe.plan_film((32, 32)))
    assert whole.shape == (1, 3, 20, 64, 64) and torch.cat(list(pieces), 2).equal(whole)


def test_a_cascade_serves_every_length(cascade: CinePoetPipeline) -> None:
    out = cascade(PROMPT, sound=False, extensions=1, generator=seeded())
    assert out.frames.shape == (1, 3, 25, 128, 128) and out.codes["high"].shape == (1, 1, 5, 16, 16)
    assert cascade.upscale(film(1, size=48)).shape == (1, 3, 1, 128, 128)


def test_stages_of_other_tokens_are_refused(bundle: Path, tmp_path: Path) -> None:
    folder = second_stage(bundle, tmp_path / "other", factor_sizes=(8, 16))
    broken = CinePoetPipeline.from_pretrained(folder, device="cpu")
    with pytest.raises(ValueError, match=r"superres2 of .* speaks 128 codes and the tokenizer under it 64"):
        broken(PROMPT)


def test_a_size_that_doubling_does_not_reach_is_refused(bundle: Path) -> None:
    opened = open_bundle(bundle)
    odd = dataclasses.replace(opened, config=dataclasses.replace(opened.config, upscaled_size=96))
    with pytest.raises(ValueError, match=r"upscaled_size \(96\) must be 32 doubled"):
        CinePoetPipeline(odd)(PROMPT)


def test_pictures_of_another_tokenizer_are_encoded_again(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "m")
    torch.manual_seed(7)
    visual = Magvit2.from_pretrained(bundle / "visual")
    other = Magvit2(visual.params)
    other.save_pretrained(tmp_path / "m" / "superres_visual")
    pipe = CinePoetPipeline.from_pretrained(tmp_path / "m", device="cpu")
    out = pipe(PROMPT, sound=False, extensions=1, generator=seeded())
    low = pipe.upscaler.encode(pipe.visual.decode(out.codes["low"]))
    assert out.frames.shape == (1, 3, 25, 64, 64) and not low.equal(out.codes["low"])
    text = pipe.embed([PROMPT], [])
    state = seeded()
    lm_only = pipe(PROMPT, sound=False, upscale=False, generator=state)
    assert lm_only.codes["low"].equal(out.codes["low"])
    assert pipe.upscale_codes(out.codes["low"], prompts=[PROMPT]).shape == out.codes["high"].shape and text is not None


def test_an_empty_prompt_is_none(pipe: CinePoetPipeline) -> None:
    notes: list[str] = []
    assert pipe.upscaler.read_prompt(" ", notes) is None and "goes without text" in notes[0]
    assert pipe.upscaler.read_prompt(None, notes) is None and len(notes) == 1
    assert pipe.upscaler.read_prompt(PROMPT, notes) is not None
