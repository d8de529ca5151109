"""recipes/tokens/identity.py: what tells whether two tokenizers give the same codes."""

import torch

from mmtok.audio.soundstream import build_soundstream
from recipes.tokens.identity import tokenizer_facts


def test_decoders_do_not_change_codes_and_encoders_do():
    audio = build_soundstream("smoke")
    before = tokenizer_facts(audio)
    with torch.no_grad():
        next(audio.decoder.parameters()).add_(1)
    assert tokenizer_facts(audio) == before and before["sample_rate"] == audio.sample_rate
    with torch.no_grad():
        next(audio.encoder.parameters()).add_(1)
    assert tokenizer_facts(audio)["weights"] != before["weights"]
