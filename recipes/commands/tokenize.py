"""``cinepoet tokenize``: media to a file of codes, and such a file back to media."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipes.terminal.options import add_media_coding, add_tokenizer, number, require_use
from recipes.terminal.report import check_outputs, compute_of, describe_sound

SUMMARY = "turn media into a file of codes, or such a file back into media"
EXAMPLES = """\
  cinepoet tokenize clip.mp4 --out clip.safetensors
  cinepoet tokenize --decode clip.safetensors --out again.mp4
"""
_FORMAT = "cinepoet-tokens-1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("media", nargs="?", metavar="MEDIA", help="picture, film or sound")
    parser.add_argument("--decode", metavar="F.safetensors", help="codes to turn back into media")
    parser.add_argument("--out", required=True, type=Path, metavar="F", help=".safetensors, or media with --decode")
    add_tokenizer(parser, default=None, told="tiny, or the one of the codes")
    parser.add_argument("--seconds", type=number(float, 0.1), metavar="S", help="longest piece (60)")
    add_media_coding(parser)


def run(args: argparse.Namespace) -> int:
    """Encode or decode one file."""
    if (args.media is None) == (args.decode is None):
        raise ValueError("give MEDIA to encode, or --decode with a file of codes; one of the two")
    for name, why in (
        *((name, "the codes decide it") for name in ("size", "seconds", "levels")),
        ("stream", "the file says how it was encoded"),
    ):
        if args.decode is not None and getattr(args, name) not in (None, False):
            raise ValueError(f"--{name} does not go with --decode: {why}")
    import torch
    from safetensors.torch import save_file

    from mmtok.media.audio import SOUND_SUFFIXES
    from mmtok.media.container import replacing
    from mmtok.media.video import FILM_SUFFIXES
    from recipes.bundle.named import in_tiles, load_tokenizers
    from recipes.terminal.media import read_media

    facts: dict[str, Any] = {}
    if args.decode is None:
        check_outputs({"--out": (args.out, (".safetensors",))}, [args.media])
    else:
        check_outputs({"--out": (args.out, (*FILM_SUFFIXES, *SOUND_SUFFIXES, ".png"))}, [args.decode])
        facts, tensors = read_tokens(args.decode)
        require_use(args, pictures="num_frames" in facts, sound="num_samples" in facts)
    device = compute_of(args).device
    name = args.tokenizer or facts.get("tokenizer", "tiny")
    tokenizers = in_tiles(load_tokenizers(name, device, args.levels), args.tile)
    if args.decode is not None:
        with torch.inference_mode():
            print(_decode(args.decode, facts, tensors, tokenizers, args.out, device=device))
        return 0
    media = read_media(args.media, tokenizers, size=args.size or tokenizers.size, seconds=args.seconds or 60.0)
    require_use(args, pictures=media.frames is not None, sound=media.has_sound)
    with torch.inference_mode():
        facts, tensors = _encode(args.media, media, tokenizers, stream=args.stream, device=device)
    with replacing(args.out) as scratch:
        save_file(tensors, scratch, metadata={"cinepoet": json.dumps(facts)})
    shapes = ", ".join(f"{name} {tuple(codes.shape)}" for name, codes in tensors.items())
    print(f"{args.out}: {sum(t.numel() for t in tensors.values())} tokens ({shapes})")
    return 0


def _encode(path: str, media: Any, tokenizers: Any, *, stream: bool, device: Any) -> tuple[dict[str, Any], Any]:
    """Facts and codes of a file."""
    from mmtok.visual.long_video import encode_video
    from recipes.runtime.memory import give_back_freed_memory

    facts: dict[str, Any] = {"format": _FORMAT, "tokenizer": tokenizers.source, "media": Path(path).name}
    tensors: dict[str, Any] = {}
    if media.frames is not None:
        visual, clip, pictures = tokenizers.visual, tokenizers.clip, media.frames.to(device)
        codes = encode_video(visual, pictures, clip=clip, stream=stream, between=give_back_freed_memory)
        tensors |= {f"visual.{i}": c[0].int().cpu().contiguous() for i, c in enumerate(codes)}
        facts |= {"num_frames": pictures.shape[2], "fps": tokenizers.fps, "clip": clip}
        facts |= {"visual_codes": visual.codebook_size, "stream": stream, "size": list(pictures.shape[-2:])}
    if media.has_sound:
        audio = tokenizers.audio
        tensors["audio"], num_samples = _encode_sound(path, media, audio, device)
        facts |= {"num_samples": num_samples, "sample_rate": audio.sample_rate, "audio_codes": audio.codebook_size}
    return facts, tensors


def _encode_sound(path: str, media: Any, audio: Any, device: Any) -> tuple[Any, int]:
    """Codes (levels, frames) of a sound, a long one block by block, and how many samples it has."""
    import torch

    from mmtok.audio.long_sound import encode_sound, long_sound
    from recipes.runtime.progress import blocks_bar

    if media.long_sound_s is None:
        return encode_sound(audio, media.sound.to(device))[0].int().cpu(), media.sound.shape[-1]
    num_samples, parts = 0, []
    with blocks_bar("sound") as on_block:
        how = {"seconds": media.long_sound_s, "device": device, "decodes": False, "on_block": on_block}
        for original, codes, _ in long_sound(path, audio, **how):
            num_samples += original.shape[-1]
            parts.append(codes[0].int())
    if not parts:
        raise ValueError(f"{path} is too short: its sound gives no sample at {audio.sample_rate} Hz")
    return torch.cat(parts, -1), num_samples


def _decode(path: str, facts: dict[str, Any], tensors: Any, tokenizers: Any, out: Path, *, device: Any) -> str:
    """Write what the codes say; the line that names it."""
    from mmtok.audio.long_sound import LONG_SOUND_S
    from mmtok.contract import Streaming
    from mmtok.media.audio import SOUND_SUFFIXES
    from mmtok.visual.long_video import decode_video
    from recipes.terminal.media import Media, output_endings, write_media

    visual, audio, frames, sound = tokenizers.visual, tokenizers.audio, None, None
    if "num_samples" in facts:
        _check_sound(path, audio, tensors["audio"], facts)
    if "num_frames" in facts:
        _check_size(path, "visual", facts["visual_codes"], None if visual is None else visual.codebook_size)
        codes = [tensors[f"visual.{i}"] for i in range(sum(name.startswith("visual.") for name in tensors))]
        codes = [c[None].long().to(device) for c in codes]
        size = (facts["num_frames"], *facts.get("size", (0, 0)))  # files from before only hold codes that tell it
        options = {"clip": facts["clip"], "stream": facts.get("stream", False)}
        frames = decode_video(visual, codes, size=size, **options).float().cpu()
    if "num_samples" in facts:
        heard = tensors["audio"][None].long()
        if frames is None and heard.shape[-1] > LONG_SOUND_S * audio.frame_rate and isinstance(audio, Streaming):
            check_outputs({"--out": (out, SOUND_SUFFIXES)}, [path])
            return _write_long_sound(out, audio, heard, facts["num_samples"], device)
        sound = audio.decode(heard.to(device), num_samples=facts["num_samples"]).clamp(-1, 1).float().cpu()
    media = Media(frames, sound)
    check_outputs({"--out": (out, output_endings(media))}, [path])
    return write_media(out, media, fps=facts.get("fps", 8.0), sample_rate=facts.get("sample_rate", 16000))


def _check_size(path: str, kind: str, made_with: int, have: int | None) -> None:
    if have != made_with:
        here = "has none of that kind" if have is None else f"has one of {have} codes"
        raise ValueError(f"{path} was made with a {kind} tokenizer of {made_with} codes; the tokenizer given {here}")


def _check_sound(path: str, audio: Any, codes: Any, facts: dict[str, Any]) -> None:
    """Codes (k, t) and their facts fit the tokenizer and each other, so that what is written is what is told."""
    _check_size(path, "audio", facts["audio_codes"], None if audio is None else audio.codebook_size)
    rate = facts.get("sample_rate", 16000)
    if rate != audio.sample_rate:
        raise ValueError(f"{path} was made at {rate} Hz; the tokenizer given is for {audio.sample_rate} Hz")
    (levels, frames), samples, hop = codes.shape, facts["num_samples"], audio.hop_length
    if levels > audio.num_codebooks:
        raise ValueError(f"{path} holds {levels} levels of codes; the tokenizer given has {audio.num_codebooks}")
    if frames not in (samples // hop, -(-samples // hop)):
        raise ValueError(
            f"{path} holds {frames} frames of codes for {samples} samples, which are {-(-samples // hop)} frames of "
            f"{hop}: it is damaged, or was made with another tokenizer"
        )


def _write_long_sound(out: Path, audio: Any, codes: Any, num_samples: int, device: Any) -> str:
    """Decode block by block into a WAV file, in bounded memory."""
    import torch

    from mmtok.audio.long_sound import BLOCK_S
    from mmtok.media.audio import write_wav_blocks
    from recipes.runtime.progress import track

    if num_samples > codes.shape[-1] * audio.hop_length:  # a tail that was left out, as decode() fills it
        codes = torch.cat([codes, codes[..., -1:]], -1)
    pieces = codes.split(round(BLOCK_S * audio.frame_rate), -1)
    sounds = track(audio.decode_stream(p.to(device) for p in pieces), title="sound", total=len(pieces))
    left = num_samples

    def blocks() -> Iterator[Any]:
        nonlocal left
        for sound in sounds:
            yield sound[0, :, :left].float().cpu()
            left -= min(left, sound.shape[-1])

    write_wav_blocks(out, blocks(), audio.sample_rate)
    return describe_sound(out, num_samples, audio.sample_rate)


def read_tokens(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A file of codes, checked."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("cinepoet", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, json.JSONDecodeError) as fault:
        raise ValueError(f"{path} is not a file of codes, or is damaged ({fault})") from fault
    if facts.get("format") != _FORMAT:
        raise ValueError(f"{path} is no file of codes that cinepoet tokenize wrote")
    _check_facts(path, facts)
    frames, clip = facts.get("num_frames", 0), facts.get("clip", 1)
    if -(-frames // max(1, clip - 1)) > 2 * len(tensors) + 1:
        raise ValueError(f"{path} is damaged: {frames} frames do not fit the {len(tensors)} clips that it holds")
    clips = -(-frames // clip)
    if facts.get("stream") and frames > clip:  # the first picture is a slice of its own, once
        clips = 1 - (clip - frames) // max(1, clip - 1)
    wanted = {f"visual.{i}" for i in range(clips)} | ({"audio"} if "num_samples" in facts else set())
    if wanted != set(tensors):
        raise ValueError(f"{path} is damaged: it should hold {sorted(wanted)} and holds {sorted(tensors)}")
    for name, codes in tensors.items():
        size = facts["audio_codes" if name == "audio" else "visual_codes"]
        if codes.is_floating_point() or not codes.numel() or int(codes.min()) < 0 or int(codes.max()) >= size:
            raise ValueError(f"{path} is damaged: {name} must hold codes from 0 to {size - 1}")
        if name == "audio" and codes.ndim != 2:
            raise ValueError(f"{path} is damaged: audio must be (levels, frames), got {tuple(codes.shape)}")
    return facts, tensors


def _check_facts(path: str | Path, facts: dict[str, Any]) -> None:
    """Every number that decoding relies on is there and in its range."""
    groups = {"num_frames": ("num_frames", "clip", "visual_codes"), "num_samples": ("num_samples", "audio_codes")}
    whole = [name for key, names in groups.items() if key in facts for name in names]
    whole += [name for name in ("sample_rate",) if name in facts]  # files from before do not tell it
    faults = [name for name in whole if type(facts.get(name)) is not int or facts[name] < 1]
    if "num_frames" in facts and not (isinstance(facts.get("fps"), (int, float)) and facts["fps"] > 0):
        faults.append("fps")
    size = facts.get("size", [1, 1])
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)):
        faults.append("size")
    if faults:
        raise ValueError(f"{path} is damaged: its {faults[0]} is {facts.get(faults[0])!r}")
