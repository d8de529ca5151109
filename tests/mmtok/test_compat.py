"""torchaudio, encodec and transformers import beside any torch, in whatever order, and compute the right things."""

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mmtok import compat

ROOT = Path(__file__).parents[2]


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


IMPORTS = """
import sys
import mmtok
assert "torch" not in sys.modules and "torchaudio" not in sys.modules, "import mmtok must stay cheap"
import mmtok; import transformers
from transformers import T5EncoderModel, EncodecModel
import torchaudio, encodec
"""

USE = """
import torch
from transformers import EncodecConfig, T5Config
t5 = T5EncoderModel(T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
print(tuple(t5(input_ids=torch.arange(4)[None]).last_hidden_state.shape))
small = EncodecModel(EncodecConfig(num_filters=4, hidden_size=8, codebook_dim=8, codebook_size=16, num_lstm_layers=1))
print(sum(p.numel() for p in small.parameters()) > 0)
print(encodec.EncodecModel.encodec_model_24khz(pretrained=False).sample_rate)

rate, n = 16000, 8000
sound = torch.sin(2 * torch.pi * 440 * torch.arange(n) / rate)[None] + 0.1 * torch.randn(1, n)
mel = torchaudio.transforms.MelSpectrogram(rate, n_fft=512, hop_length=160, n_mels=20, center=False)(sound)
window = 0.5 - 0.5 * torch.cos(2 * torch.pi * torch.arange(512) / 512)
power = torch.fft.rfft(sound.unfold(-1, 512, 160) * window).abs() ** 2  # (1, t, 257)
to_mel = lambda hz: 2595 * torch.log10(1 + torch.as_tensor(hz) / 700)
edges = 700 * (10 ** (torch.linspace(0, float(to_mel(rate / 2)), 22) / 2595) - 1)
hz = torch.linspace(0, rate / 2, 257)[:, None]
rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
own = (power @ torch.minimum(rising, falling).clamp_min(0)).transpose(1, 2)
print(torch.allclose(mel, own, rtol=1e-3, atol=1e-3))

tone = torch.sin(2 * torch.pi * 440 * torch.arange(n) / rate)
half = torchaudio.transforms.Resample(rate, 8000)(tone)
exact = torch.sin(2 * torch.pi * 440 * torch.arange(n // 2) / 8000)
print(half.shape == exact.shape and (half - exact)[100:-100].abs().max().item() < 2e-3)
print(tuple(torchaudio.functional.lfilter(tone[None], torch.tensor([1.0, -0.5]), torch.tensor([0.5, 0.0])).shape))
"""


def test_the_documented_imports_work_and_compute() -> None:
    lines = run_python(IMPORTS + USE).split("\n")
    assert lines[:7] == ["(1, 4, 16)", "True", "24000", "True", "True", "(1, 8000)", ""]


def test_mmtok_after_transformers_and_after_a_failed_import() -> None:
    code = """
import transformers
try:
    import torchaudio  # fails beside a CPU-only torch, and leaves half of itself in sys.modules
except OSError:
    pass
import mmtok
import torchaudio
print(torchaudio.transforms.MelSpectrogram.__name__)
"""
    assert run_python(code) == "MelSpectrogram\n"


def test_a_library_that_loads_is_left_alone_and_one_that_does_not_is_absent() -> None:
    asked: list[str] = []

    def native(lib: str) -> bool:
        asked.append(lib)
        if lib == broken:
            raise OSError("libcudart.so.13: cannot open shared object file")
        return True

    for broken, answer in (("", True), ("_torchaudio", False), ("libtorchaudio", False)):
        asked.clear()
        module = SimpleNamespace(_load_lib=native)
        compat._forgive(module)
        once = module._load_lib
        compat._forgive(module)
        assert module._load_lib is once, "a second call wraps again"
        assert module._load_lib("_torchaudio") is answer, broken
        assert asked[0] == "_torchaudio"


def test_the_finder_answers_for_one_module_only() -> None:
    finder = compat._ForgivingFinder()
    assert finder.find_spec("torchaudio", None) is None
    assert finder.find_spec("json", None) is None
    spec = finder.find_spec(compat._LOADER_MODULE, ["/no/such/folder"])
    assert spec is None or isinstance(spec, ModuleSpec)


def test_make_importable_twice_installs_one_finder() -> None:
    compat.make_importable()
    compat.make_importable()
    assert sum(isinstance(finder, compat._ForgivingFinder) for finder in sys.meta_path) == 1


def test_status_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "_REQUIRED", ("numpy", "surely-not-installed"))
    monkeypatch.setattr(compat, "_NOT_NEEDED", ("torchvision",))
    monkeypatch.setattr(compat, "_version", lambda name: None if name == "surely-not-installed" else "1.0")
    monkeypatch.setattr(compat, "_import_problem", lambda name: "OSError: libcudart" if name == "torchvision" else "")
    monkeypatch.setitem(sys.modules, "numpy", ModuleType("numpy"))
    good, missing, broken = compat.status()
    assert good.ok and good.fix == ""
    assert not missing.ok and missing.fix == "pip install surely-not-installed"
    assert not broken.ok and "libcudart" in broken.detail and broken.fix == "pip uninstall torchvision"


def test_status_reports_the_packages_that_are_here() -> None:
    facts = {fact.name: fact for fact in (compat._required_fact(name) for name in ("torch", "torchaudio", "av"))}
    assert all(fact.ok for fact in facts.values()), facts
    assert "native extension" in facts["torchaudio"].detail
    assert "build" in facts["torch"].detail or "CUDA" in facts["torch"].detail
