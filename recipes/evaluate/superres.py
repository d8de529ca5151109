"""Is super-resolution worth its time? Beside bicubic and Lanczos, the ceiling of its tokenizer, and the original.

Clips of the larger size are shrunk (bicubic, antialiased) to the language model's; every method enlarges those again.
The ceiling decodes the original's own tokens: no choice of tokens does better on average. Films of several windows tell
whether their joints are seen, and analyzers whether the shapes still do what their captions say.

Shape letters: b clips, t h w time/height/width.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from llm.sampling import Generators, film_generators
from mmtok.files import write_atomically
from mmtok.media.image import to_bytes, to_signed
from mmtok.media.resize import resized
from mmtok.metrics.frechet import Gaussian, gaussian_distance
from mmtok.metrics.visual import gradient_energy, psnr_db, seam_ratio
from recipes.corpora.shapes import Scene
from recipes.evaluate.analyzers import judge
from recipes.evaluate.backbones import Backbones, clip_features, frechet_protocol, lpips_of_frames
from recipes.evaluate.held_out import Material
from recipes.figures.comparison import write_comparison
from recipes.figures.plots import plot_steps
from recipes.pipeline.cinepoet import CinePoetPipeline
from recipes.runtime.progress import track
from superres.passes import Pass, describe_passes

Figures = dict[str, float | None]

METHODS = ("bicubic", "lanczos", "bicubic_of_tokens", "ours", "ceiling")
STARTS = ("bicubic", "bicubic_of_tokens")  # from which the way to the ceiling is measured
SHOWN = ("bicubic", "ours", "ceiling", "original")  # columns of the sheet
ROWS_SHOWN = 4  # of each set
ATTRIBUTES = ("colour", "shape", "motion")

PROTOCOL = {
    "psnr_db": "of each clip's mean squared error on [-1, 1] (peak 2), mean over clips",
    "sharpness": "gradient energy (squared differences to the right and lower neighbour) over the originals'",
    "methods": "bicubic and lanczos enlarge the shrunk clip itself, bicubic_of_tokens what its tokens decode to; ours "
    "samples from those tokens; ceiling decodes the tokens of the original",
    "closed_share_percent": "(start - ours) / (start - ceiling) from each bicubic; null where the ceiling is no better",
    "text_following_percent": "scenes whose attribute the analyzers read right; before: what the small tokens show",
    "seams": "mean absolute change over joints (of windows along time; of tiles along rows and columns) over that "
    "elsewhere, mean over films; 1 is none; compare with the original's own ratio at the same places",
}


def lanczos(video: Tensor, size: tuple[int, int]) -> Tensor:
    """Lanczos with three lobes (Pillow's), picture by picture.

    Args:
        video: (b, 3, t, h, w) in [-1, 1]; it goes through 8 bits.
        size: (h, w) wanted.

    Returns:
        (b, 3, t, *size) in [-1, 1].
    """
    b = len(video)
    pictures = to_bytes(video.transpose(1, 2).flatten(0, 1)).permute(0, 2, 3, 1).contiguous().numpy()
    large = [Image.fromarray(p).resize((size[1], size[0]), Image.Resampling.LANCZOS) for p in pictures]
    pixels = torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8) for p in large])
    frames = to_signed(pixels.view(-1, *size, 3).permute(0, 3, 1, 2))
    return frames.unflatten(0, (b, -1)).transpose(1, 2).contiguous()


class _Tally:
    """Figures of one method over all clips, in memory that does not grow with them."""

    def __init__(self, backbones: Backbones):
        self.backbones = backbones
        self.psnr_db: list[float] = []
        self.lpips: list[float] = []
        self.energy = 0.0
        self.gaussians: dict[str, Gaussian] = {}

    def add(self, made: Tensor, original: Tensor) -> None:
        self.psnr_db += psnr_db(made, original).tolist()
        self.lpips += lpips_of_frames(self.backbones, made, original)
        self.energy += float(gradient_energy(made).sum())
        for name, vectors in clip_features(self.backbones, made).items():
            self.gaussians.setdefault(name, Gaussian(vectors.shape[1])).update(vectors)

    def figures(self, original: _Tally) -> Figures:
        out = {"psnr_db": _figure(_mean(self.psnr_db), 3)}
        if self.lpips:
            out["lpips"] = _figure(_mean(self.lpips), 4)
        out["sharpness"] = _figure(self.energy / original.energy if original.energy else math.nan, 4)
        for name, gaussian in self.gaussians.items():
            other = original.gaussians[name]
            out[name] = _figure(gaussian_distance(gaussian, other), 4) if gaussian.count > 1 else None
        return out


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _figure(value: float, digits: int) -> float | None:
    """A number as JSON knows it: None for what cannot be told."""
    return round(value, digits) if math.isfinite(value) else None


def _closed(figures: dict[str, Figures], ours: Figures) -> dict[str, Figures]:
    """Share of the way from each kind of bicubic to the ceiling, in per cent; None where the ceiling is no better."""
    out: dict[str, Figures] = {start: {} for start in STARTS}
    for start, shares in out.items():
        for name, value in ours.items():
            if name.startswith(("frechet", "rfvd", "lpips")):
                low, high = figures[start][name], figures["ceiling"][name]
                told = value is not None and low is not None and high is not None and low > high
                shares[name] = round(100 * (low - value) / (low - high), 1) if told else None  # type: ignore[operator]
    return out


@torch.inference_mode()
def evaluate_superres(
    pipe: CinePoetPipeline,
    sets: dict[str, Material],
    *,
    films: dict[str, Material] | None = None,
    steps: tuple[int, ...] = (),
    to: int | None = None,
    changes: dict[str, Any] | None = None,
    seed: int = 0,
    batch_size: int = 4,
    backbones: Backbones | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Measure super-resolution of a bundle.

    Args:
        pipe: the model.
        sets: name to clips of ``num_frames`` at most, which every method enlarges.
        films: name to longer ones, for seams.
        steps: numbers of decoding steps to compare, for a curve; none for the model's own alone.
        to: side of the clips, pixels; None is the bundle's upscaled size.
        changes: fields of ``superres.sample.Decoding`` that differ from the bundle's.
        seed: of sampling.
        batch_size: clips a call.
        backbones: networks for Fréchet distances and LPIPS.
        folder: receives superres.json, superres.png (a sheet) and, with ``steps``, superres_steps.png; or None.

    Returns:
        Figures with their protocol.

    Raises:
        ValueError: if there is nothing to measure, or clips are not of the size that is made.
    """
    if not sets or any(not len(material.clips) for material in sets.values()):
        raise ValueError("there are no clips to measure")
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    backbones = backbones or Backbones()
    base = pipe.config.size
    passes = pipe.plan_film((base, base), to=to, changes=changes)
    for material in (*sets.values(), *(films or {}).values()):
        if tuple(material.clips.shape[-2:]) != passes[-1].high:
            raise ValueError(f"clips must be of {passes[-1].high} pixels, got {tuple(material.clips.shape[-2:])}")
    result: dict[str, Any] = {
        "protocol": PROTOCOL | _about(passes, seed, backbones),
        "sets": {},
        "films": {},
    }
    columns: dict[str, list[Tensor]] = {name: [] for name in SHOWN}
    for name, material in sets.items():
        measured, original = _measure(pipe, material, passes, seed, batch_size, backbones, columns, name)
        result["sets"][name] = measured
        for count in steps:
            changed = pipe.plan_film((base, base), to=to, changes=(changes or {}) | {"num_steps": count})
            if changed == passes:
                row = measured["methods"]["ours"] | {"seconds_per_clip": measured["seconds_per_clip"]}
            else:
                row = _curve_point(pipe, material, original, changed, seed, batch_size, f"{name}, {count} steps")
            row["closed_share_percent"] = _closed(measured["methods"], row)
            measured.setdefault("steps", {})[str(count)] = row
    for name, material in (films or {}).items():
        result["films"][name] = _seams(pipe, material, passes, seed, name)
    if folder is not None:
        write_atomically(folder / "superres.json", json.dumps(result, indent=1) + "\n")
        write_comparison(folder / "superres.png", {name: torch.stack(rows) for name, rows in columns.items()})
        if steps:
            plot_steps(result["sets"], folder / "superres_steps.png")
    return result


def _about(passes: tuple[Pass, ...], seed: int, backbones: Backbones) -> dict[str, str]:
    out = {"way": describe_passes(passes), "decoding": str(passes[0].decoding), "seed": str(seed)}
    for name, network in (("frechet_squeezenet", backbones.squeezenet), ("rfvd", backbones.i3d)):
        if network is not None:
            out[name] = (
                f"Frechet distance to the originals, {frechet_protocol(backbones, name)}; with fewer vectors than "
                "dimensions it is biased upwards, alike for all methods"
            )
    if backbones.lpips is not None:
        out["lpips"] = f"LPIPS 0.1, {backbones.lpips_source}, mean over frames"
    return out


def _batches(material: Material, batch_size: int, title: str) -> Iterator[tuple[Tensor, list[Scene]]]:
    """Clips in [-1, 1] and what they show."""
    for start in track(range(0, len(material.clips), batch_size), title=title):
        yield (
            material.clips[start : start + batch_size].float() / 127.5 - 1,
            list(material.scenes[start : start + batch_size]),
        )


def _ours(pipe: CinePoetPipeline, low: Tensor, scenes: list[Scene], passes: tuple[Pass, ...], draws: Generators) -> Any:
    """Pictures from low-resolution codes, with the captions where there are any."""
    text = pipe.embed([scene.caption for scene in scenes], []) if scenes else None
    return pipe.upscaler.double(low, text, draws, passes=passes)


def _measure(
    pipe: CinePoetPipeline,
    material: Material,
    passes: tuple[Pass, ...],
    seed: int,
    batch_size: int,
    backbones: Backbones,
    columns: dict[str, list[Tensor]],
    title: str,
) -> tuple[dict[str, Any], _Tally]:
    """Figures of all methods, and the tally of the originals."""
    tallies = {name: _Tally(backbones) for name in (*METHODS, "original")}
    right: dict[str, list[dict[str, bool]]] = {}
    small, large = passes[0].low, passes[-1].high
    generator = torch.Generator().manual_seed(seed)
    spent_s, shown = 0.0, 0
    for video, scenes in _batches(material, batch_size, title):
        shrunk, frames = resized(video, small), video.shape[2]
        low = pipe.upscaler.encode(shrunk)
        decoded = pipe.upscaler.decode(low, num_frames=frames).float().cpu()
        begun = time.monotonic()
        codes = _ours(pipe, low, scenes, passes, film_generators(generator, len(video), 1))
        spent_s += time.monotonic() - begun
        made = {
            "bicubic": resized(shrunk, large),
            "lanczos": lanczos(shrunk, large),
            "bicubic_of_tokens": resized(decoded, large),
            "ours": pipe.upscaler.decode(codes, num_frames=frames).float().cpu(),
            "ceiling": pipe.upscaler.decode(pipe.upscaler.encode(video), num_frames=frames).float().cpu(),
            "original": video,
        }
        for name, pictures in made.items():
            tallies[name].add(pictures, video)
        for name, pictures in (made | {"before": decoded}).items() if scenes else ():
            judged = [judge(scene, film, None, 0) for scene, film in zip(scenes, pictures, strict=True)]
            right.setdefault(name, []).extend(judged)
        for index in range(min(len(video), ROWS_SHOWN - shown)):
            for name, rows in columns.items():
                rows.append(made[name][index, :, frames // 2])
            shown += 1
    figures = {name: tallies[name].figures(tallies["original"]) for name in METHODS}
    n, _, t, h, w = material.clips.shape
    out: dict[str, Any] = {
        "protocol": f"{n} clips of {t} frames of {h}x{w}; {material.protocol}",
        "vectors": {name: gaussian.count for name, gaussian in tallies["original"].gaussians.items()},
        "methods": figures,
        "closed_share_percent": _closed(figures, figures["ours"]),
        "seconds_per_clip": round(spent_s / n, 2),
    }
    if right:
        out["text_following_percent"] = {
            name: {a: round(100 * sum(row[a] for row in rows) / len(rows), 1) for a in ATTRIBUTES}
            for name, rows in right.items()
        }
    return out, tallies["original"]


def _curve_point(
    pipe: CinePoetPipeline,
    material: Material,
    original: _Tally,
    passes: tuple[Pass, ...],
    seed: int,
    batch_size: int,
    title: str,
) -> dict[str, Any]:
    """Our figures at one number of steps."""
    ours = _Tally(original.backbones)
    generator = torch.Generator().manual_seed(seed)
    spent_s = 0.0
    for video, scenes in _batches(material, batch_size, title):
        low = pipe.upscaler.encode(resized(video, passes[0].low))
        begun = time.monotonic()
        codes = _ours(pipe, low, scenes, passes, film_generators(generator, len(video), 1))
        spent_s += time.monotonic() - begun
        ours.add(pipe.upscaler.decode(codes, num_frames=video.shape[2]).float().cpu(), video)
    return ours.figures(original) | {"seconds_per_clip": round(spent_s / len(material.clips), 2)}


def _seams(
    pipe: CinePoetPipeline, material: Material, passes: tuple[Pass, ...], seed: int, title: str
) -> dict[str, Any]:
    """Change at the joints of windows, and of tiles where there are some."""
    t = material.clips.shape[2]
    strides = pipe.upscaler.tokenizer.stride
    places = {"time": (2, pipe.upscaler.joints(t))}
    for axis, cut in zip((3, 4), passes[-1].cuts, strict=True):
        places["rows" if axis == 3 else "columns"] = (axis, [joint * strides[axis - 2] for joint in cut.joints])
    places = {name: place for name, place in places.items() if place[1]}
    generator = torch.Generator().manual_seed(seed)
    ratios: dict[str, dict[str, list[float]]] = {name: {"ours": [], "original": []} for name in places}
    for video, scenes in _batches(material, 1, f"{title}, films"):
        text = pipe.embed([scene.caption for scene in scenes], []) if scenes else None
        draws = film_generators(generator, 1, 1)
        blocks = [resized(video, passes[0].low)]
        made = torch.cat(list(pipe.sharpen_stream(blocks, text, draws, passes=passes)), 2)
        for name, (axis, joints) in places.items():
            for side, film in (("ours", made), ("original", video)):
                ratio = float(seam_ratio(film, joints, dim=axis))
                ratios[name][side] += [ratio] if math.isfinite(ratio) else []  # a film that stands still has none
    return {
        "protocol": f"{len(material.clips)} films of {t} frames in {pipe.upscaler.num_windows(t)} windows that share "
        f"{pipe.upscaler.overlap}; {material.protocol}",
        "seams": {name: {side: _figure(_mean(v), 3) for side, v in sides.items()} for name, sides in ratios.items()},
    }
