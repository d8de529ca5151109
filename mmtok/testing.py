"""Proof of the promises of ``mmtok/contract.py`` on a tokenizer of one's own.

    from mmtok.testing import check_tokenizer
    print(check_tokenizer(MyTokenizer()))

or ``python -m mmtok.testing FOLDER_OR_HUB_ID``. Every promise is measured on made-up media: shapes, types and ranges,
determinism, lengths, claimed causality, streams against the whole, refusals, files. The first one that does not hold
raises; what could not be measured is told with its reason. A few tokens each way are enough, so weights may be random,
but a network that ignores its input proves nothing: that is told, too.
Shape letters: b batch, t h w time/height/width, k codebooks, n samples or tokens, s slices of the grid.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmtok.contract import (
    AudioTokenizer,
    HasCodeVectors,
    NeedsSize,
    Stored,
    Streaming,
    TextEncoder,
    VisualTokenizer,
    declared_sizes,
    decode_clip,
    needs_size,
)
from mmtok.visual.holistic import is_holistic

SLICES = 5  # of the clip that is measured: enough that a decoder which looks one ahead shows it
FRAMES = 16  # of the sound that is measured


class ContractError(ValueError):
    """A promise that does not hold.

    Args:
        who: the tokenizer's class.
        promise: what was promised.
        measured: what happened instead.
    """

    def __init__(self, who: str, promise: str, measured: str):
        super().__init__(f"{who} breaks a promise of mmtok/contract.py: {promise}; {measured}")
        self.promise, self.measured = promise, measured


@dataclass
class Report:
    """What was proved.

    Attributes:
        who: the tokenizer's class.
        kept: promises that hold.
        skipped: what was not measured, and why.
    """

    who: str
    kept: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.who}: {len(self.kept)} promises hold"]
        lines += [f"  holds    {promise}" for promise in self.kept]
        return "\n".join(lines + [f"  skipped  {what}: {why}" for what, why in self.skipped.items()])


class _Checks:
    """One tokenizer under test: how a promise is measured, and what was found so far."""

    def __init__(self, tokenizer: Any, *, tolerance: float, device: str, seed: int):
        self.tokenizer, self.tolerance, self.device = tokenizer, tolerance, device
        self.report = Report(type(tokenizer).__name__)
        self.generator = torch.Generator().manual_seed(seed)

    def holds(self, promise: str, kept: bool, measured: str) -> None:
        """Note a promise, or raise."""
        if not kept:
            raise ContractError(self.report.who, promise, measured)
        if promise not in self.report.kept:
            self.report.kept.append(promise)

    def made(self, promise: str, call: Callable[[], Any]) -> Any:
        """What a call gives that must not fail."""
        try:
            return call()
        except Exception as fault:
            raise ContractError(self.report.who, promise, f"it raised {_told(fault)}") from fault

    def refuses(self, what: str, call: Callable[[], Any]) -> None:
        """A wrong input must raise ``ValueError`` with words."""
        promise = f"refuses {what} with a ValueError"
        try:
            call()
        except ValueError as fault:
            self.holds(promise, bool(str(fault).strip()), "its message is empty")
        except Exception as fault:
            raise ContractError(self.report.who, promise, f"it raised {_told(fault)}") from fault
        else:
            self.holds(promise, False, "it took it silently; mmtok.contract has require_video, whole_hops, check_codes")

    def noise(self, *shape: int) -> Tensor:
        """Media in [-1, 1] that change everywhere."""
        return (torch.rand(shape, generator=self.generator) * 2 - 1).to(self.device)

    def other(self, codes: Tensor) -> Tensor:
        """Codes of which none is the given one."""
        size = self.tokenizer.codebook_size
        steps = torch.randint(1, size, codes.shape, generator=self.generator).to(codes.device)
        return (codes + steps) % size

    def same(self, promise: str, one: Tensor, other: Tensor, *, exactly: bool = False) -> None:
        """Two ways to one result, codes or media."""
        told = f"shapes are {tuple(one.shape)} and {tuple(other.shape)}"
        self.holds(promise, one.shape == other.shape, told)
        if one.is_floating_point():
            apart = float((one.float() - other.float()).abs().max()) if one.numel() else 0.0
            limit, told = 1e-5 if exactly else self.tolerance, f"they differ by up to {apart:.2g}"
        else:
            apart = float((one != other).float().mean())
            limit, told = 0 if exactly else self.tolerance, f"{100 * apart:.2g} % of the codes differ"
        self.holds(promise, apart <= limit, told)

    def declares(self, kind: type, numbers: Sequence[str]) -> None:
        """All attributes and methods, and whole positive numbers where they are meant."""
        promise = f"is a {kind.__name__}"
        names = [name for name in (*kind.__annotations__, *vars(kind)) if not name.startswith("_")]
        missing = sorted(name for name in set(names) if name not in dir(self.tokenizer))
        self.holds(promise, not missing, f"it lacks {', '.join(missing)}")
        values = [(name, value) for name, value in declared_sizes(self.tokenizer).items() if name in numbers]
        flat = [(name, v) for name, value in values for v in (value if isinstance(value, list) else [value])]
        wrong = [f"{name} {value!r}" for name, value in flat if type(value) is not int or value < 1]
        self.holds("declares whole positive sizes", not wrong, f"it declares {', '.join(wrong)}")
        size = self.tokenizer.codebook_size
        self.holds("declares whole positive sizes", size > 1, f"codebook_size {size} tells nothing")

    def gives_codes(self, shape: tuple[int, ...], codes: Any, of: str) -> None:
        """Type, shape and range."""
        kind = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        self.holds("codes are int64", kind == torch.int64, f"they are {kind}")
        got = tuple(codes.shape)
        self.holds("codes have the shape that the sizes tell", got == shape, f"{of} gave {got}, not {shape}")
        low, high, size = int(codes.min()), int(codes.max()), self.tokenizer.codebook_size
        told = f"they lie in [{low}, {high}] with {size} in the codebook"
        self.holds("codes lie in [0, codebook_size)", low >= 0 and high < size, told)

    def gives_media(self, shape: tuple[int, ...], media: Any, what: str) -> None:
        """Type, shape and range."""
        kind = media.dtype if isinstance(media, Tensor) else type(media).__name__
        floating = isinstance(media, Tensor) and media.is_floating_point()
        self.holds(f"{what} are floats", floating, f"they are {kind}")
        got = tuple(media.shape)
        self.holds(f"{what} have the size that was encoded or asked for", got == shape, f"{got}, not {shape}")
        low, high = torch.aminmax(media.float())
        inside = bool(low >= -1.001 and high <= 1.001)  # false for NaN
        self.holds(f"{what} lie in [-1, 1]", inside, f"they lie in [{float(low):.3g}, {float(high):.3g}]")

    def repeats(self, what: str, call: Callable[[], Tensor]) -> Tensor:
        """The same twice, whatever torch would draw."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            first = self.made(f"{what} takes what it must take", call)
            torch.manual_seed(2)
            second = call()
        advice = "two calls with one input differ; draw nothing unless asked, and call eval() before this check"
        self.holds(f"{what} gives the same for the same", torch.equal(first, second), advice)
        return first  # type: ignore[no-any-return]

    def reads(self, wholes: Sequence[Tensor], stream: Callable[[Any], Iterator[Tensor]], what: str) -> Tensor:
        """All that a stream of chunks gives; it may not wait for the last chunk before it answers."""
        read = 0

        def chunks() -> Iterator[Tensor]:
            nonlocal read
            for chunk in wholes:
                read += 1
                yield chunk

        parts, early = [], False
        for part in self.made(f"{what} takes chunks", lambda: stream(chunks())):
            early = early or read < len(wholes)
            parts.append(part)
        told = f"it read all {len(wholes)} chunks first, so its memory grows with the length"
        self.holds(f"{what} answers before the end", early, told)
        return torch.cat(parts, 2)

    def streams(self, media: Sequence[Tensor], codes: Tensor, made: Tensor, what: str) -> None:
        """Chunk by chunk is the whole, both ways."""
        read = self.reads(media, self.tokenizer.encode_stream, "encode_stream")
        self.same("encode_stream gives the codes of the whole", codes, read)
        shown = self.reads(codes.split(1, 2), self.tokenizer.decode_stream, "decode_stream")
        self.same(f"decode_stream gives the {what} of the whole", made, shown)

    def same_before(self, promise: str, media: Tensor, codes: Tensor, s: int, length: int) -> bool:
        """Other media behind the first ``s`` codes change none of these; whether any code changed."""
        changed = torch.cat((media[:, :, :length], self.noise(*media[:, :, length:].shape)), 2)
        now = self.tokenizer.encode(changed)
        self.same(promise, codes[:, :, :s], now[:, :, :s], exactly=True)
        return not torch.equal(codes, now)

    def extremes(self, codes: Tensor) -> Tensor:
        """The first and the last code in turn."""
        return torch.arange(codes.numel(), device=codes.device).view_as(codes) % 2 * (self.tokenizer.codebook_size - 1)

    def vectors(self, expected: int | None) -> None:
        """What codes mean."""
        offers = isinstance(self.tokenizer, HasCodeVectors)
        if not offers:
            self.report.skipped["code vectors"] = "it has no code_vectors"
            return
        given = self.tokenizer.code_vectors()
        tables = given if isinstance(given, list) else [given]
        promise = "code_vectors has a finite vector for every code"
        sizes = [tuple(table.shape) for table in tables]
        right = all(len(size) == 2 and size[0] == self.tokenizer.codebook_size for size in sizes)
        right = right and isinstance(given, list) == (expected is not None) and len(tables) == (expected or 1)
        self.holds(promise, right and all(bool(t.isfinite().all()) for t in tables), f"it has tables of {sizes}")

    def keeps_in_files(self, codes_of: Callable[[Any], Tensor]) -> None:
        """``save_pretrained`` and ``from_pretrained``."""
        if not isinstance(self.tokenizer, Stored):
            self.report.skipped["files"] = "it has no save_pretrained and from_pretrained"
            return
        promise = "from_pretrained gives back what save_pretrained wrote"
        with tempfile.TemporaryDirectory() as folder:
            self.made(promise, lambda: self.tokenizer.save_pretrained(folder))
            again: Any = self.made(promise, lambda: type(self.tokenizer).from_pretrained(folder))
        if isinstance(self.tokenizer, nn.Module):  # files may be read in float32
            weight = next(self.tokenizer.parameters(), torch.zeros(()))
            again = again.to(device=weight.device, dtype=weight.dtype)
        was, now = declared_sizes(self.tokenizer), declared_sizes(again)
        self.holds(promise, was == now, f"it declared {was}, and declares {now} after")
        self.same(promise, codes_of(self.tokenizer), codes_of(again), exactly=True)


