"""Is super-resolution worth its time? Beside bicubic and Lanczos, the ceiling of its tokenizer, and the original.

Clips of the larger size are shrunk (bicubic, antialiased) to the language model's; every method enlarges those again.
The ceiling decodes the original's own tokens: no choice of tokens does better on average. Films of several windows tell
whether their joints are seen, and analyzers whether the shapes still do what their captions say.

Shape letters: b clips, t h w time/height/width.
"""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from llm.sampling import film_generators
from mmtok.media.image import to_bytes, to_signed
from mmtok.media.resize import resized
from mmtok.metrics.table import TABLE, Metrics, make_metrics
from mmtok.metrics.visual import seam_ratio
from recipes.corpora.shapes import Scene
from recipes.evaluate.analyzers import judge, percent_right
from recipes.evaluate.contract import Material, Result, Subject, evaluate
from recipes.evaluate.held_out import Clips
from recipes.figures.comparison import write_comparison
from recipes.figures.plots import plot_steps
from recipes.pipeline.cinepoet import CinePoetPipeline
from superres.passes import Pass, describe_passes

Figures = dict[str, float | None]

METHODS = ("bicubic", "lanczos", "bicubic_of_tokens", "ours", "ceiling")
STARTS = ("bicubic", "bicubic_of_tokens")  # from which the way to the ceiling is measured
METHODS_SHOWN = ("bicubic", "ours", "ceiling", "original")  # columns of the sheet
ROWS_SHOWN = 4  # of each set

PROTOCOL = {
    "methods": "bicubic and lanczos enlarge the shrunk clip itself, bicubic_of_tokens what its tokens decode to; ours "
    "samples from those tokens; ceiling decodes the tokens of the original",
    "closed_share_percent": "(start - ours) / (start - ceiling) from each bicubic; null where the ceiling is no better",
    "text_following_percent": "scenes whose attribute the analyzers read right; before: what the small tokens show",
    "seams": "mean absolute change over joints (of windows along time; of tiles along rows and columns) over that "
    "elsewhere, mean over films; 1 is none; compare with the original's own ratio at the same places",
}


def lanczos(video: Tensor, size: tuple[int, int]) -> Tensor:
    """(b, 3, t, h, w) in [-1, 1] at another (h, w): Pillow's Lanczos with three lobes, picture by picture in 8 bits."""
    b = len(video)
    pictures = to_bytes(video.transpose(1, 2).flatten(0, 1)).permute(0, 2, 3, 1).contiguous().numpy()
    large = [Image.fromarray(p).resize((size[1], size[0]), Image.Resampling.LANCZOS) for p in pictures]
    pixels = torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8) for p in large])
    frames = to_signed(pixels.view(-1, *size, 3).permute(0, 3, 1, 2))
    return frames.unflatten(0, (b, -1)).transpose(1, 2).contiguous()


def _closed(figures: dict[str, Figures], ours: Figures) -> dict[str, Figures]:
    """Share of the way from each kind of bicubic to the ceiling, in per cent; None where the ceiling is no better."""
    distances = {name for name, row in TABLE.rows().items() if row.better == "lower"}

    def share(start: str, name: str) -> float | None:
        low, value, high = (its.get(name) for its in (figures[start], ours, figures["ceiling"]))
        if low is None or value is None or high is None or low <= high:
            return None
        return round(100 * (low - value) / (low - high), 1)

    return {start: {name: share(start, name) for name in ours if name in distances} for start in STARTS}


