"""superres/model.py: factors, what each layer can see, conditions, weights."""

import pytest
import torch
import torch.nn.functional as F

from recipes.bundle.folder import open_bundle
from superres.config import preset
from superres.model import AxisLayer, SuperResTransformer, attend, merge_codes, split_codes
from superres.windows import low_size, merge_windows, partition

GRID = (2, 8, 8)
WINDOWS = ((1, 8, 4), (1, 4, 8), (2, 4, 4))


def make_model(seed=0, **changes):
    torch.manual_seed(seed)
    return SuperResTransformer(preset("nano", **{"grid": GRID, "windows": WINDOWS, **changes})).eval()


def make_inputs(batch=2, grid=GRID, seed=1):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(4096, (batch, *grid), generator=generator)
    masked = torch.rand(codes.shape, generator=generator) < 0.5
    low = torch.randint(4096, (batch, *low_size(grid)), generator=generator)
    text = torch.randn(batch, 5, 16, generator=generator)
    text_mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])[:batch]
    return codes, masked, low, text, text_mask


def test_merge_undoes_split_for_all_codes_of_18_bits():
    codes = torch.arange(2**18)
    low, high = split_codes(codes, (512, 512))
    assert low.equal(codes & 511) and high.equal(codes >> 9)
    assert merge_codes((low, high), (512, 512)).equal(codes)


@pytest.mark.parametrize("sizes", [(64, 64), (4096,), (16, 16, 16), (256, 250)])
def test_merge_undoes_split_for_other_factors(sizes):
    codes = torch.arange(int(torch.tensor(sizes).prod()))
    parts = split_codes(codes, sizes)
    assert len(parts) == len(sizes)
    for part, size in zip(parts, sizes, strict=True):
        assert part.min() == 0 and part.max() == size - 1
    assert merge_codes(parts, sizes).equal(codes)


def test_logits_have_one_head_a_factor():
    model = make_model()
    low, high = model(*make_inputs())
    assert low.shape == high.shape == (2, *GRID, 64)
    assert low.dtype == torch.float32


def test_plain_products_equal_the_fused_kernel():
    q, k, v = (torch.randn(2, 2, n, 8, dtype=torch.bfloat16) for n in (12, 7, 7))
    mask = torch.rand(2, 7) < 0.7
    mask[:, 0] = True
    for allowed in (None, mask):
        plain = attend(q.clone().requires_grad_(), k, v, allowed).detach()
        fused = attend(q.float(), k.float(), v.float(), allowed)
        torch.testing.assert_close(plain.float(), fused, atol=0.03, rtol=0.03)  # bfloat16 keeps 8 bits


def test_hidden_codes_do_not_leak():
    model = make_model()
    codes, masked, *conditions = make_inputs()
    other = torch.where(masked, (codes + 1234) % 4096, codes)
    for a, b in zip(model(codes, masked, *conditions), model(other, masked, *conditions), strict=True):
        assert a.equal(b), "a hidden code changed a logit"
    shown = torch.where(masked, codes, (codes + 1234) % 4096)
    assert not model(codes, masked, *conditions)[0].equal(model(shown, masked, *conditions)[0])


