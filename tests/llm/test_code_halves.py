import dataclasses

import pytest
import torch
import torch.nn.functional as F

from llm.code_halves import VisualFactors
from llm.config import preset
from llm.generate import generate
from llm.init_from_codes import start_from_code_vectors
from llm.loss import prefix_lm_loss
from llm.model import PrefixLM, count_weights
from mmtok.vocabulary import Vocabulary


@pytest.fixture
def halved(config) -> PrefixLM:
    torch.manual_seed(0)
    model = PrefixLM(dataclasses.replace(config, visual_codes=49, visual_factors=2)).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.fixture
def batch(halved, make):
    """Random clips whose codes are in this vocabulary."""
    batch = make("text_to_video")
    layout = dataclasses.replace(batch.layout, vocabulary=halved.vocabulary)
    audio = batch.ids >= batch.layout.vocabulary.visual.stop
    visual = (batch.ids >= 256) & ~audio
    ids = torch.where(visual, 256 + (batch.ids - 256) % 49, batch.ids - audio.long())
    return dataclasses.replace(batch, layout=layout, ids=ids)


def test_every_id_has_its_own_rows_and_low_bits_come_first():
    factors = VisualFactors(Vocabulary(2**18, 4, 1024))
    assert (factors.size, factors.low.start, factors.high.start, factors.high.stop) == (512, 256, 768, 1280)
    low, high = factors.split(torch.tensor([256, 256 + 511, 256 + 512, 256 + 2**18 - 1]))
    assert low.tolist() == [256, 767, 256, 767] and high.tolist() == [768, 768, 769, 1279]
    audio = factors.vocabulary.audio_level(3)
    block = factors.block(audio)
    assert (len(block), block.stop, factors.table_size) == (1024, 1280 + 4096, 5376)
    assert factors.row(torch.tensor([3, audio.start])).tolist() == [3, block.start]
    assert factors.block(factors.vocabulary.special) == factors.vocabulary.special


def test_embeddings_are_sums_of_two_rows(halved):
    factors, table = halved.factors, halved.model.embed_tokens.weight
    ids = torch.tensor([[3, 256 + 2 + 7 * 5, halved.vocabulary.audio.start]])
    expected = [table[3], table[factors.low.start + 2] + table[factors.high.start + 5], table[factors.high.stop]]
    torch.testing.assert_close(halved.embed_ids(ids)[0], torch.stack(expected))


def test_joint_scores_are_a_distribution_and_the_loss_is_its_logarithm(halved, batch):
    run = next(run for run in batch.layout.runs if run.kind == "visual")
    with torch.no_grad():
        hidden = halved(batch.ids, batch.layout, text=batch.text, text_mask=batch.text_mask)
        scores = halved.logits(hidden[:, run.rows], run.block)
        result = prefix_lm_loss(halved, batch, z_loss=0.0)
    torch.testing.assert_close(scores.logsumexp(-1), torch.zeros(scores.shape[:-1]), atol=1e-5, rtol=0)
    nats = F.cross_entropy(scores.flatten(0, 1), (batch.ids[:, run.places] - run.block.start).flatten())
    torch.testing.assert_close(result.nats["visual"], nats, atol=1e-5, rtol=1e-5)
    assert result.num_targets == 2 * (batch.layout.length - batch.layout.prefix_length)
    # the high half depends on the low one: the joint is no product of its margins
    joint = scores[0, 0].view(7, 7).exp()
    assert (joint - joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)).abs().max() > 1e-3


