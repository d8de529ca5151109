"""FLOPs by counting every product of a small model."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from llm.flops import sequence_flops
from llm.model import PrefixLM
from llm.tasks import Clip, task_layout


def test_products_are_those_that_torch_counts(config):
    """torch counts attention over all pairs, ours those that the mask opens: it is corrected here."""
    with torch.random.fork_rng():
        model = PrefixLM(config)
    layout = task_layout("text_to_video", config.vocabulary, Clip((2, 2, 2)), text_slots=config.text_slots)
    ids = layout.template[None]
    text = torch.randn(1, layout.text_slots, config.text_dim)
    with FlopCounterMode(display=False) as counter:
        hidden = model(ids, layout, text=text)
        for run in layout.runs:
            torch.nn.functional.linear(hidden[:, run.rows], model.lm_head.weight[: len(run.block)])
    n, p, width = layout.length, layout.prefix_length, config.num_heads * config.head_dim
    open_pairs = p * p + (n - p) * p + (n - p) * (n - p + 1) / 2
    closed = config.num_layers * 2 * 2 * (n * n - open_pairs) * width
    assert sequence_flops(config, layout) == 3 * (counter.get_total_flops() - closed)


def test_a_full_softmax_costs_the_rest_of_the_vocabulary(config):
    layout = task_layout("text_to_video", config.vocabulary, Clip((2, 2, 2)), text_slots=config.text_slots)
    places = sum(len(range(layout.length)[run.rows]) for run in layout.runs)
    scored = sum(len(range(layout.length)[run.rows]) * len(run.block) for run in layout.runs)
    rest = 6 * config.dim * (places * config.vocabulary.vocab_size - scored)
    assert sequence_flops(config, layout, full_softmax=True) - sequence_flops(config, layout) == rest
