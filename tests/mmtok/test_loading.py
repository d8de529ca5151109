"""mmtok/loading.py: any folder by its family, and clear words for what is not one."""

import pytest
import torch

import mmtok
from mmtok.audio.soundstream import SoundStream, build_soundstream
from mmtok.contract import AudioTokenizer, VisualTokenizer
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
