"""What only DAC does."""

import torch

from mmtok.audio.dac import Dac


def sound(batch: int, samples: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(batch, 1, samples, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9


def test_dac_fills_up_what_its_decoder_falls_short_of(build):
    codec = Dac(build("dac", downsampling_ratios=[2, 4, 5, 8]))
    codes = codec.encode(sound(1, 3200))
    with torch.no_grad():
        own = codec.model.decode(audio_codes=codes).audio_values
    assert own.shape == (1, 3192)
    again = codec.decode(codes)
    assert again.shape == (1, 1, 3200) and torch.equal(again[0, :, :3192], own)
    assert again[0, 0, 3192:].std() > 0  # sound, not silence