def _told(fault: Exception) -> str:
    return f"{type(fault).__name__}: {' '.join(str(fault).split())[:200]}"


@torch.no_grad()
def check_tokenizer(
    tokenizer: Any,
    *,
    size: tuple[int, int, int] | None = None,
    device: str = "cpu",
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Report:
    """Prove that a tokenizer of pictures keeps the promises of ``VisualTokenizer`` and of what it offers besides.

    Args:
        tokenizer: what is tested, in evaluation mode.
        size: (t, h, w) of a clip that it takes; None for a clip of a few tokens each way, or its ``clip_size``.
        device: where it computes.
        tolerance: largest difference of pictures, and largest share of codes, where computations of other shapes are
            compared, which rounding may tell apart; 0.05 for weights in bfloat16. Equal shapes must agree exactly.
        seed: of the made-up media.

    Returns:
        What holds and what was skipped.

    Raises:
        ContractError: naming the first promise that does not hold, and what was measured.
    """
    checks = _Checks(tokenizer, tolerance=tolerance, device=device, seed=seed)
    checks.declares(VisualTokenizer, ("codebook_size", "num_codebooks", "stride"))
    stride, fps = tokenizer.stride, tokenizer.fps
    checks.holds("stride is ordered (time, height, width)", len(stride) == 3, f"it is {stride}")
    checks.holds("fps is a positive number", math.isfinite(fps) and fps > 0, f"it is {fps}")
    checks.holds("is_causal is True or False", type(tokenizer.is_causal) is bool, f"it is {tokenizer.is_causal!r}")
    gridded = not needs_size(tokenizer) and not is_holistic(tokenizer)
    if size is None:
        size = tokenizer.clip_size if isinstance(tokenizer, NeedsSize) else (0, 2 * stride[1], 3 * stride[2])
    most = size[0] or 1 + (SLICES - 1) * stride[0]
    _check_lengths(checks, max(most, 2 * stride[0] + 1), size[1:])
    t, h, w = (size[0] or tokenizer.valid_num_frames(most)), size[1], size[2]
    clip = checks.noise(2, 3, t, h, w)
    grid = checks.made(f"grid takes a clip of {(t, h, w)}", lambda: tokenizer.grid(t, h, w))
    codes = checks.repeats("encode", lambda: tokenizer.encode(clip))
    checks.gives_codes((2, tokenizer.num_codebooks, *grid), codes, f"a clip of {(t, h, w)}")
    again = checks.repeats("decode", lambda: decode_clip(tokenizer, codes, (t, h, w)))
    checks.gives_media((2, 3, t, h, w), again, "pictures")
    checks.gives_media((2, 3, t, h, w), decode_clip(tokenizer, checks.extremes(codes), (t, h, w)), "pictures")
    checks.same("a batch has the codes of its clips", codes[:1], tokenizer.encode(clip[:1]))
    alone = decode_clip(tokenizer, codes[:1], (t, h, w))
    checks.same("a batch has the pictures of its clips", again[:1], alone)
    _check_causality(checks, clip, codes, again)
    if gridded:
        _check_picture(checks, clip, codes)
    else:
        checks.report.skipped["single pictures"] = "its tokens are about a whole clip"
    _check_visual_stream(checks, clip, codes, again)
    _check_visual_refusals(checks, clip, codes)
    checks.vectors(None)
    checks.keeps_in_files(lambda one: one.encode(clip))
    return checks.report


def _check_lengths(checks: _Checks, most: int, side: tuple[int, ...]) -> None:
    """``valid_num_frames`` and ``grid`` tell one story."""
    valid, grid = checks.tokenizer.valid_num_frames, checks.tokenizer.grid
    st, sh, sw = checks.tokenizer.stride
    gridded = not needs_size(checks.tokenizer) and not is_holistic(checks.tokenizer)
    longest = 0
    for length in range(1, most + 1):
        try:
            fits = valid(length)
        except ValueError:  # fewer frames than one token needs
            checks.holds("valid_num_frames grows with its argument", longest == 0, f"{length} raised, less did not")
            continue
        promise = "valid_num_frames is at least 1 and at most what it was given"
        checks.holds(promise, 1 <= fits <= length, f"{fits} for {length}")
        checks.holds(
            "valid_num_frames grows with its argument", fits >= longest, f"{fits} for {length}, after {longest}"
        )
        checks.holds("valid_num_frames gives a length that is valid", valid(fits) == fits, f"{valid(fits)} for {fits}")
        longest = fits
        shape = checks.made(f"grid takes the valid length {fits}", partial(grid, fits, *side))
        told = f"{shape} for {fits} frames"
        whole = isinstance(shape, tuple) and all(type(n) is int and n > 0 for n in shape)
        checks.holds("grid is a tuple of positive whole numbers", whole, told)
        if gridded:
            wanted = (1 + (fits - 1) // st, side[0] // sh, side[1] // sw)
            checks.holds("grid is 1 + (t - 1) / stride, h / stride, w / stride", shape == wanted, f"{told} of {side}")
        if fits < length:
            checks.refuses("a length that is not valid (grid)", partial(grid, length, *side))
    checks.holds("valid_num_frames knows a valid length", longest > 0, f"it refuses all up to {most}")
    for height, width in ((side[0] + 1, side[1]), (side[0], side[1] + 1), (0, side[1])):
        if height % sh or width % sw or not height:
            checks.refuses(
                f"{height} x {width}, no multiples of the stride (grid)", partial(grid, longest, height, width)
            )


def _check_picture(checks: _Checks, clip: Tensor, codes: Tensor) -> None:
    """A video of one frame is an image."""
    tokenizer, promise = checks.tokenizer, "a video of one frame is an image of one slice"
    image = clip[:, :, :1]
    slices = checks.made(promise, lambda: tokenizer.encode(image))
    checks.holds(promise, slices.shape[2] == 1, f"it has {slices.shape[2]} slices")
    checks.gives_media(tuple(image.shape), checks.made(promise, lambda: tokenizer.decode(slices)), "pictures")
    if tokenizer.is_causal:
        checks.same(
            "is_causal: an image has the first codes of every clip that begins with it", slices, codes[:, :, :1]
        )


def _check_causality(checks: _Checks, clip: Tensor, codes: Tensor, pictures: Tensor) -> None:
    """Other frames, or codes, behind a place change nothing before it; computed in one shape, so to the last bit."""
    tokenizer, st = checks.tokenizer, checks.tokenizer.stride[0]
    if not tokenizer.is_causal:
        checks.report.skipped["causality"] = "it says that it looks ahead (is_causal is False)"
        return
    moved, drawn = False, False
    for s in range(1, codes.shape[2]):
        promise = "is_causal: later frames do not change earlier codes"
        moved = checks.same_before(promise, clip, codes, s, 1 + (s - 1) * st) or moved
        again = tokenizer.decode(torch.cat((codes[:, :, :s], checks.other(codes[:, :, s:])), 2))
        earlier = max(0, 1 + (s - 2) * st)  # a decoder may look one slice ahead
        promise = "is_causal: later codes do not change the pictures of the slices before the last"
        checks.same(promise, pictures[:, :, :earlier], again[:, :, :earlier], exactly=True)
        drawn = drawn or not torch.equal(pictures, again)
    if not moved:
        checks.report.skipped["causality of codes"] = "its codes do not depend on the frames, so they prove nothing"
    if not drawn:
        checks.report.skipped["causality of pictures"] = (
            "its pictures do not depend on the codes, so they prove nothing"
        )


def _check_visual_stream(checks: _Checks, clip: Tensor, codes: Tensor, pictures: Tensor) -> None:
    """Chunk by chunk is the whole, where it streams."""
    tokenizer, st, slices = checks.tokenizer, checks.tokenizer.stride[0], codes.shape[2]
    if not isinstance(checks.tokenizer, Streaming):
        checks.report.skipped["streams"] = "it lacks encode_stream, decode_stream or both"
        return
    if not tokenizer.is_causal:
        checks.refuses("to stream where it looks ahead", lambda: list(tokenizer.encode_stream([clip])))
        return
    checks.streams(clip.split([1, *[st] * (slices - 1)], 2), codes, pictures, "pictures")
    if slices > 3:  # other cuts, for a state that only survives chunks of one slice
        made = torch.cat(list(tokenizer.encode_stream(clip.split([1 + st, st * (slices - 2)], 2))), 2)
        checks.same("encode_stream gives the codes of the whole", codes, made)
    if st > 1:
        short = [clip[:, :, :1], clip[:, :, 1:st]]
        checks.refuses("chunks that fill no slice", lambda: list(tokenizer.encode_stream(short)))


def _check_visual_refusals(checks: _Checks, clip: Tensor, codes: Tensor) -> None:
    """Wrong input is told, not coded."""
    encode, size = checks.tokenizer.encode, tuple(clip.shape[2:])
    for what, wrong in {
        "pictures of whole numbers": ((clip + 1) * 127).to(torch.uint8),
        "pictures of one channel": clip[:, :1],
        "a video without its axis of time": clip[:, :, 0],
        "pictures in [0, 255]": (clip + 1) * 127.5,
        "pictures that are not finite": clip * float("nan"),
        "a clip without a frame": clip[:, :, :0],
    }.items():
        checks.refuses(what, partial(encode, wrong))
    _check_wrong_codes(checks, codes, lambda wrong: decode_clip(checks.tokenizer, wrong, size))  # type: ignore[arg-type]


def _check_wrong_codes(checks: _Checks, codes: Tensor, decode: Callable[[Tensor], Tensor]) -> None:
    for what, wrong in {
        "codes that are floats": codes.float(),
        "codes beyond the codebook": torch.full_like(codes, checks.tokenizer.codebook_size),
        "negative codes": torch.full_like(codes, -1),
        "codes without their axis of codebooks": codes[:, 0],
        "more codebooks than it has": torch.cat((codes, codes), 1),
        "no codes": codes[..., :0],
    }.items():
        checks.refuses(what, partial(decode, wrong))


@torch.no_grad()
def check_audio_tokenizer(
    tokenizer: Any, *, num_frames: int = FRAMES, device: str = "cpu", tolerance: float = 1e-3, seed: int = 0
) -> Report:
    """Prove that a tokenizer of sound keeps the promises of ``AudioTokenizer`` and of what it offers besides.

    Args:
        tokenizer: what is tested, in evaluation mode.
        num_frames: of the sound that is measured.
        device: where it computes.
        tolerance: as of ``check_tokenizer``.
        seed: of the made-up sound.

    Returns:
        What holds and what was skipped.

    Raises:
        ContractError: naming the first promise that does not hold, and what was measured.
    """
    checks = _Checks(tokenizer, tolerance=tolerance, device=device, seed=seed)
    checks.declares(AudioTokenizer, ("codebook_size", "num_codebooks", "sample_rate", "hop_length"))
    hop, rate, levels = tokenizer.hop_length, tokenizer.frame_rate, tokenizer.num_codebooks
    exact = tokenizer.sample_rate / hop
    checks.holds("frame_rate is sample_rate / hop_length", math.isclose(rate, exact), f"{rate}, not {exact}")
    sound = checks.noise(2, 1, num_frames * hop + hop // 2)
    whole = sound[..., : num_frames * hop]
    codes = checks.repeats("encode", lambda: tokenizer.encode(sound))
    checks.gives_codes((2, levels, num_frames), codes, f"{sound.shape[-1]} samples at a hop of {hop}")
    checks.same("the tail below one hop changes no code", codes, tokenizer.encode(whole), exactly=True)
    checks.gives_codes(
        (2, levels, 1), checks.made("encode takes one hop", lambda: tokenizer.encode(whole[..., :hop])), "a hop"
    )
    again = checks.repeats("decode", lambda: tokenizer.decode(codes))
    checks.gives_media((2, 1, num_frames * hop), again, "sounds")
    for length in (1, num_frames * hop - hop // 2, (num_frames + 1) * hop - 1):
        made = checks.made(f"decode gives {length} samples", partial(tokenizer.decode, codes, num_samples=length))
        checks.gives_media((2, 1, length), made, "sounds")
    checks.gives_media((2, 1, num_frames * hop), tokenizer.decode(checks.extremes(codes)), "sounds")
    checks.same("a batch has the codes of its sounds", codes[:1], tokenizer.encode(sound[:1]))
    checks.same("a batch has the sound of its codes", again[:1], tokenizer.decode(codes[:1]))
    _check_audio_stream(checks, whole, codes, again)
    for what, wrong in {
        "sound of whole numbers": (sound * 32767).to(torch.int16),
        "sound of two channels": sound.expand(-1, 2, -1),
        "sound without its axis of channels": sound[:, 0],
        "sound beyond [-1, 1]": sound * 32767,
        "sound that is not finite": sound * float("nan"),
        "less than one hop": sound[..., : hop - 1],
    }.items():
        if wrong.shape[-1] or hop > 1:
            checks.refuses(what, partial(tokenizer.encode, wrong))
    _check_wrong_codes(checks, codes, tokenizer.decode)
    for length in (0, (num_frames + 1) * hop):
        checks.refuses("a length that no such codes have", partial(tokenizer.decode, codes, num_samples=length))
    checks.vectors(levels)
    checks.keeps_in_files(lambda one: one.encode(sound))
    return checks.report


def _check_audio_stream(checks: _Checks, sound: Tensor, codes: Tensor, again: Tensor) -> None:
    """Chunk by chunk is the whole, and what follows changes nothing; only a tokenizer that streams says so."""
    hop, t = checks.tokenizer.hop_length, codes.shape[-1]
    if not isinstance(checks.tokenizer, Streaming):
        checks.report.skipped["streams and causality"] = "it lacks encode_stream, decode_stream or both"
        return
    moved = False
    for s in range(1, t, max(1, t // 4)):
        promise = "it streams, so a later sound does not change earlier codes"
        moved = checks.same_before(promise, sound, codes, s, s * hop) or moved
    if not moved:
        checks.report.skipped["causality"] = "its codes do not depend on the sound, so they prove nothing"
    cuts = [hop * n // 4 for n in (3, 7, 1, 6)]  # of no whole hops
    chunks = sound.split([*cuts, sound.shape[-1] - sum(cuts)], -1)
    checks.streams(chunks, codes, again, "sound")


@torch.no_grad()
def check_text_encoder(encoder: Any, *, tolerance: float = 1e-3) -> Report:
    """Prove that a text encoder keeps the promises of ``TextEncoder``.

    Args:
        encoder: what is tested.
        tolerance: largest difference of vectors of one text beside others.

    Returns:
        What holds.

    Raises:
        ContractError: naming the first promise that does not hold, and what was measured.
    """
    checks = _Checks(encoder, tolerance=tolerance, device="cpu", seed=0)
    missing = [name for name in ("dim", "max_length", "encode") if name not in dir(encoder)]
    checks.holds("is a TextEncoder", isinstance(encoder, TextEncoder), f"it lacks {', '.join(missing)}")
    texts = ["a red circle", "a blue square moves to the left over a striped ground", "a cat " * encoder.max_length]
    vectors, mask = checks.made("encode takes texts", lambda: encoder.encode(texts))
    told = f"vectors {tuple(vectors.shape)} {vectors.dtype}, mask {tuple(mask.shape)} {mask.dtype}"
    shaped = vectors.ndim == 3 and vectors.shape == (len(texts), mask.shape[1], encoder.dim)
    checks.holds("vectors are (b, n, dim) and the mask (b, n)", shaped and mask.ndim == 2, told)
    kinds = vectors.dtype == torch.float32 and mask.dtype == torch.bool
    checks.holds("vectors are float32 and the mask bool", kinds, told)
    checks.holds("at most max_length positions", mask.shape[1] <= encoder.max_length, told)
    counts = mask.sum(1)
    checks.holds("every text has a token", bool((counts > 0).all()), f"tokens: {counts.tolist()}")
    kept = vectors[mask]
    checks.holds("vectors are finite", bool(kept.isfinite().all()), "some are not")
    checks.same("encode gives the same for the same", kept, encoder.encode(texts)[0][mask], exactly=True)
    alone, own = encoder.encode(texts[:1])
    checks.same("a text has its vectors beside any other", vectors[0][mask[0]], alone[0][own[0]])
    apart = vectors[0][mask[0]].mean(0) - vectors[1][mask[1]].mean(0)
    checks.holds("texts differ in their vectors", bool(apart.abs().max() > 0), "two texts have the same ones")
    return checks.report


def main(words: Sequence[str]) -> int:
    """``python -m mmtok.testing NAME``: check any tokenizer or text encoder that ``mmtok.load`` takes.

    Args:
        words: one folder or hub id.

    Returns:
        0 if all promises hold, 1 if one does not, 2 for wrong words.
    """
    if len(words) != 1 or words[0].startswith("-"):
        print("usage: python -m mmtok.testing FOLDER_OR_HUB_ID", file=sys.stderr)
        return 2
    from mmtok.loading import load

    try:
        loaded = load(words[0])
    except (ValueError, OSError) as fault:
        print(fault, file=sys.stderr)
        return 2
    try:
        if isinstance(loaded, TextEncoder):
            print(check_text_encoder(loaded))
        else:
            print(check_audio_tokenizer(loaded) if isinstance(loaded, AudioTokenizer) else check_tokenizer(loaded))
    except ContractError as fault:
        print(fault, file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as head, has gone
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - so that the interpreter's last flush does not fail too
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
