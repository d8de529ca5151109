"""Layers compiled one by one."""

import pytest
import torch


def gradients(model, batch):
    model.zero_grad()
    hidden = model(batch.ids, batch.layout, text=batch.text, text_mask=batch.text_mask)
    hidden.square().sum().backward()
    return {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_layers_compute_the_same(model, make, backend):
    batches = [make(name) for name in ("inpaint", "text_to_image")]
    names = list(model.state_dict())
    plain = [gradients(model, batch) for batch in batches]
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert model.compile_layers(backend=backend)
    model.checkpoint_layers()
    for batch, expected in zip(batches, plain, strict=True):
        for name, gradient in gradients(model, batch).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))
    assert list(model.state_dict()) == names
    stats = torch._dynamo.utils.counters
    assert stats["stats"]["unique_graphs"] >= 1 and not stats["graph_break"], "a layer is one graph"


def test_without_a_compiler_layers_stay_as_they_are(model, make, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.warns(UserWarning, match="no C.. compiler .* layers run uncompiled"):
        assert not model.compile_layers()
    assert all(layer._compiled_call_impl is None for layer in model.model.layers)