def test_hidden_codes_have_no_gradient_in_either_factor():
    model = make_model()
    codes, masked, *conditions = make_inputs()
    codes = torch.where(masked, 63 + 64 * 63, codes % 63 + 64 * ((codes // 64) % 63))  # digit 63 occurs hidden only
    sum(logits.sum() for logits in model(codes, masked, *conditions)).backward()
    for table in model.embed.factors:
        assert table.weight.grad[63].abs().max() == 0
        assert table.weight.grad[:63].abs().max() > 0
    assert model.embed.replacement.grad.abs().max() > 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_layer_sees_its_window_and_nothing_else(axis):
    torch.manual_seed(0)
    window = WINDOWS[axis]
    layer = AxisLayer(dim=16, num_heads=2, hidden_dim=24, eps=1e-6)
    x = torch.randn(1, *GRID, 16, requires_grad=True)
    low = torch.randn(1, *low_size(GRID), 16, requires_grad=True)
    text, mask = torch.randn(1, 3, 16), torch.ones(1, 3, dtype=torch.bool)
    context = layer.keys_values(partition(low, low_size(window)), text)
    y = merge_windows(layer(partition(x, window), *context, mask), window, GRID)
    t, h, w = at = (1, 5, 2)
    y[0, t, h, w].sum().backward()

    inside = torch.zeros(GRID, dtype=torch.bool)
    inside[tuple(slice(p // s * s, p // s * s + s) for p, s in zip(at, window, strict=True))] = True
    assert (x.grad[0].abs().amax(-1) > 0).equal(inside)
    below = inside[:, ::2, ::2]
    assert (low.grad[0].abs().amax(-1) > 0).equal(below)


def test_one_block_lets_every_position_see_the_whole_clip():
    model = make_model()
    codes, _, low, text, mask = make_inputs(batch=1)
    nothing = torch.zeros_like(codes, dtype=torch.bool)
    corner = model(codes, nothing, low, text, mask[:1])[0][0, 0, 0, 0]
    codes[0, 1, 7, 7] = (codes[0, 1, 7, 7] + 99) % 4096
    assert not model(codes, nothing, low, text, mask[:1])[0][0, 0, 0, 0].equal(corner)


def test_dropped_low_codes_do_not_matter_and_kept_ones_do():
    model = make_model()
    codes, masked, low, *text = make_inputs()
    other = (low + 7) % 4096
    drop = torch.tensor([False, True])
    a, b = model(codes, masked, low, *text, keep_low=drop)[0], model(codes, masked, other, *text, keep_low=drop)[0]
    assert a[0].equal(b[0]) and not a[1].equal(b[1])
    assert not a[0].equal(model(codes, masked, low, *text)[0][0])


def test_dropped_text_equals_no_text():
    model = make_model()
    codes, masked, low, text, mask = make_inputs()
    without = model(codes, masked, low)[0]
    dropped = model(codes, masked, low, text, mask, keep_text=torch.tensor([False, True]))[0]
    empty = model(codes, masked, low, text, torch.zeros_like(mask))[0]
    torch.testing.assert_close(dropped[0], without[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(empty, without, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(dropped[1], without[1], atol=1e-6)


def test_padded_text_is_ignored():
    model = make_model()
    codes, masked, low, text, mask = make_inputs()
    spoiled = text.masked_fill(~mask[..., None], 50.0)
    torch.testing.assert_close(model(codes, masked, low, text, mask), model(codes, masked, low, spoiled, mask))


def test_batched_equals_single():
    model = make_model()
    codes, masked, low, text, mask = make_inputs()
    together = model(codes, masked, low, text, mask)[1]
    for i in range(2):
        alone = model(*(x[i : i + 1] for x in (codes, masked, low, text, mask)))[1]
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def test_positions_tell_equal_codes_apart():
    model = make_model()
    codes = torch.zeros(1, *GRID, dtype=torch.int64)
    low = torch.zeros(1, *low_size(GRID), dtype=torch.int64)
    logits = model(codes, torch.ones_like(codes, dtype=torch.bool), low)[0][0].flatten(0, 2)
    assert torch.cdist(logits, logits).fill_diagonal_(1).min() > 0


def test_an_image_is_upscaled_by_the_video_model():
    model = make_model()
    codes, masked, low, text, mask = make_inputs(grid=(1, 8, 8))
    assert model(codes, masked, low, text, mask)[0].shape == (2, 1, 8, 8, 64)


def test_another_grid_keeps_weights_and_interpolates_positions():
    model = make_model()
    larger = model.with_grid((2, 16, 16), ((1, 16, 4), (1, 4, 16), (2, 4, 4)))
    assert larger.config.grid == (2, 16, 16) and larger.embed.position_h.shape == (16, 32)
    assert larger.heads[0].weight.equal(model.heads[0].weight)
    own, own_h = model.embed.position_h, larger.embed.position_h
    torch.testing.assert_close(own_h[1], 0.75 * own[0] + 0.25 * own[1])  # half-pixel centres
    same = model.with_grid(GRID, WINDOWS)
    inputs = make_inputs()
    assert same(*inputs)[0].equal(model(*inputs)[0])
    assert larger(*make_inputs(grid=(2, 16, 16)))[0].shape == (2, 2, 16, 16, 64)


def test_weights_go_to_disk_and_back(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    again = SuperResTransformer.from_pretrained(tmp_path)
    assert again.config == model.config and not again.training
    inputs = make_inputs()
    for a, b in zip(model(*inputs), again(*inputs), strict=True):
        assert a.equal(b)


def test_shapes_that_disagree_raise():
    model = make_model()
    codes, masked, low, text, mask = make_inputs()
    with pytest.raises(
        ValueError, match=r"codes of \(2, 2, 8, 8\) do not lie on 2 clips of .* whose grid is \(1, 8, 8\)"
    ):
        model(codes, masked, low[:, :1])
    with pytest.raises(ValueError, match=r"codes of \(1, 2, 8, 8\) do not lie on 2 clips"):
        model.decode(codes[:1], masked[:1], model.encode_context(low))
    with pytest.raises(ValueError, match=r"low must be integers \(b, t, h, w\), got torch.float32"):
        model(codes, masked, low.float())
    with pytest.raises(ValueError, match=r"text_mask must have shape \(2, 5\), got \(2, 4\)"):
        model(codes, masked, low, text, mask[:, 1:])
    with pytest.raises(ValueError, match="masked must be bool"):
        model(codes, masked.float(), low)
    with pytest.raises(ValueError, match=r"codes must be integers \(b, t, h, w\)"):
        model(codes[:, None], masked, low)
    with pytest.raises(ValueError, match=r"text must have shape \(2, n, 16\), got \(2, 5, 15\)"):
        model(codes, masked, low, text[..., 1:], mask)
    with pytest.raises(ValueError, match=r"the grid \(3, 8, 8\) exceeds the model's \(2, 8, 8\)"):
        model(*make_inputs(grid=(3, 8, 8))[:3])
    with pytest.raises(ValueError, match=r"do not tile the grid \(2, 8, 6\)"):
        model(*make_inputs(grid=(2, 8, 6))[:3])


def test_low_residual_shows_the_code_underneath_without_attention():
    """With cross-attention silenced, logits follow the low-resolution code underneath, and nothing does without it."""
    codes, masked = torch.zeros(1, 5, 16, 16, dtype=torch.int64), torch.ones(1, 5, 16, 16, dtype=torch.bool)
    low = torch.zeros(1, 5, 8, 8, dtype=torch.int64)
    other = low.clone()
    other[0, 2, 3, 4] = 99
    for low_residual in (True, False):
        torch.manual_seed(0)
        model = SuperResTransformer(preset("nano", low_residual=low_residual)).eval()
        for layer in model.layers:
            torch.nn.init.zeros_(layer.low_attn.o_proj.weight)
            torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        with torch.no_grad():
            change = (model(codes, masked, low)[0] - model(codes, masked, other)[0]).abs().amax(-1)[0] > 0
        expected = torch.zeros_like(change)
        expected[2, 6:8, 8:10] = low_residual
        assert torch.equal(change, expected)


# A slow reference: every layer attends over the whole clip under a mask that says who shares a window with whom.


def window_numbers(grid, window):
    """Which window each token of a grid lies in, tokens in raster order."""
    t, h, w = torch.meshgrid(*(torch.arange(n) // size for n, size in zip(grid, window, strict=True)), indexing="ij")
    return (t * 10_000 + h * 100 + w).flatten()


def normalised(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def full_attention(weights, name, x, context, allowed, num_heads):
    """Each head by itself, over everything, with minus infinity where ``allowed`` (b, n, m) is False."""
    q = x @ weights[f"{name}.q_proj.weight"].T
    k, v = (context @ weights[f"{name}.kv_proj.weight"].T).chunk(2, -1)
    e = q.shape[-1] // num_heads
    heads = []
    for head in range(num_heads):
        part = slice(head * e, (head + 1) * e)
        queries = normalised(q[..., part], weights[f"{name}.q_norm.weight"])
        keys = normalised(k[..., part], weights[f"{name}.k_norm.weight"])
        scores = (queries @ keys.transpose(1, 2) / e**0.5).masked_fill(~allowed, -torch.inf)
        heads.append(scores.softmax(-1) @ v[..., part])
    return torch.cat(heads, -1) @ weights[f"{name}.o_proj.weight"].T


def full_model(model, codes, masked, low, text, text_mask):
    """The same network written down without windows, from its weights' names alone."""
    weights, config = model.state_dict(), model.config
    batch, *grid = codes.shape

    def embedded(name, codes, known):
        size = config.factor_sizes[0]
        x = weights[f"{name}.factors.0.weight"][codes % size] + weights[f"{name}.factors.1.weight"][codes // size]
        x = torch.where(known[..., None], x, weights[f"{name}.replacement"])
        for axis, letter in enumerate("thw"):
            place = torch.arange(codes.shape[1 + axis]).view([-1 if i == axis else 1 for i in range(3)])
            x = x + weights[f"{name}.position_{letter}"][place]
        return x

    x = embedded("embed", codes, ~masked)
    below = embedded("low_embed", low, torch.ones_like(low, dtype=torch.bool))
    if config.low_residual:
        for t, h, w in torch.cartesian_prod(*(torch.arange(n) for n in grid)).tolist():
            x[:, t, h, w] += below[:, t, h // 2, w // 2]
    x = x.flatten(1, 3)
    below = normalised(below, weights["low_norm.weight"]).flatten(1, 3)
    null = normalised(weights["null_text"], weights["text_norm.weight"]).expand(batch, 1, -1)
    words = normalised(text @ weights["text_proj.weight"].T, weights["text_norm.weight"])
    words, seen = torch.cat((null, words), 1), torch.cat((~text_mask.any(1, keepdim=True), text_mask), 1)

    for i in range(3 * config.num_blocks):
        window = tuple(min(n, size) for n, size in zip(grid, config.windows[i % 3], strict=True))
        own, under = window_numbers(grid, window), window_numbers(low.shape[1:], low_size(window))
        for branch, context, allowed in (
            ("self", None, (own[:, None] == own).expand(batch, -1, -1)),
            ("low", below, (own[:, None] == under).expand(batch, -1, -1)),
            ("text", words, seen[:, None].expand(-1, len(own), -1)),
        ):
            inside = normalised(x, weights[f"layers.{i}.{branch}_norm.weight"])
            context = inside if context is None else context
            x = x + full_attention(weights, f"layers.{i}.{branch}_attn", inside, context, allowed, config.num_heads)
        inside = normalised(x, weights[f"layers.{i}.mlp_norm.weight"])
        gate, up = (inside @ weights[f"layers.{i}.mlp.gate_up_proj.weight"].T).chunk(2, -1)
        x = x + (F.silu(gate) * up) @ weights[f"layers.{i}.mlp.down_proj.weight"].T
    x = normalised(x, weights["norm.weight"])
    return tuple((x @ weights[f"heads.{i}.weight"].T).unflatten(1, grid) for i in range(2))


@pytest.mark.parametrize(
    ("grid", "shown"),
    [
        ((2, 8, 8), (2, 8, 8)),
        ((5, 14, 8), (5, 14, 8)),  # a portrait of an eighth
        ((5, 28, 16), (1, 28, 16)),  # a picture, half as large as those of stage 1
        ((3, 8, 14), (3, 8, 14)),
        ((5, 14, 8), (5, 8, 8)),  # a square clip through the model of portraits
    ],
)
def test_windows_equal_full_attention_under_a_mask(grid, shown):
    torch.manual_seed(3)
    model = SuperResTransformer(preset("nano", grid=grid, low_residual=shown[0] == 3)).eval().double()
    with torch.no_grad():
        for weight in model.parameters():  # norms and small tables too must matter
            weight.add_(torch.randn_like(weight), alpha=0.2)
        codes, masked, low, text, mask = make_inputs(grid=shown)
        text = text.double()
        mask[1] = False  # a clip without text
        fast, slow = model(codes, masked, low, text, mask), full_model(model, codes, masked, low, text, mask)
    for a, b in zip(fast, slow, strict=True):
        assert float(b.std()) > 0.1
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)  # norms are float32 inside


def test_a_context_made_once_gives_the_logits_of_every_step():
    model = make_model()
    codes, masked, low, text, mask = make_inputs()
    drops = {"keep_low": torch.tensor([True, False]), "keep_text": torch.tensor([False, True])}
    for options in ({}, drops):
        context = model.encode_context(low, text, mask, **options)
        for seed in (1, 2):
            codes, masked = make_inputs(seed=seed)[:2]
            for a, b in zip(
                model.decode(codes, masked, context), model(codes, masked, low, text, mask, **options), strict=True
            ):
                assert a.equal(b)


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_layers_compute_the_same(backend):
    model, given = make_model(), make_inputs()
    expected = model(*given)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert model.compile_layers(backend=backend)
    for made, plain in zip(model(*given), expected, strict=True):
        torch.testing.assert_close(made, plain, rtol=1e-4, atol=1e-5)
    stats = torch._dynamo.utils.counters
    assert stats["stats"]["unique_graphs"] >= 1 and not stats["graph_break"], "a layer is one graph"


def test_recomputed_layers_have_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        model = make_model()
        model.recompute = recompute
        sum(logits.square().sum() for logits in model(*make_inputs())).backward()
        gradients.append([weight.grad for weight in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-5)


def test_the_embedded_weights_are_this_network():
    model = SuperResTransformer.from_pretrained(open_bundle("tiny").part("superres"))
    codes, masked, low, _, mask = make_inputs(batch=1, grid=(2, *model.config.grid[1:]))
    text = torch.randn(1, 5, model.config.text_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        fast, slow = model(codes, masked, low, text, mask), full_model(model, codes, masked, low, text, mask)
    for a, b in zip(fast, slow, strict=True):
        assert float(b.std()) > 0.5
        torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)
