"""How much of a machine's arithmetic a training uses: model FLOPs per sequence over the peak of the devices (MFU).

Counted as in PaLM (Chowdhery et al. 2022, appendix B): products only, three times the forward pass; what is computed
twice to save memory counts once.
"""

from __future__ import annotations

from llm.config import LMConfig
from llm.sequence import Layout


def sequence_flops(config: LMConfig, layout: Layout, *, full_softmax: bool = False) -> float:
    """Floating-point operations of a training step for one sequence.

    Args:
        config: sizes of the model.
        layout: the sequence.
        full_softmax: whether output places are scored against the whole vocabulary or their block.

    Returns:
        Forward and backward.
    """
    n, prefix, width = layout.length, layout.prefix_length, config.num_heads * config.head_dim
    kv_width = config.num_kv_heads * config.head_dim
    layer = config.dim * (2 * width + 2 * kv_width) + 3 * config.dim * config.hidden_dim
    out = n - prefix
    pairs = prefix * prefix + out * prefix + out * (out + 1) / 2
    vocabulary = config.vocabulary.vocab_size
    scored = sum(
        len(range(run.start, run.stop, run.step)) * (vocabulary if full_softmax else run.block.stop - run.block.start)
        for run in layout.runs
    )
    products = config.num_layers * (n * layer + 2 * pairs * width) + config.dim * scored
    products += layout.text_slots * config.text_dim * config.dim
    return 3 * 2 * products
