"""LARP against tensors that the upstream code made (``../shared/golden/larp``), and its published sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import mmtok
from mmtok.contract import VisualTokenizer
from mmtok.convert import from_upstream, identify
from mmtok.convert.larp import RULES, infer_config, params_from_upstream
from mmtok.convert.names import rename
from mmtok.visual.larp import PRESETS, Larp, larp


def read(shared, case):
    with safe_open(Path(shared) / "golden" / "larp" / f"larp_tokenizer_{case}.safetensors", "pt") as file:
        meta = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    weights = {n.removeprefix("state_dict."): t for n, t in tensors.items() if n.startswith("state_dict.")}
    return json.loads(meta["config"]), json.loads(meta["notes"]), weights, tensors


@pytest.fixture(params=["a", "b"])
def golden(request, shared):
    return read(shared, request.param)


def close(got, want, atol):
    torch.testing.assert_close(got, want, atol=atol, rtol=1e-5)


def test_tokens_are_identical_and_everything_on_the_way_is_close(golden):
    config, _, weights, tensors = golden
    assert identify(weights) == "larp"
    model = from_upstream("larp", weights, config)
    assert isinstance(model, VisualTokenizer) and not model.is_causal
    out = {n.removeprefix("output."): t for n, t in tensors.items()}
    video = tensors["input.video"] * 2 - 1
    with torch.inference_mode():
        kind = 0 if model.patch_type is None else model.patch_type
        close(model.patch_table(model.params.patches) + kind, out["encoder_patch_pe"], 1e-6)
        asks = model.patch_queries(model.params.patches) + model.patch_query_type
        close(asks, out["decoder_patch_query"], 1e-6)
        outputs = model.encode_queries(video)
        close(outputs, out["encoder_out"], 1e-4)
        close(model.code_norm(model.to_code(outputs)), out["projected_z"], 2e-5)
        close(model.to_latents(outputs), out["unregularized_z"], 2e-5)
        close(model.code_vectors(), out["codebook"], 2e-5)
    codes = model.encode(video)
    assert torch.equal(codes[:, 0], out["token_ids"])
    close((model.decode(codes, clamp=False) + 1) / 2, out["decoded_from_ids"], 2e-5)
    with torch.inference_mode():
        run = model(video)
    close((run.reconstruction + 1) / 2, out["decoded"], 2e-5)
    close(run.commitment[None], out["loss_commit"], 1e-5)
    close(run.codebook[None], out["loss_codebook"], 1e-5)
    close(run.quantization_loss[None], out["loss_q"], 1e-5)
    assert model.decode(codes).abs().max() <= 1


def test_sampling_distribution(shared):
    config, _, weights, tensors = read(shared, "a")
    model = from_upstream("larp", weights, config)
    with torch.no_grad():
        latents = model.to_latents(model.encode_queries(tensors["input.video"] * 2 - 1))
        p = (latents[:, :8] @ model.code_vectors().T / 0.03).softmax(-1)
    close(p, tensors["output.svq_probs_first8"], 2e-5)
    drawn = [
        model.choose(latents[:1, :1].expand(1, 4000, -1), temperature=0.03, generator=torch.Generator().manual_seed(0))
    ]
    share = torch.bincount(drawn[0].flatten(), minlength=256) / 4000
    assert float((share - p[0, 0]).abs().max()) < 0.03
    video = tensors["input.video"] * 2 - 1
    seeds = [model.encode(video, temperature=0.3, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(seeds[0], seeds[1]) and not torch.equal(seeds[0], seeds[2])


def test_fewer_frames(shared):
    config, _, weights, tensors = read(shared, "a")
    model = from_upstream("larp", weights, config)
    codes = model.encode(tensors["input.video_short"] * 2 - 1)
    assert torch.equal(codes[:, 0], tensors["output.short_token_ids"])
    close((model.decode(codes, clamp=False, size=(4, 32, 32)) + 1) / 2, tensors["output.short_decoded"], 2e-5)


def test_the_prior_and_scheduled_sampling(shared):
    config, notes, weights, tensors = read(shared, "a")
    model = from_upstream("larp", weights, config)
    out = {n.removeprefix("output."): t for n, t in tensors.items()}
    with torch.inference_mode():
        run = model(tensors["input.video"] * 2 - 1)
        latents, ids = out["regularized_z"], out["token_ids"]
        close(model.prior(latents), out["prior_pred"], 2e-5)
        close(run.prior.logits[0], out["prior_logits"], 2e-5)
        close(run.prior.loss[None], out["loss_latent_ce"], 1e-5)
        for top in (1, 5):
            close(100 * run.prior.accuracy(ids, top)[None], out[f"prior_top{top}_acc"], 1e-3)
        when = notes["ss"]
        sampled = model.prior.loss(
            latents,
            ids,
            model.code_vectors(),
            progress=when["global_step"] / when["max_steps"],
            uniform=tensors["input.ss_uniform"],
            samples=tensors["input.ss_indices"].view(1, 2, 31),
        )
    assert model.prior.sampled_share(when["global_step"] / when["max_steps"]) == pytest.approx(when["ratio"])
    assert torch.equal(sampled.sampled, out["ss_mask"])
    close(sampled.last_input, out["ss_last_round_input"], 2e-5)
    close(sampled.logits, out["ss_logits_all_rounds"], 2e-5)
    close(sampled.loss[None], out["ss_loss_latent_ce"], 1e-5)


def test_gradients(golden):
    config, _, weights, tensors = golden
    model = from_upstream("larp", weights, config)
    ours = {rename(name, RULES): p for name, p in model.named_parameters()}
    video = tensors["input.video"] * 2 - 1

    def check(kind, loss):
        model.zero_grad()
        loss.backward(retain_graph=True)
        wanted = {n.removeprefix(f"output.{kind}."): t for n, t in tensors.items() if n.startswith(f"output.{kind}.")}
        assert wanted or kind == "grad_ce"
        for name, want in wanted.items():
            torch.testing.assert_close(ours[name].grad.view_as(want), want, atol=1e-5, rtol=1e-3, msg=name)

    run = model(video)
    loss = (run.reconstruction - video).abs().mean() / 2 + 0.1 * run.quantization_loss  # ours lies in [-1, 1]
    if run.prior is not None:
        check("grad_ce", run.prior.loss)
        assert model.codebook.grad is None and model.decoder.blocks[0].attn.proj.bias.grad is None
        loss = loss + 0.06 * run.prior.loss
    torch.testing.assert_close(loss[None], tensors["output.total_loss"], atol=1e-5, rtol=1e-5)
    check("grad", loss)


def test_weights_without_their_prior_load_too(shared):
    config, _, weights, tensors = read(shared, "a")
    bare = {name: t for name, t in weights.items() if not name.startswith("prior_model.")}
    model = from_upstream("larp", bare, config)
    assert model.prior is None
    assert torch.equal(model.encode(tensors["input.video"] * 2 - 1)[:, 0], tensors["output.token_ids"])
    del bare["final_layer.norm_final.bias"]
    with pytest.raises(ValueError, match=r"missing: final_layer\.norm_final\.bias"):
        from_upstream("larp", bare | {"something": torch.zeros(1)}, config)


def test_saved_and_loaded_with_its_prior(golden, tmp_path):
    config, _, weights, tensors = golden
    model = from_upstream("larp", weights, config)
    model.save_pretrained(tmp_path)
    again = mmtok.load(tmp_path)
    assert again.params == model.params and (again.prior is None) == (model.prior is None)
    assert torch.equal(again.encode(tensors["input.video"] * 2 - 1)[:, 0], tensors["output.token_ids"])


def test_the_published_size(shared):
    listing = json.loads((Path(shared) / "golden" / "larp" / "larp_tokenizer_keys.json").read_text())
    assert params_from_upstream(listing["config"]) == PRESETS["larp-l-long"]
    with torch.device("meta"):
        model = larp("larp-l-long")
    ours = {rename(name, RULES): list(t.shape) for name, t in model.state_dict().items()}
    theirs = {name: facts["shape"] if isinstance(facts, dict) else facts for name, facts in listing["tensors"].items()}
    assert ours == theirs
    tensors = {name: torch.empty(shape, device="meta") for name, shape in theirs.items()}
    assert params_from_upstream(infer_config(tensors)) == PRESETS["larp-l-long"]


def test_presets_have_the_stated_parameters():
    with torch.device("meta"):
        model = larp("larp-l-long")
        small = larp("larp-tiny")
    count = sum(p.numel() for p in model.parameters())
    assert count == 193_880_224
    assert count - sum(p.numel() for p in model.prior.parameters()) == 172_179_984
    assert sum(p.numel() for p in small.parameters()) < 6_000_000
    with pytest.raises(ValueError, match="known: larp-l-long, larp-nano, larp-tiny"):
        larp("larp-xl")
    assert isinstance(Larp(PRESETS["larp-tiny"]), VisualTokenizer)
