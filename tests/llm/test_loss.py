import dataclasses

import pytest
import torch
import torch.nn.functional as F

from llm.batching import Batch
from llm.config import preset
from llm.loss import prefix_lm_loss
from llm.model import PrefixLM
from llm.tasks import Clip, task_layout
from mmtok.audio.orders import ORDERS


@pytest.mark.parametrize("order", ORDERS)
def test_loss_is_the_cross_entropy_inside_the_blocks(model, make, order):
    batch = make("continue_av", order=order)
    layout = batch.layout
    with torch.no_grad():
        logits = model.logits(model(batch.ids, layout, text=batch.text, text_mask=batch.text_mask))
        result = prefix_lm_loss(model, batch)
    losses = []
    for place in range(layout.prefix_length, layout.length):
        start, stop = layout.blocks[place].tolist()
        if start == layout.vocabulary.pad_id:
            continue  # nothing is learned about the empty places of delayed levels
        if stop - start == 1:
            start, stop = 0, 256  # markers are learned over the special block
        losses.append(F.cross_entropy(logits[:, place - 1, start:stop], batch.ids[:, place] - start))
    torch.testing.assert_close(result.total, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)
    empty = 2 if order == "delay" else 0  # of two levels: one before the second begins, one after the first ends
    assert result.num_targets == 2 * len(losses) == 2 * (layout.length - layout.prefix_length - empty)
    assert set(result.nats) == {"visual", "audio", "special"}


def test_full_softmax_is_the_cross_entropy_over_everything(model, make):
    batch = make("text_to_video")
    p = batch.layout.prefix_length
    with torch.no_grad():
        logits = model.logits(model(batch.ids, batch.layout, text=batch.text, text_mask=batch.text_mask))
        expected = F.cross_entropy(logits[:, p - 1 : -1].flatten(0, 1), batch.ids[:, p:].flatten())
    result = prefix_lm_loss(model, batch, full_softmax=True)
    torch.testing.assert_close(result.total.detach(), expected, atol=1e-4, rtol=1e-4)
    result.total.backward()
    assert model.lm_head.weight.grad is not None


def test_prefix_targets_have_no_weight(model, make):
    batch = make("video_to_audio")
    model.zero_grad()
    prefix_lm_loss(model, batch).total.backward()
    # rows of special ids that stand only in the prefix are inputs; a separate head must get no gradient from them
    separate = PrefixLM(dataclasses.replace(model.config, tie_embeddings=False))
    prefix_lm_loss(separate, batch).total.backward()
    reached = separate.lm_head.weight.grad.abs().sum(1) > 0
    vocabulary = model.vocabulary
    assert not reached[vocabulary.visual.start : vocabulary.visual.stop].any()
    assert reached[vocabulary.audio.start : vocabulary.audio.stop].all()
    assert reached[:256].all()


def test_z_loss_adds_the_squared_partition(model, make):
    batch = make("text_to_image")
    with torch.no_grad():
        plain, with_z = prefix_lm_loss(model, batch).total, prefix_lm_loss(model, batch, z_loss=0.1).total
        logits = model.logits(model(batch.ids, batch.layout, text=batch.text, text_mask=batch.text_mask))
    z = []
    for run in batch.layout.runs:
        z.append(logits[:, run.start - 1 : run.stop - 1, run.block.start : run.block.stop].logsumexp(-1).square())
    torch.testing.assert_close(with_z - plain, 0.1 * torch.cat(z, dim=1).mean(), atol=1e-4, rtol=1e-4)
    p = batch.layout.prefix_length
    with torch.no_grad():
        plain, with_z = (prefix_lm_loss(model, batch, full_softmax=True, z_loss=z).total for z in (0.0, 0.1))
    expected = 0.1 * logits[:, p - 1 : -1].logsumexp(-1).square().mean()
    torch.testing.assert_close(with_z - plain, expected, atol=1e-4, rtol=1e-4)


