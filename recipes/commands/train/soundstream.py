"""``cinepoet train soundstream``."""

from __future__ import annotations

import argparse
from typing import Any

from recipes.runtime.config import CONFIGS
from recipes.terminal.options import add_media, add_training, check_media
from recipes.terminal.report import join_training, tell_config

SUMMARY = "a SoundStream on sounds and the sound of films"
EXAMPLES = """\
  cinepoet train soundstream --media my_sounds --out runs/soundstream           # WAV, FLAC, MP3, the sound of films
  cinepoet train soundstream --media speech --init runs/soundstream/model --out runs/speech optim.lr=1e-3    # goes on
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_training(parser, out="runs/soundstream")
    add_media(parser, "sounds and films (without: corpus shapes)")
    parser.add_argument("--init", metavar="MODEL", help="a trained codec that goes on, alone or of a model")


def run(args: argparse.Namespace) -> int:
    """Train a SoundStream on the sounds and films of a folder, or on the corpus."""
    from recipes.corpora.folder import MediaFolder, sound_pool
    from recipes.corpora.shapes import ShapesCorpus
    from recipes.corpora.sources import MixedSounds, RealSounds
    from recipes.loop.tracking import choose_tracker
    from recipes.runtime.config import load_config
    from recipes.runtime.records import same_data
    from recipes.train.soundstream import SoundStreamTrainConfig, sample_rate_of, train_soundstream

    check_media(args)
    choose_tracker(args.track)
    config = load_config(SoundStreamTrainConfig, args.config or CONFIGS / "soundstream_spectral.yaml", args.changes)
    rate = sample_rate_of(config)  # an unknown preset is told before the files are read
    start = None if args.init is None else _start(args.init, config.preset)
    compute, ranks = join_training(args)
    out = args.out
    tell_config(config, out, ranks)
    source: Any
    if args.media is None:
        told = ["corpus seed 0"]
        source = MixedSounds(ShapesCorpus(0, "train"), None, sample_rate=rate)
    else:
        media = MediaFolder.open(args.media, args.media_list)
        files = media.train_audio + media.train_video
        told = [str(path.relative_to(media.root)) for path in files]
        title = "reading sounds" if ranks.is_main else None
        recordings = sound_pool(files, sample_rate=rate, longest_s=config.recording_s, title=title)
        source = RealSounds(recordings, by_length=True, gain_db=config.gain_db)
        if ranks.is_main:
            hours = sum(sound.numel() for sound in recordings) / rate / 3600
            kept = len(media.measure_audio) + len(media.measure_video)
            print(f"{len(recordings)} recordings, {hours:.2f} h; {kept} files are kept out for measuring")
    told += [f"init {args.init}"] if args.init is not None else []
    same_data(out, told, ranks)
    model = train_soundstream(config, out, sound_source=source, compute=compute, start=start, ranks=ranks)
    if ranks.is_main:
        print(f"{model}: ready; its curves are in {out / 'curves.png'}")
    return 0


def _start(name: str, preset: str) -> Any:
    """A trained codec of a preset's sizes, alone or of a model."""
    import torch

    from mmtok.audio.soundstream import PRESETS, SoundStream
    from recipes.bundle.named import load_tokenizers

    found = load_tokenizers(name, torch.device("cpu")).audio
    if not isinstance(found, SoundStream):
        raise ValueError(f"{name} holds no SoundStream to go on from")
    if found.params != PRESETS[preset]:
        fits = [known for known, params in PRESETS.items() if params == found.params]
        advice = f"use preset={fits[0]}" if fits else "no preset has them"
        raise ValueError(f"{name} has other sizes than the preset {preset}; {advice}")
    return found
