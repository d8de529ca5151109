"""The paper's claim at laptop scale: does a tokenizer trained beside an autoregressive prior generate better?

Wang et al. 2024, arXiv 2410.21264, table 2, on corpus ``shapes``: tokenizers with and without the prior, the same
steps, the same seeds and the same first weights; on the codes of each the same generator is trained; then both are
compared with clips that nobody trained on. Fréchet distances are those of SqueezeNet features of frames and of frame
differences.

    python -m recipes.studies.larp_prior --squeezenet squeezenet_v1_0.npz --out runs/larp_prior
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from llm.larp_ar import LarpAR
from mmtok.features.squeezenet import SqueezeNet
from mmtok.files import write_atomically, write_tensors
from mmtok.media.image import write_png
from mmtok.metrics.codebook import codebook_use
from mmtok.metrics.frechet import frechet_distance
from mmtok.metrics.visual import psnr_db
from mmtok.visual.larp import Larp
from recipes.corpora.shapes import ShapesCorpus, render_video
from recipes.corpora.sources import WholeScenes
from recipes.figures.plots import Curve, plot_panels
from recipes.figures.sheets import film_strip
from recipes.runtime.config import CONFIGS, load_config, to_dict
from recipes.runtime.device import Compute, choose_compute
from recipes.runtime.memory import keep_freed_memory
from recipes.runtime.progress import track
from recipes.runtime.records import same_study
from recipes.tokens.larp_codes import SHAPES_CLASSES, LarpCodes, encode_clips, shapes_clips
from recipes.train.larp import LarpTrainConfig, larp_params, train_larp
from recipes.train.larp_ar import LarpARTrainConfig, train_larp_ar

VARIANTS = {"prior": True, "none": False}
MEASURED_FROM = 3_000_000  # first scene that no training draws
FEATURE_FRAMES = 2  # of each clip; the network takes 20 ms a picture on two cores
FIGURES = {
    "psnr_db": "reconstruction, dB (more is better)",
    "rfrechet_frames": "reconstruction, Fréchet of frames",
    "rfrechet_differences": "reconstruction, Fréchet of differences",
    "gfrechet_frames": "generation, Fréchet of frames",
    "gfrechet_differences": "generation, Fréchet of differences",
    "gap_frames": "generation against reconstructions, frames",
    "gap_differences": "generation against reconstructions, differences",
    "ar_loss": "generator, nats a code on unseen clips",
    "code_bits": "entropy of the codes, bits",
}


@dataclass(frozen=True)
class StudyConfig:
    """The study's numbers.

    Attributes:
        seeds: each trains everything anew.
        scenes: clips encoded for the generator.
        samples: clips generated, and unseen clips they are compared with.
        batch_size: clips a call when measuring.
        larp: the tokenizer's training; seed and prior are set by the study.
        ar: the generator's training; the seed is set by the study.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    scenes: int = 64
    samples: int = 16
    batch_size: int = 50
    larp: LarpTrainConfig = field(default_factory=LarpTrainConfig)
    ar: LarpARTrainConfig = field(default_factory=LarpARTrainConfig)


def features(network: SqueezeNet, video: Tensor) -> dict[str, Tensor]:
    """Vectors of some frames of each clip and of the differences behind them.

    Args:
        network: SqueezeNet.
        video: (b, 3, t, h, w) in [-1, 1].

    Returns:
        "frames" and "differences", each (b * FEATURE_FRAMES, d).
    """
    places = torch.linspace(0, video.shape[2] - 2, FEATURE_FRAMES).round().long()
    frames = video[:, :, places]
    chosen = {"frames": frames, "differences": (video[:, :, places + 1] - frames) / 2}
    return {name: network.features(pictures.transpose(1, 2).flatten(0, 1)) for name, pictures in chosen.items()}


