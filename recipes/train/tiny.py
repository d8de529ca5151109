"""Train a complete small model from nothing: ``cinepoet train tiny`` (and ``smoke``, the same program in under two
minutes).

Stages, each with its own run folder, curves and checkpoint: text, visual, a last polish of the visual decoder, audio,
then the corpus as tokens, then the language model and super-resolution, which read only tokens. With ``tokenizer:
larp`` a LARP tokenizer is trained besides, and the language model speaks its tokens; super-resolution stays with the
grid and re-encodes. With ``sound_tokenizer`` a finished codec takes the place of SoundStream. A finished stage is not
repeated and an interrupted one resumes, so the same command goes on after a kill. The last step gathers the parts into
one bundle.
"""

from __future__ import annotations

import functools
import json
import os
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import mmtok
from llm.model import PrefixLM
from llm.tasks import TASKS, find_task
from mmtok.audio.frozen_codec import FrozenCodec
from mmtok.audio.soundstream import SoundStream
from mmtok.files import write_atomically
from mmtok.table import FAMILIES
from mmtok.visual.holistic import as_grid
from mmtok.visual.larp import Larp
from mmtok.visual.magvit2 import Magvit2
from recipes.bundle.config import BundleConfig
from recipes.bundle.folder import PARTS, Bundle, write_bundle
from recipes.corpora.folder import MediaFolder, clip_pool, sound_pool
from recipes.corpora.shapes import ShapesCorpus
from recipes.corpora.sources import MixedClips, MixedSounds, WholeScenes
from recipes.corpora.wording import shapes_captions, shapes_labelled
from recipes.runtime.config import to_dict
from recipes.runtime.device import Compute
from recipes.runtime.distributed import ALONE, Ranks
from recipes.runtime.records import begun, other_numbers, same_data
from recipes.tokens.cache import TokenSet
from recipes.tokens.caption_vectors import CaptionVectors
from recipes.tokens.identity import weights_hash
from recipes.tokens.lm_batches import cached_data
from recipes.tokens.shapes import EncodeConfig, encode_shapes
from recipes.tokens.superres_pairs import CachedPairs
from recipes.train.larp import LarpTrainConfig, larp_params, train_larp
from recipes.train.lm import LMTrainConfig, train_lm
from recipes.train.magvit2 import Magvit2TrainConfig, train_magvit2
from recipes.train.magvit2_decoder import DecoderTrainConfig, train_decoder
from recipes.train.soundstream import SoundStreamTrainConfig, sample_rate_of, train_soundstream
from recipes.train.superres import SuperResTrainConfig, train_superres
from recipes.train.t5 import T5TrainConfig, train_t5
from superres.model import SuperResTransformer

# Types on disk. Tokenizers must give the codes that the rest was trained on, so they keep float16, which rounds weights
# of this size eight times finer than bfloat16 (T5 overflows in it). The others stand one byte a weight.
STORED_AS = {
    "visual": torch.float16,
    "superres_visual": torch.float16,
    "audio": torch.float16,
    "text": torch.bfloat16,
    "lm": torch.int8,
    "superres": torch.int8,
}
TOKENIZERS = ("text", "visual", "audio")
TOKENIZER_STAGES = ("text", "visual", "decoder", "audio")
SHARED_STAGES = ("visual", "decoder", "audio", "larp")  # several processes can train these together
STAGES = ("text", "visual", "decoder", "audio", "larp", "tokens", "lm", "tasks", "superres", "bundle")
SPOKEN = ("magvit2", "larp")
# Numbers of a language model's run that a run which goes on cannot change.
SHAPING = ("size", "visual_codes", "audio_codes", "visual_factors", "audio_order", "text_slots")


