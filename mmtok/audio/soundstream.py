"""SoundStream: a causal convolutional codec with residual codes (Zeghidour et al. 2021, arXiv 2107.03312).

VideoPoet speaks its sound through it: 16 kHz, strides 2 4 5 8 = hop 320 = 50 frames a second, 4 levels of 1,024 codes,
so that 2.125 s are 106 x 4 codes (arXiv 2312.14125, 3.1). Built from section 3 and figure 3 of the paper; the latent
width D is left open there, we take 128.

Unusual here: no normalisation anywhere, ELU, every convolution looks back only, so that a sound of any length is coded
in pieces that carry their state. With ``spectral_window`` the convolutions give way to layers over spectra
(mmtok/audio/spectral.py), which learn many times faster; codes, rates and training are the same, but a hop of sound is
finished some hops later (``lookahead``).

Shape letters: b batch, c channels, n samples, d latent width, t frames, k levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.audio.spectral import SpectralDecoder, SpectralEncoder
from mmtok.contract import bitrate_kbps, require_audio, wanted_samples, whole_hops
from mmtok.find import require_known
from mmtok.nn.causal1d import CausalConv1d, CausalConvTranspose1d
from mmtok.nn.streaming import Stream, streaming
from mmtok.pretrained import load_strictly, load_tensors, params_from_config, read_config, resolve_folder, save_module
from mmtok.quantize.residual import CodebookLearning, ResidualVQ

PIECE_S = 8.0  # longer sounds are coded in pieces of this many seconds


@dataclass(frozen=True)
class SoundStreamParams:
    """Sizes of a SoundStream.

    Attributes:
        sample_rate: Hz.
        encoder_channels: width after the first convolution; doubles with every block (C_enc of the paper).
        decoder_channels: width before the last convolution (C_dec of the paper).
        dim: latent width (D of the paper).
        strides: downsampling of the encoder's blocks, in order; the decoder runs them backwards.
        dilations: of the residual units of one block.
        kernel_size: taps of the residual units and of the outermost convolutions.
        num_codebooks: residual levels.
        codebook_size: codes of one level.
        spectral_window: samples of a spectrum, a multiple of the hop, for ends that work on spectra; 0 for the paper's
            convolutions. ``strides`` then only give the hop, ``dilations`` nothing, and these the rest:
        hidden_dim: width between the dense layers; ``encoder_channels`` and ``decoder_channels`` are the outer ones.
        encoder_layers: blocks of the encoder.
        decoder_layers: blocks of the decoder.
    """

    sample_rate: int
    encoder_channels: int
    decoder_channels: int
    dim: int
    strides: tuple[int, ...] = (2, 4, 5, 8)
    dilations: tuple[int, ...] = (1, 3, 9)
    kernel_size: int = 7
    num_codebooks: int = 4
    codebook_size: int = 1024
    spectral_window: int = 0
    hidden_dim: int = 0
    encoder_layers: int = 0
    decoder_layers: int = 0

    def __post_init__(self) -> None:
        for name in ("sample_rate", "encoder_channels", "decoder_channels", "dim", "kernel_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("strides", "dilations"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"{name} must be positive numbers, got {getattr(self, name)}")
        hop, window = math.prod(self.strides), self.spectral_window
        if window and (window % hop or window < 2 * hop or window % 2):
            raise ValueError(f"spectral_window ({window}) must be 0 or an even multiple of the hop of {hop}, 2 or more")
        if window and min(self.hidden_dim, self.encoder_layers, self.decoder_layers) < 1:
            raise ValueError("a spectral_window needs hidden_dim, encoder_layers and decoder_layers of at least 1")


@dataclass(frozen=True)
class SoundStreamOutput:
    """What a training pass returns.

    Attributes:
        audio: (b, 1, n) reconstruction, not clamped.
        codes: (b, k, t) int64.
        commitment_loss: () mean over levels.
    """

    audio: Tensor
    codes: Tensor
    commitment_loss: Tensor


class ResidualUnit(nn.Module):
    """A dilated convolution and a 1x1 convolution around a skip (figure 3 of the paper)."""

    def __init__(self, *, channels: int, kernel_size: int, dilation: int):
        super().__init__()
        self.wide = CausalConv1d(channels, channels, kernel_size, dilation=dilation)
        self.mix = CausalConv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine: (b, c, t) to (b, c, t)."""
        return x + self.mix(F.elu(self.wide(F.elu(x))))


