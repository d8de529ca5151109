"""recipes/runtime/device.py: what a machine does best, told in words, and what it could do at most."""

import pytest
import torch

from recipes.runtime.device import PEAKS, Compute, choose_compute, peak_flops


def test_the_choice_says_why() -> None:
    plain = choose_compute("cpu", "float32")
    assert (plain.device, plain.dtype) == (torch.device("cpu"), torch.float32)
    assert plain.reason == "cpu, float32: no native bfloat16 products"
    half = choose_compute("cpu", "bfloat16")
    assert half.dtype == torch.bfloat16 and "natively" in half.reason


def test_autocast_works_in_the_chosen_type_and_float32_leaves_things_alone() -> None:
    a = torch.ones(2, 2)
    with choose_compute("cpu", "bfloat16").autocast():
        assert (a @ a).dtype == torch.bfloat16
    with choose_compute("cpu", "float32").autocast():
        assert (a @ a).dtype == torch.float32


def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda:1' asked for, but this torch sees no CUDA device"):
        choose_compute("cuda:1")
    with pytest.raises(ValueError, match="unknown precision 'int4'; known: auto, bfloat16, float32"):
        choose_compute("cpu", "int4")


def test_a_known_gpu_has_its_data_sheets_peak_and_a_cpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 PCIe 80GB")
    assert peak_flops(Compute(torch.device("cuda:0"), torch.bfloat16, "")) == PEAKS["H100 PCIe"] < PEAKS["H100"]
    assert 1e8 < peak_flops(choose_compute("cpu", "float32")) < 1e15