@torch.inference_mode()
def evaluate_superres(
    subject: Subject,
    pipe: CinePoetPipeline,
    sets: dict[str, Clips],
    *,
    films: dict[str, Clips] | None = None,
    steps: tuple[int, ...] = (),
    to: int | None = None,
    changes: dict[str, Any] | None = None,
    seed: int = 0,
    batch_size: int = 4,
    networks: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> Result:
    """Measure super-resolution of a model.

    Args:
        subject: who it is.
        pipe: the model.
        sets: name to clips of ``num_frames`` at most, which every method enlarges.
        films: name to longer ones, for seams.
        steps: numbers of decoding steps to compare, for a curve; none for the model's own alone.
        to: side of the clips, pixels; None is the bundle's upscaled size.
        changes: fields of ``superres.sample.Decoding`` that differ from the bundle's.
        seed: of sampling.
        batch_size: clips a call.
        networks: of ``load_backbones``, for Fréchet distances and LPIPS.
        folder: receives superres.png (a sheet) and, with ``steps``, superres_steps.png; or None.

    Returns:
        Figures of each set by method, and seams of each set of films.

    Raises:
        ValueError: if there is nothing to measure, or clips are not of the size that is made.
    """
    if not sets or any(not len(clips.pixels) for clips in sets.values()):
        raise ValueError("there are no clips to measure")
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    base = pipe.config.size
    passes = pipe.plan_film((base, base), to=to, changes=changes)
    for clips in (*sets.values(), *(films or {}).values()):
        if tuple(clips.pixels.shape[-2:]) != passes[-1].high:
            raise ValueError(f"clips must be of {passes[-1].high} pixels, got {tuple(clips.pixels.shape[-2:])}")
    columns: dict[str, list[Tensor]] = {name: [] for name in METHODS_SHOWN}
    figures: dict[str, Any] = {"sets": {}, "films": {}}
    for name, clips in sets.items():
        # SSIM is left out: seven methods through its window take longer than it tells beside PSNR
        metrics = make_metrics("pictures", without=("ssim",), **networks or {})
        run = _Run(subject, pipe, clips, seed, batch_size)
        measured = run.all_methods(passes, metrics, columns, name)
        figures["sets"][name] = measured
        for count in steps:
            changed = pipe.plan_film((base, base), to=to, changes=(changes or {}) | {"num_steps": count})
            if changed == passes:
                row = measured["methods"]["ours"] | {"seconds_per_clip": measured["seconds_per_clip"]}
            else:  # the originals' features are there
                row = run.ours_alone(changed, metrics.another(), f"{name}, {count} steps")
            row["closed_share_percent"] = _closed(measured["methods"], row)
            measured.setdefault("steps", {})[str(count)] = row
    for name, clips in (films or {}).items():
        figures["films"][name] = _seams(pipe, clips, passes, seed, name)
    if folder is not None:
        write_comparison(folder / "superres.png", {name: torch.stack(rows) for name, rows in columns.items()})
        if steps:
            plot_steps(figures["sets"], folder / "superres_steps.png")
    protocol = PROTOCOL | {"way": describe_passes(passes), "decoding": str(passes[0].decoding), "seed": str(seed)}
    material = "; ".join(f"{name}: {measured['material']}" for name, measured in figures["sets"].items())
    return Result("superres", subject, material, protocol, figures)


@dataclasses.dataclass
class _Run:
    """A set of clips, shrunk and enlarged again."""

    subject: Subject
    pipe: CinePoetPipeline
    clips: Clips
    seed: int
    batch_size: int

    def _ours(self, low: Tensor, scenes: list[Scene], passes: tuple[Pass, ...], frames: int) -> Tensor:
        """Pictures from low-resolution codes, with the captions where there are any; the time counts."""
        begun = time.monotonic()
        text = self.pipe.embed([scene.caption for scene in scenes], []) if scenes else None
        codes = self.pipe.upscaler.double(low, text, film_generators(self.generator, len(low), 1), passes=passes)
        self.spent_s += time.monotonic() - begun
        return self.pipe.upscaler.decode(codes, num_frames=frames).float().cpu()

    def _evaluate(self, again: Any, metrics: Metrics, title: str) -> tuple[Result, dict[str, float]]:
        self.generator, self.spent_s = torch.Generator().manual_seed(self.seed), 0.0
        material = Material(self.clips.told, self.clips.batches(self.batch_size, title))
        result = evaluate("superres", dataclasses.replace(self.subject, again=again), material, metrics)
        return result, {"seconds_per_clip": round(self.spent_s / len(self.clips.pixels), 2)}

    def ours_alone(self, passes: tuple[Pass, ...], metrics: Metrics, title: str) -> dict[str, Any]:
        """Our figures at one number of steps."""

        def again(item: tuple[Tensor, list[Scene]]) -> tuple[Tensor, dict[str, Tensor]]:
            video, scenes = item
            low = self.pipe.upscaler.encode(resized(video, passes[0].low))
            return video, {"ours": self._ours(low, scenes, passes, video.shape[2])}

        result, seconds = self._evaluate(again, metrics, title)
        return result.figures["ours"] | seconds

    def all_methods(
        self, passes: tuple[Pass, ...], metrics: Metrics, columns: dict[str, list[Tensor]], title: str
    ) -> dict[str, Any]:
        """Figures of all methods, and whether captions are still followed; some pictures go to the columns."""
        pipe, small, large = self.pipe, passes[0].low, passes[-1].high
        right: dict[str, list[dict[str, bool]]] = {}
        full = len(columns["ours"]) + ROWS_SHOWN

        def again(item: tuple[Tensor, list[Scene]]) -> tuple[Tensor, dict[str, Tensor]]:
            video, scenes = item
            shrunk, frames = resized(video, small), video.shape[2]
            low = pipe.upscaler.encode(shrunk)
            decoded = pipe.upscaler.decode(low, num_frames=frames).float().cpu()
            made = {
                "bicubic": resized(shrunk, large),
                "lanczos": lanczos(shrunk, large),
                "bicubic_of_tokens": resized(decoded, large),
                "ours": self._ours(low, scenes, passes, frames),
                "ceiling": pipe.upscaler.decode(pipe.upscaler.encode(video), num_frames=frames).float().cpu(),
            }
            for name, pictures in (made | {"original": video, "before": decoded}).items() if scenes else ():
                judged = [judge(scene, film, None, 0) for scene, film in zip(scenes, pictures, strict=True)]
                right.setdefault(name, []).extend(judged)
            for name, rows in columns.items():
                pictures = made.get(name, video)
                rows += list(pictures[: full - len(rows), :, frames // 2])
            return video, made

        measured, seconds = self._evaluate(again, metrics, title)
        methods = measured.figures
        out: dict[str, Any] = {"material": measured.material, "protocol": measured.protocol, "methods": methods}
        out |= {"closed_share_percent": _closed(methods, methods["ours"]), **seconds}
        if right:
            out["text_following_percent"] = {name: percent_right(rows) for name, rows in right.items()}
        return out


def _seams(pipe: CinePoetPipeline, films: Clips, passes: tuple[Pass, ...], seed: int, title: str) -> dict[str, Any]:
    """Change at the joints of windows, and of tiles where there are some."""
    t = films.pixels.shape[2]
    strides = pipe.upscaler.tokenizer.stride
    places = {"time": (2, pipe.upscaler.joints(t))}
    for axis, cut in zip((3, 4), passes[-1].cuts, strict=True):
        places["rows" if axis == 3 else "columns"] = (axis, [joint * strides[axis - 2] for joint in cut.joints])
    places = {name: place for name, place in places.items() if place[1]}
    generator = torch.Generator().manual_seed(seed)
    ratios: dict[str, dict[str, list[float]]] = {name: {"ours": [], "original": []} for name in places}
    for video, scenes in films.batches(1, f"{title}, films"):
        text = pipe.embed([scene.caption for scene in scenes], []) if scenes else None
        draws = film_generators(generator, 1, 1)
        blocks = [resized(video, passes[0].low)]
        made = torch.cat(list(pipe.upscale_stream(blocks, text, draws, passes=passes)), 2)
        for name, (axis, joints) in places.items():
            for side, film in (("ours", made), ("original", video)):
                ratio = float(seam_ratio(film, joints, dim=axis))
                ratios[name][side] += [ratio] if math.isfinite(ratio) else []  # a film that stands still has none
    return {
        "material": f"{len(films.pixels)} films of {t} frames in {pipe.upscaler.num_windows(t)} windows that share "
        f"{pipe.upscaler.overlap}; {films.made}",
        "seams": {
            name: {side: round(sum(v) / len(v), 3) if v else None for side, v in sides.items()}
            for name, sides in ratios.items()
        },
    }
