"""Long sounds block by block are the sounds as a whole."""

import math

import pytest
import torch

from mmtok.audio import long_sound
from mmtok.audio.soundstream import build_soundstream
from mmtok.media.audio import read_audio, write_wav


@pytest.mark.parametrize("decodes", [True, False])
def test_blocks_are_the_whole_sound(tmp_path, monkeypatch, decodes):
    monkeypatch.setattr(long_sound, "BLOCK_S", 0.25)
    torch.manual_seed(0)
    model = build_soundstream("smoke").eval()
    seconds, rate = 1.13, model.sample_rate  # the last block is short and ends inside a frame
    t = torch.arange(round(seconds * rate)) / rate
    write_wav(tmp_path / "a.wav", (0.5 * torch.sin(2 * math.pi * 440 * t))[None], rate)
    done = []
    blocks = long_sound.long_sound(
        str(tmp_path / "a.wav"),
        model,
        seconds=seconds,
        device="cpu",
        decodes=decodes,
        on_block=lambda *n: done.append(n),
    )
    sounds, codes, again = zip(*blocks, strict=True)
    whole = read_audio(tmp_path / "a.wav", sample_rate=rate).samples[None]
    assert done == [(n, 5) for n in range(1, 6)] and len(sounds) == 5
    assert torch.equal(torch.cat(sounds, -1), whole)
    expected = long_sound.encode_sound(model, whole)
    assert torch.equal(torch.cat(codes, -1), expected) and expected.shape[-1] == math.ceil(seconds * 50)
    if decodes:
        made = model.decode(expected)[..., : whole.shape[-1]]
        torch.testing.assert_close(torch.cat(again, -1), made, atol=1e-5, rtol=1e-5)
    else:
        assert again == (None,) * 5
