"""recipes/bundle/named.py: what a name means is the same for every option."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmtok.audio.soundstream import SoundStream
from mmtok.visual.magvit2 import Magvit2
from recipes.bundle.folder import open_bundle
from recipes.bundle.named import chosen_part, in_tiles, is_generator, load_tokenizers, tokenizer_of

CPU = torch.device("cpu")


def test_a_tokenizer_is_a_whole_model_or_one_part(bundle: Path) -> None:
    whole = load_tokenizers(str(bundle), CPU)
    assert isinstance(whole.visual, Magvit2) and isinstance(whole.audio, SoundStream)
    assert (whole.fps, whole.size, whole.clip, whole.source) == (8.0, 64, 17, str(bundle))
    visual, audio = (load_tokenizers(str(bundle / part), CPU, None) for part in ("visual", "audio"))
    assert isinstance(visual.visual, Magvit2) and visual.audio is None
    assert isinstance(audio.audio, SoundStream) and audio.visual is None
    assert load_tokenizers("tiny/audio", CPU, 2).audio.num_codebooks == 2


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("text", "is a text encoder \\(t5\\); a visual tokenizer or an audio tokenizer is needed"),
        ("lm", "is a language model; a visual tokenizer or an audio"),
        ("superres", "is a super-resolution model; a visual"),
    ],
)
def test_other_parts_are_no_tokenizer(bundle: Path, part: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_tokenizers(str(bundle / part), CPU)


def test_one_part_beside_a_model(bundle: Path) -> None:
    model = str(bundle)
    assert chosen_part("audio", None, model) == bundle / "audio" and chosen_part("audio", "none", model) is None
    assert chosen_part("visual", "tiny", model) == chosen_part("visual", "tiny/visual", model)
    with pytest.raises(ValueError, match="tiny/visual cannot be the audio part: it is a visual tokenizer"):
        chosen_part("audio", "tiny/visual", model)


def test_a_part_is_no_whole_model(bundle: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"not a cinepoet model.*it is a visual tokenizer \(magvit2\)"):
        open_bundle(bundle / "visual")


def test_tiles_need_pictures(bundle: Path) -> None:
    audio = load_tokenizers(str(bundle / "audio"), CPU)
    assert in_tiles(audio, None) is audio
    with pytest.raises(ValueError, match="--tile is for pictures"):
        in_tiles(audio, 32)


def test_generators_are_told_from_models(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"family": "larp-ar"}))
    assert is_generator(str(tmp_path))
    assert not is_generator(str(bundle)) and not is_generator("tiny/lm") and not is_generator("nowhere")
    with pytest.raises(ValueError, match="does not hold its tokenizer; name the one it was trained with"):
        tokenizer_of(tmp_path)
    (tmp_path / "tokenizer").mkdir()
    assert tokenizer_of(tmp_path) == str(tmp_path / "tokenizer")
