"""The one table of metrics that compare media with what was made of them again.

A metric is one class in one file, and one row here: every evaluator of that kind of media measures it then, its
protocol stands in every result, and plots know its title. How evenly codes are used is no comparison and stands in
``mmtok.metrics.codebook``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from mmtok.plugins import Table

if TYPE_CHECKING:
    from typing_extensions import Self


class Metric(Protocol):
    """A figure of originals and what was made of them, batch by batch; unit and direction stand in its row."""

    @property
    def protocol(self) -> str:
        """How the figure was measured; "left out: ..." where it could not be."""
        ...

    def update(self, real: Tensor, again: Tensor) -> None:
        """Take a batch in.

        Args:
            real: originals, clips (b, 3, t, h, w) or sounds (b, 1, n) in [-1, 1].
            again: what was made of them, of the same shape.
        """
        ...

    def value(self) -> float:
        """The figure so far; NaN where it cannot be told."""
        ...

    def another(self) -> Self:
        """An empty one beside the same originals: to compare further methods, without embedding these anew."""
        ...


@dataclass(frozen=True)
class Row:
    """A metric as evaluators, plots and tables see it.

    Attributes:
        of: "pictures" or "sound".
        title: for people.
        unit: of the figure, "" for a plain number.
        better: "higher" or "lower".
        made_by: module and class, imported when it is asked for.
        needs: what the class takes: "sample_rate", or a network that a user gives.
        package: that has to be installed for it, or "".
        left_out: what to do when something that it needs is not there.
    """

    of: str
    title: str
    unit: str
    better: str
    made_by: str
    needs: tuple[str, ...] = ()
    package: str = ""
    left_out: str = ""

    def __post_init__(self) -> None:
        if self.of not in ("pictures", "sound") or self.better not in ("higher", "lower"):
            raise ValueError(
                f'a metric is of "pictures" or "sound" and "higher" or "lower" is better, got {self.of!r} and '
                f"{self.better!r} for {self.title}"
            )


_SQUEEZENET = "needs SqueezeNet v1.0 (--squeezenet)"
_LPIPS = "needs VGG16 and LPIPS's layers (--vgg, --lpips)"
METRICS: dict[str, Row] = {
    "psnr_db": Row("pictures", "PSNR", "dB", "higher", "mmtok.metrics.visual:Psnr"),
    "ssim": Row("pictures", "SSIM", "", "higher", "mmtok.metrics.visual:Ssim"),
    "lpips": Row("pictures", "LPIPS", "", "lower", "mmtok.metrics.visual:Lpips", ("lpips",), left_out=_LPIPS),
    "sharpness": Row("pictures", "sharpness", "", "higher", "mmtok.metrics.visual:Sharpness"),
    "frechet_squeezenet_frames": Row(
        *("pictures", "Fréchet distance of frames", "", "lower", "mmtok.metrics.frechet:FrechetOfFrames"),
        needs=("squeezenet",),
        left_out=_SQUEEZENET,
    ),
    "frechet_squeezenet_differences": Row(
        *("pictures", "Fréchet distance of differences", "", "lower", "mmtok.metrics.frechet:FrechetOfDifferences"),
        needs=("squeezenet",),
        left_out=_SQUEEZENET,
    ),
    "rfvd": Row("pictures", "rFVD", "", "lower", "mmtok.metrics.fvd:Fvd", ("i3d",), left_out="needs an I3D (--i3d)"),
    "log_mel_distance": Row("sound", "log-mel distance", "", "lower", "mmtok.metrics.audio:LogMel", ("sample_rate",)),
    "stft_distance": Row("sound", "multi-resolution STFT distance", "", "lower", "mmtok.metrics.audio:Stft"),
    "si_sdr_db": Row("sound", "SI-SDR", "dB", "higher", "mmtok.metrics.audio:SiSdr"),
    "stoi": Row(
        *("sound", "STOI", "", "higher", "mmtok.metrics.audio:Stoi"),
        needs=("sample_rate",),
        package="pystoi",
        left_out="pip install 'cinepoet[speech]'",
    ),
    "fad": Row(
        *("sound", "Fréchet audio distance", "", "lower", "mmtok.metrics.fad:Fad"),
        needs=("embedding", "sample_rate"),
        left_out="needs an embedding (--yamnet)",
    ),
}

TABLE = Table("the metric", ("cinepoet.metrics",), Row, METRICS)  # packages may add rows (docs/plugins.md)


@dataclass(frozen=True)
class Metrics:
    """Metrics ready to measure, by name."""

    ready: dict[str, Metric]
    left_out: dict[str, str] = field(default_factory=dict)  # name to why it is not among them

    def another(self) -> Metrics:
        """Empty ones beside the same originals."""
        return Metrics({name: metric.another() for name, metric in self.ready.items()}, self.left_out)


def make_metrics(of: str, *, without: Collection[str] = (), **given: Any) -> Metrics:
    """Every metric of a kind of media, as far as what it needs is there.

    Args:
        of: "pictures" or "sound".
        without: names that are not wanted.
        given: what metrics need, by the name of their rows: ``sample_rate``, ``squeezenet``, ``lpips``, ``i3d``,
            ``embedding``; None is not there.

    Returns:
        The metrics, and what was left out.
    """
    ready: dict[str, Metric] = {}
    left_out: dict[str, str] = {}
    for name, row in TABLE.rows().items():
        if row.of != of or name in without:
            continue
        absent = row.package and importlib.util.find_spec(row.package) is None
        if absent or any(given.get(need) is None for need in row.needs):
            left_out[name] = f"left out: {row.left_out}"
            continue
        module, _, word = row.made_by.partition(":")
        ready[name] = getattr(importlib.import_module(module), word)(**{need: given[need] for need in row.needs})
    return Metrics(ready, left_out)


def title_of(name: str) -> str:
    """A figure's title for plots, such as "PSNR, dB (more is better)"; the name with spaces for what is no metric."""
    row = TABLE.rows().get(name)
    if row is None:
        return name.replace("_", " ")
    unit = f", {row.unit}" if row.unit else ""
    return f"{row.title}{unit} ({'more' if row.better == 'higher' else 'less'} is better)"
