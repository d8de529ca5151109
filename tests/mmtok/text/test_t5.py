"""The frozen text encoder against transformers, the real T5 vocabulary and itself."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mmtok
from mmtok import pretrained
from mmtok.contract import TextEncoder
from mmtok.text import t5
from mmtok.text.t5 import T5TextEncoder, TextTokenizer, read_prompts
from recipes.bundle.folder import open_bundle

GERMAN = "translate English to German: The house is wonderful."


GERMAN_IDS = (13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5, 1)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers wrote: a whole random T5 v1.1, decoder included, and no vocabulary."""
    from transformers.models.t5.configuration_t5 import T5Config
    from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=32128,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_decoder_layers=1,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.5,
        tie_word_embeddings=False,
    )
    folder = tmp_path_factory.mktemp("upstream")
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(upstream: Path, tmp_path: Path, shared: Path) -> Path:
    """``upstream`` with the published vocabulary, free to be damaged."""
    folder = tmp_path / "t5"
    shutil.copytree(upstream, folder)
    shutil.copy(shared / "models" / "t5_tokenizer" / "spiece.model", folder)
    return folder


def transformers_vectors(folder: Path, ids: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    model = T5EncoderModel.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0].float()


@pytest.mark.parametrize("file_name", ["spiece.model", "tokenizer.json"])
def test_real_vocabulary_gives_published_ids(shared: Path, file_name: str) -> None:
    content = (shared / "models" / "t5_tokenizer" / file_name).read_bytes()
    tokenizer = TextTokenizer.from_bytes(file_name, content)
    assert tokenizer.tokenize(GERMAN).ids == GERMAN_IDS
    assert tokenizer.tokenize("  The house\n is   wonderful. ").ids == (37, 629, 19, 1627, 5, 1)


def test_both_vocabulary_files_agree(shared: Path) -> None:
    one, other = (
        TextTokenizer.from_bytes(name, (shared / "models" / "t5_tokenizer" / name).read_bytes())
        for name in ("spiece.model", "tokenizer.json")
    )
    for text in ("Ein Käse & 3½ crème brûlées!", "tiny-robot, 東京 at 8.5 fps", "A  BIG\tCat's ﬁn…", "x" * 90):
        assert one.tokenize(text) == other.tokenize(text), text


def test_folder_with_both_files_prefers_sentencepiece(shared: Path) -> None:
    assert TextTokenizer.from_folder(shared / "models" / "t5_tokenizer").file_name == "spiece.model"