def naive_total(model, batch, *, full_softmax, z_loss, audio_lead_weight):
    """The same loss from all logits at once."""
    layout = batch.layout
    logits = model.logits(model(batch.ids, layout, text=batch.text, text_mask=batch.text_mask)).float()
    total, weights = 0.0, 0.0
    for run in layout.runs:
        block = slice(None) if full_softmax else slice(run.block.start, run.block.stop)
        scores = logits[:, run.rows, block]
        targets = batch.ids[:, run.places] - (0 if full_softmax else run.block.start)
        losses = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        weight = torch.ones(losses.shape[1])
        if run.kind == "audio":
            weight[:4] = audio_lead_weight
        total = total + (losses * weight).sum() + z_loss * scores.logsumexp(-1).square().sum()
        weights += len(losses) * float(weight.sum())
    return total / weights


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("full_softmax", [False, True])
def test_gradients_are_those_of_the_plain_form(config, make, full_softmax, autocast):
    torch.manual_seed(0)
    model, batch = PrefixLM(dataclasses.replace(config, tie_embeddings=False)), make("continue_av", batch_size=3)
    options = {"full_softmax": full_softmax, "z_loss": 1e-2, "audio_lead_weight": 3.0}
    totals, gradients = [], []
    for form in (lambda **o: prefix_lm_loss(model, batch, **o).total, lambda **o: naive_total(model, batch, **o)):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            total = form(**options)
        (3 * total).backward()
        totals.append(total.detach())
        gradients.append({name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None})
    ours, plain = gradients
    assert ours.keys() == plain.keys() and "lm_head.weight" in ours
    # bfloat16 rounds logits and slopes to 8 bits in both forms, at other places
    torch.testing.assert_close(*totals, atol=2e-3 if autocast else 1e-6, rtol=1e-5)
    for name, gradient in plain.items():
        error = float((ours[name] - gradient).norm() / gradient.norm())
        assert error < (2e-2 if autocast else 2e-5), f"{name} differs by {error:.1e}"


def test_full_softmax_counts_right_ids_among_all(model, make):
    batch = make("text_to_video")
    with torch.no_grad():
        logits = model.logits(model(batch.ids, batch.layout, text=batch.text, text_mask=batch.text_mask))
        result = prefix_lm_loss(model, batch, full_softmax=True)
    right = (logits[:, :-1].argmax(-1) == batch.ids[:, 1:])[:, learned(batch.layout)[:-1]]
    mine = sum(float(result.accuracy[kind]) * n for kind, n in places_by_kind(batch).items())
    assert mine == pytest.approx(float(right.sum()), abs=1e-3)


def learned(layout):
    """(n,) bool: True at the places whose next id is learned."""
    mask = torch.zeros(layout.length, dtype=torch.bool)
    for run in layout.runs:
        mask[run.rows] = True
    return mask


def places_by_kind(batch):
    out = {}
    for run in batch.layout.runs:
        out[run.kind] = out.get(run.kind, 0) + batch.ids[:, run.places].numel()
    return out


