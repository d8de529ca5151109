import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import mmtok.compat
from llm.batching import Batch
from llm.cache import KVCache
from llm.model import PrefixLM
from llm.tasks import TASKS, Clip, task_layout
from mmtok.nn.norm import RMSNorm


def run(model: PrefixLM, batch: Batch) -> torch.Tensor:
    return model.logits(model(batch.ids, batch.layout, text=batch.text, text_mask=batch.text_mask))


@pytest.mark.parametrize("tied", [True, False])
def test_decoder_equals_transformers_qwen3(config, tied):
    mmtok.compat.make_importable()
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = dataclasses.replace(config, tie_embeddings=tied, rope_base=5000.0)
    torch.manual_seed(0)
    ours = PrefixLM(config).eval()
    for weight in ours.parameters():
        torch.nn.init.normal_(weight, mean=0.1, std=0.2)
    theirs = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=config.vocabulary.vocab_size,
            hidden_size=config.dim,
            intermediate_size=config.hidden_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
            tie_word_embeddings=tied,
            attn_implementation="sdpa",
        )
    ).eval()
    shared = {k: v for k, v in ours.state_dict().items() if not k.startswith(("positions.", "text_proj."))}
    missing, unused = theirs.load_state_dict(shared, strict=False)
    assert not missing
    assert not unused
    ids = torch.randint(0, config.vocabulary.vocab_size, (2, 17))
    causal = torch.ones(17, 17, dtype=torch.bool).tril()[None, None]
    with torch.no_grad():
        mine = ours.logits(ours.model(ours.model.embed_tokens(ids), mask=causal))
        other = theirs(input_ids=ids).logits
    torch.testing.assert_close(mine, other, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_no_logit_depends_on_a_later_output_place(model, make, name):
    batch = make(name)
    layout = batch.layout
    p = layout.prefix_length
    embedded = model.embed(batch.ids, layout, text=batch.text).detach().requires_grad_()
    hidden = model.model(embedded, mask=layout.attention_mask(batch.text_mask))
    for i in (0, p - 1, p, (p + layout.length) // 2, layout.length - 1):
        (gradient,) = torch.autograd.grad(hidden[:, i].sum(), embedded, retain_graph=True)
        reach = gradient.abs().sum((0, 2))
        first_unread = max(i + 1, p)
        assert not reach[first_unread:].any(), f"row {i} of {name} reads behind place {first_unread}"
        assert reach[p - 1] > 0, f"row {i} of {name} does not read the whole prefix"


def test_changing_an_output_token_changes_no_earlier_logit(model, make):
    batch = make("text_to_video")
    ids = batch.ids.clone()
    at = batch.layout.stretch("visual_out").start + 4
    ids[:, at] = batch.layout.vocabulary.visual.start + (ids[:, at] - batch.layout.vocabulary.visual.start + 1) % 50
    with torch.no_grad():
        before, after = run(model, batch), run(model, dataclasses.replace(batch, ids=ids))
    torch.testing.assert_close(before[:, :at], after[:, :at], atol=1e-5, rtol=0)
    assert (before[:, at:] - after[:, at:]).abs().max() > 1e-3


def test_empty_text_slots_have_no_influence(model, make):
    batch = make("text_to_video")
    text = batch.text.masked_fill(~batch.text_mask[..., None], 7.0)
    with torch.no_grad():
        before, after = run(model, batch), run(model, dataclasses.replace(batch, text=text))
        hidden = dataclasses.replace(batch, text_mask=torch.zeros_like(batch.text_mask))
        null = run(model, hidden)
    p = batch.layout.prefix_length
    torch.testing.assert_close(before[:, p - 1 :], after[:, p - 1 :], atol=1e-5, rtol=0)
    assert (before[:, p - 1 :] - null[:, p - 1 :]).abs().max() > 1e-2


def test_prefix_and_output_share_positions(model, config):
    layout = task_layout("inpaint", config.vocabulary, Clip((3, 2, 3)), text_slots=4)
    table = model.positions(layout)
    given, made = layout.stretch("condition"), layout.stretch("visual_out")
    assert torch.equal(table[given.start : given.stop], table[made.start : made.stop])
    expected = model.positions.time.weight[1] + model.positions.height.weight[0] + model.positions.width.weight[2]
    torch.testing.assert_close(table[made.start + 1 * 6 + 0 * 3 + 2], expected)
    assert not table[0].any()


@pytest.mark.parametrize("order", ["time", "delay"])
def test_a_code_has_the_position_of_its_level_and_frame_wherever_it_stands(model, config, order):
    clip = Clip((3, 2, 3), 6)
    layout = task_layout("unconditional", config.vocabulary, clip, text_slots=0, audio_order=order)
    audio, table = layout.stretch("audio_out"), model.positions(layout)
    for place in range(audio.length):
        step, level = divmod(place, 2)
        frame = step - level if order == "delay" else step
        if 0 <= frame < 6:
            expected = model.positions.level.weight[level] + model.positions.frame.weight[frame]
        else:
            expected = torch.zeros(config.dim)
        assert torch.equal(table[audio.start + place], expected)


def test_future_slices_have_the_positions_they_have_in_the_whole_clip(model, config):
    clip = Clip((3, 2, 3), 6)
    whole = task_layout("text_to_video", config.vocabulary, clip, text_slots=4)
    future = task_layout("continue_av", config.vocabulary, clip, text_slots=4, given=1)
    for name in ("visual_out", "audio_out"):
        a, b = whole.stretch(name), future.stretch(name)
        all_places = model.positions(whole)[a.start : a.stop].reshape(*a.shape, -1)
        later = model.positions(future)[b.start : b.stop].reshape(*b.shape, -1)
        axis = 0 if name == "visual_out" else 1
        assert torch.equal(all_places.narrow(axis, b.offset, b.shape[axis]), later)


def test_a_cache_in_pieces_equals_one_pass(model, make, config):
    batch = make("text_to_video")
    mask = batch.layout.attention_mask(batch.text_mask)
    n, cut = batch.layout.length, batch.layout.prefix_length + 5
    with torch.no_grad():
        x = model.embed(batch.ids, batch.layout, text=batch.text)
        whole = model.model(x, mask=mask)
        cache = KVCache(num_layers=2, batch_size=2, num_kv_heads=2, max_length=n, head_dim=8)
        first = model.model(x[:, :cut], mask=mask[:, :, :cut, :cut], cache=cache)
        second = model.model(x[:, cut:], mask=mask[:, :, cut:], cache=cache)
    torch.testing.assert_close(torch.cat((first, second), dim=1), whole, atol=1e-5, rtol=1e-5)


def gradients(model, batch):
    model.zero_grad()
    hidden = model(batch.ids, batch.layout, text=batch.text, text_mask=batch.text_mask)
    hidden.square().sum().backward()
    return {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("every", [1, 2])
def test_recomputed_layers_give_the_same_gradients(model, make, every, monkeypatch):
    batch = make("inpaint")
    kept = gradients(model, batch)
    runs, forward = [], type(model.model.layers[0]).forward

    def counted(self, *given, **options):
        runs.append(self)
        return forward(self, *given, **options)

    monkeypatch.setattr(type(model.model.layers[0]), "forward", counted)
    model.checkpoint_layers(every)
    again = gradients(model, batch)
    assert len(runs) == 2 + 2 // every, "a recomputed layer runs twice"
    assert kept.keys() == again.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, rtol=0, atol=0)
    model.checkpoint_layers(None)
    gradients(model, batch)
    assert len(runs) == 2 + 2 // every + 2
    with pytest.raises(ValueError, match=r"every \(0\) must be at least 1"):
        model.checkpoint_layers(0)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 0.02)]
)
def test_the_norm_is_torch_s(dtype, tolerance):
    norm = RMSNorm(32, 1e-6).to(dtype)
    torch.nn.init.normal_(norm.weight)
    x = (torch.randn(3, 5, 32) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]).to(dtype)
    x[0, 0] = 0.0
    gradients, made = [], []
    for forward in (norm, lambda x: F.rms_norm(x, (32,), norm.weight, 1e-6)):
        given = x.clone().requires_grad_()
        made.append(forward(given))
        made[-1].sum().backward()
        gradients.append(given.grad)
    assert made[0].dtype == dtype and gradients[0].isfinite().all()
    torch.testing.assert_close(made[0], made[1], rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=10 * tolerance, atol=10 * tolerance * float(theirs.abs().max()))


