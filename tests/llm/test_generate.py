import dataclasses

import pytest
import torch

from llm.generate import StepDecoder, generate
from llm.sampling import guide
from llm.tasks import TASKS
from mmtok.audio.orders import ORDERS


def blank(batch, known_until=None):
    """The batch's inputs with the output forgotten."""
    layout = batch.layout
    known = torch.ones(layout.length, dtype=torch.bool)
    for s in layout.stretches:
        if s.start >= layout.prefix_length and s.kind != "special":
            known[s.start : s.stop] = ~s.filled
    if known_until is not None:
        known[:known_until] = True
    return torch.where(known, batch.ids, 0), known


def texts(batch):
    return {"text": batch.text, "text_mask": batch.text_mask}


@torch.no_grad()
def slow_greedy(model, batch, known, cfg_scale=1.0):
    """Without a cache: the whole sequence again for each place, and the whole vocabulary's logits."""
    layout, ids = batch.layout, torch.where(known, batch.ids, 0)
    for place in (~known).nonzero().flatten().tolist():
        cond = model.logits(model(ids, layout, **texts(batch)))[:, place - 1]
        if cfg_scale != 1.0:
            closed = torch.zeros_like(batch.text_mask)
            uncond = model.logits(model(ids, layout, text=batch.text, text_mask=closed))[:, place - 1]
            cond = guide(cond, uncond, cfg_scale)
        start, stop = layout.blocks[place].tolist()
        ids[:, place] = start + cond[:, start:stop].argmax(-1)
    return ids


@pytest.mark.parametrize(
    ("name", "order"),
    [(name, "level") for name in ("text_to_video", "unconditional", "continue_av", "video_to_audio", "text_to_image")]
    + [(name, order) for name in ("text_to_video", "continue_av") for order in ("time", "delay")],
)
def test_cached_greedy_equals_uncached_greedy(model, make, name, order):
    batch = make(name, order=order)
    ids, known = blank(batch)
    expected = slow_greedy(model, batch, known)
    assert torch.equal(generate(model, batch.layout, ids, known, temperature=0.0, **texts(batch)), expected)


def test_guided_batch_equals_two_separate_passes(model, make):
    batch = make("text_to_video")
    ids, known = blank(batch)
    expected = slow_greedy(model, batch, known, cfg_scale=2.5)
    got = generate(model, batch.layout, ids, known, temperature=0.0, cfg_scale=2.5, **texts(batch))
    assert torch.equal(got, expected)
    assert not torch.equal(got, slow_greedy(model, batch, known))


