"""mmtok/loading.py: any folder by its family, and clear words for what is not one."""

import json
import re

import pytest
import torch

import mmtok
from mmtok.audio.soundstream import SoundStream, build_soundstream
from mmtok.contract import AudioTokenizer, VisualTokenizer
from mmtok.loading import part_folder, what_is
from mmtok.pretrained import PARTS, resolve_folder
from mmtok.visual.magvit2 import Magvit2, Magvit2Params


def test_families_load_by_folder(tmp_path):
    visual = Magvit2(
        Magvit2Params(
            channels=8,
            channel_multipliers=(1,),
            num_res_blocks=1,
            num_mid_blocks=1,
            spatial_downsample=(),
            temporal_downsample=(),
            bits=4,
            norm_groups=2,
        )
    )
    visual.save_pretrained(tmp_path / "visual")
    build_soundstream("smoke").save_pretrained(tmp_path / "audio")
    loaded = mmtok.load(tmp_path / "visual"), mmtok.load(str(tmp_path / "audio"))
    assert isinstance(loaded[0], Magvit2) and isinstance(loaded[0], VisualTokenizer)
    assert isinstance(loaded[1], SoundStream) and isinstance(loaded[1], AudioTokenizer)
    assert not any(model.training for model in loaded)
    video = torch.zeros(1, 3, 1, 8, 8)
    assert torch.equal(loaded[0].encode(video), visual.eval().encode(video))


def test_what_is_not_a_model_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        mmtok.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"has no config.json, so it is not a model folder"):
        mmtok.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(
        ValueError,
        match="holds a 'bert' model; known families: cosmos-dv, dac, encodec, larp, magvit2, mimi, soundstream, t5",
    ):
        mmtok.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        mmtok.load(tmp_path)


def test_a_whole_model_and_its_parts_go_by_name():
    assert isinstance(mmtok.load("tiny"), Magvit2)  # the visual one, where nothing else is asked for
    assert isinstance(mmtok.load("tiny/audio"), SoundStream)
    assert isinstance(mmtok.load("tiny", part="audio"), SoundStream)
    assert mmtok.load(resolve_folder("tiny"), part="text").dim == mmtok.load("tiny/text").dim
    assert part_folder("tiny", "superres_visual") == part_folder("tiny/visual", "visual")  # it has none of its own
    assert part_folder("tiny", "lm") == resolve_folder("tiny/lm")


@pytest.mark.parametrize(
    ("name", "part", "told"),
    [
        ("tiny/audio", "visual", "tiny/audio cannot be the visual part: it is an audio tokenizer (soundstream), and a"),
        ("tiny/lm", "text", "tiny/lm cannot be the text part: it is a language model, and a text encoder is needed"),
        ("tiny/lm", None, "holds a language model, not a tokenizer; llm.model.PrefixLM.from_pretrained loads it"),
        ("tiny/superres", None, "a super-resolution model, not a tokenizer; superres.model.SuperResTransformer"),
        ("tiny", "lm", "holds a language model, not a tokenizer"),
        ("tiny", "visuals", "unknown part 'visuals'; known: visual, audio, text"),
        ("tiny/superres2", None, "has no superres2 part"),
        (
            "tiny/nope",
            None,
            "unknown model 'tiny/nope': tiny is embedded, and its parts are visual, audio, text, lm, sup",
        ),
        ("", None, "the name of a model is empty; known: tiny"),
        ("tinny", None, "unknown model 'tinny': it is not a folder; known: tiny"),
    ],
)
def test_a_name_that_means_something_else_is_told(name, part, told):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(told)):
        mmtok.load(name, part=part)


def test_a_model_that_lacks_a_part_is_told(tmp_path):
    (tmp_path / "cinepoet.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="has no visual part"):
        mmtok.load(tmp_path)


def test_every_kind_of_folder_is_told_apart(tmp_path):
    kinds = {name: what_is(resolve_folder(f"tiny/{name}" if name else "tiny")).kind for name in ("", *PARTS)}
    assert kinds == {"": "model", **{name: name for name in PARTS}}
    for values, kind in (({"family": "larp-ar"}, "generator"), ({"model_type": "qwen3"}, "other")):
        (tmp_path / "config.json").write_text(json.dumps(values))
        assert what_is(tmp_path).kind == kind
