"""``cinepoet reconstruct``: media through a tokenizer and back, with the figures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recipes.terminal.options import add_media_coding, add_preview, add_tokenizer, number, preview_path, require_use
from recipes.terminal.report import check_outputs, compute_of, describe_sound

SUMMARY = "send a picture, a film or a sound through the tokenizers and back"
EXAMPLES = """\
  cinepoet reconstruct clip.mp4 --out again.mp4 --side-by-side --preview
  cinepoet reconstruct song.mp3 --out again.wav
  cinepoet reconstruct song.mp3 --tokenizer facebook/encodec_24khz --levels 4 --out again.wav
  cinepoet reconstruct photo.jpg --size 256 --out again.png
  cinepoet reconstruct clip.mp4 --tokenizer runs/tiny/visual/model --seconds 10 --stream --out again.mp4
  cinepoet reconstruct photo.jpg --size 1024 --tile 256 --out again.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("media", metavar="MEDIA", help="picture, film or sound")
    parser.add_argument("--out", required=True, type=Path, metavar="F", help=".mp4, .mov or .gif; .png; .wav")
    add_tokenizer(parser)
    parser.add_argument("--seconds", type=number(float, 0.1), default=60.0, metavar="S", help="longest piece (60)")
    parser.add_argument("--side-by-side", action="store_true", help="show the original on the left")
    add_preview(parser)
    add_media_coding(parser)


def run(args: argparse.Namespace) -> int:
    """Reconstruct one file."""
    import torch

    from mmtok.audio.long_sound import encode_sound
    from mmtok.media.audio import SOUND_SUFFIXES
    from mmtok.media.video import FILM_SUFFIXES
    from mmtok.visual.long_video import reconstruct_video
    from recipes.bundle.named import in_tiles, load_tokenizers
    from recipes.runtime.memory import give_back_freed_memory
    from recipes.terminal.media import Media, output_endings, read_media, write_media

    preview = preview_path(args, before="MEDIA")
    sheet: dict[str, tuple[Path, tuple[str, ...]]] = {} if preview is None else {"--preview": (preview, (".png",))}
    check_outputs({"--out": (args.out, (*FILM_SUFFIXES, *SOUND_SUFFIXES, ".png"))} | sheet, [args.media])
    compute = compute_of(args)
    tokenizers = in_tiles(load_tokenizers(args.tokenizer, compute.device, args.levels), args.tile)
    size = args.size or tokenizers.size
    media = read_media(args.media, tokenizers, size=size, seconds=args.seconds)
    require_use(args, pictures=media.frames is not None, sound=media.has_sound)
    if media.long_sound_s is not None:
        check_outputs({"--out": (args.out, SOUND_SUFFIXES)}, [args.media])
        return _long_sound(args.media, args.out, tokenizers.audio, media.long_sound_s, compute.device)
    check_outputs({"--out": (args.out, output_endings(media))} | sheet, [args.media])

    frames: Any = None
    sound: Any = None
    lines = []
    with torch.inference_mode():
        if media.frames is not None:
            original = media.frames.to(compute.device)
            tokenizers.visual.grid(tokenizers.clip, size, size)  # refuses sizes before the work
            how = {"clip": tokenizers.clip, "stream": args.stream, "between": give_back_freed_memory}
            frames, codes = reconstruct_video(tokenizers.visual, original, **how)
            frames = frames.clamp(-1, 1).float().cpu()
            lines.append(_picture_line(frames, media.frames, sum(c.numel() for c in codes)))
        if media.sound is not None:
            codes = encode_sound(tokenizers.audio, media.sound.to(compute.device))
            sound = tokenizers.audio.decode(codes, num_samples=media.sound.shape[-1]).clamp(-1, 1).float().cpu()
            lines.append(_sound_line(sound, media.sound, codes.numel(), tokenizers.audio.sample_rate))
    if args.side_by_side:
        frames = torch.cat([media.frames, frames], -1)
    rate = 16000 if tokenizers.audio is None else tokenizers.audio.sample_rate
    made = Media(frames, sound)
    print(write_media(args.out, made, fps=tokenizers.fps, sample_rate=rate, preview=preview))
    if preview is not None:
        lines.append(f"{preview}: preview")
    print("\n".join(lines))
    return 0


def _long_sound(media: str, out: Path, audio: Any, length_s: float, device: Any) -> int:
    """A long sound there and back, block by block, in bounded memory."""
    import torch

    from mmtok.audio.long_sound import BLOCK_S, long_sound
    from mmtok.media.audio import write_wav_blocks
    from mmtok.metrics.audio import LogMelDistance
    from recipes.runtime.progress import blocks_bar

    distance = LogMelDistance(sample_rate=audio.sample_rate)
    sums = {"tokens": 0.0, "samples": 0.0, "ours": 0.0, "silence": 0.0}

    def blocks(on_block: Callable[[int, int], None]) -> Iterator[Any]:
        how = {"seconds": length_s, "device": device, "decodes": True, "on_block": on_block}
        for original, codes, made in long_sound(media, audio, **how):
            count = original.shape[-1]
            sums["tokens"] += codes.numel()
            sums["samples"] += count
            sums["ours"] += count * float(distance(made, original))
            sums["silence"] += count * float(distance(torch.zeros_like(original), original))
            yield made[0]

    rate = audio.sample_rate
    with blocks_bar("sound") as on_block:
        written = write_wav_blocks(out, blocks(on_block), rate)
    print(describe_sound(out, written, rate))
    print(
        f"sound: log-mel distance {sums['ours'] / sums['samples']:.3f}, that of silence "
        f"{sums['silence'] / sums['samples']:.3f} (64 bands, window 1024, natural log, {rate} Hz, mean of blocks of "
        f"{BLOCK_S:g} s), {int(sums['tokens'])} tokens"
    )
    return 0


def _picture_line(made: Any, original: Any, num_tokens: int) -> str:
    """PSNR in dB with its protocol."""
    from mmtok.metrics.visual import psnr_db

    t, h, w = original.shape[-3:]
    return (
        f"picture: PSNR {float(psnr_db(made, original)):.2f} dB over all {t} frames of {w}x{h} "
        f"(RGB in [-1, 1], before compression of the file), {num_tokens} tokens"
    )


def _sound_line(made: Any, original: Any, num_tokens: int, sample_rate: int) -> str:
    """Log-mel distance with its protocol, beside that of silence."""
    import torch
    import torch.nn.functional as F

    from mmtok.metrics.audio import LogMelDistance

    distance = LogMelDistance(sample_rate=sample_rate)
    short = max(0, 1024 - original.shape[-1])  # one window at least
    made, original = F.pad(made, (0, short)), F.pad(original, (0, short))
    ours, silence = (float(distance(x, original)) for x in (made, torch.zeros_like(original)))
    return (
        f"sound: log-mel distance {ours:.3f}, that of silence {silence:.3f} (64 bands, window 1024, natural log, "
        f"{sample_rate} Hz), {num_tokens} tokens"
    )