@pytest.mark.parametrize("order", ORDERS)
def test_one_batch_is_learned_by_heart(config, make, order):
    torch.manual_seed(0)
    model = PrefixLM(config)
    batch = make("text_to_video", batch_size=4, order=order)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        loss = prefix_lm_loss(model, batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    loss = prefix_lm_loss(model, batch)
    assert loss.total < 0.1
    assert loss.accuracy["visual"] == 1.0
    assert loss.accuracy["audio"] == 1.0
    assert loss.accuracy["special"] == 1.0


@pytest.mark.parametrize("order", ORDERS)
def test_lead_weight_is_a_weighted_mean_of_places(order):
    """Against a slow sum over places; a weight of one changes nothing."""
    torch.manual_seed(0)
    vocabulary_size = {"visual_codes": 16, "audio_levels": 2, "audio_codes": 8}
    small = {
        "dim": 32,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 16,
        "hidden_dim": 48,
        "text_dim": 8,
    }
    model = PrefixLM(preset("tiny", **vocabulary_size, **small)).eval()
    layout = task_layout("unconditional", model.vocabulary, Clip((2, 2, 2), 6), text_slots=0, audio_order=order)
    content = {
        "visual_out": torch.randint(16, (3, 1, 2, 2, 2)),
        "audio_out": torch.randint(8, (3, 2, 6)),
    }
    ids, _ = layout.fill(content, 3)
    batch = Batch(layout, ids)
    plain = prefix_lm_loss(model, batch)
    assert torch.equal(plain.total, prefix_lm_loss(model, batch, audio_lead_weight=1.0).total)

    hidden = model(ids, layout)
    weighted = weights = 0.0
    lead = {"audio": (2, 5.0), "visual": (4, 3.0)}  # places and weight; a slice holds 2 x 2
    for run in layout.runs:
        for i, place in enumerate(range(run.start, run.stop, run.step)):
            logits = model.logits(hidden[:, place - 1], run.block).float()
            places, more = lead.get(run.kind, (0, 1.0))
            weight = more if i < places else 1.0
            target = ids[:, place] - run.block.start
            weighted += weight * torch.nn.functional.cross_entropy(logits, target, reduction="sum")
            weights += weight * len(ids)
    got = prefix_lm_loss(model, batch, audio_lead_weight=5.0, audio_lead_frames=2, first_slice_weight=3.0)
    torch.testing.assert_close(got.total, weighted / weights)
    assert got.nats["audio"] == plain.nats["audio"]


def test_the_first_slice_weight_leaves_outputs_alone_that_begin_later():
    torch.manual_seed(0)
    small = {"dim": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "hidden_dim": 48}
    sizes = {"visual_codes": 16, "audio_levels": 0, "audio_codes": 0, "text_dim": 8, "text_slots": 2}
    model = PrefixLM(preset("tiny", **sizes, **small)).eval()
    layout = task_layout("continue_video", model.vocabulary, Clip((3, 2, 2)), text_slots=2, given=1)
    codes = torch.randint(16, (2, 1, 3, 2, 2))
    ids, _ = layout.fill({"visual_in": codes[:, :, :1], "visual_out": codes[:, :, 1:]}, 2)
    batch = Batch(layout, ids, torch.randn(2, 2, 8), torch.ones(2, 2, dtype=torch.bool))
    assert torch.equal(prefix_lm_loss(model, batch).total, prefix_lm_loss(model, batch, first_slice_weight=9.0).total)


def test_the_model_reads_the_inputs_and_is_scored_on_the_ids():
    torch.manual_seed(0)
    small = {"dim": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "hidden_dim": 48}
    sizes = {"visual_codes": 16, "audio_levels": 0, "audio_codes": 0, "text_dim": 8}
    model = PrefixLM(preset("tiny", **sizes, **small)).eval()
    layout = task_layout("unconditional", model.vocabulary, Clip((2, 2, 2)), text_slots=0)
    ids, _ = layout.fill({"visual_out": torch.randint(16, (2, 1, 2, 2, 2))}, 2)
    other = ids.clone()
    last = layout.stretch("visual_out").stop - 1  # read by the end marker's prediction only, which has one id to choose
    other[:, last - 1] = torch.where(
        ids[:, last - 1] == model.vocabulary.visual.start, ids[:, last - 1] + 1, ids[:, last - 1] - 1
    )
    plain = prefix_lm_loss(model, Batch(layout, ids)).nats["visual"]
    changed = prefix_lm_loss(model, Batch(layout, ids, inputs=other)).nats["visual"]
    hidden = model(other, layout)[:, layout.stretch("visual_out").start - 1 : last]
    logits = model.logits(hidden, model.vocabulary.visual).float()
    targets = ids[:, layout.stretch("visual_out").start : last + 1] - model.vocabulary.visual.start
    assert changed != plain
    torch.testing.assert_close(changed, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()))
