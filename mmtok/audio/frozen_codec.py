"""Published codecs of transformers under our contract: what ``Encodec``, ``Dac`` and ``Mimi`` share.

A codec stays frozen and keeps the file format of transformers, so that a folder or hub repository of one loads as it
is, and what we save loads there. Recorded besides, in config.json under "cinepoet", is how many levels are in use.

Shape letters: b batch, n samples, t frames, k levels.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn

from mmtok.contract import bitrate_kbps, check_codes, wanted_samples, whole_hops
from mmtok.files import put_file
from mmtok.pretrained import resolve_folder

if TYPE_CHECKING:
    from typing_extensions import Self

OUR_KEY = "cinepoet"  # in config.json; transformers carries unknown keys along


class FrozenCodec(nn.Module):
    """A codec of transformers as an ``mmtok.contract.AudioTokenizer``: always in evaluation mode, never a gradient.

    A family sets ``family`` and writes the underscored methods at the end.

    Args:
        model: of transformers, such as ``EncodecModel``.
        num_codebooks: residual levels to use, the coarsest first; None uses all.

    Attributes:
        family: key of ``mmtok.table.FAMILIES`` and ``model_type`` of transformers.
        model: as given.
        sample_rate: Hz.
        hop_length: samples per frame.
        frame_rate: frames per second, exactly.
        num_codebooks: levels in use.
        codebook_size: codes of one level.

    Raises:
        ValueError: for a model that the contract cannot hold, or a number of levels that it does not have.
    """

    family: ClassVar[str]

    def __init__(self, model: Any, *, num_codebooks: int | None = None):
        super().__init__()
        self._require_usable(model.config)
        self.model = model
        self.sample_rate = self._sample_rate()
        self.hop_length = self._hop_length()
        self.frame_rate = self.sample_rate / self.hop_length
        self.codebook_size = int(model.config.codebook_size)
        least, most = self._levels()
        self.num_codebooks = most if num_codebooks is None else num_codebooks
        if not least <= self.num_codebooks <= most:
            raise ValueError(
                f"num_codebooks must lie in {least}..{most} for this {self.family}, got {self.num_codebooks}"
            )
        self.requires_grad_(False)
        self.eval()

    @property
    def bitrate_kbps(self) -> float:
        """What the levels in use cost, thousands of bits per second; EnCodec calls it the bandwidth."""
        return bitrate_kbps(
            frame_rate=self.frame_rate, num_codebooks=self.num_codebooks, codebook_size=self.codebook_size
        )

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and of the computation."""
        return next(self.model.parameters()).dtype

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, where no level is dropped at random; parents call it with any ``mode``."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """Codes of a sound; the tail below one hop is dropped. Autocast around the call is ignored.

        Args:
            audio: (b, 1, n) in [-1, 1], n at least one hop.

        Returns:
            (b, k, n // hop_length) int64, the same for the same input.

        Raises:
            ValueError: for a wrong shape, type or range, or less than one hop.
        """
        whole = whole_hops(audio, self.hop_length)
        num_frames = whole.shape[-1] // self.hop_length
        with torch.autocast(whole.device.type, enabled=False):
            codes = self._codes_of(whole.to(self.dtype))
        assert codes.shape[-1] >= num_frames, f"{codes.shape[-1]} frames from {num_frames} whole hops"
        return codes[:, : self.num_codebooks, :num_frames].long().contiguous()

    @torch.no_grad()
    def decode(self, codes: Tensor, num_samples: int | None = None) -> Tensor:
        """Sound of codes, exactly as long as asked. Autocast around the call is ignored.

        What lies beyond the codec's own output is decoded from a repetition of the last frame: the part beyond
        ``t * hop_length``, which ``encode`` had dropped, and the few samples by which DAC falls short of that.

        Args:
            codes: (b, k, t) integers, k at most ``num_codebooks``; fewer levels give a coarser sound.
            num_samples: length wanted, below ``(t + 1) * hop_length``; None means ``t * hop_length``.

        Returns:
            (b, 1, num_samples) float32 in [-1, 1].

        Raises:
            ValueError: for codes that do not fit or a length outside 1..(t + 1) * hop_length - 1.
        """
        levels = min(max(codes.shape[1], 1), self.num_codebooks) if codes.ndim == 3 else self.num_codebooks
        check_codes(codes, num_codebooks=levels, codebook_size=self.codebook_size, axes="t")
        wanted = wanted_samples(codes.shape[-1], self.hop_length, num_samples)
        with torch.autocast(codes.device.type, enabled=False):
            sound = self._sound_of(codes.long())
            own = sound.shape[-1]
            if own < wanted:  # one frame more is enough for the tail, a second one where the codec falls short
                held = torch.cat([codes, codes[..., -1:].expand(-1, -1, 2)], -1)
                sound = torch.cat([sound, self._sound_of(held.long())[..., own:]], -1)
        return sound[..., :wanted].float().clamp(-1, 1)

    def code_vectors(self) -> list[Tensor]:
        """What the codes mean, level by level: one (codebook_size, width) float32 tensor a level in use."""
        return [table.detach().float().clone() for table in self._tables()[: self.num_codebooks]]

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors, readable by transformers too.

        Args:
            folder: created when absent; all levels are kept, and how many are in use is recorded.
            dtype: float type on disk, None for the model's own.

        Raises:
            ValueError: for a type that is not floating.
        """
        dtype = self.dtype if dtype is None else dtype
        if not dtype.is_floating_point:
            raise ValueError(f"a codec is stored in a floating type, got {dtype}")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: tensor.detach().cpu().to(dtype) if tensor.is_floating_point() else tensor.cpu()
            for name, tensor in self.model.state_dict().items()
        }
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as scratch, _quiet():
            self.model.save_pretrained(scratch, state_dict=tensors)
            file = Path(scratch) / "config.json"
            config = json.loads(file.read_text())
            config |= {"dtype": str(dtype).removeprefix("torch."), OUR_KEY: {"num_codebooks": self.num_codebooks}}
            file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
            for name in ("model.safetensors", "config.json"):
                put_file(Path(scratch) / name, folder / name)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, num_codebooks: int | None = None) -> Self:
        """Load strictly, in float32.

        Args:
            name: a folder or hub id, ours or as published in the format of transformers.
            num_codebooks: residual levels to use; None uses those recorded by ``save_pretrained``, or all.

        Returns:
            The codec on the CPU.

        Raises:
            FileNotFoundError: if the folder, or one of its files, is not there.
            ValueError: if it holds another model, weights that do not fit, or a model that the contract cannot hold.
        """
        folder = resolve_folder(name)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} has no config.json")
        try:
            values = json.loads((folder / "config.json").read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as fault:
            raise ValueError(f"{folder / 'config.json'} is not valid JSON: {fault}") from fault
        if not isinstance(values, dict) or values.get("model_type") != cls.family:
            raise ValueError(f"{folder} does not hold a model of model_type {cls.family!r}")
        if not any(folder.glob("model*.safetensors")):
            raise FileNotFoundError(f"{folder} has no model.safetensors; published pickles are not read")
        recorded = values.get(OUR_KEY)
        if num_codebooks is None and isinstance(recorded, dict):
            num_codebooks = recorded.get("num_codebooks")
        config_class, model_class = cls._classes()
        try:
            config = config_class.from_pretrained(folder)
        except (TypeError, ValueError, StrictDataclassError) as fault:
            raise ValueError(f"{folder / 'config.json'} is no config of {cls.family}: {_line(fault)}") from fault
        cls._require_usable(config)
        try:
            with _quiet():
                model, told = model_class.from_pretrained(
                    folder,
                    config=config,
                    dtype=torch.float32,
                    use_safetensors=True,
                    local_files_only=True,
                    output_loading_info=True,
                )
        except (RuntimeError, OSError, ValueError, SafetensorError) as fault:
            raise ValueError(f"the weights in {folder} cannot be read as {cls.family}: {_line(fault)}") from fault
        faults = [
            f"{kind} {sorted(told[f'{kind}_keys'])}" for kind in ("missing", "unexpected") if told[f"{kind}_keys"]
        ]
        if faults:
            raise ValueError(f"weights do not fit: {', '.join(faults)}")
        return cls(model.float(), num_codebooks=num_codebooks)

    @classmethod
    def _classes(cls) -> tuple[Any, Any]:
        """Config and model class of transformers, imported here because that takes a while."""
        raise NotImplementedError

    @classmethod
    def _require_usable(cls, config: Any) -> None:
        """Raise for what the contract cannot hold."""
        channels = getattr(config, "audio_channels", 1)
        if channels != 1:
            raise ValueError(f"this {cls.family} has {channels} audio channels, and an AudioTokenizer is mono")

    def _sample_rate(self) -> int:
        """Hz; codecs whose config calls it otherwise say so."""
        return int(self.model.config.sampling_rate)

    def _hop_length(self) -> int:
        """Samples per frame."""
        raise NotImplementedError

    def _levels(self) -> tuple[int, int]:
        """Fewest and most levels that can be used."""
        raise NotImplementedError

    def _codes_of(self, audio: Tensor) -> Tensor:
        """(b, 1, t * hop_length) to (b, k' >= num_codebooks, t' >= t) codes."""
        raise NotImplementedError

    def _sound_of(self, codes: Tensor) -> Tensor:
        """(b, k, t) to (b, 1, about t * hop_length)."""
        raise NotImplementedError

    def _tables(self) -> list[Tensor]:
        """(codebook_size, width) vectors of every level."""
        raise NotImplementedError


def _line(fault: Exception) -> str:
    """An error in one line."""
    return " ".join(str(fault).split())[:300]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no reports of transformers: what is wrong is raised."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
