import pytest
import torch

from llm.int8 import MOST_ROWS, Int8Linear
from llm.model import PrefixLM


def test_rounded_weights_are_near_and_stored_ones_come_back():
    weight = torch.randn(24, 32, generator=torch.Generator().manual_seed(0))
    layer = Int8Linear.of(weight)
    assert layer.codes.dtype == torch.int8 and layer.codes.abs().amax(1).eq(127).all()
    assert ((layer.weight - weight).abs() <= 0.501 * layer.scale[:, None]).all()
    assert torch.equal(Int8Linear.of(layer.weight).codes, layer.codes)


@pytest.mark.parametrize("rows", [1, 2, MOST_ROWS, MOST_ROWS + 1])
def test_products_are_those_of_the_rounded_weights(rows):
    draw = torch.Generator().manual_seed(0)
    layer, x = Int8Linear.of(torch.randn(24, 32, generator=draw)), torch.randn(rows, 1, 32, generator=draw)
    exact = x @ layer.weight.t()
    for got, expected in ((layer(x), exact), (layer.rows(x, 5, 17), exact[..., 5:17])):
        assert got.shape == expected.shape and got.dtype == torch.float32
        assert float((got - expected).norm() / expected.norm()) < (8e-3 if rows <= MOST_ROWS else 1e-6)


def test_a_quantized_model_is_smaller_and_cannot_be_saved(model, tmp_path, make):
    batch = make("text_to_video")
    kept = model.lm_head.weight.detach().clone()

    def scores():
        with torch.no_grad():
            return model.logits(model(batch.ids, batch.layout, text=batch.text, text_mask=batch.text_mask))

    before = scores()
    model.quantize_weights("int8")
    assert model.is_quantized and not any(weight.requires_grad for weight in model.parameters())
    assert torch.equal(model.model.embed_tokens.weight, kept), "the table stays as it is"
    assert 0 < float((scores() - before).norm() / before.norm()) < 0.03
    names = [n for n, m in model.named_modules() if isinstance(m, Int8Linear)]
    assert len(names) == 2 * 7 + 1
    with pytest.raises(ValueError, match="int8 already"):
        model.quantize_weights()
    with pytest.raises(ValueError, match="are not saved; save the float model"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_unknown_kinds_are_refused(config):
    with pytest.raises(ValueError, match="unknown kind of weights 'int2'; known: int8"):
        PrefixLM(config).quantize_weights("int2")
