"""superres/sample.py: guidance identities, and a grid that fills up."""

import pytest
import torch

from superres.config import preset
from superres.loss import superres_loss
from superres.model import SuperResTransformer
from superres.sample import GUIDANCE, SCHEDULES, Decoding, guidance_terms, guided_logits, sample

GRID = (2, 8, 8)


def make_model(seed=0):
    torch.manual_seed(seed)
    return SuperResTransformer(preset("nano", grid=GRID)).eval()


def make_inputs(batch=2):
    generator = torch.Generator().manual_seed(1)
    low = torch.randint(4096, (batch, 2, 4, 4), generator=generator)
    text = torch.randn(batch, 5, 16, generator=generator)
    codes = torch.randint(4096, (batch, *GRID), generator=generator)
    return codes, torch.rand(codes.shape, generator=generator) < 0.5, low, text


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class CountedModel(SuperResTransformer):
    """Notes the batch of each call and the codes it was shown."""

    def decode(self, codes, masked, context):
        self.calls = [*getattr(self, "calls", []), (codes.clone(), masked.clone())]
        return super().decode(codes, masked, context)


def counted(model):
    copy = CountedModel(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def test_neutral_scales_equal_the_plain_conditional_logits_in_one_pass():
    model = counted(make_model())
    codes, masked, low, text = make_inputs()
    guided = guided_logits(model, low, text, text_scale=1.0, low_scale=1.0)(codes, masked)
    assert [len(shown) for shown, _ in model.calls] == [2]
    for a, b in zip(guided, model(codes, masked, low, text), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize(("text_scale", "low_scale", "passes"), [(4.0, 1.0, 2), (8.0, 2.0, 3), (2.0, 2.0, 2)])
def test_guidance_is_the_formula_of_instruct_pix2pix(text_scale, low_scale, passes):
    model = make_model()
    codes, masked, low, text = make_inputs()
    no = torch.zeros(2, dtype=torch.bool)
    both = model(codes, masked, low, text)
    only_low = model(codes, masked, low, text, keep_text=no)
    neither = model(codes, masked, low, text, keep_low=no, keep_text=no)
    spy = counted(model)
    guided = guided_logits(spy, low, text, text_scale=text_scale, low_scale=low_scale)(codes, masked)
    assert [len(shown) for shown, _ in spy.calls] == [2 * passes], "all passes run as one batch"
    for out, lt, l0, n in zip(guided, both, only_low, neither, strict=True):
        torch.testing.assert_close(out, n + low_scale * (l0 - n) + text_scale * (lt - l0), atol=2e-5, rtol=2e-5)


def test_passes_that_cancel_are_left_out():
    assert guidance_terms(1.0, 1.0, has_text=True) == {(True, True): 1.0}
    assert guidance_terms(4.0, 1.0, has_text=True) == {(True, True): 4.0, (True, False): -3.0}
    assert guidance_terms(8.0, 2.0, has_text=True) == {(True, True): 8.0, (True, False): -6.0, (False, False): -1.0}
    assert guidance_terms(4.0, 1.0, has_text=False) == {(True, False): 1.0}
    assert guidance_terms(4.0, 2.0, has_text=False) == {(True, False): 2.0, (False, False): -1.0}


def test_text_scale_means_nothing_without_text():
    model = make_model()
    codes, masked, low, _ = make_inputs()
    strong = guided_logits(model, low, text_scale=7.0)(codes, masked)
    for a, b in zip(strong, model(codes, masked, low), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 150])
def test_sampling_fills_every_position_once(num_steps):
    model = counted(make_model())
    _, _, low, text = make_inputs()
    codes = sample(model, low, text, num_steps=num_steps, text_scale=1.0, generator=generator())
    assert codes.shape == (2, *GRID) and codes.dtype == torch.int64
    assert codes.min() >= 0 and codes.max() < 4096 and codes.unique().numel() > 100
    assert len(model.calls) == num_steps and model.calls[0][1].all()
    hidden = torch.stack([masked.flatten(1).sum(1) for _, masked in model.calls])
    falls = hidden[:-1] - hidden[1:]
    assert (falls[hidden[:-1] > 0] > 0).all(), "some code becomes known in every step while any is hidden"
    for (_, masked), (later, later_masked) in zip(model.calls, model.calls[1:], strict=False):
        assert not (later_masked & ~masked).any(), "a known code was hidden again"
        assert later[~later_masked].equal(codes[~later_masked]), "a known code changed"


def test_hidden_counts_follow_the_cosine():
    model = counted(make_model())
    _, _, low, _ = make_inputs(batch=1)
    sample(model, low, num_steps=4, generator=generator())
    hidden = [int(masked.sum()) for _, masked in model.calls]
    assert hidden == [128, 118, 90, 48]  # floor(128 cos(pi i / 8))


@pytest.mark.parametrize(
    ("name", "expected"), [("linear", [96, 64, 32]), ("square", [120, 96, 56]), ("root", [64, 37, 17])]
)
def test_other_schedules_hide_other_counts(name, expected):
    model = counted(make_model())
    _, _, low, _ = make_inputs(batch=1)
    sample(model, low, num_steps=4, schedule=name, generator=generator())
    assert [int(masked.sum()) for _, masked in model.calls] == [128, *expected]


def test_schedules_fall_from_all_to_none():
    progress = torch.linspace(0, 1, 9)
    for name, schedule in SCHEDULES.items():
        hidden = schedule(progress)
        assert hidden[0] == 1 and abs(float(hidden[-1])) < 1e-6 and (hidden.diff() < 0).all(), name


def test_temperature_goes_on_a_straight_line():
    settings = Decoding(num_steps=5, temperature=1.0, final_temperature=0.2)
    assert [settings.temperature_at(step) for step in range(5)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert Decoding(num_steps=1, temperature=0.7, final_temperature=0.0).temperature_at(0) == 0.7
    model = make_model()
    _, _, low, _ = make_inputs()
    same = {"num_steps": 4, "temperature": 1.0}
    plain, cooled, flat = (
        sample(model, low, **same, **more, generator=generator())
        for more in ({}, {"final_temperature": 0.0}, {"final_temperature": 1.0})
    )
    assert plain.equal(flat) and not plain.equal(cooled)


def test_published_guidance_has_names():
    assert GUIDANCE["stage1"] == (4.0, 1.0) and GUIDANCE["stage2"] == (8.0, 2.0)
    assert Decoding().num_steps == 24 and (Decoding().text_scale, Decoding().low_scale) == GUIDANCE["stage1"]
    for has_text in (True, False):
        assert len(guidance_terms(*GUIDANCE["none"], has_text=has_text)) == 1


def test_every_step_is_reported():
    model = make_model()
    _, _, low, _ = make_inputs()
    steps = []
    sample(model, low, num_steps=3, generator=generator(), on_step=lambda *step: steps.append(step))
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_same_seed_same_codes():
    model = make_model()
    _, _, low, text = make_inputs()
    first, again, other = (sample(model, low, text, num_steps=4, generator=generator(s)) for s in (3, 3, 4))
    assert first.equal(again) and not first.equal(other)
    torch.manual_seed(5)
    free = sample(model, low, text, num_steps=4)
    torch.manual_seed(5)
    assert sample(model, low, text, num_steps=4).equal(free), "torch's global seed rules when no generator is given"


def test_a_row_with_its_own_seed_does_not_depend_on_its_neighbours():
    model, (_, _, low, text) = make_model(), make_inputs(batch=3)
    together = sample(model, low, text, num_steps=3, generator=[generator(s) for s in (4, 5, 6)])
    alone = sample(model, low[1:2], text[1:2], num_steps=3, generator=[generator(5)])
    assert alone.equal(together[1:2])


def test_temperature_zero_is_certain():
    model = make_model()
    codes, masked, low, text = make_inputs()
    a, b = (
        sample(model, low, text, num_steps=4, temperature=0.0, choice_temperature=0.0, generator=generator(s))
        for s in (1, 2)
    )
    assert a.equal(b)
    nothing = torch.ones_like(masked)
    greedy = [x.argmax(-1) for x in guided_logits(model, low, text)(codes, nothing)]
    one_step = sample(model, low, text, num_steps=1, temperature=0.0, generator=generator())
    assert one_step.equal(greedy[0] + 64 * greedy[1])


def test_draws_follow_the_distribution():
    """One step keeps every draw; with more, codes that are drawn again lean towards the likely ones."""
    model = make_model()
    logits = torch.full((64,), -20.0)
    logits[:2] = torch.tensor([1.0, 3.0]).log()  # P(1) = 3 / 4 in each factor
    model.decode = lambda codes, *_: (logits.expand(*codes.shape, 64),) * 2
    low = torch.zeros(16, 2, 4, 4, dtype=torch.int64)
    for temperature, odds in ((1.0, 3.0), (0.5, 9.0)):
        codes = sample(model, low, num_steps=1, temperature=temperature, generator=generator())
        counts = torch.bincount(codes.flatten(), minlength=66)[[0, 1, 64, 65]] / codes.numel()
        expected = torch.tensor([1.0, odds, odds, odds * odds]) / (1 + odds) ** 2
        torch.testing.assert_close(counts, expected, atol=0.03, rtol=0)  # 2048 draws: 3 standard deviations


def test_the_most_confident_code_is_kept_first():
    """Without noise on the scores the sum of both factors' log-probabilities decides."""
    model = counted(make_model())
    sharp = torch.zeros(1, *GRID, 64)
    sharp[0, 1, 3, 5, 7] = 9.0
    sharp[0, 0, 2, 2, 7] = 6.0
    seen = []

    def decode(codes, masked, _context):
        seen.append(masked.clone())
        return sharp, torch.zeros_like(sharp)

    model.decode = decode
    low = torch.zeros(1, 2, 4, 4, dtype=torch.int64)
    sample(model, low, num_steps=12, temperature=0.0, choice_temperature=0.0, generator=generator())
    first_known = ~seen[1]
    assert first_known.sum() == 2 and first_known[0, 1, 3, 5] and first_known[0, 0, 2, 2]


def test_pinned_codes_are_kept_and_shown_from_the_start():
    model = counted(make_model())
    codes, _, low, text = make_inputs()
    pin = torch.zeros(codes.shape, dtype=torch.bool)
    pin[:, 0] = True
    pin[1] = True  # nothing is left to do for the second clip
    out = sample(model, low, text, num_steps=5, text_scale=1.0, pinned=codes, pinned_mask=pin, generator=generator())
    assert out[pin].equal(codes[pin]) and not out[0, 1].equal(codes[0, 1])
    for shown, masked in model.calls:
        assert not (masked & pin).any() and shown[pin].equal(codes[pin])


def test_wrong_arguments_raise():
    model = make_model()
    codes, masked, low, _ = make_inputs()
    with pytest.raises(ValueError, match="num_steps must be positive, got 0"):
        sample(model, low, num_steps=0)
    with pytest.raises(ValueError, match=r"temperatures must not be negative, got -1\.0 and 4\.5"):
        sample(model, low, temperature=-1.0)
    with pytest.raises(ValueError, match="unknown schedule 'cubic'; known: cosine, linear, square, root"):
        sample(model, low, schedule="cubic")
    with pytest.raises(ValueError, match=r"temperatures must not be negative, got 1\.0 and 4\.5 and -0\.5"):
        sample(model, low, final_temperature=-0.5)
    with pytest.raises(ValueError, match="must be given together"):
        sample(model, low, pinned=codes)
    with pytest.raises(ValueError, match=r"pinned codes must have shape \(2, 2, 8, 8\)"):
        sample(model, low, pinned=codes[:1], pinned_mask=masked[:1])
    with pytest.raises(ValueError, match=r"low must have shape \(b, t, h, w\), got \(2, 1, 2, 4, 4\)"):
        sample(model, low[:, None])


def test_one_clip_is_learned_by_heart_and_sampled_back():
    torch.manual_seed(0)
    model = SuperResTransformer(preset("nano", grid=GRID))
    codes, _, low, text = make_inputs()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    draw = generator()
    for _ in range(60):
        masked = torch.rand(codes.shape, generator=draw) < torch.rand(2, 1, 1, 1, generator=draw) + 0.2
        loss = superres_loss(model(codes, masked, low, text), codes, masked, factor_sizes=(64, 64))
        optimizer.zero_grad()
        loss.loss.backward()
        optimizer.step()
    again = sample(model.eval(), low, text, num_steps=8, text_scale=1.0, temperature=0.0, generator=generator())
    share = float((again == codes).float().mean())
    assert share > 0.95, f"{share:.2f} of the codes came back, loss {float(loss.loss):.3f}"