def test_save_and_load(model, tmp_path, make):
    model.save_pretrained(tmp_path)
    loaded = PrefixLM.from_pretrained(tmp_path)
    assert loaded.config == model.config
    batch = make("audio_to_video")
    with torch.no_grad():
        assert torch.equal(run(model, batch), run(loaded, batch))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["family"] == "prefix-lm"
    assert config["vocabulary"]["special_ids"]["<bov_o>"] == 10
    assert config["vocabulary"]["size"] == 256 + 50 + 22


def test_the_order_of_audio_codes_is_saved_and_older_models_go_level_by_level(config, tmp_path):
    PrefixLM(dataclasses.replace(config, audio_order="delay")).save_pretrained(tmp_path)
    assert PrefixLM.from_pretrained(tmp_path).config.audio_order == "delay"
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["params"]["audio_order"]  # as it was before there was a choice
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert PrefixLM.from_pretrained(tmp_path).config.audio_order == "level"
    with pytest.raises(ValueError, match="unknown order of audio codes 'random'"):
        dataclasses.replace(config, audio_order="random")


def test_a_model_of_another_special_table_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"<bov_o>": 10', '"<bov_o>": 14'))
    with pytest.raises(ValueError, match="saved special_ids differ"):
        PrefixLM.from_pretrained(tmp_path)


def test_other_tokenizers_are_refused(model):
    visual = SimpleNamespace(codebook_size=50, num_codebooks=1)
    model.vocabulary.require(visual, SimpleNamespace(num_codebooks=2, codebook_size=11))
    with pytest.raises(ValueError, match="audio_codes is 12 in the tokenizers, 11 in the model"):
        model.vocabulary.require(visual, SimpleNamespace(num_codebooks=2, codebook_size=12))


def test_errors(model, make, config):
    batch = make("text_to_video")
    with pytest.raises(ValueError, match="the layout has 4 text slots, text is absent"):
        model(batch.ids, batch.layout)
    with pytest.raises(ValueError, match=r"text must have shape \(2, 4, 12\), got \(2, 4, 9\)"):
        model(batch.ids, batch.layout, text=torch.zeros(2, 4, 9))
    large = task_layout("text_to_video", config.vocabulary, Clip((4, 2, 3)), text_slots=4)
    with pytest.raises(
        ValueError, match=r"visual_out reaches to \(4, 2, 3\), this model's position tables to \(3, 2, 3\)"
    ):
        model.positions(large)
