"""Corpus ``shapes`` to tokens, once, so that the language model and super-resolution train without touching pixels.

Work is done in shards with fixed contents, each written under a temporary name and renamed; a run that was stopped
continues with the first missing shard. The low-resolution clip is the bicubic, anti-aliased half of the high-
resolution one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmtok.conditions.commit_masks import PAINTINGS
from mmtok.files import write_atomically, write_tensors
from mmtok.media.resize import half_size
from recipes.corpora.shapes import Scene, ShapesCorpus, render_audio, render_video
from recipes.runtime.device import Compute
from recipes.runtime.progress import track
from recipes.tokens.cache import CONDITION, TokenSet
from recipes.tokens.conditions import condition_of
from recipes.tokens.identity import weights_hash
from recipes.tokens.plan import STRUCTURE


@dataclass(frozen=True)
class EncodeConfig:
    """What is encoded.

    Attributes:
        seed: of the corpus.
        split: "train", "heldout" or "all".
        scenes: how many.
        first: index of the first scene.
        size: side of the pictures the language model speaks, pixels.
        upscale: True also encodes the clip at twice the size, for super-resolution.
        num_frames: pictures a clip; a tokenizer that does not take that many gets the most that it takes.
        conditions: names of conditions that are encoded too: "structure" (flow and depth), COMMIT masks of
            ``mmtok.conditions.commit_masks``, or "inpaint" and "outpaint" for one of their masks drawn for each scene.
        shard: scenes a shard.
        batch_size: scenes a call of the tokenizers.
    """

    seed: int = 0
    split: str = "train"
    scenes: int = 64
    first: int = 0
    size: int = 64
    upscale: bool = False
    num_frames: int = 17
    conditions: tuple[str, ...] = ()
    shard: int = 512
    batch_size: int = 16

    def __post_init__(self) -> None:
        known = (STRUCTURE, *PAINTINGS, *(name for names in PAINTINGS.values() for name in names))
        if unknown := sorted(set(self.conditions) - set(known)):
            raise ValueError(f"unknown conditions {', '.join(unknown)}; known: {', '.join(known)}")


def encode_shapes(config: EncodeConfig, folder: Path, *, visual: Any, audio: Any, compute: Compute) -> TokenSet:
    """Encode scenes of the corpus and save them as a ``TokenSet``.

    Args:
        config: what is encoded.
        folder: receives shards and then tokens.safetensors with captions.json.
        visual: a ``VisualTokenizer``.
        audio: an ``AudioTokenizer``.
        compute: device and precision; codes come from float32 so that they equal what users get.

    Returns:
        The set, in the order of the scenes.

    Raises:
        ValueError: if the folder holds tokens of another corpus or of other tokenizers.
    """
    identity = f"{config}\nvisual {weights_hash(visual)}\naudio {weights_hash(audio)}\n"
    made_from = folder / "made_from.txt"
    if made_from.exists() and made_from.read_text() != identity:
        raise ValueError(
            f"{folder} holds tokens of another corpus or of other tokenizers; delete it or use another --out"
        )
    write_atomically(made_from, identity)
    if (folder / "captions.json").exists():
        return TokenSet.load(folder)
    shards = folder / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    corpus = ShapesCorpus(config.seed, config.split)
    indices = list(range(config.first, config.first + config.scenes))
    pieces = [indices[i : i + config.shard] for i in range(0, len(indices), config.shard)]
    for number, piece in enumerate(track(pieces, title=f"tokens {folder.name}")):
        file = shards / f"{number:05d}.safetensors"
        if file.exists():
            continue
        rows: list[dict[str, Tensor]] = []
        for start in range(0, len(piece), config.batch_size):
            numbers = piece[start : start + config.batch_size]
            scenes = [corpus.scene(i) for i in numbers]
            rows.append(_encode(scenes, numbers, config, visual, audio, compute))
        write_tensors({k: torch.cat([r[k] for r in rows]).contiguous() for k in rows[0]}, file)
    parts = [load_file(shards / f"{number:05d}.safetensors") for number in range(len(pieces))]
    joined = {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
    tokens = TokenSet(
        low=joined["low"],
        high=joined.get("high"),
        audio=joined["audio"],
        captions=[corpus.scene(i).caption for i in indices],
        conditions={name: joined[CONDITION + name] for name in config.conditions},
    )
    tokens.save(folder)
    for file in shards.iterdir():
        file.unlink()
    shards.rmdir()
    return tokens


def _encode(
    scenes: list[Scene], numbers: list[int], config: EncodeConfig, visual: Any, audio: Any, compute: Compute
) -> dict[str, Tensor]:
    num_frames = visual.valid_num_frames(config.num_frames)
    clips = torch.stack([render_video(s, size=2 * config.size, num_frames=num_frames) for s in scenes])
    num_samples = round(num_frames / visual.fps * audio.sample_rate)
    sounds = torch.stack([render_audio(s, num_samples=num_samples, sample_rate=audio.sample_rate) for s in scenes])
    clips = clips.to(compute.device)
    small = half_size(clips)
    out = {
        "low": visual.encode(small)[:, 0].int().cpu(),
        "audio": audio.encode(sounds.to(compute.device)).int().cpu(),
    }
    for name in config.conditions:
        seen = condition_of(name, small.cpu(), stride=visual.stride, numbers=numbers).to(compute.device)
        out[CONDITION + name] = visual.encode(seen)[:, 0].int().cpu()
    if config.upscale:
        out["high"] = visual.encode(clips)[:, 0].int().cpu()
    return out