@torch.inference_mode()
def real_features(config: StudyConfig, network: SqueezeNet, file: Path) -> dict[str, Tensor]:
    """Vectors of the clips that everything is compared with, computed once a study."""
    if file.exists():
        return load_file(file)
    params = larp_params(config.larp)
    corpus = ShapesCorpus(0, "train")
    kept: dict[str, list[Tensor]] = {}
    for start in track(range(0, config.samples, config.batch_size), title="unseen clips"):
        scenes = (corpus.scene(MEASURED_FROM + i) for i in range(start, min(start + config.batch_size, config.samples)))
        video = torch.stack([render_video(s, size=params.size, num_frames=params.num_frames) for s in scenes])
        for name, rows in features(network, video).items():
            kept.setdefault(name, []).append(rows)
    made = {name: torch.cat(parts) for name, parts in kept.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(made, file)
    return made


@torch.inference_mode()
def _measure(
    config: StudyConfig,
    tokenizer: Larp,
    generator: LarpAR,
    network: SqueezeNet,
    real: dict[str, Tensor],
    *,
    seed: int,
    compute: Compute,
) -> tuple[dict[str, float], Tensor]:
    """Figures of a tokenizer and its generator, whose classes are those of the clips they are compared with.

    The sheet (3, h, w) shows unseen clips, their reconstructions, and generated clips of their classes.
    """
    source = torch.Generator().manual_seed(seed)
    kept: dict[str, list[Tensor]] = {}
    errors: list[Tensor] = []
    ids: list[Tensor] = []
    shown: list[Tensor] = []
    clips = list(shapes_clips(tokenizer, first=MEASURED_FROM, count=config.samples))
    starts = range(0, config.samples, config.batch_size)
    for start in track(starts, title="measure"):
        part = clips[start : start + config.batch_size]
        video = torch.stack([clip for clip, _ in part])
        codes = tokenizer.encode(video.to(compute.device))
        again = tokenizer.decode(codes).cpu()
        labels = torch.tensor([SHAPES_CLASSES.index(name) for _, name in part], device=compute.device)
        made = tokenizer.decode(generator.generate(labels, temperature=1.0, generator=source)[:, None]).cpu()
        errors.append(psnr_db(again, video))
        ids.append(codes.flatten().cpu())
        for which, films in (("again", again), ("made", made)):
            for name, rows in features(network, films).items():
                kept.setdefault(f"{which}/{name}", []).append(rows)
        if not shown:
            shown = [video[:12], again[:12], made[:12]]
    vectors = {name: torch.cat(parts) for name, parts in kept.items()}
    used, bits = codebook_use(torch.cat(ids), tokenizer.codebook_size)
    figures = {"psnr_db": float(torch.cat(errors).mean()), "codes_used": used, "code_bits": bits}
    for short, which in (("r", "again"), ("g", "made")):
        for name in ("frames", "differences"):
            figures[f"{short}frechet_{name}"] = frechet_distance(real[name], vectors[f"{which}/{name}"])
    for name in real:  # what the generator adds to the tokenizer's own error
        figures[f"gap_{name}"] = frechet_distance(vectors[f"again/{name}"], vectors[f"made/{name}"])
    return figures, torch.cat([torch.cat([film_strip(clip, 4) for clip in v], -1) for v in shown], 1)


def run_one(
    config: StudyConfig,
    folder: Path,
    network: SqueezeNet,
    real: dict[str, Tensor],
    *,
    prior: bool,
    seed: int,
    compute: Compute,
) -> None:
    """Train and measure one tokenizer and its generator; what is finished is not repeated."""
    result = folder / "result.json"
    if result.exists():
        return
    larp_config = replace(config.larp, seed=seed, use_prior=prior)
    if not (folder / "larp" / "model" / "config.json").exists():
        source = WholeScenes(ShapesCorpus(0, "train"))
        train_larp(larp_config, folder / "larp", clip_source=source, compute=compute)
    tokenizer = Larp.from_pretrained(folder / "larp" / "model").to(compute.device)
    file = folder / "codes.safetensors"
    if not file.exists():
        clips = shapes_clips(tokenizer, first=0, count=config.scenes)
        data = encode_clips(
            tokenizer, clips, count=config.scenes, classes=SHAPES_CLASSES, given_frames=None, compute=compute
        )
        data.save(file)
    ar_config = replace(config.ar, seed=seed)
    if not (folder / "ar" / "model" / "config.json").exists():
        train_larp_ar(ar_config, folder / "ar", data=LarpCodes.load(file), compute=compute)
    generator = LarpAR.from_pretrained(folder / "ar" / "model").to(compute.device)
    figures, sheet = _measure(config, tokenizer, generator, network, real, seed=seed, compute=compute)
    rows = [json.loads(line) for line in (folder / "ar" / "log.jsonl").read_text().splitlines()]
    figures["ar_loss"] = [row["val/loss"] for row in rows if "val/loss" in row][-1]
    write_png(folder / "sheet.png", F.interpolate(sheet[None], scale_factor=2)[0])
    write_atomically(result, json.dumps({k: round(v, 4) for k, v in figures.items()}, indent=1) + "\n")


def _gather(config: StudyConfig, folder: Path) -> dict[str, Any]:
    """Results that are there: for each variant its seeds and, per figure, mean, deviation and each value."""
    out: dict[str, Any] = {
        "protocol": f"corpus shapes seed 0; {config.samples} generated clips of the classes of as many unseen ones, "
        f"{FEATURE_FRAMES} frames each, SqueezeNet v1.0; no guidance, temperature 1",
        "config": asdict(config),
    }
    for variant in VARIANTS:
        files = [folder / f"{variant}_{seed}" / "result.json" for seed in config.seeds]
        found = [json.loads(f.read_text()) for f in files if f.exists()]
        if not found:
            continue
        out[variant] = {"seeds": len(found)}
        for name in (*FIGURES, "codes_used"):
            values = torch.tensor([row[name] for row in found])
            spread = float(values.std()) if len(values) > 1 else 0.0
            out[variant][name] = {"mean": float(values.mean()), "std": spread, "each": values.tolist()}
    return out


def _plot(result: dict[str, Any], file: Path) -> None:
    """One panel a figure: every seed as a point, the mean as a line."""
    variants = [v for v in VARIANTS if v in result]
    panels: dict[str, list[Curve]] = {title: [] for title in FIGURES.values()}
    for name, title in FIGURES.items():
        for place, variant in enumerate(variants):
            told, colour = result[variant][name], {"color": f"C{place}"}
            panels[title] += [
                Curve([place] * len(told["each"]), told["each"], style={"marker": "o", "linestyle": "none"} | colour),
                Curve([place - 0.2, place + 0.2], [told["mean"]] * 2, style=colour),
            ]

    def finish(axis: Any) -> None:
        axis.set_xticks(range(len(variants)), ["prior" if v == "prior" else "no prior" for v in variants])
        axis.set_xlim(-0.6, len(variants) - 0.4)

    plot_panels(file, panels, size=(4, 3), finish=finish)


def main(argv: list[str] | None = None) -> int:
    """Run the study."""
    parser = argparse.ArgumentParser(prog="python -m recipes.studies.larp_prior", description=__doc__.splitlines()[0])
    parser.add_argument("changes", nargs="*", metavar="key=value", help="numbers that differ, such as larp.steps=500")
    default = CONFIGS / "larp_prior_study.yaml"
    parser.add_argument("--config", type=Path, default=default, metavar="F.yaml")
    parser.add_argument("--squeezenet", type=Path, required=True, metavar="F.npz", help="SqueezeNet v1.0")
    parser.add_argument("--out", type=Path, default=Path("runs/larp_prior"), metavar="FOLDER")
    parser.add_argument("--variant", choices=sorted(VARIANTS), help="only this one, to share the work")
    parser.add_argument("--device", default="auto")
    args = parser.parse_intermixed_args(argv)
    try:
        config = load_config(StudyConfig, args.config, args.changes)
        network = SqueezeNet.from_npz(args.squeezenet).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        compute = choose_compute(args.device)
        same_study(args.out, to_dict(config))
    except (ValueError, FileNotFoundError, RuntimeError) as fault:
        print(f"error: {str(fault).splitlines()[0]}", file=sys.stderr)
        return 2
    keep_freed_memory()
    real = real_features(config, network, args.out / "unseen.safetensors")
    for seed in config.seeds:
        for variant, prior in VARIANTS.items():
            if args.variant in (None, variant):
                folder = args.out / f"{variant}_{seed}"
                run_one(config, folder, network, real, prior=prior, seed=seed, compute=compute)
    result = _gather(config, args.out)
    write_atomically(args.out / "result.json", json.dumps(result, indent=1) + "\n")
    _plot(result, args.out / "study.png")
    for variant in VARIANTS:
        for name, values in result.get(variant, {}).items():
            if name != "seeds":
                print(f"{variant:6} {name:22} {values['mean']:9.3f} +- {values['std']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
