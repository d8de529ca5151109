"""recipes/tokens/shapes.py: shards that survive a stop, and codes that are those of the tokenizers."""

from dataclasses import replace

import pytest
import torch

from mmtok.audio.soundstream import build_soundstream
from mmtok.media.resize import half_size
from mmtok.visual.magvit2 import Magvit2, Magvit2Params
from recipes.corpora.shapes import ShapesCorpus, render_video
from recipes.runtime.device import choose_compute
from recipes.tokens.cache import TokenSet
from recipes.tokens.conditions import condition_of
from recipes.tokens.shapes import EncodeConfig, encode_shapes

CONFIG = EncodeConfig(scenes=5, size=16, upscale=True, num_frames=5, shard=2, batch_size=2)


def _tokenizers():
    torch.manual_seed(0)
    visual = Magvit2(
        Magvit2Params(
            channels=8,
            channel_multipliers=(1, 1),
            num_res_blocks=1,
            num_mid_blocks=1,
            spatial_downsample=(True,),
            temporal_downsample=(False,),
            bits=4,
            patch_size=(4, 4, 4),
            norm_groups=2,
        )
    ).eval()
    return visual, build_soundstream("smoke").eval()


def test_codes_captions_and_shapes(tmp_path):
    visual, audio = _tokenizers()
    compute = choose_compute("cpu", "float32")
    tokens = encode_shapes(CONFIG, tmp_path, visual=visual, audio=audio, compute=compute)
    assert tokens.low.shape == (5, 2, 2, 2) and tokens.high.shape == (5, 2, 4, 4)
    assert tokens.audio.shape == (5, audio.num_codebooks, 10000 // audio.hop_length)
    scene = ShapesCorpus(0, "train").scene(3)
    clip = render_video(scene, size=32, num_frames=5)[None]
    assert tokens.captions[3] == scene.caption
    assert torch.equal(tokens.high[3], visual.encode(clip)[0, 0].int())
    assert torch.equal(tokens.low[3], visual.encode(half_size(clip))[0, 0].int())
    again = TokenSet.load(tmp_path)
    assert torch.equal(again.low, tokens.low) and not (tmp_path / "shards").exists()


def test_conditions_are_codes_of_what_may_be_seen(tmp_path):
    pytest.importorskip("cv2")
    visual, audio = _tokenizers()
    names = ("structure", "inpaint", "outpaint_central")
    config = replace(CONFIG, conditions=names, upscale=False)
    compute = choose_compute("cpu", "float32")
    tokens = encode_shapes(config, tmp_path, visual=visual, audio=audio, compute=compute)
    assert set(TokenSet.load(tmp_path).conditions) == set(names)
    clip = half_size(render_video(ShapesCorpus(0, "train").scene(3), size=32, num_frames=5)[None])
    for name in names:
        seen = condition_of(name, clip, stride=visual.stride, numbers=[3])
        assert seen.shape == clip.shape and not torch.equal(seen, clip)
        assert torch.equal(tokens.conditions[name][3], visual.encode(seen)[0, 0].int()), name
    drawn = {
        tuple((condition_of("inpaint", clip, stride=visual.stride, numbers=[n]) == -1).flatten().tolist())
        for n in range(8)
    }
    assert len(drawn) == 2  # central and dynamic
    with pytest.raises(ValueError, match="unknown conditions inpaint_side; known: structure, inpaint, outpaint"):
        replace(CONFIG, conditions=("inpaint_side",))


def test_a_stopped_run_keeps_its_finished_shards(tmp_path):
    visual, audio = _tokenizers()
    compute = choose_compute("cpu", "float32")
    whole = encode_shapes(CONFIG, tmp_path / "whole", visual=visual, audio=audio, compute=compute)

    class Stop(Exception):
        pass

    class Stopping:
        """The tokenizer of a process that is killed in its third shard."""

        fps = visual.fps
        state_dict, valid_num_frames = visual.state_dict, visual.valid_num_frames
        calls = 0

        def encode(self, video):
            self.calls += 1
            if self.calls > 4:
                raise Stop
            return visual.encode(video)

    try:
        encode_shapes(CONFIG, tmp_path / "cut", visual=Stopping(), audio=audio, compute=compute)
        raise AssertionError("the run was meant to stop")
    except Stop:
        pass
    assert sorted(f.name for f in (tmp_path / "cut" / "shards").iterdir()) == ["00000.safetensors", "00001.safetensors"]
    resumed = encode_shapes(CONFIG, tmp_path / "cut", visual=visual, audio=audio, compute=compute)
    assert torch.equal(resumed.low, whole.low) and torch.equal(resumed.audio, whole.audio)


def test_tokens_of_other_weights_are_refused(tmp_path):
    visual, audio = _tokenizers()
    compute = choose_compute("cpu", "float32")
    encode_shapes(CONFIG, tmp_path, visual=visual, audio=audio, compute=compute)
    with torch.no_grad():
        next(visual.parameters()).add_(1e-3)
    with pytest.raises(ValueError, match="holds tokens of another corpus or of other tokenizers"):
        encode_shapes(CONFIG, tmp_path, visual=visual, audio=audio, compute=compute)


def test_half_size_keeps_range_and_mean():
    video = torch.rand(2, 3, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    small = half_size(video)
    assert small.shape == (2, 3, 5, 8, 8) and small.abs().max() <= 1
    torch.testing.assert_close(small.mean(), video.mean(), atol=0.02, rtol=0)