def test_vectors_equal_transformers_own(folder: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    embeddings, mask = encoder.encode([GERMAN])
    assert embeddings.shape == (1, 11, 16) and embeddings.dtype == torch.float32 and mask.all()
    torch.testing.assert_close(embeddings[0], transformers_vectors(folder, GERMAN_IDS), rtol=1e-5, atol=1e-5)


def test_bfloat16_equals_transformers_own(folder: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder, dtype=torch.bfloat16)
    embeddings, _ = encoder.encode([GERMAN])
    assert encoder.dtype == torch.bfloat16 and embeddings.dtype == torch.float32
    reference = transformers_vectors(folder, GERMAN_IDS, torch.bfloat16)
    torch.testing.assert_close(embeddings[0], reference, rtol=0.02, atol=0.02)  # one bfloat16 step near 2.5


def test_sharded_checkpoint_loads(folder: Path) -> None:
    whole = T5TextEncoder.from_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        save_file({k: tensors[k] for k in part}, folder / f"model-0000{number}-of-00002.safetensors")
    assert T5TextEncoder.from_pretrained(folder).fingerprint == whole.fingerprint


def test_padding_does_not_change_vectors(folder: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    texts = ["a cat", GERMAN, "three blue birds sing in the rain"]
    embeddings, mask = encoder.encode(texts)
    lengths = [len(encoder.tokenize(text).ids) for text in texts]
    assert mask.dtype == torch.bool and mask.sum(1).tolist() == lengths and mask.shape[1] == max(lengths)
    for text, vectors, length in zip(texts, embeddings, lengths, strict=True):
        alone, _ = encoder.encode([text])
        torch.testing.assert_close(vectors[:length], alone[0], rtol=1e-5, atol=1e-5)
        assert not vectors[length:].any()


def test_pad_to_only_adds_empty_positions(folder: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    short, short_mask = encoder.encode(["a cat"])
    long, long_mask = encoder.encode(["a cat"], pad_to=64)
    assert long.shape == (1, 64, 16) and long_mask.shape == (1, 64) and int(long_mask.sum()) == short.shape[1]
    assert torch.equal(long[:, : short.shape[1]], short) and not long[:, short.shape[1] :].any()
    assert short_mask.all()
    with pytest.raises(ValueError, match=r"pad_to \(3\) is shorter than the longest prompt \(4 tokens\)"):
        encoder.encode(["a cat"], pad_to=3)


def test_encoder_stays_frozen_inside_a_training_model(folder: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    before, _ = encoder.encode(["a cat"])
    parent = torch.nn.ModuleDict({"text": encoder, "project": torch.nn.Linear(16, 4)}).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    after, _ = encoder.encode(["a cat"])
    assert torch.equal(before, after)  # dropout is 0.5 in this config
    parent["project"](after).sum().backward()  # vectors of inference mode would raise here
    assert parent["project"].weight.grad.abs().sum() > 0


def test_autocast_around_the_call_changes_nothing(folder: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    plain, _ = encoder.encode(["a cat"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = encoder.encode(["a cat"])
    assert torch.equal(plain, inside)


def test_saved_folder_loads_exactly_and_in_transformers(folder: Path, tmp_path: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    encoder.save_pretrained(tmp_path / "saved")
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == [
        "config.json",
        "model.safetensors",
        "spiece.model",
    ]
    assert not [k for k in load_file(tmp_path / "saved" / "model.safetensors") if k.startswith("decoder")]
    again = T5TextEncoder.from_pretrained(tmp_path / "saved")
    assert again.fingerprint == encoder.fingerprint
    assert torch.equal(again.encode([GERMAN])[0], encoder.encode([GERMAN])[0])
    reference = transformers_vectors(tmp_path / "saved", GERMAN_IDS)
    torch.testing.assert_close(encoder.encode([GERMAN])[0][0], reference, rtol=1e-5, atol=1e-5)


def test_fingerprint_tells_weights_types_and_vocabularies_apart(folder: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    half = T5TextEncoder.from_pretrained(folder, dtype=torch.bfloat16)
    other = T5TextEncoder.from_pretrained(folder)
    with torch.no_grad():
        other.model.shared.weight[5, 3] += 1
    tokenizer = TextTokenizer("spiece.model", encoder.tokenizer.content + b"x", encoder.tokenizer.split, 32000)
    renamed = T5TextEncoder(encoder.model, tokenizer)
    assert len({e.fingerprint for e in (encoder, half, other, renamed)}) == 4


def test_encoder_keeps_the_contract(folder: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    assert isinstance(encoder, TextEncoder) and encoder.dim == 16 and encoder.max_length == 64


def test_long_prompt_is_cut_to_whole_words_and_says_so(folder: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    text = " ".join(f"wonderful house number {i} in Schleswig" for i in range(20))
    read = encoder.tokenize(text)
    assert len(read.ids) <= 64 and read.ids[-1] == 1 and read.ids[:-1].count(1) == 0
    assert f"{read.kept} {read.cut}" == text
    assert read.ids == encoder.tokenize(read.kept).ids
    more = f"{read.kept} {read.cut.split()[0]}"
    assert len(encoder.tokenizer.split(more)) > 63, "one more word would have fitted"
    assert encoder.encode([text])[0].shape[1] == len(read.ids)


def test_prompt_that_just_fits_is_not_cut(folder: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    fits = encoder.tokenize(" ".join(["house"] * 63))
    over = encoder.tokenize(" ".join(["house"] * 64))
    assert len(fits.ids) == 64 and fits.cut == ""
    assert over.ids == fits.ids and over.cut == "house"


def test_one_endless_word_is_cut_inside(folder: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    read = encoder.tokenize("q9" * 200)
    assert read.kept + read.cut == "q9" * 200 and read.kept and read.cut and 60 <= len(read.ids) <= 64


@pytest.mark.parametrize("text", ["", "   \n\t "])
def test_empty_prompt_raises_one_clear_line(folder: Path, text: str) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    with pytest.raises(ValueError, match="is empty; describe what should be seen or heard") as caught:
        encoder.encode(["a cat", text])
    assert "\n" not in str(caught.value)


def test_no_prompts_raise(folder: Path) -> None:
    with pytest.raises(ValueError, match="no prompts to encode"):
        T5TextEncoder.from_pretrained(folder).encode([])


def test_bad_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        T5TextEncoder.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        T5TextEncoder.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="float16 overflows in T5; use bfloat16 or float32"):
        T5TextEncoder.from_pretrained(folder, dtype=torch.float16)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(ValueError, match=r"is not a T5: its config\.json says model_type 'bert'"):
        T5TextEncoder.from_pretrained(folder)


def test_hub_repository_is_fetched_without_its_pickled_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(pretrained, "snapshot_download", fetch)
    assert T5TextEncoder.from_pretrained("google/t5-v1_1-xl").dim == 16
    ((name, patterns),) = asked
    wanted = {n: any(fnmatch(n, p) for p in patterns) for n in ("model-00001-of-00003.safetensors", "spiece.model")}
    assert name == "google/t5-v1_1-xl" and all(wanted.values()), wanted
    assert not [
        n for n in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack") for p in patterns if fnmatch(n, p)
    ]

    def unreachable(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        raise OSError("no network\nlong story")

    monkeypatch.setattr(pretrained, "snapshot_download", unreachable)
    with pytest.raises(FileNotFoundError, match=r"neither a folder nor a reachable hub repository \(no network\)"):
        T5TextEncoder.from_pretrained("google/t5-v1_1-xl")


def test_missing_and_wrong_weights_are_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    gone = "encoder.block.1.layer.0.SelfAttention.q.weight"
    save_file({k: v for k, v in tensors.items() if k != gone}, file)
    with pytest.raises(ValueError, match=rf"missing \['{gone}'\]"):
        T5TextEncoder.from_pretrained(folder)
    save_file({**tensors, "surprise.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=r"weights that are not T5's: \['surprise.weight'\]"):
        T5TextEncoder.from_pretrained(folder)
    save_file({**tensors, gone: torch.zeros(3, 3)}, file)
    with pytest.raises(ValueError, match=rf"{gone}: \(3, 3\) in the file"):
        T5TextEncoder.from_pretrained(folder)
    file.write_bytes(b"nonsense" * 20)
    with pytest.raises(ValueError, match="is damaged"):
        T5TextEncoder.from_pretrained(folder)
    file.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"pickled weights are not loaded; `cinepoet convert pytorch_model\.bin"
    ):
        T5TextEncoder.from_pretrained(folder)


def test_missing_vocabulary_is_named(upstream: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither spiece\.model nor tokenizer\.json"):
        T5TextEncoder.from_pretrained(upstream)


def test_foreign_vocabularies_are_refused(shared: Path) -> None:
    with pytest.raises(
        ValueError, match=r"unknown vocabulary file 'vocab\.txt'; known: spiece\.model, tokenizer\.json"
    ):
        TextTokenizer.from_bytes("vocab.txt", b"")


def test_full_size_xl_has_its_published_parameters() -> None:
    with pytest.raises(ValueError, match="unknown size of T5 'xs'; known: small, base, large, xl, xxl"):
        t5.published_config("xs")
    counts = {}
    for size in ("small", "xl"):
        model = t5.empty_encoder(t5.published_config(size))
        assert all(p.is_meta for p in model.parameters())
        counts[size] = sum(p.numel() for p in model.parameters())
    # by hand: vocabulary, then per layer four square-ish projections, two gates and one output, two norms; one table of
    # relative positions, one last norm
    by_hand = 32128 * 2048 + 24 * (4 * 2048 * 32 * 64 + 3 * 2048 * 5120 + 2 * 2048) + 32 * 32 + 2048
    assert counts["xl"] == by_hand == 1_223_527_424
    assert counts["small"] == 35_332_800


def test_loading_takes_the_files_weights_instead_of_copying_them(folder: Path) -> None:
    encoder = T5TextEncoder.from_pretrained(folder)
    assert encoder.model.encoder.embed_tokens is encoder.model.shared
    assert not [n for n, t in (*encoder.model.named_parameters(), *encoder.model.named_buffers()) if t.is_meta]
    encoder.save_pretrained(folder)  # onto the files that are mapped
    assert torch.equal(encoder.encode([GERMAN])[0], T5TextEncoder.from_pretrained(folder).encode([GERMAN])[0])


def test_a_missing_shard_is_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model-00002-of-00003.safetensors")
    with pytest.raises(FileNotFoundError, match=r"has 1 of 3 shards: model-00002-of-00003\.safetensors"):
        T5TextEncoder.from_pretrained(folder)


def test_pickled_weights_are_not_loaded_and_the_way_out_is_named(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"pickled weights are not loaded; `cinepoet convert pytorch_model\.bin"
    ):
        T5TextEncoder.from_pretrained(folder)


def test_float16_is_refused_however_it_came_about(folder: Path) -> None:
    with pytest.raises(ValueError, match="dtype float16 overflows"):
        mmtok.load(folder, dtype=torch.float16)
    with pytest.raises(ValueError, match="dtype float16 overflows"):
        T5TextEncoder.from_pretrained(folder).half().encode(["a cat"])
    assert mmtok.load(folder, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("file_name", ["spiece.model", "tokenizer.json"])
def test_a_script_that_the_vocabulary_lacks_is_told(shared: Path, file_name: str) -> None:
    content = (shared / "models" / "t5_tokenizer" / file_name).read_bytes()
    tokenizer = TextTokenizer.from_bytes(file_name, content)
    with pytest.raises(ValueError, match="knows no letter of the prompt '赤い 丸'; write it in another language"):
        tokenizer.tokenize("赤い 丸")
    mixed = tokenizer.tokenize("a red 丸 moves to 東京!")
    assert mixed.unknown == "丸 東京!" and mixed.cut == ""
    assert tokenizer.tokenize("Ein Käse, une crème brûlée").unknown == ""


def test_revisions_are_asked_for_and_recorded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--google--t5-v1_1-xl" / "snapshots" / ("c0ffee" * 6 + "abcd")
    shutil.copytree(folder, snapshot)
    asked = []

    def fetch(name: str, **options: object) -> str:
        asked.append((name, options.get("revision")))
        return str(snapshot)

    monkeypatch.setattr(pretrained, "snapshot_download", fetch)
    encoder = T5TextEncoder.from_pretrained("google/t5-v1_1-xl", revision="main")
    assert asked == [("google/t5-v1_1-xl", "main")]
    assert (encoder.name, encoder.revision) == ("google/t5-v1_1-xl", snapshot.name)
    assert T5TextEncoder.from_pretrained(snapshot, revision=snapshot.name).name == "google/t5-v1_1-xl"  # offline
    assert (T5TextEncoder.from_pretrained(folder).name, T5TextEncoder.from_pretrained(folder).revision) == ("t5", None)
    with pytest.raises(ValueError, match="revision 'main' is a choice for hub ids"):
        T5TextEncoder.from_pretrained(folder, revision="main")


def test_max_length_needs_room(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"max_length \(1\) must be at least 2"):
        T5TextEncoder.from_pretrained(folder, max_length=1)
    assert T5TextEncoder.from_pretrained(folder, max_length=4).encode([GERMAN])[0].shape[1] <= 4


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.from_folder(Path(open_bundle("tiny").part("text")))


def test_known_words_need_no_note(tokenizer: TextTokenizer) -> None:
    notes: list[str] = []
    prompt = "a red circle moves left on a dark plain background"
    assert read_prompts(tokenizer, [prompt], most=32, notes=notes) == [prompt] and notes == []


@pytest.mark.parametrize(("prompt", "strange"), [("красный круг", "красный"), ("红色", "红色"), ("a 🙂 star", "🙂")])
def test_other_scripts_are_read_and_told(tokenizer: TextTokenizer, prompt: str, strange: str) -> None:
    notes: list[str] = []
    assert strange in tokenizer.tokenize(prompt).unknown.split()
    assert read_prompts(tokenizer, [prompt], most=64, notes=notes) == [prompt]
    assert len(notes) == 1 and repr(strange) in notes[0] and "'star'" not in notes[0]
    notes.clear()
    (kept,) = read_prompts(tokenizer, [f"{prompt} " * 12], most=16, notes=notes)
    assert kept and any("left out" in note for note in notes)