def _spectral(p: SoundStreamParams) -> dict[str, int]:
    """Sizes that both ends on spectra share."""
    return {
        "hidden_dim": p.hidden_dim,
        "kernel_size": p.kernel_size,
        "window": p.spectral_window,
        "hop": math.prod(p.strides),
        "dim": p.dim,
    }


def _encoder(p: SoundStreamParams) -> nn.Module:
    """(b, 1, n) to (b, d, n // hop)."""
    if p.spectral_window:
        return SpectralEncoder(p.encoder_channels, num_layers=p.encoder_layers, **_spectral(p))
    width = p.encoder_channels
    layers: list[nn.Module] = [CausalConv1d(1, width, p.kernel_size)]
    for stride in p.strides:
        layers += [ResidualUnit(channels=width, kernel_size=p.kernel_size, dilation=d) for d in p.dilations]
        layers += [nn.ELU(), CausalConv1d(width, 2 * width, 2 * stride, stride=stride)]
        width *= 2
    return nn.Sequential(*layers, nn.ELU(), CausalConv1d(width, p.dim, 3))


def _decoder(p: SoundStreamParams) -> nn.Module:
    """(b, d, t) to (b, 1, t * hop)."""
    if p.spectral_window:
        return SpectralDecoder(p.decoder_channels, num_layers=p.decoder_layers, **_spectral(p))
    width = p.decoder_channels * 2 ** len(p.strides)
    layers: list[nn.Module] = [CausalConv1d(p.dim, width, p.kernel_size)]
    for stride in reversed(p.strides):
        layers += [nn.ELU(), CausalConvTranspose1d(width, width // 2, 2 * stride, stride=stride)]
        width //= 2
        layers += [ResidualUnit(channels=width, kernel_size=p.kernel_size, dilation=d) for d in p.dilations]
    return nn.Sequential(*layers, nn.ELU(), CausalConv1d(width, 1, p.kernel_size))


class SoundStream(nn.Module):
    """The codec; an ``mmtok.contract.AudioTokenizer``.

    Args:
        params: sizes.
    """

    def __init__(self, params: SoundStreamParams):
        super().__init__()
        self.params = params
        self.sample_rate = params.sample_rate
        self.hop_length = math.prod(params.strides)
        self.frame_rate = params.sample_rate / self.hop_length
        self.num_codebooks = params.num_codebooks
        self.codebook_size = params.codebook_size
        self.encoder: nn.Module = _encoder(params)
        self.quantizer = ResidualVQ(
            dim=params.dim, num_codebooks=params.num_codebooks, codebook_size=params.codebook_size
        )
        self.decoder: nn.Module = _decoder(params)
        self.lookahead = 0  # frames behind a hop that finish it
        if params.spectral_window:
            self.lookahead = params.spectral_window // self.hop_length - 1
        else:
            self._initialise()

    def _initialise(self) -> None:
        """Variance-preserving weights, zero biases; residual branches start small and the output starts quiet."""
        convolutions = [m for m in self.modules() if isinstance(m, (CausalConv1d, CausalConvTranspose1d))]
        for convolution in convolutions:
            fan_in = convolution.in_channels * convolution.kernel_size[0]
            if isinstance(convolution, CausalConvTranspose1d):
                fan_in //= convolution.stride[0]  # so many taps meet in one output
            nn.init.normal_(convolution.weight, std=fan_in**-0.5)
            assert convolution.bias is not None, "all convolutions here have a bias"
            nn.init.zeros_(convolution.bias)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, ResidualUnit):
                    module.mix.weight.mul_(0.5)
            convolutions[-1].weight.mul_(0.1)  # the decoder's last

    def forward(self, audio: Tensor) -> SoundStreamOutput:
        """Reconstruct; in training mode the codebooks learn and levels are dropped (``quantizer.learning``).

        Args:
            audio: (b, 1, n) in [-1, 1], n a multiple of ``hop_length``.

        Returns:
            Reconstruction, codes and commitment loss.

        Raises:
            ValueError: if n is not a multiple of ``hop_length``, or the shape is wrong.
        """
        if whole_hops(audio, self.hop_length).shape != audio.shape:
            raise ValueError(f"audio of {audio.shape[-1]} samples is not a multiple of the hop of {self.hop_length}")
        result = self.quantizer(self.encoder(audio))
        return SoundStreamOutput(self._sound(result.quantized), result.codes, result.commitment_loss)

    @property
    def bitrate_kbps(self) -> float:
        """What the codes of all levels cost, thousands of bits per second."""
        return bitrate_kbps(
            frame_rate=self.frame_rate, num_codebooks=self.num_codebooks, codebook_size=self.codebook_size
        )

    @torch.no_grad()
    def encode(self, audio: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Codes of a sound; the tail below one hop is dropped. Memory does not grow with the length.

        Args:
            audio: (b, 1, n) in [-1, 1], n at least one hop.
            num_codebooks: first levels to compute; None takes all.

        Returns:
            (b, k, n // hop_length) int64, the same for the same input.

        Raises:
            ValueError: for a wrong shape, type or range, less than one hop, or levels the model does not have.
        """
        whole = whole_hops(audio, self.hop_length)
        pieces = whole.split(self._piece() * self.hop_length, -1)
        if len(pieces) > 1:
            return torch.cat(list(self.encode_stream(pieces, num_codebooks)), -1)
        return self._codes(whole, num_codebooks)

    @torch.no_grad()
    def decode(self, codes: Tensor, num_samples: int | None = None) -> Tensor:
        """Sound of codes, exactly as long as asked. Memory beyond the result does not grow with the length.

        The part of ``num_samples`` beyond ``t * hop_length``, which ``encode`` had dropped, is decoded from a
        repetition of the last frame. Fewer levels than the model has give a coarser sound.

        Args:
            codes: (b, k, t) int64, k at most ``num_codebooks``.
            num_samples: length wanted, below ``(t + 1) * hop_length``; None means ``t * hop_length``.

        Returns:
            (b, 1, num_samples) in [-1, 1].

        Raises:
            ValueError: for codes that do not fit or a length outside 1..(t + 1) * hop_length - 1.
        """
        num_frames = codes.shape[-1]
        wanted = wanted_samples(num_frames, self.hop_length, num_samples)
        if wanted > num_frames * self.hop_length:
            codes = torch.cat([codes, codes[..., -1:]], -1)
        pieces = codes.split(self._piece(), -1)
        if len(pieces) > 1:
            return torch.cat(list(self.decode_stream(pieces)), -1)[..., :wanted]
        return self._sound(self.quantizer.decode(codes))[..., :wanted].clamp(-1, 1)

    def encode_stream(self, chunks: Iterable[Tensor], num_codebooks: int | None = None) -> Iterator[Tensor]:
        """Codes of a sound that arrives in chunks; together those of the whole sound.

        Args:
            chunks: (b, 1, n) in [-1, 1] of any lengths; what does not fill a hop waits for the next chunk.
            num_codebooks: first levels to compute; None takes all.

        Yields:
            (b, k, t) int64 as soon as a hop is full; a tail below one hop is dropped.

        Raises:
            ValueError: for a wrong shape, type or range.
        """
        stream, waiting = Stream(), None
        for chunk in chunks:
            require_audio(chunk)
            waiting = chunk if waiting is None else torch.cat((waiting, chunk), -1)
            full = waiting.shape[-1] // self.hop_length * self.hop_length
            if full:
                with torch.no_grad(), streaming(stream):
                    codes = self._codes(waiting[..., :full], num_codebooks)
                waiting = waiting[..., full:].clone()
                yield codes

    def decode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Sound of codes that arrive in chunks of frames; together that of all codes.

        Args:
            chunks: (b, k, t) int64.

        Yields:
            (b, 1, t * hop_length) in [-1, 1] of each chunk, without delay; of a codec on spectra ``lookahead`` hops
            later, the last ones at the end.

        Raises:
            ValueError: for codes that do not fit.
        """
        stream, early, latents = Stream(), self.lookahead * self.hop_length, None
        for codes in chunks:
            latents = self.quantizer.decode(codes)
            with torch.no_grad(), streaming(stream):
                audio = self._synthesise(latents).clamp(-1, 1)
            early, audio = max(0, early - audio.shape[-1]), audio[..., early:]
            if audio.shape[-1]:
                yield audio
        if self.lookahead and latents is not None:
            with torch.no_grad(), streaming(stream):
                yield self._synthesise(latents.new_zeros(*latents.shape[:2], self.lookahead))[..., early:].clamp(-1, 1)

    def _piece(self) -> int:
        """Frames of one piece."""
        return max(1, round(PIECE_S * self.frame_rate))

    def _codes(self, audio: Tensor, num_codebooks: int | None) -> Tensor:
        """(b, 1, t * hop) to (b, k, t)."""
        latents = self.encoder(audio.to(next(self.encoder.parameters()).dtype))
        return self.quantizer.encode(latents, num_codebooks)

    def _sound(self, latents: Tensor) -> Tensor:
        """(b, d, t) to (b, 1, t * hop) float32 of a whole sound."""
        return self._synthesise(F.pad(latents, (0, self.lookahead)))[..., self.lookahead * self.hop_length :]

    def _synthesise(self, latents: Tensor) -> Tensor:
        """(b, d, t) to (b, 1, t * hop) float32, ``lookahead`` hops late.

        Autocast ends before the units at the full sampling rate: in bfloat16 they add noise 43 to 52 dB below the
        signal (measured on a trained model), which the spectral losses would fight in vain.
        """
        own = next(self.decoder.parameters()).dtype
        if not isinstance(self.decoder, nn.Sequential):
            return self.decoder(latents.to(own))  # type: ignore[no-any-return]
        last = len(self.params.dilations) + 2  # residual units, ELU, convolution
        x = self.decoder[:-last](latents.to(own))
        with torch.autocast(x.device.type, enabled=False):
            return self.decoder[-last:](x.to(own)).float()

    def code_vectors(self) -> list[Tensor]:
        """What the codes mean, level by level: one (codebook_size, dim) tensor a level."""
        return [level.get_buffer("codes").clone() for level in self.quantizer.levels]

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors.

        Args:
            folder: created when absent.
            dtype: float type on disk, None for the model's own.
        """
        save_module(self, folder, family="soundstream", params=self.params, dtype=dtype)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, num_codebooks: int | None = None) -> SoundStream:
        """Load strictly, in eval mode.

        Args:
            name: a folder or hub id.
            num_codebooks: residual levels to keep, the coarsest first; None keeps all.

        Returns:
            The model on the CPU in float32.

        Raises:
            ValueError: for another model, or a number of levels that it does not have.
        """
        folder = resolve_folder(name)
        params = params_from_config(SoundStreamParams, read_config(folder, "soundstream")["params"])
        tensors, levels = load_tensors(folder), params.num_codebooks
        if num_codebooks is not None:
            if not 1 <= num_codebooks <= levels:
                raise ValueError(f"num_codebooks must lie in 1..{levels}, got {num_codebooks}")
            finer = tuple(f"quantizer.levels.{level}." for level in range(num_codebooks, levels))
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(finer)}
            params = replace(params, num_codebooks=num_codebooks)
        model = cls(params)
        load_strictly(model, tensors)
        return model.eval()


PRESETS: dict[str, SoundStreamParams] = {
    # the paper's default widths at AudioLM's and VideoPoet's rate
    "soundstream-16k": SoundStreamParams(sample_rate=16_000, encoder_channels=32, decoder_channels=32, dim=128),
    # the paper's own setting: 24 kHz, 75 frames a second, 6 kbit/s with all eight levels
    "soundstream-24k": SoundStreamParams(
        sample_rate=24_000, encoder_channels=32, decoder_channels=32, dim=128, num_codebooks=8
    ),
    # laptop size, ours: a light encoder costs little quality (paper, table 2), so the decoder is the wider one
    "tiny": SoundStreamParams(sample_rate=16_000, encoder_channels=8, decoder_channels=12, dim=64),
    # laptop size, for learning much in an hour: ends that work on spectra, which cost next to nothing a step
    "spectral": SoundStreamParams(
        sample_rate=16_000,
        encoder_channels=192,
        decoder_channels=256,
        dim=64,
        spectral_window=640,
        hidden_dim=640,
        encoder_layers=3,
        decoder_layers=6,
    ),
    # a few thousand weights, for tests and for trying a recipe out
    "smoke": SoundStreamParams(
        sample_rate=16_000, encoder_channels=2, decoder_channels=2, dim=8, dilations=(1, 3), codebook_size=16
    ),
}


def build_soundstream(preset: str, *, learning: CodebookLearning | None = None) -> SoundStream:
    """An untrained SoundStream of a named size.

    Args:
        preset: a key of ``PRESETS``.
        learning: how its codebooks learn, None for the defaults.

    Returns:
        The model in training mode.

    Raises:
        ValueError: for an unknown preset, with the known ones.
    """
    require_known(preset, sorted(PRESETS), "SoundStream preset")
    model = SoundStream(PRESETS[preset])
    if learning is not None:
        model.quantizer.learning = learning
    return model