@dataclass(frozen=True)
class TinyConfig:
    """The whole line's numbers.

    Attributes:
        tokenizer: whose tokens the language model speaks: "magvit2", a grid, or "larp", tokens about the whole clip.
        sound_tokenizer: folder or hub id of an EnCodec, DAC, Mimi or SoundStream, taken as it is, or None to train one.
        sound_levels: how many of its levels; None takes those recorded with it, or all.
        seed: of the corpus; each stage has its own besides.
        media_listing: CSV that says which files of ``--media`` train and which are kept out, or None for the default
            rule.
        real_share: share of the tokenizers' batches taken from ``--media``.
        scenes_pool: scenes kept rendered for the tokenizers.
        text: text encoder pretraining.
        visual: visual tokenizer training.
        decoder: the visual decoder's last steps behind codes that do not move.
        audio: sound tokenizer training, where one is trained.
        larp: LARP's training, where it is spoken.
        lm_tokens: scenes encoded for the language model.
        superres_tokens: scenes encoded for super-resolution.
        lm: language model training; ``audio_codes`` follows ``sound_tokenizer``.
        tasks: the language model goes on from there with these numbers, as in task adaptation; None leaves it. What
            shapes the model (``SHAPING``) is taken from ``lm``.
        superres: super-resolution training.
        bundle: geometry and sampling defaults.
    """

    bundle: BundleConfig
    tokenizer: str = "magvit2"
    sound_tokenizer: str | None = None
    sound_levels: int | None = None
    seed: int = 0
    media_listing: str | None = None
    real_share: float = 0.4
    scenes_pool: int = 192
    text: T5TrainConfig = field(default_factory=T5TrainConfig)
    visual: Magvit2TrainConfig = field(default_factory=Magvit2TrainConfig)
    decoder: DecoderTrainConfig = field(default_factory=DecoderTrainConfig)
    audio: SoundStreamTrainConfig = field(default_factory=SoundStreamTrainConfig)
    larp: LarpTrainConfig = field(default_factory=LarpTrainConfig)
    lm_tokens: EncodeConfig = field(default_factory=EncodeConfig)
    superres_tokens: EncodeConfig = field(default_factory=lambda: EncodeConfig(upscale=True))
    lm: LMTrainConfig = field(default_factory=LMTrainConfig)
    tasks: LMTrainConfig | None = None
    superres: SuperResTrainConfig = field(default_factory=SuperResTrainConfig)

    def __post_init__(self) -> None:
        if self.sound_levels is not None and self.sound_tokenizer is None:
            raise ValueError("sound_levels is a choice for sound_tokenizer; name one")
        if self.tokenizer not in SPOKEN:
            raise ValueError(f"unknown tokenizer {self.tokenizer!r}; known: {', '.join(SPOKEN)}")
        if self.tokenizer == "larp":
            larp = larp_params(self.larp)
            fits = (larp.size, larp.fps) == (self.bundle.size, self.bundle.fps)
            if not fits or larp.num_frames > self.bundle.num_frames:
                raise ValueError(
                    f"larp makes {larp.num_frames} frames of {larp.size} pixels at {larp.fps:g} fps; the bundle wants "
                    f"{self.bundle.num_frames} of {self.bundle.size} at {self.bundle.fps:g}"
                )
        for name in ("lm_tokens", "superres_tokens"):
            encode = getattr(self, name)
            wanted = {"size": self.bundle.size, "num_frames": self.bundle.num_frames, "seed": self.seed}
            for own, theirs in wanted.items():
                if (its := getattr(encode, own)) != theirs:
                    where = "" if own == "seed" else "bundle."
                    raise ValueError(f"{name}.{own} is {its}, but {where}{own} is {theirs}")
        if not self.superres_tokens.upscale:
            raise ValueError("superres_tokens.upscale must be true: super-resolution learns from both sizes")
        if self.bundle.upscaled_size != 2 * self.bundle.size:
            raise ValueError(
                f"bundle.upscaled_size is {self.bundle.upscaled_size}, super-resolution makes {2 * self.bundle.size}"
            )


def plan_stages(
    config: TinyConfig, stages: tuple[str, ...] | None, tokenizers: Bundle | None, ranks: Ranks
) -> tuple[str, ...]:
    """Which stages a run goes through.

    Args:
        config: the numbers.
        stages: those that are asked for, None for all.
        tokenizers: a finished model that stands in for those that are not asked for.
        ranks: this process among others.

    Returns:
        Stages that ``config`` has, finished ones included.

    Raises:
        ValueError: for an unknown stage, or one that several processes cannot share.
    """
    if stages is None:
        left = {*TOKENIZER_STAGES} if config.tokenizer == "magvit2" else {*TOKENIZER_STAGES, "superres"}
        left -= {"audio"} if config.sound_tokenizer is not None else set()
        stages = STAGES if tokenizers is None else tuple(s for s in STAGES if s not in left)
    if unknown := sorted(set(stages) - set(STAGES)):
        raise ValueError(f"unknown stages {', '.join(unknown)}; known: {', '.join(STAGES)}")
    wanted = {"larp": config.tokenizer == "larp", "tasks": config.tasks is not None}
    stages = tuple(s for s in stages if wanted.get(s, True))
    if ranks.world > 1 and (single := [s for s in STAGES if s in stages and s not in SHARED_STAGES]):
        raise ValueError(
            f"{', '.join(single)} train in one process; name in --stages what {ranks.world} share: "
            f"{', '.join(SHARED_STAGES)}"
        )
    return stages