def test_steps_give_the_logits_of_one_pass(model, make):
    batch = make("text_to_video")
    layout, p = batch.layout, batch.layout.prefix_length
    mask = layout.attention_mask(batch.text_mask)
    with torch.no_grad():
        x = model.embed(batch.ids, layout, text=batch.text)
        whole = model.logits(model.model(x, mask=mask))
        decoder = StepDecoder(model, layout, layout.readable(batch.text_mask), 2)
        rows = [decoder.prefill(x[:, :p], mask[:, :, :p, :p])[:, -1]]
        rows += [decoder.step(batch.ids[:, place]) for place in range(p, layout.length)]
    torch.testing.assert_close(model.logits(torch.stack(rows, dim=1)), whole[:, p - 1 :], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def teacher_forced(model, batch):
    """Scores of all output places through prefill and steps, joined."""
    layout, p = batch.layout, batch.layout.prefix_length
    decoder = StepDecoder(model, layout, layout.readable(batch.text_mask), len(batch.ids))
    x = model.embed(batch.ids, layout, text=batch.text)[:, :p]
    hidden = decoder.prefill(x, layout.attention_mask(batch.text_mask)[:, :, :p, :p])[:, -1]
    out = []
    for place in range(p, layout.length):
        out.append(decoder.logits(hidden, *layout.blocks[place].tolist()).float())
        hidden = decoder.step(batch.ids[:, place])
    return torch.cat(out, dim=1)


@pytest.mark.parametrize(("kind", "tolerance"), [("bfloat16", 0.03), ("int8", 0.03)])
@pytest.mark.parametrize("small", [0, 2**20])
def test_fewer_bits_cost_little(model, make, kind, tolerance, small, monkeypatch):
    monkeypatch.setattr("llm.step_linear.SMALL", small)
    batch = make("text_to_video")
    exact = teacher_forced(model, batch)
    model.to(torch.bfloat16) if kind == "bfloat16" else model.quantize_weights("int8")
    if kind == "bfloat16":
        batch = dataclasses.replace(batch, text=batch.text.to(torch.bfloat16))
    error = float((teacher_forced(model, batch) - exact).norm() / exact.norm())
    assert 1e-4 < error < tolerance, error


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("temperature", [1.0, 30.0])
def test_the_grammar_is_never_violated(model, make, name, temperature, order):
    batch = make(name, batch_size=3, order=order)
    ids, known = blank(batch)
    draw = torch.Generator().manual_seed(1)
    out = generate(model, batch.layout, ids, known, temperature=temperature, generator=draw, **texts(batch))
    blocks = batch.layout.blocks
    content = torch.ones(batch.layout.length, dtype=torch.bool)
    for s in batch.layout.stretches:
        content[s.start : s.stop] = s.kind != "text"
    inside = (out >= blocks[:, 0]) & (out < blocks[:, 1])
    assert inside[:, content].all()
    assert torch.equal(out[:, known], batch.ids[:, known])
    assert out[:, ~known].unique().numel() > 3


def seeds(*numbers):
    return [torch.Generator().manual_seed(n) for n in numbers]


def test_a_film_depends_on_its_own_seed_alone(model, make):
    batch = make("text_to_video", batch_size=3)
    ids, known = blank(batch)

    def films(rows, generators):
        own = {"text": batch.text[rows], "text_mask": batch.text_mask[rows]}
        return generate(model, batch.layout, ids[rows], known, cfg_scale=2.0, generator=generators, **own)

    together = films([0, 1, 2], seeds(5, 6, 7))
    assert torch.equal(films([1], seeds(6)), together[1:2])
    assert torch.equal(films([2, 0], seeds(7, 5)), together[[2, 0]])
    assert not torch.equal(films([1], seeds(5)), together[1:2])


def test_candidates_share_a_prefix_and_nothing_else(model, make):
    batch = make("image_to_video")
    ids, known = blank(batch)
    guided = {"cfg_scale": 2.0, **texts(batch)}
    together = generate(model, batch.layout, ids, known, candidates=3, generator=seeds(*range(6)), **guided)
    for row in range(6):
        own = {k: v[row // 3 :][:1] for k, v in texts(batch).items()}
        alone = generate(model, batch.layout, ids[row // 3 :][:1], known, generator=seeds(row), **{**guided, **own})
        assert torch.equal(together[row : row + 1], alone), row
    assert together.unique(dim=0).shape[0] == 6


@pytest.mark.parametrize("interval", [(0.0, 0.5), (0.25, 0.75), (0.5, 1.0)])
def test_guidance_works_inside_its_interval_only(model, make, interval):
    batch = make("text_to_video")
    ids, known = blank(batch)
    layout, expected = batch.layout, ids.clone()
    free = (~known).nonzero().flatten().tolist()
    closed = torch.zeros_like(batch.text_mask)
    for place in free:  # slowly, without a cache
        share = (place - free[0]) / (free[-1] + 1 - free[0])
        with torch.no_grad():
            scores = model.logits(model(expected, layout, **texts(batch)))[:, place - 1]
            if interval[0] <= share < interval[1]:
                null = model.logits(model(expected, layout, text=batch.text, text_mask=closed))[:, place - 1]
                scores = guide(scores, null, 4.0)
        start, stop = layout.blocks[place].tolist()
        expected[:, place] = start + scores[:, start:stop].argmax(-1)
    greedy = {"temperature": 0.0, "cfg_scale": 4.0, **texts(batch)}
    got = generate(model, layout, ids, known, guidance_interval=interval, **greedy)
    assert torch.equal(got, expected)
    assert not torch.equal(got, generate(model, layout, ids, known, **greedy))


def test_scale_one_is_plain_sampling(model, make):
    batch = make("image_to_video")
    ids, known = blank(batch)
    plain, scaled = (
        generate(model, batch.layout, ids, known, generator=torch.Generator().manual_seed(3), **texts(batch), **more)
        for more in ({}, {"cfg_scale": 1.0})
    )
    assert torch.equal(plain, scaled)


def test_guidance_without_a_caption_changes_nothing(model, make):
    batch = make("image_to_video")
    ids, known = blank(batch)
    closed = {"text": batch.text, "text_mask": torch.zeros_like(batch.text_mask)}
    plain, scaled = (
        generate(model, batch.layout, ids, known, temperature=0.0, cfg_scale=scale, **closed) for scale in (1.0, 4.0)
    )
    assert torch.equal(plain, scaled)


def test_negative_text_takes_the_place_of_the_null_branch(model, make):
    batch = make("text_to_video")
    ids, known = blank(batch)
    negative = (torch.randn(2, 4, 12), torch.ones(2, 4, dtype=torch.bool))
    guided = {"temperature": 0.0, "cfg_scale": 3.0, **texts(batch)}
    assert not torch.equal(
        generate(model, batch.layout, ids, known, negative=negative, **guided),
        generate(model, batch.layout, ids, known, **guided),
    )
    same = (batch.text, batch.text_mask)  # guided away from itself: nothing to gain
    assert torch.equal(
        generate(model, batch.layout, ids, known, negative=same, **guided),
        generate(model, batch.layout, ids, known, temperature=0.0, **texts(batch)),
    )


def test_same_seed_same_ids(model, make):
    batch = make("text_to_video")
    ids, known = blank(batch)
    a, b, c = (
        generate(model, batch.layout, ids, known, generator=torch.Generator().manual_seed(s), **texts(batch))
        for s in (0, 0, 1)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_given_output_slices_are_kept(model, make):
    batch = make("image_to_video")
    start = batch.layout.stretch("visual_out").start
    ids, known = blank(batch, known_until=start + 6)
    out = generate(model, batch.layout, ids, known, generator=torch.Generator().manual_seed(0), **texts(batch))
    assert torch.equal(out[:, : start + 6], ids[:, : start + 6])


def test_nothing_unknown_returns_the_input_and_progress_ends_full(model, make):
    batch = make("text_to_video")
    known = torch.ones(batch.layout.length, dtype=torch.bool)
    assert torch.equal(generate(model, batch.layout, batch.ids, known, **texts(batch)), batch.ids)
    ids, known = blank(batch)
    calls = []
    generate(model, batch.layout, ids, known, on_step=lambda done, of: calls.append((done, of)), **texts(batch))
    assert len(calls) == int((~known).sum())
    assert calls[-1][0] == calls[-1][1]


def test_errors(model, make):
    batch = make("text_to_video")
    ids, known = blank(batch)
    with pytest.raises(ValueError, match="4 text slots; text and text_mask must match"):
        generate(model, batch.layout, ids, known)
    for interval in ((0.5, 0.5), (-0.1, 1.0), (0.0, 1.1)):
        with pytest.raises(ValueError, match="guidance_interval must be two shares"):
            generate(model, batch.layout, ids, known, guidance_interval=interval, **texts(batch))
    with pytest.raises(ValueError, match="candidates must be at least 1, got 0"):
        generate(model, batch.layout, ids, known, candidates=0, **texts(batch))
    known[0] = False
    with pytest.raises(ValueError, match="the prefix must be known as a whole"):
        generate(model, batch.layout, ids, known, **texts(batch))
