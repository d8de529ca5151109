"""Published T5 files: only the encoder is read, and nothing in a pickle is run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmtok.convert.checkpoints import _Reader
from mmtok.convert.t5 import encoder_from_files, is_t5
from mmtok.text.t5 import T5TextEncoder, empty_encoder, published_config
from recipes.cli import main


@pytest.fixture(scope="module")
def tiny() -> Path:
    return Path(__file__).parents[3] / "recipes" / "pretrained" / "tiny" / "text"


@pytest.fixture
def published(tiny: Path, tmp_path: Path) -> Path:
    """The embedded text encoder as upstream would ship it: one pickle, with a decoder that nobody needs."""
    folder = tmp_path / "t5"
    folder.mkdir()
    for name in ("config.json", "spiece.model"):
        shutil.copy(tiny / name, folder)
    tensors = {k: v.float() for k, v in load_file(tiny / "model.safetensors").items()}
    decoder = {"decoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(900), "lm_head.weight": torch.ones(901)}
    torch.save(
        {**decoder, **tensors, "encoder.embed_tokens.weight": tensors["shared.weight"]}, folder / "pytorch_model.bin"
    )
    return folder


def test_the_decoder_is_never_read(published: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    whole = _Reader._read_storage

    def counted(reader: _Reader, dtype: torch.dtype, key: str, length: int) -> torch.Tensor:
        lengths.append(length)
        return whole(reader, dtype, key, length)

    monkeypatch.setattr(_Reader, "_read_storage", counted)
    encoder = encoder_from_files([published / "pytorch_model.bin"], dtype=torch.float32)
    assert lengths and not {900, 901} & set(lengths)
    wanted = T5TextEncoder.from_pretrained(tiny)
    assert torch.equal(encoder.encode(["a red ball"])[0], wanted.encode(["a red ball"])[0])


@pytest.mark.parametrize("options", [[], ["--dtype", "float32"]])
def test_the_command_writes_a_folder_that_loads(
    published: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main(["convert", str(published / "pytorch_model.bin"), "--out", str(tmp_path / "new"), *options]) == 0
    assert "t5, " in capsys.readouterr().out
    dtype = torch.float32 if options else torch.bfloat16
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {dtype} and not [n for n in tensors if n.startswith("decoder")]
    one, other = (T5TextEncoder.from_pretrained(folder, dtype=dtype) for folder in (tiny, tmp_path / "new"))
    assert one.fingerprint == other.fingerprint


def test_parts_join(published: Path, tiny: Path) -> None:
    tensors = torch.load(published / "pytorch_model.bin", weights_only=True)
    names = sorted(tensors)
    files = []
    for number, part in enumerate((names[:1], names[1::2], names[2::2]), start=1):  # the first holds the decoder alone
        files.append(published / f"pytorch_model-0000{number}-of-00003.bin")
        torch.save({n: tensors[n] for n in part}, files[-1])
    whole = T5TextEncoder.from_pretrained(tiny, dtype=torch.bfloat16)
    assert encoder_from_files(files).fingerprint == whole.fingerprint
    with pytest.raises(ValueError, match="missing"):
        encoder_from_files(files[:2])


def test_code_in_a_pickle_is_refused_by_name(published: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"shared.weight": Hostile()}, published / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"asks to run (posix|nt)\.mkdir"):
        encoder_from_files([published / "pytorch_model.bin"])
    assert not (tmp_path / "owned").exists()


def test_faults_are_named(published: Path, tmp_path: Path) -> None:
    file = published / "pytorch_model.bin"
    with pytest.raises(ValueError, match="float16 overflows"):
        encoder_from_files([file], dtype=torch.float16)
    save_file({"decoder.x": torch.ones(3)}, published / "model.safetensors")
    with pytest.raises(ValueError, match="holds no encoder of a T5"):
        encoder_from_files([published / "model.safetensors"])
    (published / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"has no config\.json of a T5"):
        encoder_from_files([file])
    assert not is_t5(tmp_path / "nowhere" / "x.bin")


def test_published_sizes_are_built_from_their_config() -> None:
    config = empty_encoder(published_config("xl")).config
    assert (config.d_model, config.num_layers, config.num_heads, config.vocab_size) == (2048, 24, 32, 32128)