def train_tiny(
    config: TinyConfig,
    folder: Path,
    *,
    compute: Compute,
    media: MediaFolder | None = None,
    stages: tuple[str, ...] | None = None,
    name: str = "tiny",
    tokenizers: Bundle | None = None,
    command: str = "",
    ranks: Ranks = ALONE,
) -> Path:
    """Run the stages that are not finished yet.

    Args:
        config: the numbers.
        folder: one folder a stage lies in it.
        compute: device and precision.
        media: real clips and sounds for the tokenizers, or None.
        stages: which stages to run, in the order of ``STAGES``; None runs all that ``tokenizers`` leaves.
        name: of the model, for its card.
        tokenizers: a finished model whose text encoder, visual and sound tokenizers are taken where ``stages`` does not
            name them.
        command: what was typed, for the model's card.
        ranks: this process among those that train together; ``SHARED_STAGES`` can.

    Returns:
        The bundle's folder.

    Raises:
        ValueError: as in ``plan_stages``, or for a stage that was trained with other numbers.
        FileNotFoundError: if a stage that another one needs has not been run.
    """
    stages = plan_stages(config, stages, tokenizers, ranks)
    taken = _taken(config, stages) if tokenizers is not None else ()
    say = print if ranks.is_main else (lambda line: None)
    say(f"training on {compute.reason}")
    started = time.monotonic()
    line = _Line(config, folder, compute, media, ranks, sharp="superres" in stages or "superres" not in taken)
    for stage in STAGES:
        if tokenizers is not None and stage in taken and stage not in stages:
            if stage not in TOKENIZERS and (folder / stage / "config.json").exists():
                say(f"{stage}: there before, kept")
                continue
            _take(tokenizers, stage, folder)
            say(f"{stage}: taken from {tokenizers.folder.name}")
            continue
        if stage not in stages:
            continue
        if _finished(folder, stage):
            same_numbers(config, folder, (stage,))
            say(f"{stage}: finished before, kept")
            continue
        if stage == "bundle":
            _bundle(line, name=name, tokenizers=tokenizers, command=command)
        else:
            getattr(line, stage)()
        ranks.wait()
    where = folder / "bundle" if "bundle" in stages else folder
    say(f"done in {(time.monotonic() - started) / 60:.1f} min: {where}")
    return folder / "bundle"


def _taken(config: TinyConfig, stages: tuple[str, ...]) -> tuple[str, ...]:
    """Parts of a finished model that stand in for stages; super-resolution does not ask whose tokens are spoken."""
    taken: tuple[str, ...] = TOKENIZERS if config.tokenizer == "magvit2" else (*TOKENIZERS, "superres")
    taken = tuple(s for s in taken if s != "audio" or config.sound_tokenizer is None)
    taken += ("lm",) if "tasks" in stages and "lm" not in stages else ()
    return taken + (("superres",) if "bundle" in stages and "superres" not in (*taken, *stages) else ())


def _finished(folder: Path, stage: str) -> bool:
    """Whether a stage has left its model."""
    return stage not in ("tokens", "bundle") and (folder / stage / "model" / "config.json").exists()


def same_numbers(config: TinyConfig, folder: Path, stages: tuple[str, ...]) -> None:
    """Refuse numbers other than those that stages were trained with, finished or not.

    Args:
        config: the numbers.
        folder: of the run.
        stages: which to look at.

    Raises:
        ValueError: if one was trained with others, or with such that have other names now.
    """
    for stage in (s for s in stages if _finished(folder, s) or begun(folder / s)):
        there = json.loads((folder / stage / "config.json").read_text())
        if there != _numbers(config, folder, stage):
            raise ValueError(
                f"{folder / stage} was trained with {other_numbers(there)}; delete it or use another --out"
            )


