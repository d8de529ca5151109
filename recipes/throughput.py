"""How much of a machine's arithmetic a training uses: model FLOPs per sequence over the peak of the devices (MFU).

Counted as in PaLM (Chowdhery et al. 2022, appendix B): products only, three times the forward pass; what is computed
twice to save memory counts once.
"""

from __future__ import annotations

import time

import torch

from llm.config import LMConfig
from llm.sequence import Layout
from recipes.device import Compute

# Dense bfloat16 peaks of the makers' data sheets, FLOP/s; the first name that a device's name contains counts.
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}


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


def peak_flops(compute: Compute) -> float:
    """Floating-point operations a second that a device can do at best in the type of its products.

    Args:
        compute: device and precision.

    Returns:
        The data sheet's figure for a known GPU in bfloat16; elsewhere that of a square product, measured here (0.1 s).
    """
    if compute.device.type == "cuda" and compute.dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(compute.device)
        for known, peak in PEAKS.items():
            if known in name:
                return peak
    side = 1024
    left = torch.randn(side, side, device=compute.device).to(compute.dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        (left @ left).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
