"""The one place where device and precision are chosen; the reason is given in words."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import torch

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


@dataclass(frozen=True)
class Compute:
    """Where a recipe runs.

    Attributes:
        device: the torch device.
        dtype: the type that autocast uses for matrix products and convolutions.
        reason: one sentence for the log.
    """

    device: torch.device
    dtype: torch.dtype
    reason: str

    def autocast(self) -> contextlib.AbstractContextManager:
        """A context in which products run in ``dtype`` (a no-op for float32)."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def choose_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """Resolve ``auto`` to what this machine does best.

    Args:
        device: "auto", "cpu", "cuda", "mps", or a torch device such as "cuda:1".
        precision: "auto", "float32" or "bfloat16".

    Returns:
        The choice.

    Raises:
        ValueError: for an unknown precision or a device that is not there.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"unknown precision {precision!r}; known: auto, bfloat16, float32")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} asked for, but this torch sees no CUDA device")
    if precision == "auto":
        fast = device.startswith("cuda") and torch.cuda.is_bf16_supported()
        fast = fast or (device == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
        precision = "bfloat16" if fast else "float32"
    why = "it computes bfloat16 products natively" if precision == "bfloat16" else "no native bfloat16 products"
    return Compute(torch.device(device), getattr(torch, precision), f"{device}, {precision}: {why}")


def peak_flops(compute: Compute) -> float:
    """FLOP/s at best: a known GPU's data sheet in bfloat16, else those of a square product, timed here (0.1 s)."""
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