@dataclass(frozen=True)
class _Line:
    """The stages, each a method of its own name; ``sharp`` says whether super-resolution gets tokens."""

    config: TinyConfig
    folder: Path
    compute: Compute
    media: MediaFolder | None
    ranks: Ranks
    sharp: bool

    @functools.cached_property
    def corpus(self) -> ShapesCorpus:
        return ShapesCorpus(self.config.seed, "train")

    def text(self) -> None:
        unseen = ShapesCorpus(self.config.seed, "heldout")
        size = self.config.text.probe_size
        probe = (shapes_labelled(self.corpus, size), shapes_labelled(unseen, size))
        captions = shapes_captions(self.corpus)
        train_t5(self.config.text, self.folder / "text", captions=captions, compute=self.compute, probe=probe)

    def visual(self) -> None:
        config, folder = self.config.visual, self._same_data("visual")
        train_magvit2(config, folder, clip_source=self._clips(), compute=self.compute, ranks=self.ranks)

    def decoder(self) -> None:
        train_decoder(
            self.config.decoder,
            self._same_data("decoder"),
            tokenizer=self.folder / "visual" / "model",
            clip_source=self._clips(),
            compute=self.compute,
            ranks=self.ranks,
        )

    def _clips(self) -> MixedClips:
        config, media = self.config, self.media
        large = 2 * config.bundle.size
        real = clip_pool(media.train_video, size=large + 16, num_frames=config.bundle.num_frames) if media else None
        return MixedClips(self.corpus, real, real_share=config.real_share, large=large, pool=config.scenes_pool)

    def _same_data(self, stage: str) -> Path:
        """The stage's folder; refused with a stopped run on other data: its curve would have a hidden step."""
        config, media = self.config, self.media
        files = [] if media is None else [p.relative_to(media.root) for p in media.train]
        share = config.real_share if media is not None else 0.0
        told = [f"corpus seed {config.seed}", f"scenes_pool {config.scenes_pool}", f"real_share {share}"]
        same_data(self.folder / stage, [*told, *map(str, files)], self.ranks)
        return self.folder / stage

    def audio(self) -> None:
        config, media, ranks = self.config, self.media, self.ranks
        if config.sound_tokenizer is not None:
            codec = mmtok.load(config.sound_tokenizer, num_codebooks=config.sound_levels)
            if not isinstance(codec, (FrozenCodec, SoundStream)):
                raise ValueError(f"sound_tokenizer {config.sound_tokenizer} is not a sound tokenizer")
            if ranks.is_main:
                folder = self.folder / "audio"
                codec.save_pretrained(folder / "model")
                write_atomically(folder / "config.json", json.dumps(_numbers(config, self.folder, "audio")) + "\n")
                print(f"audio: {type(codec).__name__}, {codec.num_codebooks} levels, {codec.bitrate_kbps:g} kbit/s")
            return
        rate = sample_rate_of(config.audio)
        files = () if media is None else media.train_audio + media.train_video
        source = MixedSounds(
            self.corpus,
            sound_pool(files, sample_rate=rate, longest_s=config.audio.recording_s),
            real_share=config.real_share,
            pool=4 * config.scenes_pool,
            sample_rate=rate,
            gain_db=config.audio.gain_db,
        )
        folder = self._same_data("audio")
        train_soundstream(config.audio, folder, sound_source=source, compute=self.compute, ranks=ranks)

    def larp(self) -> None:
        scenes = WholeScenes(self.corpus)
        train_larp(self.config.larp, self.folder / "larp", clip_source=scenes, compute=self.compute, ranks=self.ranks)

    def _stored(self, part: str) -> Any:
        """A trained tokenizer with the rounding that it gets in the bundle, so that its codes are those users get."""
        tokenizer = mmtok.load(self.folder / part / "model", device=self.compute.device)
        stored = _stored_as(tokenizer, part)
        return tokenizer if stored is None else tokenizer.to(stored).float()

    def _spoken(self) -> Any:
        """The visual tokenizer that the language model speaks."""
        config, part = self.config, "larp" if self.config.tokenizer == "larp" else "visual"
        return as_grid(self._stored(part), (_num_frames(config), config.bundle.size, config.bundle.size))

    def tokens(self) -> None:
        config, audio = self.config, self._stored("audio")
        spoken = config.lm_tokens if config.tokenizer == "magvit2" else replace(config.lm_tokens, conditions=())
        wanted = {"lm_tokens": (spoken, self._spoken())}
        if self.sharp:
            wanted["superres_tokens"] = (config.superres_tokens, self._stored("visual"))
        for name, (encode, visual) in wanted.items():
            tokens = encode_shapes(encode, self.folder / name, visual=visual, audio=audio, compute=self.compute)
            print(f"{name}: {len(tokens)} clips, {tuple(tokens.low.shape[1:])} tokens each")

    def lm(self, stage: str = "lm") -> None:
        folder, visual, audio = self.folder, self._spoken(), self._stored("audio")
        lm, text_encoder = _lm_config(self.config, folder, stage), mmtok.load(folder / "text" / "model")
        data = cached_data(TokenSet.load(folder / "lm_tokens"), validation_rows=lm.validation_rows)
        train_lm(
            lm,
            folder / stage,
            data=data,
            captions=CaptionVectors(data.captions, text_encoder, slots=lm.text_slots),
            text_dim=text_encoder.dim,
            compute=self.compute,
            code_vectors=(visual.code_vectors(), audio.code_vectors()),
            start=partial(PrefixLM.from_pretrained, folder / "lm" / "model") if stage == "tasks" else None,
            ranks=self.ranks,
        )

    def tasks(self) -> None:
        self.lm("tasks")

    def superres(self) -> None:
        folder, sr = self.folder, self.config.superres
        text_encoder, tokens = mmtok.load(folder / "text" / "model"), TokenSet.load(folder / "superres_tokens")
        cached = CachedPairs(tokens, validation_rows=sr.validation_rows, codebook_size=sr.visual_codes)
        train_superres(
            sr,
            folder / "superres",
            groups=[cached],
            captions=CaptionVectors(cached.captions(), text_encoder, slots=sr.text_slots),
            text_dim=text_encoder.dim,
            compute=self.compute,
        )


