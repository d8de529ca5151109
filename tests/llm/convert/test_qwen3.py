"""Exports are transformers' Qwen3 to the last digit, come back unchanged, and text models start our body."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mmtok.compat
from llm.convert.qwen3 import body_sizes, export_qwen3, import_qwen3, is_export, reads_positions, warm_start
from llm.generate import generate
from llm.model import PrefixLM


def randomised(config) -> PrefixLM:
    """Weights of every part far from their initial values, scores of the size of one."""
    torch.manual_seed(0)
    model = PrefixLM(config).eval()
    for name, weight in model.named_parameters():
        norm = weight.ndim == 1
        torch.nn.init.normal_(weight, mean=float(norm), std=0.15)
        if name.startswith("positions."):
            torch.nn.init.normal_(weight, std=0.3)
    return model


def theirs(folder: Path, **options):
    mmtok.compat.make_importable()
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, output_loading_info=True, **options
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.eval()


@pytest.fixture(
    params=[
        {"tie_embeddings": True},
        {"tie_embeddings": False, "rope_base": 1e6, "norm_eps": 1e-5},
        {"num_kv_heads": 4, "head_dim": 16},  # no groups, heads wider than dim / num_heads
    ],
    ids=["tied", "untied", "ungrouped"],
)
def variant(config, request):
    return dataclasses.replace(config, **request.param)


def test_transformers_gives_the_same_logits(variant, tmp_path):
    ours = randomised(variant)
    for table in ours.positions.parameters():
        torch.nn.init.zeros_(table)
    assert not reads_positions(ours)
    export_qwen3(ours, tmp_path)
    other = theirs(tmp_path)
    assert type(other).__name__ == "Qwen3ForCausalLM"
    assert (other.config.pad_token_id, other.config.bos_token_id, other.config.eos_token_id) == (0, 2, 3)
    ids = torch.randint(0, variant.vocabulary.vocab_size, (2, 17), generator=torch.Generator().manual_seed(1))
    causal = torch.ones(17, 17, dtype=torch.bool).tril()[None, None]
    with torch.no_grad():
        mine = ours.logits(ours.model(ours.model.embed_tokens(ids), mask=causal))
        torch.testing.assert_close(other(input_ids=ids).logits, mine, atol=1e-5, rtol=1e-5)
    assert mine.std() > 0.3


def test_text_positions_and_the_open_prefix_go_in_as_embeddings_and_a_mask(config, make, tmp_path):
    ours = randomised(config)
    assert reads_positions(ours)
    export_qwen3(ours, tmp_path)
    other = theirs(tmp_path)
    batch = make("text_to_video")
    mask, p = batch.layout.attention_mask(batch.text_mask), batch.layout.prefix_length
    with torch.no_grad():
        mine = ours.logits(ours(batch.ids, batch.layout, text=batch.text, text_mask=batch.text_mask))
        embedded = ours.embed(batch.ids, batch.layout, text=batch.text)
        whole = other(inputs_embeds=embedded, attention_mask=mask).logits
        torch.testing.assert_close(whole[:, p - 1 :], mine[:, p - 1 :], atol=1e-5, rtol=1e-5)


def test_another_program_samples_the_same_film(config, make, tmp_path):
    """The loop of docs/export.md: ours embeds, transformers computes and caches, the layout says what may stand where."""
    ours = randomised(config)
    export_qwen3(ours, tmp_path)
    other = theirs(tmp_path)
    batch = make("text_to_video")
    layout, ids = batch.layout, batch.ids.clone()
    mask, p = layout.attention_mask(batch.text_mask), layout.prefix_length
    known = torch.arange(layout.length) < p
    wanted = generate(ours, layout, ids, known, text=batch.text, text_mask=batch.text_mask, temperature=0.0)
    ids[:, p:] = 0
    with torch.no_grad():
        prefix = ours.embed(ids, layout, text=batch.text)[:, :p]
        out = other(inputs_embeds=prefix, attention_mask=mask[:, :, :p, :p], use_cache=True)
        positions = ours.positions(layout)
        for place in range(p, layout.length):
            start, stop = layout.blocks[place].tolist()
            ids[:, place] = start + out.logits[:, -1, start:stop].argmax(-1)
            out = other(
                inputs_embeds=(ours.model.embed_tokens(ids[:, place]) + positions[place])[:, None],
                attention_mask=mask[:, :, place : place + 1, : place + 1],
                past_key_values=out.past_key_values,
            )
    assert torch.equal(ids[:, p:], wanted[:, p:])
    assert len(set(ids[0, p:].tolist())) > 10


def test_there_and_back_is_nothing(variant, tmp_path, make):
    ours = randomised(variant)
    export_qwen3(ours, tmp_path)
    again = import_qwen3(tmp_path)
    assert again.config == ours.config and is_export(tmp_path)
    assert set(again.state_dict()) == set(ours.state_dict())
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in ours.state_dict().items())
    export_qwen3(ours, tmp_path / "half", dtype=torch.bfloat16)
    assert {t.dtype for t in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.bfloat16}
    half = import_qwen3(tmp_path / "half").model.norm.weight
    assert torch.equal(half, ours.model.norm.weight.bfloat16().float())


def test_what_transformers_saves_comes_back(config, tmp_path):
    ours = randomised(config)
    export_qwen3(ours, tmp_path)
    other = theirs(tmp_path)
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight.add_(1.0)
    other.save_pretrained(tmp_path, max_shard_size="40KB")
    (tmp_path / "model.safetensors").unlink(missing_ok=True)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    again = import_qwen3(tmp_path)
    torch.testing.assert_close(again.model.layers[1].mlp.up_proj.weight, ours.model.layers[1].mlp.up_proj.weight + 1)
    assert torch.equal(again.model.layers[0].mlp.up_proj.weight, ours.model.layers[0].mlp.up_proj.weight)
    next(tmp_path.glob("model-00001-of-*")).unlink()
    with pytest.raises(FileNotFoundError, match=r"shards: model-00002"):
        import_qwen3(tmp_path)


def text_model(folder: Path, kind: str, **changes):
    """A random text model of transformers in a folder, and itself."""
    mmtok.compat.make_importable()
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    config_class, model_class = {"qwen3": (Qwen3Config, Qwen3ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[
        kind
    ]
    sizes = {
        "vocab_size": 90,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": False,
    }
    torch.manual_seed(1)
    model = model_class(config_class(**{**sizes, **changes})).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.ndim == 1), std=0.2)
    model.save_pretrained(folder)
    return model


def test_a_qwen3_warm_starts_the_body_exactly(config, tmp_path):
    other = text_model(tmp_path, "qwen3")
    assert body_sizes(tmp_path)["rope_base"] == 1e6
    ours = randomised(dataclasses.replace(config, **body_sizes(tmp_path)))
    words = ours.model.embed_tokens.weight.clone()
    done = warm_start(ours, tmp_path)
    assert torch.equal(ours.model.embed_tokens.weight, words)
    assert "lm_head.weight" in done.fresh and "text_proj.weight" in done.fresh and "model.norm.weight" in done.taken
    assert len(done.taken) == 2 * 11 + 1 and not done.notes
    x = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(2))
    causal = torch.ones(9, 9, dtype=torch.bool).tril()[None, None]
    with torch.no_grad():
        torch.testing.assert_close(ours.model(x, mask=causal), other.model(inputs_embeds=x)[0], atol=1e-5, rtol=1e-5)


def test_a_llama_gives_queries_and_keys_their_typical_length(config, tmp_path):
    other = text_model(tmp_path, "llama")
    ours = randomised(dataclasses.replace(config, **body_sizes(tmp_path)))
    done = warm_start(ours, tmp_path)
    assert done.notes == (
        "Llama does not normalise queries and keys: scores have their typical size, not their values",
    )
    x = torch.randn(4000, 32, generator=torch.Generator().manual_seed(2))
    layer, mine = other.model.layers[0], ours.model.layers[0].self_attn
    with torch.no_grad():
        for projection, norm in ((layer.self_attn.q_proj, mine.q_norm), (layer.self_attn.k_proj, mine.k_norm)):
            plain = projection(layer.input_layernorm(x)).view(4000, -1, 8)
            normed = norm(plain)
            torch.testing.assert_close(normed.square().mean(), plain.square().mean(), rtol=0.05, atol=0)
            cosine = torch.nn.functional.cosine_similarity(plain, normed, dim=-1)
            torch.testing.assert_close(cosine, torch.ones_like(cosine))  # directions are kept
        assert torch.equal(mine.v_proj.weight, layer.self_attn.v_proj.weight)
        causal = torch.ones(9, 9, dtype=torch.bool).tril()[None, None]
        got, want = ours.model(x[None, :9], mask=causal), other.model(inputs_embeds=x[None, :9])[0]
    assert torch.nn.functional.cosine_similarity(got, want, dim=-1).mean() > 0.7  # close to it, and not it


def test_ours_and_exports_start_everything_that_fits(config, tmp_path):
    source = randomised(config)
    source.save_pretrained(tmp_path / "ours")
    export_qwen3(source, tmp_path / "exported")
    for folder in ("ours", "exported"):
        assert body_sizes(tmp_path / folder)["dim"] == config.dim
        same = PrefixLM(config)
        done = warm_start(same, tmp_path / folder)
        assert done.fresh == () and torch.equal(same.lm_head.weight, source.lm_head.weight)
        assert torch.equal(same.text_proj.weight, source.text_proj.weight)
        longer = PrefixLM(dataclasses.replace(config, max_grid=(5, 2, 3), visual_codes=60))
        before = longer.model.embed_tokens.weight.clone()
        done = warm_start(longer, tmp_path / folder)
        assert done.notes == ("its vocabulary is another one: embeddings and head start anew",)
        assert set(done.fresh) == {"model.embed_tokens.weight", "lm_head.weight", "positions.time.weight"}
        assert torch.equal(longer.model.embed_tokens.weight, before)
        assert torch.equal(longer.positions.width.weight, source.positions.width.weight)


def test_what_does_not_fit_is_named(config, tmp_path, monkeypatch):
    model = PrefixLM(config)
    text_model(tmp_path / "q", "qwen3", num_hidden_layers=3)
    with pytest.raises(
        ValueError, match="does not fit this model: num_layers is 3 there, 2 here; rope_base is 1000000"
    ):
        warm_start(model, tmp_path / "q")
    with pytest.raises(ValueError, match="so it is a text model: it can start a training"):
        import_qwen3(tmp_path / "q")
    values = json.loads((tmp_path / "q" / "config.json").read_text())
    for changes, message in (
        ({"model_type": "gpt2"}, "is a 'gpt2' model; those that fit: qwen3, llama, prefix-lm"),
        ({"attention_bias": True}, "has attention_bias=True; our layers have False"),
        ({"hidden_act": "gelu"}, "has hidden_act='gelu'; our layers have 'silu'"),
        ({"use_sliding_window": True}, "has use_sliding_window=True"),
    ):
        (tmp_path / "q" / "config.json").write_text(json.dumps({**values, **changes}))
        with pytest.raises(ValueError, match=message):
            warm_start(model, tmp_path / "q")
    (tmp_path / "q" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        body_sizes(tmp_path / "q")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        warm_start(model, tmp_path)


def test_older_and_scaled_rotary_settings_are_read(config, tmp_path):
    text_model(tmp_path, "llama")
    values = json.loads((tmp_path / "config.json").read_text())
    del values["rope_parameters"]
    values |= {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    sizes = body_sizes(tmp_path)
    assert sizes["rope_base"] == 5e5
    done = warm_start(PrefixLM(dataclasses.replace(config, **sizes)), tmp_path)
    assert done.notes[0] == "its rotary frequencies are scaled (llama3); ours are those of its base 500000"


def test_damaged_starts_are_named(config, tmp_path):
    text_model(tmp_path, "qwen3")
    model = PrefixLM(dataclasses.replace(config, **body_sizes(tmp_path)))
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file({k: v for k, v in tensors.items() if "layers.1.mlp" not in k}, file)
    with pytest.raises(ValueError, match=r"does not fit: missing \['model\.layers\.1\.mlp"):
        warm_start(model, tmp_path)
    save_file({**tensors, "model.layers.0.self_attn.q_proj.bias": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match=r"unknown \['model\.layers\.0\.self_attn\.q_proj\.bias'\]"):
        warm_start(model, tmp_path)
    file.write_bytes(b"nonsense" * 9)
    with pytest.raises(ValueError, match="is damaged"):
        warm_start(model, tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="pickled weights are not loaded"):
        warm_start(model, tmp_path)
