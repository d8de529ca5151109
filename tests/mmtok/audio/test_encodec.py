"""What only EnCodec does."""

import torch
from safetensors.torch import load_file, save_file

import mmtok
import mmtok.pretrained
from mmtok.audio.encodec import Encodec


def sound(batch: int, samples: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(batch, 1, samples, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9


def test_encodec_with_the_names_of_older_files_loads_as_it_was_published(build, tmp_path):
    model, audio = build("encodec"), sound(1, 400)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, before in old.items():
        tensors = {name.replace(new, before): tensor for name, tensor in tensors.items()}
    assert sum(name.endswith("weight_g") for name in tensors) > 20
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(mmtok.load(tmp_path).encode(audio), Encodec(model).encode(audio))