def _numbers(config: TinyConfig, folder: Path, stage: str) -> dict[str, Any]:
    """What a stage's config.json says."""
    if stage == "audio" and config.sound_tokenizer is not None:
        return {"sound_tokenizer": config.sound_tokenizer, "sound_levels": config.sound_levels}
    return to_dict(_lm_config(config, folder, stage) if stage in ("lm", "tasks") else getattr(config, stage))


def _stored_as(model: Any, part: str) -> torch.dtype | None:
    """Type on disk; published codecs stay as they are, so that their codes are the published ones."""
    return None if isinstance(model, FrozenCodec) else STORED_AS.get(part, torch.float16)


def _num_frames(config: TinyConfig) -> int:
    """Pictures of a clip: the wanted ones, or the most that LARP's patches cover."""
    return larp_params(config.larp).num_frames if config.tokenizer == "larp" else config.bundle.num_frames


def _lm_config(config: TinyConfig, folder: Path, stage: str) -> LMTrainConfig:
    """The language model's numbers, with the sizes of a codec's codebooks where there is one.

    The tasks that need slices of a clip, or films drawn for them, are left out where the tokens have none.
    """
    lm, sound = config.lm, folder / "audio" / "model" / "config.json"
    if stage == "tasks" and config.tasks is not None:
        lm = replace(config.tasks, **{name: getattr(lm, name) for name in SHAPING})
    if sound.is_file() and "codebook_size" in (values := json.loads(sound.read_text())):  # of transformers
        lm = replace(lm, audio_codes=values["codebook_size"])
    if config.tokenizer != "larp":
        return lm
    tasks = {name: find_task(name) for name in lm.task_weights}
    kept = {name: w for name, w in lm.task_weights.items() if not (tasks[name].cuts or tasks[name].condition)}
    codes = larp_params(config.larp).codebook_size
    return replace(lm, task_weights=kept, image_share=None, first_slice_weight=1.0, visual_codes=codes)


def _take(bundle: Bundle, part: str, folder: Path) -> None:
    """Put a finished model's part where its stage would have left it, with the numbers it was trained with."""
    if not bundle.has(part):
        raise ValueError(f"{bundle.folder} has no {part} part to take")
    _load_part(bundle.part(part), part).save_pretrained(folder / part / "model")
    numbers = {part: {}} | bundle.card.get("training", {})
    for stage in (part, "decoder") if part == "visual" and "decoder" in numbers else (part,):
        (folder / stage).mkdir(exist_ok=True)
        write_atomically(folder / stage / "config.json", json.dumps(numbers[stage], indent=1) + "\n")