def test_right_places_have_both_halves_right(halved, batch):
    run = next(run for run in batch.layout.runs if run.kind == "visual")
    with torch.no_grad():
        hidden = halved(batch.ids, batch.layout, text=batch.text, text_mask=batch.text_mask)
        joint = halved.logits(hidden[:, run.rows], run.block).unflatten(-1, (7, 7))
        codes = batch.ids[:, run.places] - 256
        best_low = joint.logsumexp(-2).argmax(-1) == codes % 7
        given = joint.gather(-1, (codes % 7)[..., None, None].expand(*codes.shape, 7, 1))[..., 0]
        both = best_low & (given.argmax(-1) == codes // 7)
        accuracy = prefix_lm_loss(halved, batch).accuracy["visual"]
    torch.testing.assert_close(accuracy, both.float().mean())


def test_all_weights_learn_and_a_batch_is_learned_by_heart(halved, batch):
    torch.manual_seed(0)
    model = PrefixLM(halved.config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = prefix_lm_loss(model, batch, z_loss=1e-4)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert all(w.grad is not None for name, w in model.named_parameters() if not name.startswith("positions.level"))
    assert float(prefix_lm_loss(model, batch).nats["visual"]) < 0.5


def test_generated_ids_are_codes_and_greedy_takes_the_best_pair(halved, batch):
    layout = batch.layout
    known = torch.arange(layout.length) < layout.stretch("visual_out").start
    for s in layout.stretches:
        if s.kind == "special":
            known[s.start] = True
    ids = torch.where(known, batch.ids, 0)
    out = generate(
        halved, layout, ids, known, text=batch.text, text_mask=batch.text_mask, cfg_scale=2.0, temperature=0.0
    )
    visual = layout.read(out, "visual_out")
    assert int(visual.min()) >= 0 and int(visual.max()) < 49
    first = layout.stretch("visual_out").start
    with torch.no_grad():
        arguments = {"text": batch.text}
        hidden, null = (
            halved(out, layout, **arguments, text_mask=mask)[:, first - 1]
            for mask in (batch.text_mask, torch.zeros_like(batch.text_mask))
        )
        a, b = (halved.logits(h, halved.vocabulary.visual) for h in (hidden, null))
    assert torch.equal(out[:, first], 256 + (b + 2.0 * (a - b)).argmax(-1))


def test_save_load_and_int8(halved, batch, tmp_path):
    halved.save_pretrained(tmp_path)
    loaded = PrefixLM.from_pretrained(tmp_path)
    assert loaded.config == halved.config and loaded.config.visual_factors == 2
    with torch.no_grad():
        total = prefix_lm_loss(halved, batch).total
        assert torch.equal(prefix_lm_loss(loaded, batch).total, total)
        loaded.quantize_weights("int8")
        assert 0 < abs(float(prefix_lm_loss(loaded, batch).total - total)) < 0.05 * float(total)


def test_rows_start_from_what_halves_mean(halved):
    bits = (torch.arange(49)[:, None] // torch.tensor([1, 7])) % 7  # a vector that tells both halves
    table = halved.model.embed_tokens.weight
    before = table.detach().clone()
    start_from_code_vectors(halved, bits.float(), None, noise=0.0)
    changed = (table.detach() != before).any(1).nonzero().flatten().tolist()
    assert changed == list(range(halved.factors.low.start, halved.factors.high.stop))
    low = table[halved.factors.low.start : halved.factors.low.stop].detach()
    assert (low.diff(dim=0) - (low[1] - low[0])).abs().max() < 1e-5, "equal steps of the code, equal steps of the row"


def test_large_halves_save_nearly_all_of_the_tables():
    flat, halved = (count_weights(preset("300m", visual_factors=factors)) for factors in (1, 2))
    assert flat["tables"] == 266_496 * 1024 and halved["tables"] == 5376 * 1024
    assert halved["body"] == flat["body"]
    assert halved["other"] - flat["other"] == 2 * 512 * 1024


def test_errors(halved, batch, config):
    with pytest.raises(ValueError, match="needs a square number of visual codes, got 50"):
        dataclasses.replace(config, visual_factors=2)
    with pytest.raises(ValueError, match="visual_factors must be 1 or 2, got 3"):
        dataclasses.replace(config, visual_factors=3)
    with pytest.raises(ValueError, match="full_softmax needs a row of the head for every id"):
        prefix_lm_loss(halved, batch, full_softmax=True)
    with pytest.raises(ValueError, match="no scores over the whole vocabulary"):
        halved.logits(torch.zeros(1, 32))