def _load_part(folder: Path, part: str) -> Any:
    """A saved part; tokenizers are of any family."""
    transformers: dict[str, Any] = {"lm": PrefixLM, "superres": SuperResTransformer}
    return transformers[part].from_pretrained(folder) if part in transformers else mmtok.load(folder)


def _trained(config: TinyConfig, folder: Path, part: str) -> Any:
    """A part as its last stage left it."""
    if part == "lm" and config.tasks is not None:
        return _load_part(folder / "tasks" / "model", part)
    model = _load_part(folder / part / "model", part)
    finished = folder / "decoder" / "model"
    if part != "visual" or not finished.exists():
        return model
    polished = Magvit2.from_pretrained(finished)
    if weights_hash(polished.encoder) != weights_hash(model.encoder):
        raise ValueError(
            f"{folder / 'decoder'} belongs to another visual tokenizer; delete it, or run the decoder stage again"
        )
    return polished


def _minutes(folder: Path, part: str) -> float | None:
    """Time that a stage's loop ran, over all its sittings."""
    log = folder / part / "log.jsonl"
    last = log.read_text().splitlines()[-1:] if log.exists() else []
    return round(json.loads(last[0])["perf/seconds"] / 60, 1) if last else None


def _bundle(line: _Line, *, name: str, tokenizers: Bundle | None, command: str) -> None:
    """Copy the parts, rounded as they are stored, beside cinepoet.json; the card says how each stage was really run."""
    config, folder, media = line.config, line.folder, line.media
    licence = "Apache-2.0"
    for part in PARTS:
        place = "superres_visual" if part == "visual" and config.tokenizer == "larp" else part
        model = _trained(config, folder, part)
        model.save_pretrained(folder / "bundle" / place, dtype=_stored_as(model, place))
        if isinstance(model, FrozenCodec):
            licence += f", its sound tokenizer {model.family} as it was published ({FAMILIES[model.family].weights})"
    if config.tokenizer == "larp":
        spoken = Larp.from_pretrained(folder / "larp" / "model").without_prior()
        spoken.save_pretrained(folder / "bundle" / "visual", dtype=STORED_AS["visual"])
    device = line.compute.device
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    trained = [s for s in STAGES if s not in ("tokens", "bundle") and (s != "tasks" or config.tasks is not None)]
    stages = [s for s in trained if (folder / s / "config.json").exists()]
    card: dict[str, Any] = {
        "name": name,
        "licence": licence,
        "data": "corpus shapes (made up)" + (f", {len(media.train)} media files" if media else ""),
        "command": command,
        "machine": f"{machine}, torch {torch.__version__}",
        "seed": config.seed,
        "minutes": {s: m for s in stages if (m := _minutes(folder, s)) is not None},
        "training": {s: json.loads((folder / s / "config.json").read_text()) for s in stages},
    }
    if tokenizers is not None:  # they were not trained here
        theirs = tokenizers.card
        card["data"] = theirs.get("data", f"that of {tokenizers.folder.name}")
        card["command"] = f"{theirs.get('command', 'not recorded')}; then {command}"
        of_theirs = (*TOKENIZER_STAGES, "lm", "superres")
        taken = {part: m for part, m in theirs.get("minutes", {}).items() if part in of_theirs}
        card["minutes"] = taken | card["minutes"]
        if "tasks" in stages and not (folder / "lm" / "log.jsonl").exists():  # their language model goes on
            last = {
                key: {"tasks": theirs[key]["tasks"]}
                for key in ("training", "minutes")
                if "tasks" in theirs.get(key, {})
            }
            card["command"] += " --stages tokens,tasks,bundle"
            card["adapted_before"] = [*theirs.get("adapted_before", []), *([last] if last else [])]
    weights = card["training"]["tasks" if "tasks" in stages else "lm"]["task_weights"]
    tasks = tuple(name for name in TASKS if weights.get(name, 0) > 0)  # what the language model was trained on
    write_bundle(folder / "bundle", replace(config.bundle, num_frames=_num_frames(config), tasks=tasks), card)
